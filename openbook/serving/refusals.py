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
    400: "The request says something that cannot be done.",
    401: "An API key is needed, or this one is none.",
    403: "The key's right is not enough, or a page of another origin asks.",
    404: "What the request names does not exist, or is not the caller's to see.",
    408: "The body did not come in time.",
    409: "It cannot be done as things are.",
    413: "The body is too large.",
    415: "The body is of another type.",
    421: "The server is asked under a name that is not its own.",
    429: "The server has as many requests as it takes, or the key has sent as many as it may; Retry-After says when to try again.",
    500: "The server failed; its log says where.",
    503: "The server is ending or has as many connections as it takes, or something else is writing (Retry-After says when to try again), or the knowledge base is damaged.",
    504: "The answer took too long and was broken off.",
}

_LOG = logging.getLogger("openbook.serving")


class Refusal(Exception):
    """A request that is not done. `code` is for programs, `message` for people, `param` names the part that is wrong."""

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
    """Nobody is there to read the answer."""


def refusal_of(error: Exception) -> Refusal:
    """How an error of the core, or one that nobody expected, is told to a client.

    What the caller did wrong is said in full. What is wrong on this side goes into the log, since such a sentence may
    hold what the caller has no right to know; of errors that may quote a text, the log gets the kind and the place only.
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
            "What this would be answered from is damaged on the server's disk. Its operator can see what with: openbook "
            "status --check"
        )
        return Refusal(503, message, code="knowledge_base_damaged")
    message = "The server could not do this. Its log says what failed and where."
    return Refusal(500, message, code="internal_error")


def not_found(path: str, method: str) -> Refusal:
    return Refusal(404, f"Unknown request URL: {method} {path}.", code="unknown_url")


def without_refused(body: dict[str, Any], refused: Mapping[str, tuple[tuple[object, ...], str]]) -> dict[str, Any]:
    """`body` without the parameters in `refused`, each of which may only have one of the values that change nothing.

    `refused` is `{parameter: (allowed values, why no other)}`; null always is allowed. Raises Refusal.
    """
    for name, (allowed, why) in refused.items():
        value = body.get(name)
        if value is not None and not any(type(value) is type(a) and value == a for a in allowed):
            message = f"Unsupported value of {name!r}: {json.dumps(value)[:100]}. {why}"
            raise Refusal(400, message, code="unsupported_parameter", param=name)
    return {key: value for key, value in body.items() if key not in refused}
