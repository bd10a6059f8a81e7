"""Checks before every route, and one log line a request.

The line has the route, not the address, which may name a document. It never contains a question, text or path.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openbook.serving.errors import LOG, ApiError, server_stops
from openbook.serving.routing import CALLER, ROUTE
from openbook.serving.service import Service

_DRAIN_S = 2.0
_DRAIN_BYTES = 1 << 20
_HEADERS = {
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


class Guard:
    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # the server drops the body
        started, headers, status, has_begun = time.perf_counter(), Headers(scope=scope), 500, False
        bounds = self._service.configuration.bounds
        is_form = headers.get("content-type", "").lower().startswith("multipart/form-data")
        body = _Body(receive, headers, bounds.upload_bytes if is_form else bounds.body_bytes, bounds.body_s)

        async def guarded_send(message: Message) -> None:
            nonlocal status, has_begun
            if message["type"] == "http.response.start":
                status, has_begun = message["status"], True
                await body.drain()
                own = MutableHeaders(raw=list(message.get("headers", ())))
                for name, value in _HEADERS.items():
                    own.setdefault(name, value)
                if not body.is_complete:  # the rest of the body is not read
                    own["connection"] = "close"
                message = {**message, "headers": own.raw}
            await send(message)

        try:
            self._service.authenticator.check_host_and_origin(headers)
            body.check_length()
            await self._app(scope, body.receive, guarded_send)
        except ApiError as error:
            await error.response()(scope, receive, guarded_send)
        except asyncio.CancelledError:  # the server stops and no longer waits for this answer
            if has_begun:
                raise
            await server_stops().response()(scope, receive, guarded_send)
        finally:
            route, seconds = scope.get(ROUTE, "none"), time.perf_counter() - started
            method = scope["method"] if scope["method"] in ("GET", "POST") else "other"
            self._service.metrics.request(route, method, status, seconds)
            LOG.info("%s %s %d %.0f ms key=%s", method, route, status, seconds * 1000, scope.get(CALLER, "-"))


class _Body:
    """A request's body: at most `most_bytes` within `seconds`. After its end, `receive` waits without limit."""

    def __init__(self, receive: Receive, headers: Headers, most_bytes: int, seconds: float) -> None:
        self._receive, self._most_bytes, self._seconds = receive, most_bytes, seconds
        self._length = int(headers.get("content-length", "0"))  # the server accepts only digits
        self._bytes, self._until = 0, math.inf
        self.is_complete = not self._length and "transfer-encoding" not in headers

    def check_length(self) -> None:
        """Raise ApiError when the declared length is too large."""
        if self._length > self._most_bytes:
            raise self._too_large()

    async def receive(self) -> Message:
        if self.is_complete:
            return await self._receive()
        self._end_within(self._seconds)
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError as error:
            why = f"The body did not come within {self._seconds:g} s."
            raise ApiError(408, why, code="request_timeout") from error
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._most_bytes:
            raise self._too_large()
        self.is_complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Briefly read a small rest: closing a connection over unread bytes can lose the answer."""
        self._end_within(_DRAIN_S)
        with suppress(ApiError):
            while not self.is_complete and max(self._length, self._bytes) <= min(self._most_bytes, _DRAIN_BYTES):
                await self.receive()

    def _end_within(self, seconds: float) -> None:
        """Bring the deadline forward, never back."""
        self._until = min(self._until, asyncio.get_running_loop().time() + seconds)

    def _too_large(self) -> ApiError:
        message = f"The body of this request may have at most {self._most_bytes:,} bytes."
        return ApiError(413, message, code="request_too_large")
