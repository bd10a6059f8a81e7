"""POST /v1/completions: answers in the older shape of OpenAI's API, for clients without chat."""

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
from openbook.serving.bodies import CompletionBody, parsed
from openbook.serving.conversation import Asked
from openbook.serving.service import Service
from openbook.serving.streaming import DONE, event


async def completions(service: Service, request: Request, caller: Caller) -> ASGIApp:
    """The prompt is the question. It is answered from the knowledge base, not continued."""
    body = parsed(CompletionBody, await request.body())
    shape = CompletionShape(
        "cmpl-" + request_id(body, caller), int(time.time()), body.model, fingerprint(service), body.wants_usage
    )
    return await respond(service, request, caller, body, Asked(body.question), shape)


@dataclass(frozen=True, slots=True)
class CompletionShape:
    """Events have the shape of the whole."""

    id: str
    created: int
    model: str
    fingerprint: str
    with_usage: bool

    def whole(self, answer: Answer, text: str) -> dict[str, Any]:
        return self._part(text, finish(answer)) | {"usage": usage(answer), "openbook": answer.to_json()}

    def piece(self, text: str, *, first: bool) -> Iterator[bytes]:
        yield event(self._part(text))

    def end(self, answer: Answer, text: str, *, begun: bool) -> Iterator[bytes]:
        yield event(self._part("", finish(answer)) | {"openbook": answer.to_json()})
        if self.with_usage:
            yield event(self._part() | {"usage": usage(answer)})
        yield DONE

    def _part(self, text: str | None = None, finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": [] if text is None else [choice],
        }
