"""Errors in the shape of OpenAI's API: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import logging
import traceback
from typing import Any

from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request

from openbook.core.errors import (
    ClusterError,
    ContextOverflow,
    EngineError,
    KnowledgeBaseBusy,
    KnowledgeBaseDamaged,
    KnowledgeError,
    OpenBookError,
    QuestionError,
    ReceiptError,
    StorageError,
)

LOG = logging.getLogger("openbook.serving")


class ApiError(HTTPException):
    """An error as the client sees it. `code` is for programs, `message` for people; `param` names the wrong part."""

    def __init__(
        self, status: int, message: str, *, code: str, param: str | None = None, retry_after_s: int | None = None
    ) -> None:
        headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
        if status == 401:
            headers["www-authenticate"] = "Bearer"
        super().__init__(status, message, headers)
        self.message, self.code, self.param = message, code, param

    @property
    def body(self) -> dict[str, Any]:
        status = self.status_code
        kind = "server_error" if status >= 500 else "requests" if status == 429 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status_code, self.headers)


class ClientGone(Exception):
    """The client disconnected."""


def invalid(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    return ApiError(400, message, code=code, param=param)


def unknown_parameter(name: str, hint: str = "") -> ApiError:
    shown = name[:200]
    return invalid(f"Unrecognized request argument supplied: {shown}{hint}", shown, "unknown_parameter")


def check_at_most(value: int, most: int, unit: str, param: str) -> None:
    if value > most:
        raise invalid(f"{param} may be at most {most:,} {unit}, not {value:,}.", param, "above_limit")


def server_stops() -> ApiError:
    return ApiError(503, "The server is stopping.", code="shutting_down", retry_after_s=5)


def api_error(error: Exception) -> ApiError:
    """Convert any error to what the client may know.

    The caller's mistakes are sent in full. Server errors may hold what the caller must not see, so they are only
    logged; of messages that may quote a document, only type and location.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return _of_validation(error)
    if isinstance(error, ContextOverflow):
        return invalid(str(error), code="context_length_exceeded")
    if isinstance(error, QuestionError):
        return invalid(str(error))
    if isinstance(error, KnowledgeBaseBusy):
        message = "Something else is writing to the knowledge base. Try again."
        return ApiError(503, message, code="knowledge_base_busy", retry_after_s=5)
    if isinstance(error, ClusterError):
        LOG.error("failed: %s", error)
        message = "The machines that answer cannot be reached now. Try again."
        return ApiError(503, message, code="cluster_unavailable", retry_after_s=5)
    if isinstance(error, StorageError):
        LOG.error("failed: %s", error)
        message = "The database or the disk of this server cannot be used now. Its log says why. Try again."
        return ApiError(503, message, code="storage_unavailable", retry_after_s=5)
    known = isinstance(error, OpenBookError) and not isinstance(error, EngineError | KnowledgeError | ReceiptError)
    frames = traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames[-6:]))
    LOG.error("failed: %s%s at %s", type(error).__name__, f": {error}" if known else "", where)
    if isinstance(error, KnowledgeBaseDamaged):
        message = (
            "The data for this answer is damaged on the server's disk. The server's operator can find out what is damaged: "
            "openbook verify"
        )
        return ApiError(503, message, code="knowledge_base_damaged")
    return ApiError(500, "The server could not do this. Its log says what failed and where.", code="internal_error")


def _of_validation(error: RequestValidationError) -> ApiError:
    """Report the deepest error: it belongs to the closest of a value's possible types."""
    worst = max(error.errors(), key=lambda each: len(each["loc"]))
    place = [part for i, part in enumerate(worst["loc"][1:]) if not (i and _is_type(part))]
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    if not param:
        return invalid("The request needs a JSON body.", code="invalid_json")
    if worst["type"] == "extra_forbidden":
        return unknown_parameter(param)
    if worst["type"] == "missing":
        return invalid(f"Missing required parameter: {param!r}.", param, "missing_required_parameter")
    message, value = worst["msg"], worst["input"]
    if message.startswith("Input should") and isinstance(value, str | int | float):
        message += f", not {repr(value)[:60]}"
    return invalid(f"Invalid value for {param!r}: {message}.", param)


def _is_type(part: int | str) -> bool:
    """True if pydantic names a type here, not a place in the body."""
    return isinstance(part, str) and (part in ("str", "int") or "[" in part)


async def router_error(request: Request, error: Exception) -> JSONResponse:
    path, method = request.url.path[:200], request.method
    if isinstance(error, StarletteHTTPException) and error.status_code == 405:
        refused = ApiError(405, f"Not allowed to {method} on {path}.", code="method_not_allowed")
        return JSONResponse(refused.body, 405, error.headers)
    return ApiError(404, f"Unknown request URL: {method} {path}.", code="unknown_url").response()
