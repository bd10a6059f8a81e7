"""Before every route: the names in the head, bounds on size and time, one line in the log.

The line has the method, the route (not the address, which may name a document), the status, the time and the id of the
key. It never has a question, a text or a path of a document.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openbook.serving.errors import LOG, ApiError
from openbook.serving.service import CALLER, ROUTE, Service

_DRAIN_S = 2.0
_DRAIN_BYTES = 1 << 20
_HEADERS = {
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


class Crowd:
    """What waits for its client: at most `most`. One more closes the oldest of the network that has the most.

    So one client cannot leave the others without a place, whether or not they share its address, as all do that come
    through a proxy.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._members: dict[object, tuple[str, Callable[[], None]]] = {}  # the oldest first

    def add(self, member: object, host: str, close: Callable[[], None]) -> None:
        self._members.pop(member, None)
        if len(self._members) >= self._most:
            largest = Counter(network for network, _ in self._members.values()).most_common(1)[0][0]
            oldest = next(each for each, (network, _) in self._members.items() if network == largest)
            self._members.pop(oldest)[1]()
        self._members[member] = network_of(host), close

    def discard(self, member: object) -> None:
        self._members.pop(member, None)


def network_of(host: str) -> str:
    """What counts as one client: an address, or in IPv6 a /64."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))


class Guard:
    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        self._incomplete = Crowd(service.configuration.bounds.connections)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # the server leaves out the body
        started, headers, status = time.perf_counter(), Headers(scope=scope), 500
        bounds = self._service.configuration.bounds
        is_form = headers.get("content-type", "").lower().startswith("multipart/form-data")
        body = _Body(receive, headers, bounds.upload_bytes if is_form else bounds.body_bytes, bounds.body_s)
        if not body.is_complete:
            self._incomplete.add(body, (scope.get("client") or [""])[0], body.give_way)

        async def receive_body() -> Message:
            message = await body.receive()
            if body.is_complete:
                self._incomplete.discard(body)
            return message

        async def guarded_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                await body.drain()
                own = MutableHeaders(raw=list(message.get("headers", ())))
                for name, value in _HEADERS.items():
                    own.setdefault(name, value)
                if not body.is_complete:  # what else comes of it is not read
                    own["connection"] = "close"
                message = {**message, "headers": own.raw}
            await send(message)

        try:
            try:
                self._service.authenticator.check_names(headers)
                body.check_length()
            except ApiError as error:
                await error.response()(scope, receive, guarded_send)
                return
            await self._app(scope, receive_body, guarded_send)
        finally:
            self._incomplete.discard(body)
            route, seconds = scope.get(ROUTE, "none"), time.perf_counter() - started
            method = scope["method"] if scope["method"] in ("GET", "POST") else "other"
            self._service.metrics.request(route, method, status, seconds)
            self._service.count_gates()  # another process may show them
            LOG.info("%s %s %d %.0f ms key=%s", method, route, status, seconds * 1000, scope.get(CALLER, "-"))


class _Body:
    """A request's body as it comes: at most `most_bytes` within `seconds`. After its end, receiving waits as long as it takes."""

    def __init__(self, given: Receive, headers: Headers, most_bytes: int, seconds: float) -> None:
        self._given, self._length = given, headers.get("content-length", "0")
        self._most_bytes, self._seconds = most_bytes, seconds
        self._bytes = 0
        self._is_unwanted = self._gives_way = False
        self._waiting: asyncio.Timeout | None = None
        self._until: float | None = None
        self.is_complete = self._length == "0" and "transfer-encoding" not in headers

    def give_way(self) -> None:
        """The server no longer waits for the rest."""
        self._gives_way = self._is_unwanted = True
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())

    def check_length(self) -> None:
        """Raises ApiError when the head already says that it is too large."""
        if self._length.isascii() and self._length.isdigit() and int(self._length[:20]) > self._most_bytes:
            self._is_unwanted = True
            raise self._too_large()

    async def drain(self) -> None:
        """Read a small rest, for a moment: an answer can be lost when a connection is closed over what was not read."""
        if self.is_complete or self._bytes > self._most_bytes or self._is_unwanted:
            return
        until = asyncio.get_running_loop().time() + _DRAIN_S
        self._until = until if self._until is None else min(self._until, until)
        self._most_bytes = min(self._most_bytes, _DRAIN_BYTES)
        with suppress(ApiError):
            while not self.is_complete:
                await self.receive()

    async def receive(self) -> Message:
        if self.is_complete:
            return await self._given()
        if self._gives_way:
            raise _no_place()
        if self._until is None:
            self._until = asyncio.get_running_loop().time() + self._seconds
        try:
            async with asyncio.timeout_at(self._until) as self._waiting:
                message = await self._given()
        except TimeoutError as error:
            if self._gives_way:
                raise _no_place() from error
            why = f"The body did not come within {self._seconds:g} s."
            raise ApiError(408, why, code="request_timeout") from error
        finally:
            self._waiting = None
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._most_bytes:
            raise self._too_large()
        self.is_complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    def _too_large(self) -> ApiError:
        message = f"The body of this request may have at most {self._most_bytes:,} bytes."
        return ApiError(413, message, code="request_too_large")


def _no_place() -> ApiError:
    message = "The server has too many connections. Try again in a moment."
    return ApiError(503, message, code="too_many_connections", retry_after_s=2)
