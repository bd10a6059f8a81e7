"""Running the application: HTTP/1.1 by h11, with bounds on slow clients and strict about where a request ends."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import threading
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from h11 import LocalProtocolError
from h11._receivebuffer import ReceiveBuffer
from uvicorn.protocols.http.h11_impl import H11Protocol

from openbook.errors import ConfigError
from openbook.serving.configuration import Bounds
from openbook.serving.errors import ApiError

MAX_HEAD_BYTES = 32_768
GRACE_S = 20  # for answers under way when the server ends
CANCELLING_S = 5  # in which those that are not done by then stop, and say so to their clients

_BACKLOG = 128
_END = b"\r\n\r\n"
_WRONG = re.compile(
    rb"(?P<bare_CR>\r(?!\n))|(?P<bare_LF>(?<!\r)\n)|(?P<folded_line>\n[ \t])"
    rb"|(?P<control_character>[\x00-\x08\x0b\x0c\x0e-\x1f\x7f])"
)
_FRAMING = re.compile(rb"(content-length|transfer-encoding):", re.IGNORECASE)
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]+[;\r]")


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections. `port` 0: any free one. Raises ConfigError when the address cannot be had."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(found[4][:2], family=found[0], backlog=_BACKLOG)
        # Connections inherit it. asyncio sets it only on those whose socket names its protocol, which these do not; without
        # it the body of an answer waits 40 ms until its head is acknowledged.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (OSError, UnicodeError) as error:  # UnicodeError: a label of the name is empty or too long
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"Cannot listen on {host}, port {port}: {why}. Choose another with --host and --port."
        ) from error


def http_server(app: FastAPI) -> uvicorn.Server:
    """For `run(sockets=[listen(...)])`, on the main thread for Ctrl-C, or on another. `app` is one of `create_app`."""
    config = uvicorn.Config(
        app,
        backlog=_BACKLOG,
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        proxy_headers=False,  # what a header says of the caller's address counts for nothing
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=GRACE_S + CANCELLING_S,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
    )
    return _Server(config, app.state.service.ends)


class _Server(uvicorn.Server):
    """Sets `ends` when answers under way had `GRACE_S` to become whole."""

    def __init__(self, config: uvicorn.Config, ends: threading.Event) -> None:
        super().__init__(config)
        self._ends = ends

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        timer = asyncio.get_running_loop().call_later(GRACE_S, self._ends.set)
        await super().shutdown(sockets)
        timer.cancel()


class BoundedProtocol(H11Protocol):
    """Ends a connection whose next request's head is not complete `head_s` after it began, and one whose client has not
    taken all that was written to it within `write_s`.

    The latter is aborted: a close would wait without end until everything is taken. Connections without a whole request
    are counted. If there is one too many, the one that was heard from longest ago is ended.
    """

    def __init__(self, config: uvicorn.Config, *arguments: Any, **named: Any) -> None:
        super().__init__(config, *arguments, **named)
        self.conn._receive_buffer = StrictLines(MAX_HEAD_BYTES)
        state = config.loaded_app.state
        self._bounds: Bounds = state.service.configuration.bounds
        self._unfinished: dict[BoundedProtocol, None] = state.unfinished
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # writing pauses when a byte waits and resumes when none does
        self.access_log = False  # uvicorn writes addresses, which may name documents; whatever loggers are set up
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._expect_head()
            return
        self._stop_expecting()
        if self.conn.their_state is h11.SEND_BODY:
            self._count_as_unfinished()

    def send_400_response(self, msg: str) -> None:
        """Bytes that are not HTTP get an error in the shape of all errors. Nothing after them is read.

        An answer under way is broken off: it is of a request whose body went wrong.
        """
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            why = str(sys.exception() or msg).removesuffix(".")[:200]
            response = ApiError(400, f"This is not a valid HTTP/1.1 request: {why}.", code="invalid_http").response()
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
            self._count_as_unfinished()

    def _unsupported_upgrade_warning(self) -> None:
        """No warning: anybody could fill the log with it."""

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._bounds.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_expecting()
        self._stop_write_timer()
        super().connection_lost(exc)

    def _count_as_unfinished(self) -> None:
        self._unfinished.pop(self, None)
        if len(self._unfinished) >= self._bounds.connections:
            oldest = next(iter(self._unfinished))
            del self._unfinished[oldest]
            oldest.transport.abort()  # without waiting until it takes what was written to it
        self._unfinished[self] = None

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._bounds.head_s, self.transport.close)
            self._count_as_unfinished()

    def _stop_expecting(self) -> None:
        self._unfinished.pop(self, None)
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


class StrictLines(ReceiveBuffer):
    """The lines of a request, parsed more strictly than by h11, which forgives what others read differently.

    A proxy and a server that do not agree where a request ends can be made to see two where there is one. So each line ends
    in CR LF, none goes on in the next, and a head says once how long its body is (RFC 9112: 2.2, 2.3, 5.2, 6.1 to 6.3, 7.1).
    For `h11.Connection._receive_buffer`, which is asked for lines only where a head, a chunk's size or a trailer is due.

    What it answers depends on the bytes alone, not on the packets in which they came. Raises h11.LocalProtocolError.
    """

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes`: of one head, trailer, or line with a chunk's size."""
        super().__init__()
        self._most_bytes = most_bytes

    def maybe_extract_lines(self) -> list[bytearray] | None:
        start = self._multiple_lines_search  # all before it was searched already, except for its last two bytes
        if not self._data.startswith(b"\r\n"):
            self._check(start, self._data.find(_END, max(0, start - 1)), len(_END))
        lines = super().maybe_extract_lines()
        if lines:
            _check_framing(lines)
        return lines

    def maybe_extract_next_line(self) -> bytearray | None:
        start = max(0, self._next_line_search - 1)
        self._check(start, self._data.find(b"\r\n", start), len(b"\r\n"))
        line = super().maybe_extract_next_line()
        if line is not None and not _CHUNK_SIZE.match(line):
            raise LocalProtocolError("the size of a chunk is not a hexadecimal number")
        return line

    def _check(self, start: int, found: int, length: int) -> None:
        """Raises for what is wrong between `start` and the end of the lines.

        `found`: where the `length` bytes that end the lines begin; -1 if they have not come yet.
        """
        is_open = found < 0
        end = len(self._data) - self._data.endswith(b"\r") if is_open else found + length
        if wrong := _WRONG.search(self._data, start, end):
            what = (wrong.lastgroup or "").replace("_", " ")
            raise LocalProtocolError(f"found a {what}; lines end with CR LF")
        if end > self._most_bytes:
            raise LocalProtocolError(f"its lines have more than {self._most_bytes:,} bytes")


def _check_framing(lines: list[bytearray]) -> None:
    """Of a head: a valid version, and at most one length of the body; of a trailer, the latter. Raises h11.LocalProtocolError."""
    framing = [line for line in lines if _FRAMING.match(line)]
    if len(framing) > 1 or any(b"," in line for line in framing):
        raise LocalProtocolError("send exactly one Content-Length or Transfer-Encoding header")
    words = bytes(lines[0]).split(b" ")
    version = words[-1]
    if b":" in words[0]:  # a trailer, which has no request line
        return
    if version not in (b"HTTP/1.0", b"HTTP/1.1"):
        raise LocalProtocolError("the first line does not end with HTTP/1.1 or HTTP/1.0")
    if version == b"HTTP/1.0" and any(line.lower().startswith(b"t") for line in framing):
        raise LocalProtocolError("HTTP/1.0 does not allow Transfer-Encoding")
