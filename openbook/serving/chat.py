"""POST /v1/chat/completions: answers in the shape of OpenAI's chat completions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field

from openbook.prompts import ABSTENTION
from openbook.records import Answer, canonical_json, sha256_hex
from openbook.serving.answers import (
    Conversation,
    EventShape,
    event,
    request_id,
    respond,
    url_citations,
)
from openbook.serving.errors import check_at_most
from openbook.serving.schemas import ABSENT, NO_TOOLS, AnswerBody, AnswerFormat, Message, Reply, ServedAnswer
from openbook.serving.service import CurrentCall, Route, needs, stream_of

router = APIRouter(route_class=Route)


class ChatBody(AnswerBody):
    messages: list[Message] = Field(min_length=1, fail_fast=True)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    n: int | None = Field(default=None, ge=1)
    function_call: Annotated[Literal["none", "auto"], NO_TOOLS] | None = None
    response_format: AnswerFormat | None = None
    modalities: list[Literal["text"]] | None = None

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def wanted_format(self) -> tuple[str, AnswerFormat | None]:
        return "response_format", self.response_format


class Usage(Reply):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatMessage(Reply):
    """`annotations`: the source of each sentence, with the address of the quote on the server's web page.

    `refusal`: an answer that should be JSON says that the documents do not hold it.
    """

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: str | None = None
    annotations: list[dict[str, Any]]


class ChatChoice(Reply):
    """`openbook`: of an answer other than the first, if they differ."""

    index: int = 0
    message: ChatMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length"]
    openbook: ServedAnswer | None = ABSENT


class ChatCompletion(Reply):
    """`openbook`: the JSON of `openbook ask --json` for the first choice, and `warnings`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    openbook: ServedAnswer


@router.post(
    "/v1/chat/completions", response_model=ChatCompletion, **needs("read", also=stream_of("text/event-stream"))
)
async def chat(call: CurrentCall, body: ChatBody) -> Any:
    """Answer the last message from the knowledge base. Citations and receipt are under `openbook`.

    With `stream`, events hold OpenAI's chunks; the last with a choice has `openbook`. With
    `stream_options.include_usage`, one more has `usage` and no choice. An error is the last event. With
    `openbook.progress`, chunks before the text have `openbook_progress`: its `stage` is `waiting` (no place is free), `found`
    (with `searched` and `passages`) or `reading` (`done` of `total` tokens).
    """
    check_at_most(len(body.messages), call.service.configuration.bounds.messages, "messages", "messages")
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    model = call.resolve(body.model)[0].model
    fallback = call.service.fallback(model, call.models)
    models = [model, fallback()] if fallback else [model]
    decided = [part for each in models for part in (each.identity.digest, each.engine.numeric_class)]
    fingerprint = sha256_hex(canonical_json(decided))[:12]
    head = {
        "id": "chatcmpl-" + request_id(body, call),
        "created": int(time.time()),
        "model": body.model,
        "system_fingerprint": f"fp_{fingerprint}",
    }
    limit = "max_completion_tokens" if body.max_completion_tokens else "max_tokens"
    conversation = Conversation.of(body.messages, "messages")
    shape = ChatShape(head, with_usage, body.choices, partial(url_citations, call))
    return await respond(call, body, conversation, limit, shape, shape.progress if body.openbook.progress else None)


@dataclass(frozen=True, slots=True)
class ChatShape(EventShape):
    """`head`: the fields that all chunks share. Equal requests differ only in `created`."""

    head: dict[str, Any]
    with_usage: bool
    choices: int
    cite: Callable[[Answer], list[dict[str, Any]]]

    def whole(self, answers: Sequence[ServedAnswer]) -> ChatCompletion:
        choices = [
            ChatChoice(
                index=i,
                message=ChatMessage(content=each.answer, annotations=self.cite(each), refusal=_refusal(each)),
                finish_reason=finish(each),
                openbook=None if each is answers[0] else each,
            )
            for i, each in enumerate(for_all(answers, self.choices))
        ]
        return ChatCompletion(**self.head, choices=choices, usage=usage(answers), openbook=answers[0])

    def begin(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    def progress(self, stage: dict[str, Any]) -> bytes:
        return self._chunk({}, openbook_progress=stage)

    def piece(self, text: str) -> bytes:
        return self._chunk({"content": text})

    def end(self, answers: Sequence[ServedAnswer]) -> bytes:
        """The first choice was streamed; the others are sent whole."""
        last = self._chunk(self._sources(answers[0]), finish(answers[0]), openbook=answers[0].to_json())
        for i, each in enumerate(for_all(answers, self.choices)[1:], 1):
            more = {} if each is answers[0] else {"openbook": each.to_json()}
            last += self._chunk({"role": "assistant", "content": each.answer}, index=i)
            last += self._chunk(self._sources(each), finish(each), index=i, **more)
        if self.with_usage:
            last += self._event(choices=[], usage=usage(answers).model_dump())
        return last + b"data: [DONE]\n\n"

    def _sources(self, answer: Answer) -> dict[str, Any]:
        found = {"annotations": self.cite(answer), "refusal": _refusal(answer)}
        return {key: value for key, value in found.items() if value}

    def _chunk(self, delta: dict[str, Any], reason: str | None = None, index: int = 0, **more: Any) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._event(choices=[choice], **more)

    def _event(self, **more: Any) -> bytes:
        return event({**self.head, "object": "chat.completion.chunk", **more})


def _refusal(answer: Answer) -> str | None:
    return ABSTENTION if answer.declined and answer.receipt.decoding.schema else None


def for_all(answers: Sequence[ServedAnswer], choices: int) -> Sequence[ServedAnswer]:
    """One answer for each choice."""
    return answers if len(answers) == choices else [answers[0]] * choices


def finish(answer: Answer) -> Literal["stop", "length"]:
    return "length" if answer.finish_reason == "length" else "stop"


def usage(answers: Sequence[Answer]) -> Usage:
    """Tokens that were read and written."""
    read = sum(each.prompt_tokens or 0 for each in answers)
    written = sum(each.answer_tokens or 0 for each in answers)
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)
