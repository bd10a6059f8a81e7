"""POST /v1/chat/completions: answers in the shape of OpenAI's chat."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from openbook.records import Answer
from openbook.serving.access import Caller
from openbook.serving.answering import fingerprint, finish, request_id, respond, usage
from openbook.serving.bodies import ChatBody, parsed
from openbook.serving.conversation import asked
from openbook.serving.service import Service, check_at_most
from openbook.serving.streaming import DONE, event


async def chat(service: Service, request: Request, caller: Caller) -> ASGIApp:
    """The last message is the question. It is answered from the knowledge base, with citations and receipt under `openbook`."""
    body = parsed(ChatBody, await request.body())
    check_at_most(len(body.messages), service.configuration.bounds.messages, "messages")
    shape = ChatShape(
        "chatcmpl-" + request_id(body, caller), int(time.time()), body.model, fingerprint(service), body.wants_usage
    )
    return await respond(service, request, caller, body, asked(body.messages), shape)


@dataclass(frozen=True, slots=True)
class ChatShape:
    """The fields that all parts of an answer share. Between two equal requests only `created` differs."""

    id: str
    created: int
    model: str
    fingerprint: str
    with_usage: bool

    def whole(self, answer: Answer, text: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish(answer)}
        return {
            **self._of("chat.completion"),
            "choices": [choice],
            "usage": usage(answer),
            "openbook": answer.to_json(),
        }

    def piece(self, text: str, *, first: bool) -> Iterator[bytes]:
        yield event(self._chunk({"role": "assistant", "content": text} if first else {"content": text}))

    def end(self, answer: Answer, text: str, *, begun: bool) -> Iterator[bytes]:
        yield event(self._chunk({}, finish(answer)) | {"openbook": answer.to_json()})
        if self.with_usage:
            yield event({**self._of("chat.completion.chunk"), "choices": [], "usage": usage(answer)})
        yield DONE

    def _chunk(self, delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._of("chat.completion.chunk"), "choices": [choice]}

    def _of(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }
