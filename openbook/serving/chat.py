"""POST /v1/chat/completions: answers in the shape of OpenAI's chat."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter

from openbook.serving.answers import (
    DONE,
    Conversation,
    event,
    fingerprint,
    finish,
    request_id,
    respond,
    usage,
)
from openbook.serving.errors import check_at_most
from openbook.serving.schemas import (
    ChatBody,
    ChatChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatMessage,
    ChunkChoice,
    Delta,
    ServedAnswer,
)
from openbook.serving.service import CallOf, Route, content, needs

router = APIRouter(route_class=Route)


@router.post("/v1/chat/completions", response_model=ChatCompletion, **needs("read", also=content("text/event-stream")))
async def chat(call: CallOf, body: ChatBody) -> Any:
    """The last message is the question. It is answered from the knowledge base, with citations and receipt under `openbook`.

    With `stream`, the data of each event is a chunk as OpenAI has it; the last one has `openbook`. An error is the last event.
    """
    check_at_most(len(body.messages), call.service.configuration.bounds.messages, "messages")
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    head = {
        "id": "chatcmpl-" + request_id(body, call),
        "created": int(time.time()),
        "model": body.model,
        "system_fingerprint": fingerprint(call.model),
    }
    return await respond(call, body, Conversation.of(body.messages, "messages"), ChatShape(head, with_usage))


@dataclass(frozen=True, slots=True)
class ChatShape:
    """`head`: what all parts of an answer share. Between two equal requests only `created` differs."""

    head: dict[str, Any]
    with_usage: bool

    def whole(self, answer: ServedAnswer, text: str) -> ChatCompletion:
        choice = ChatChoice(message=ChatMessage(content=text), finish_reason=finish(answer))
        return ChatCompletion(**self.head, choices=[choice], usage=usage(answer), openbook=answer)

    def piece(self, text: str, *, first: bool) -> Iterator[bytes]:
        delta = Delta(role="assistant" if first else None, content=text)
        yield event(ChatCompletionChunk(**self.head, choices=[ChunkChoice(delta=delta)]))

    def end(self, answer: ServedAnswer, text: str, *, begun: bool) -> Iterator[bytes]:
        choice = ChunkChoice(delta=Delta(), finish_reason=finish(answer))
        yield event(ChatCompletionChunk(**self.head, choices=[choice], openbook=answer))
        if self.with_usage:
            yield event(ChatCompletionChunk(**self.head, choices=[], usage=usage(answer)))
        yield DONE
