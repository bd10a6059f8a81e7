"""POST /v1/responses: answers in the shape of OpenAI's Responses API, whole or as events."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter
from pydantic import Field

from openbook.records import Answer
from openbook.serving.answers import Conversation, Shape, cited_sentences, event, request_id, respond
from openbook.serving.schemas import (
    ABSENT,
    NOTHING_KEPT,
    AnswerBody,
    AnswerFormat,
    LenientBody,
    Message,
    Reply,
    ServedAnswer,
)
from openbook.serving.service import CurrentCall, Route, needs, stream_of
from openbook.serving.vector_stores import file_id_of

router = APIRouter(route_class=Route)

_Status: TypeAlias = Literal["in_progress", "completed", "incomplete"]


class ResponseMessage(Message):
    """A message. Clients also send back `id` and `status` of earlier answers."""

    type: Literal["message"] = "message"
    id: str | None = None
    status: str | None = None


class TextOptions(LenientBody):
    format: AnswerFormat | None = None


class ResponseBody(AnswerBody):
    """`input`: the question, or a conversation that ends with it. `seed` and `stop` are not OpenAI's."""

    input: str | Annotated[list[ResponseMessage], Field(min_length=1, fail_fast=True)]
    instructions: str | None = None
    text: TextOptions | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    background: Literal[False] | None = None
    previous_response_id: Annotated[None, NOTHING_KEPT] = None
    conversation: Annotated[None, NOTHING_KEPT] = None
    prompt: Annotated[None, NOTHING_KEPT] = None

    @property
    def wanted_format(self) -> tuple[str, AnswerFormat | None]:
        return "text.format", self.text.format if self.text else None


class OutputText(Reply):
    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[dict[str, Any]] = []
    logprobs: list[Any] = []


class OutputMessage(Reply):
    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: _Status
    content: list[OutputText]


class ResponseUsage(Reply):
    """No tokens count as cached: the passage cache saves time, not tokens."""

    input_tokens: int
    input_tokens_details: dict[Literal["cached_tokens"], int] = {"cached_tokens": 0}
    output_tokens: int
    output_tokens_details: dict[Literal["reasoning_tokens"], int] = {"reasoning_tokens": 0}
    total_tokens: int


class Response(Reply):
    """`openbook` is present once the response is complete."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: _Status
    error: None = None
    incomplete_details: dict[Literal["reason"], str] | None = None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str] = {}
    model: str
    output: list[OutputMessage] = []
    parallel_tool_calls: Literal[False] = False
    previous_response_id: None = None
    store: Literal[False] = False
    temperature: float
    text: dict[str, Any]
    tool_choice: Literal["none"] = "none"
    tools: list[Any] = []
    top_p: float
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
    openbook: ServedAnswer | None = ABSENT


@router.post("/v1/responses", response_model=Response, **needs("read", also=stream_of("text/event-stream")))
async def responses(call: CurrentCall, body: ResponseBody) -> Any:
    """Answer the last message of the input from the knowledge base. Nothing is stored.

    With `stream`, the events are OpenAI's. An error is the last event.
    """
    messages = [Message(role="user", content=body.input)] if isinstance(body.input, str) else body.input
    conversation = Conversation.of(call, messages, "input", body.instructions)
    shape = ResponseShape(request_id(body, call), int(time.time()), body)
    limit = "max_output_tokens" if body.max_output_tokens else "max_tokens"
    return await respond(call, body, conversation, limit, shape)


@dataclass(slots=True)
class ResponseShape(Shape):
    """The events of one answer. `text`: what was sent so far."""

    id: str
    created: int
    body: ResponseBody
    events: int = 0
    text: str = ""

    def whole(self, answers: Sequence[ServedAnswer]) -> Response:
        answer = answers[0]
        status: _Status = "incomplete" if answer.finish_reason == "length" else "completed"
        read, written = answer.prompt_tokens or 0, answer.answer_tokens or 0
        return self._response(
            status,
            incomplete_details={"reason": "max_output_tokens"} if status == "incomplete" else None,
            output=[self._item(OutputText(text=answer.answer, annotations=_citations(answer)), status)],
            usage=ResponseUsage(input_tokens=read, output_tokens=written, total_tokens=read + written),
            openbook=answer,
        )

    def begin(self) -> bytes:
        begun = self._response("in_progress")
        item = self._item(OutputText(text=""), "in_progress").model_copy(update={"content": []})
        return (
            self._event("created", response=begun)
            + self._event("in_progress", response=begun)
            + self._event("output_item.added", output_index=0, item=item)
            + self._event("content_part.added", **self._place, part=OutputText(text=""))
        )

    def piece(self, text: str) -> bytes:
        self.text += text
        return self._event("output_text.delta", **self._place, delta=text, logprobs=[])

    def end(self, answers: Sequence[ServedAnswer]) -> bytes:
        """The final events. Text that was shown stays if the model abstained in its own words."""
        whole = self.whole(answers)
        part = OutputText(text=self.text, annotations=_citations(answers[0]))
        added = [
            self._event("output_text.annotation.added", **self._place, annotation_index=i, annotation=each)
            for i, each in enumerate(part.annotations)
        ]
        return (
            b"".join(added)
            + self._event("output_text.done", **self._place, text=self.text, logprobs=[])
            + self._event("content_part.done", **self._place, part=part)
            + self._event("output_item.done", output_index=0, item=self._item(part, whole.status))
            + self._event(whole.status, response=whole)
        )

    def _event(self, kind: str, **fields: Any) -> bytes:
        number, self.events, name = self.events, self.events + 1, f"response.{kind}"
        values = {
            key: each.model_dump(mode="json") if isinstance(each, Reply) else each for key, each in fields.items()
        }
        return event({"type": name, "sequence_number": number, **values}, name)

    def _response(self, status: _Status, **more: Any) -> Response:
        """The response. Before the answer, equal requests differ only in `created_at`."""
        body, sent = self.body, self.body.wanted_format[1]
        return Response(
            id=f"resp_{self.id}",
            created_at=self.created,
            status=status,
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            model=body.model,
            temperature=body.temperature or 0.0,
            top_p=1.0 if body.top_p is None else body.top_p,
            text={"format": sent.model_dump(by_alias=True, exclude_none=True) if sent else {"type": "text"}},
            **more,
        )

    def _item(self, part: OutputText, status: _Status) -> OutputMessage:
        return OutputMessage(id=f"msg_{self.id}", status=status, content=[part])

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": f"msg_{self.id}", "output_index": 0, "content_index": 0}


def _citations(answer: Answer) -> list[dict[str, Any]]:
    """OpenAI's annotations. `index`: where in the text the cited sentence ends."""
    return [
        {
            "type": "file_citation",
            "file_id": file_id_of(cited.document),
            "filename": PurePosixPath(cited.document).name,
            "index": sentence.end,
        }
        for sentence, cited in cited_sentences(answer)
    ]
