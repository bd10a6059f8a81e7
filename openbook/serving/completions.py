"""POST /v1/completions: the prompt is the question, and the answer has the shape of OpenAI's older API."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from openbook.serving.answers import Conversation, EventShape, event, request_id, respond
from openbook.serving.chat import Usage, finish, for_all, usage
from openbook.serving.schemas import ABSENT, AnswerBody, Reply, ServedAnswer
from openbook.serving.service import CurrentCall, Route, needs, stream_of

router = APIRouter(route_class=Route)


def _no_suffix(value: str | None) -> str | None:
    if value:
        raise PydanticCustomError("suffix", "the model answers questions; it does not fill in the middle of a text")
    return value


NoSuffix: TypeAlias = Annotated[str | None, AfterValidator(_no_suffix)]


def _one_text(value: object) -> object:
    if isinstance(value, list) and not (len(value) == 1 and isinstance(value[0], str)):
        raise PydanticCustomError("one_text", "it must be one text, neither several nor tokens")
    return value


class CompletionBody(AnswerBody):
    prompt: Annotated[str | Annotated[list[str], Field(min_length=1, max_length=1)], BeforeValidator(_one_text)]
    n: int | None = Field(default=None, ge=1)
    suffix: NoSuffix = None

    @property
    def choices(self) -> int:
        return self.n or 1


class CompletionChoice(Reply):
    """`openbook`: of an answer other than the first, if they differ."""

    index: int
    text: str
    logprobs: None = None
    finish_reason: Literal["stop", "length"]
    openbook: ServedAnswer | None = ABSENT


class TextCompletion(Reply):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    openbook: ServedAnswer


@router.post("/v1/completions", response_model=TextCompletion, **needs("read", also=stream_of("text/event-stream")))
async def completions(call: CurrentCall, body: CompletionBody) -> Any:
    """Answer the prompt from the knowledge base, as `POST /v1/chat/completions` answers a message."""
    head = {"id": "cmpl-" + request_id(body, call), "created": int(time.time()), "model": body.model}
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    shape = CompletionShape(head, with_usage, body.choices)
    question = body.prompt if isinstance(body.prompt, str) else body.prompt[0]
    return await respond(call, body, Conversation(question), "max_tokens", shape)


@dataclass(frozen=True, slots=True)
class CompletionShape(EventShape):
    head: dict[str, Any]
    with_usage: bool
    choices: int

    def whole(self, answers: Sequence[ServedAnswer]) -> TextCompletion:
        choices = [
            CompletionChoice(
                index=i,
                text=each.answer,
                finish_reason=finish(each),
                openbook=None if each is answers[0] else each,
            )
            for i, each in enumerate(for_all(answers, self.choices))
        ]
        return TextCompletion(**self.head, choices=choices, usage=usage(answers), openbook=answers[0])

    def begin(self) -> bytes:
        return b""

    def piece(self, text: str) -> bytes:
        return self._chunk(text)

    def end(self, answers: Sequence[ServedAnswer]) -> bytes:
        last = self._chunk("", finish(answers[0]), openbook=answers[0].to_json())
        for i, each in enumerate(for_all(answers, self.choices)[1:], 1):
            more = {} if each is answers[0] else {"openbook": each.to_json()}
            last += self._chunk(each.answer, finish(each), i, **more)
        if self.with_usage:
            last += self._event(choices=[], usage=usage(answers).model_dump())
        return last + b"data: [DONE]\n\n"

    def _chunk(self, text: str, reason: str | None = None, index: int = 0, **more: Any) -> bytes:
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": reason}
        return self._event(choices=[choice], **more)

    def _event(self, **more: Any) -> bytes:
        return event({**self.head, "object": "text_completion", **more})
