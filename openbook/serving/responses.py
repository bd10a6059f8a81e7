"""POST /v1/responses: answers in the shape of OpenAI's Responses API, whole or as events."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field

from openbook.core.records import Answer
from openbook.serving.answers import Conversation, Shape, cited_sentences, event, request_id, respond
from openbook.serving.routing import Route, content_of, needs
from openbook.serving.schemas import NOTHING_KEPT, AnswerBody, AnswerFormat, LenientBody, Message, ServedAnswer
from openbook.serving.service import CurrentCall

router = APIRouter(route_class=Route)


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


@router.post("/v1/responses", **needs("read", also=content_of("text/event-stream")))
async def responses(call: CurrentCall, body: ResponseBody) -> Any:
    """Answer the last message of the input from the knowledge base. Nothing is stored.

    With `stream`, the events are OpenAI's. An error is the last event. A complete response has `openbook`, as that of
    `POST /v1/chat/completions`.
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

    def whole(self, answers: Sequence[ServedAnswer]) -> dict[str, Any]:
        answer = answers[0]
        status = "incomplete" if answer.finish_reason == "length" else "completed"
        read, written = answer.prompt_tokens or 0, answer.answer_tokens or 0
        return self._response(status) | {
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "output": [self._item(status, _part(answer.answer, answer))],
            "usage": {
                "input_tokens": read,
                "input_tokens_details": {"cached_tokens": 0},  # the passage cache saves time, not tokens
                "output_tokens": written,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": read + written,
            },
            "openbook": answer.to_json(),
        }

    def begin(self) -> bytes:
        begun = self._response("in_progress")
        return (
            self._event("created", response=begun)
            + self._event("in_progress", response=begun)
            + self._event("output_item.added", output_index=0, item=self._item("in_progress"))
            + self._event("content_part.added", **self._place, part=_part(""))
        )

    def piece(self, text: str) -> bytes:
        self.text += text
        return self._event("output_text.delta", **self._place, delta=text, logprobs=[])

    def end(self, answers: Sequence[ServedAnswer]) -> bytes:
        """The final events. Text that was shown stays if the model abstained in its own words."""
        whole, part = self.whole(answers), _part(self.text, answers[0])
        added = [
            self._event("output_text.annotation.added", **self._place, annotation_index=i, annotation=each)
            for i, each in enumerate(part["annotations"])
        ]
        return (
            b"".join(added)
            + self._event("output_text.done", **self._place, text=self.text, logprobs=[])
            + self._event("content_part.done", **self._place, part=part)
            + self._event("output_item.done", output_index=0, item=self._item(whole["status"], part))
            + self._event(whole["status"], response=whole)
        )

    def _event(self, kind: str, **fields: Any) -> bytes:
        number, self.events, name = self.events, self.events + 1, f"response.{kind}"
        return event({"type": name, "sequence_number": number, **fields}, name)

    def _response(self, status: str) -> dict[str, Any]:
        """The response before the answer. Those of equal requests differ only in `created_at`."""
        body, sent = self.body, self.body.wanted_format[1]
        return {
            "id": f"resp_{self.id}",
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": {},
            "model": body.model,
            "output": [],
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "temperature": body.temperature or 0.0,
            "text": {"format": sent.model_dump(by_alias=True, exclude_none=True) if sent else {"type": "text"}},
            "tool_choice": "none",
            "tools": [],
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "truncation": "disabled",
            "usage": None,
        }

    def _item(self, status: str, *content: dict[str, Any]) -> dict[str, Any]:
        item = {"id": f"msg_{self.id}", "type": "message", "role": "assistant"}
        return {**item, "status": status, "content": list(content)}

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": f"msg_{self.id}", "output_index": 0, "content_index": 0}


def _part(text: str, answer: Answer | None = None) -> dict[str, Any]:
    """A text with OpenAI's annotations. `file_id`: the document; `index`: where in the text the cited sentence ends."""
    annotations = [
        {
            "type": "file_citation",
            "file_id": cited.document,
            "filename": PurePosixPath(cited.document).name,
            "index": sentence.end,
        }
        for sentence, cited in (cited_sentences(answer) if answer else ())
    ]
    return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": []}
