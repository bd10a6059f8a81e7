"""POST /v1/responses: answers in the newest shape of OpenAI's API, whole or as its events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import APIRouter

from openbook.serving.answers import Conversation, event, finish, request_id, respond, usage
from openbook.serving.errors import check_at_most
from openbook.serving.schemas import (
    Message,
    OutputMessage,
    OutputText,
    Response,
    ResponseBody,
    ResponseEvent,
    ResponseUsage,
    ServedAnswer,
)
from openbook.serving.service import CallOf, Route, content, needs

router = APIRouter(route_class=Route)

_Status = Literal["in_progress", "completed", "incomplete"]


@router.post("/v1/responses", response_model=Response, **needs("read", also=content("text/event-stream")))
async def responses(call: CallOf, body: ResponseBody) -> Any:
    """The last message of the input is the question. It is answered from the knowledge base and kept nowhere.

    With `stream`, the events are those of OpenAI. An error is the last event.
    """
    messages = [Message(role="user", content=body.input)] if isinstance(body.input, str) else body.input
    check_at_most(len(messages), call.service.configuration.bounds.messages, "input")
    conversation = Conversation.of(messages, "input", body.instructions)
    return await respond(call, body, conversation, ResponseShape(request_id(body, call), int(time.time()), body))


@dataclass(slots=True)
class ResponseShape:
    """For one answer, since it counts the events."""

    id: str
    created: int
    body: ResponseBody
    events: int = 0
    text: str = ""

    def whole(self, answer: ServedAnswer, text: str) -> Response:
        status: _Status = "incomplete" if finish(answer) == "length" else "completed"
        read, written = (counted := usage(answer)).prompt_tokens, counted.completion_tokens
        return self._response(
            status,
            incomplete_details={"reason": "max_output_tokens"} if status == "incomplete" else None,
            output=[self._item(text, status)],
            usage=ResponseUsage(input_tokens=read, output_tokens=written, total_tokens=counted.total_tokens),
            openbook=answer,
        )

    def piece(self, text: str, *, first: bool) -> Iterator[bytes]:
        if first:
            yield from self._begin()
        self.text += text
        yield self._event("output_text.delta", **self._place, delta=text, logprobs=[])

    def end(self, answer: ServedAnswer, text: str, *, begun: bool) -> Iterator[bytes]:
        """What was shown stays, where a model abstained in words of its own."""
        if not begun:
            yield from self._begin()
        whole = self.whole(answer, text)
        yield self._event("output_text.done", **self._place, text=self.text, logprobs=[])
        yield self._event("content_part.done", **self._place, part=OutputText(text=self.text))
        yield self._event("output_item.done", output_index=0, item=self._item(self.text, whole.status))
        yield self._event(whole.status, response=whole)

    def _begin(self) -> Iterator[bytes]:
        begun = self._response("in_progress")
        yield self._event("created", response=begun)
        yield self._event("in_progress", response=begun)
        item = self._item("", "in_progress").model_copy(update={"content": []})
        yield self._event("output_item.added", output_index=0, item=item)
        yield self._event("content_part.added", **self._place, part=OutputText(text=""))

    def _event(self, kind: str, **fields: Any) -> bytes:
        number, self.events, name = self.events, self.events + 1, f"response.{kind}"
        return event(ResponseEvent(type=name, sequence_number=number, **fields), name)

    def _response(self, status: _Status, **more: Any) -> Response:
        """Of what can be said before there is an answer, only `created_at` differs between two equal requests."""
        body = self.body
        return Response(
            id=f"resp_{self.id}",
            created_at=self.created,
            status=status,
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            model=body.model,
            temperature=body.temperature or 0.0,
            top_p=1.0 if body.top_p is None else body.top_p,
            **more,
        )

    def _item(self, text: str, status: _Status) -> OutputMessage:
        return OutputMessage(id=f"msg_{self.id}", status=status, content=[OutputText(text=text)])

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": f"msg_{self.id}", "output_index": 0, "content_index": 0}
