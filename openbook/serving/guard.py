"""The checks before every route: the names in the head, bounds on size and time, one line in the log.

The line has the method, the route (not the address, which may name a document), the status, the time and the id of the
key. It never has a question, a text or a path of a document.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openbook.serving.connections import Requests, no_place
from openbook.serving.refusals import Refusal
from openbook.serving.service import Service

ROUTE, CALLER = "openbook.route", "openbook.caller"

_DRAIN_S = 2.0
_DRAIN_BYTES = 1 << 20

_LOG = logging.getLogger("openbook.serving")
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]


class Guard:
    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        bounds = self._service.configuration.bounds
        headers = Headers(scope=scope)
        body = _Body(receive, headers, _most_bytes(headers, bounds.body_bytes, bounds.upload_bytes), bounds.body_s)
        requests, client = self._service.requests, scope.get("client")
        status = 500

        async def receive_body() -> Message:
            message = await body.receive()
            if body.is_complete:
                requests.is_complete(body)
            return message

        async def guarded_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                await body.drain()
                # What else comes of a body that nobody wants is not read.
                ending = [] if body.is_complete else [(b"connection", b"close")]
                own = list(message.get("headers", ()))
                message = {**message, "headers": [*own, *_missing_in(own), *ending]}
            await send(message)

        try:
            try:
                body.enter(requests, client[0] if client else "")
                self._service.doorkeeper.check_names(headers)
                body.check_length()
            except Refusal as refusal:
                await refusal.response()(scope, receive, guarded_send)
                return
            await self._app(scope, receive_body, guarded_send)
        finally:
            requests.leave(body)
            self._note(scope, status, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get(ROUTE, "none")
        method = scope["method"] if scope["method"] in ("GET", "POST") else "other"
        self._service.metrics.request(route, method, status, seconds)
        self._service.count_gates()  # another process may show them
        _LOG.info("%s %s %d %.0f ms key=%s", method, route, status, seconds * 1000, scope.get(CALLER, "-"))


def _missing_in(own: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """What the answer does not say itself: the page has a policy of its own, and two of them would both hold."""
    said = {name for name, _ in own}
    return [(name, value) for name, value in _HEADERS if name not in said]


class _Body:
    """A request's body as it comes: at most `most_bytes` within `seconds`. After its end, receiving waits as long as it takes."""

    def __init__(self, given: Receive, headers: Headers, most_bytes: int, seconds: float) -> None:
        self._given, self._headers = given, headers
        self._most_bytes, self._seconds = most_bytes, seconds
        self._bytes = 0
        self._is_hopeless = self._gives_way = False
        self._waiting: asyncio.Timeout | None = None
        self._until: float | None = None
        self.is_complete = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers

    def enter(self, requests: Requests, host: str) -> None:
        """Raises Refusal when there is no place for the request."""
        try:
            requests.enter(self, host, self._give_way)
        except Refusal:
            self._is_hopeless = True
            raise
        if self.is_complete:
            requests.is_complete(self)

    def _give_way(self) -> None:
        """To a complete request: the server no longer waits for the rest of this one."""
        self._gives_way = self._is_hopeless = True
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())

    def check_length(self) -> None:
        """Raises Refusal when the head already says that it is too large."""
        length = self._headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length[:20]) > self._most_bytes:
            self._is_hopeless = True
            raise self._too_large()

    async def drain(self) -> None:
        """Read a small rest, for a moment: an answer can be lost when a connection is closed over what was not read."""
        if self.is_complete or self._bytes > self._most_bytes or self._is_hopeless:
            return
        until = asyncio.get_running_loop().time() + _DRAIN_S
        self._until = until if self._until is None else min(self._until, until)
        self._most_bytes = min(self._most_bytes, _DRAIN_BYTES)
        with suppress(Refusal):
            while not self.is_complete:
                await self.receive()

    async def receive(self) -> Message:
        if self.is_complete:
            return await self._given()
        if self._gives_way:
            raise no_place()
        loop = asyncio.get_running_loop()
        if self._until is None:
            self._until = loop.time() + self._seconds
        try:
            async with asyncio.timeout_at(self._until) as self._waiting:
                message = await self._given()
        except TimeoutError as error:
            if self._gives_way:
                raise no_place() from error
            why = f"The body did not come within {self._seconds:g} s."
            raise Refusal(408, why, code="request_timeout") from error
        finally:
            self._waiting = None
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._most_bytes:
            raise self._too_large()
        self.is_complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    def _too_large(self) -> Refusal:
        message = f"The body of this request may have at most {self._most_bytes:,} bytes."
        return Refusal(413, message, code="request_too_large")


def _most_bytes(headers: Headers, json_bytes: int, form_bytes: int) -> int:
    is_form = headers.get("content-type", "").lower().startswith("multipart/form-data")
    return form_bytes if is_form else json_bytes
