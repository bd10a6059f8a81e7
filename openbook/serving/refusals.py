"""Refusals in the shape of OpenAI's API: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from openbook.errors import (
    ContextOverflow,
    EngineError,
    KnowledgeBaseBusy,
    KnowledgeBaseDamaged,
    KnowledgeError,
    OpenBookError,
    QuestionError,
    ReceiptError,
)

REASONS = {
    400: "The request is invalid.",
    401: "The API key is missing, invalid or expired.",
    403: "The key does not have the right for this, or the request comes from a page of another origin.",
    404: "What the request names does not exist, or the caller may not see it.",
    408: "The body did not arrive in time.",
    409: "The request conflicts with the current state.",
    413: "The body is too large.",
    415: "The body has the wrong content type.",
    421: "The Host header does not name this server.",
    429: "The server is full, or the key has sent too many requests. Retry-After says when to try again.",
    500: "The server failed; its log says where.",
    503: "The server is stopping, has too many connections, is waiting for another writer (Retry-After says when to try again), or its knowledge base is damaged.",
    504: "The answer took too long and was stopped.",
}

_LOG = logging.getLogger("openbook.serving")


class Refusal(Exception):
    """A refused request. `code` is for programs, `message` is for people, `param` names the part that is wrong."""

    def __init__(
        self, status: int, message: str, *, code: str, param: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers: dict[str, str] = {}
        if retry_after_s is not None:
            self.headers["retry-after"] = str(retry_after_s)
        if status == 401:
            self.headers["www-authenticate"] = "Bearer"

    @property
    def body(self) -> dict[str, Any]:
        kind = "server_error" if self.status >= 500 else "requests" if self.status == 429 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)


class ClientGone(Exception):
    """The client has left, so nobody reads the answer."""


def refusal_of(error: Exception) -> Refusal:
    """The refusal that a client gets for an error of the core, or for an unexpected one.

    It describes the caller's own mistakes in full. The server's errors go to the log, since their messages may hold
    what the caller has no right to know. If a message may quote a text, the log gets only its kind and place.
    """
    if isinstance(error, Refusal):
        return error
    if isinstance(error, ContextOverflow):
        return Refusal(400, str(error), code="context_length_exceeded", param="messages")
    if isinstance(error, QuestionError):
        return Refusal(400, str(error), code="invalid_value")
    if isinstance(error, KnowledgeBaseBusy):
        message = "Something else is writing to the knowledge base. Try again."
        return Refusal(503, message, code="knowledge_base_busy", retry_after_s=5)
    damaged = isinstance(error, KnowledgeBaseDamaged)
    known = isinstance(error, OpenBookError) and not isinstance(error, EngineError | KnowledgeError | ReceiptError)
    frames = traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames[-6:]))
    _LOG.error("failed: %s%s at %s", type(error).__name__, f": {error}" if known else "", where)
    if damaged:
        message = (
            "The data for this answer is damaged on the server's disk. The server's operator can find out what is damaged: "
            "openbook status --check"
        )
        return Refusal(503, message, code="knowledge_base_damaged")
    message = "The server could not do this. Its log says what failed and where."
    return Refusal(500, message, code="internal_error")


def not_found(path: str, method: str) -> Refusal:
    return Refusal(404, f"Unknown request URL: {method} {path}.", code="unknown_url")


def without_refused(body: dict[str, Any], refused: Mapping[str, tuple[tuple[object, ...], str]]) -> dict[str, Any]:
    """`body` without the parameters in `refused`, which may only have values that change nothing.

    `refused` is `{parameter: (allowed values, why no other)}`; null is always allowed. Raises Refusal.
    """
    for name, (allowed, why) in refused.items():
        value = body.get(name)
        if value is not None and not any(type(value) is type(a) and value == a for a in allowed):
            message = f"Unsupported value of {name!r}: {json.dumps(value)[:100]}. {why}"
            raise Refusal(400, message, code="unsupported_parameter", param=name)
    return {key: value for key, value in body.items() if key not in refused}
