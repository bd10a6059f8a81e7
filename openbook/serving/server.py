"""Running the application: one process, one port, HTTP/1.1 by h11, which is strict, under bounds on slow clients."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from openbook.errors import ConfigError
from openbook.serving.configuration import Bounds
from openbook.serving.connections import Idle
from openbook.serving.http_lines import StrictLines
from openbook.serving.refusals import Refusal

MOST_HEAD_BYTES = 32_768
KEEP_ALIVE_S = 5
GRACE_S = 20  # for answers under way when the server ends

_BACKLOG = 128


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections. `port` 0: any free one. Raises ConfigError when the address cannot be had."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        door = socket.create_server(found[4][:2], family=found[0], backlog=_BACKLOG)
        # Connections inherit it. asyncio sets it only on those whose socket names its protocol, which these do not; without
        # it the body of an answer waits 40 ms until its head is acknowledged.
        door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return door
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {host}, port {port}: {error.strerror or error}. Choose another with --host and --port."
        ) from error


class SharedSocket(socket.socket):
    """A listening socket from which several processes accept. What waits at it waits for all of them."""

    def listen(self, backlog: int = _BACKLOG, /) -> None:
        """However many a server wants to accept at a time, so many may wait."""
        super().listen(_BACKLOG)


def make_server(app: ASGIApp, bounds: Bounds, *, shares_socket: bool = False) -> uvicorn.Server:
    """For `run(sockets=[listen(...)])`, on the main thread for Ctrl-C, or on another.

    With `shares_socket` it accepts one connection at a time, so that others get theirs; its socket is a SharedSocket.
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            backlog=1 if shares_socket else _BACKLOG,
            http=_protocol(bounds),
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            proxy_headers=False,  # what a header says of the caller's address counts for nothing
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
            h11_max_incomplete_event_size=MOST_HEAD_BYTES,
        )
    )


def _protocol(bounds: Bounds) -> type[asyncio.Protocol]:
    class Protocol(_Bounded):
        head_s, write_s = bounds.head_s, bounds.write_s
        idle = Idle(bounds.connections)

    return Protocol


class _Bounded(H11Protocol):
    """Ends a connection whose next request's head is not complete `head_s` after it began, or which holds what its
    client has not taken `write_s` after it was written.

    The second is cut off: closing waits, without an end, until everything is taken. `idle` bounds how many there are with no
    request under way; how many requests, the guard, which answers those that are too many.
    """

    head_s: float
    write_s: float
    idle: Idle
    _late: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn._receive_buffer = StrictLines(MOST_HEAD_BYTES)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # writing pauses when a byte waits and resumes when none does
        self.access_log = False  # uvicorn writes addresses, which may name documents; whatever loggers are set up
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._expect_head()
        else:
            self._stop_expecting()

    def send_400_response(self, msg: str) -> None:
        """What is no request is refused in the shape of all refusals. Nothing after it is read.

        An answer under way is broken off: it is of a request whose body went wrong.
        """
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            why = str(sys.exception() or msg).removesuffix(".")[:200]
            response = Refusal(400, f"This is not a valid HTTP/1.1 request: {why}.", code="invalid_http").response()
            headers = [*response.raw_headers, (b"connection", b"close")]
            head = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
            events = (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage())
            self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()  # which may begin the next one
        if self.cycle.response_complete:
            self._is_idle()

    def _unsupported_upgrade_warning(self) -> None:
        """None: anybody could fill the log with it."""

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = self.loop.call_later(self.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._all_is_taken()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_expecting()
        self._all_is_taken()
        super().connection_lost(exc)

    def _is_idle(self) -> None:
        self.idle.add(self, self.client[0] if self.client else "", self._give_way)

    def _give_way(self) -> None:
        """Without waiting for what is not taken."""
        (self.transport.close if self._stuck is None else self.transport.abort)()

    def _expect_head(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(self.head_s, self.transport.close)
            self._is_idle()

    def _stop_expecting(self) -> None:
        self.idle.discard(self)
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _all_is_taken(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
