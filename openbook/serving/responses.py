"""POST /v1/responses: answers in the newest shape of OpenAI's API, whole or as its events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from openbook.records import Answer
from openbook.serving.access import Caller
from openbook.serving.answering import finish, request_id, respond, usage
from openbook.serving.bodies import Message, ResponseBody, parsed
from openbook.serving.conversation import Asked, asked
from openbook.serving.service import Service, check_at_most
from openbook.serving.streaming import named_event


async def responses(service: Service, request: Request, caller: Caller) -> ASGIApp:
    """The last message of the input is the question. It is answered from the knowledge base and kept nowhere."""
    body = parsed(ResponseBody, await request.body())
    shape = ResponseShape(request_id(body, caller), int(time.time()), body)
    return await respond(service, request, caller, body, _asked(service, body), shape)


def _asked(service: Service, body: ResponseBody) -> Asked:
    given = [body.input] if isinstance(body.input, str) else body.input
    check_at_most(len(given), service.configuration.bounds.messages, "input")
    messages = [
        Message(role="user", content=each) if isinstance(each, str) else Message(role=each.role, content=each.text)
        for each in given
    ]
    return asked(messages, "input", body.instructions)


@dataclass(slots=True)
class ResponseShape:
    """Counts the events that it gives, so there is one for each answer."""

    id: str
    created: int
    body: ResponseBody
    events: int = 0
    text: str = ""

    def whole(self, answer: Answer, text: str) -> dict[str, Any]:
        cut_off = finish(answer) == "length"
        return {
            **self._response("incomplete" if cut_off else "completed"),
            "incomplete_details": {"reason": "max_output_tokens"} if cut_off else None,
            "output": [self._item(text, "incomplete" if cut_off else "completed")],
            "usage": _usage(answer),
            "openbook": answer.to_json(),
        }

    def piece(self, text: str, *, first: bool) -> Iterator[bytes]:
        if first:
            yield from self._begin()
        self.text += text
        yield self._event("output_text.delta", **self._place(), delta=text, logprobs=[])

    def end(self, answer: Answer, text: str, *, begun: bool) -> Iterator[bytes]:
        """What was shown stays, where a model abstained in words of its own."""
        if not begun:
            yield from self._begin()
        whole = self.whole(answer, text)
        yield self._event("output_text.done", **self._place(), text=self.text, logprobs=[])
        yield self._event("content_part.done", **self._place(), part=_part(self.text))
        yield self._event("output_item.done", output_index=0, item=self._item(self.text, whole["output"][0]["status"]))
        yield self._event(whole["status"], response=whole)

    def _begin(self) -> Iterator[bytes]:
        begun = self._response("in_progress")
        yield self._event("created", response=begun)
        yield self._event("in_progress", response=begun)
        item = self._item("", "in_progress")
        yield self._event("output_item.added", output_index=0, item={**item, "content": []})
        yield self._event("content_part.added", **self._place(), part=_part(""))

    def _event(self, kind: str, **fields: Any) -> bytes:
        number, self.events = self.events, self.events + 1
        return named_event(f"response.{kind}", {"type": f"response.{kind}", "sequence_number": number, **fields})

    def _response(self, status: str) -> dict[str, Any]:
        """What can be said before there is an answer. Of it only `created_at` differs between two equal requests."""
        body = self.body
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
            "text": {"format": {"type": "text"}},
            "tool_choice": "none",
            "tools": [],
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "truncation": "disabled",
            "usage": None,
        }

    def _item(self, text: str, status: str) -> dict[str, Any]:
        content = [_part(text)]
        return {"id": f"msg_{self.id}", "type": "message", "role": "assistant", "status": status, "content": content}

    def _place(self) -> dict[str, Any]:
        return {"item_id": f"msg_{self.id}", "output_index": 0, "content_index": 0}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(answer: Answer) -> dict[str, Any]:
    counted = usage(answer)
    return {
        "input_tokens": counted["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": counted["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": counted["total_tokens"],
    }
