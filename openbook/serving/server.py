"""Running the application: HTTP/1.1 by uvicorn and httptools, with bounds on clients that stop in the middle."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from openbook.errors import ConfigError

MAX_HEAD_BYTES = 65_536
HEAD_S = 10  # in which a request's head must come
UNREAD_S = 60  # after which the system ends a connection whose client does not take what was sent
GRACE_S = 20  # for answers under way when the server ends
CANCELLING_S = 5  # in which those that are not done by then stop, and say so to their clients


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections. `port` 0: any free one. Raises ConfigError when the address cannot be had."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(found[4][:2], family=found[0])
    except (OSError, UnicodeError) as error:  # UnicodeError: a label of the name is empty or too long
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"Cannot listen on {host}, port {port}: {why}. Choose another with --host and --port."
        ) from error
    # Connections inherit these. asyncio sets the first only on those whose socket names its protocol, which these do not;
    # without it the body of an answer waits 40 ms until its head is acknowledged.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_S * 1000)
    return listener


def http_server(app: FastAPI) -> uvicorn.Server:
    """For `run(sockets=[listen(...)])`, on the main thread for Ctrl-C, or on another. `app` is one of `create_app`."""
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        log_level="error",  # anyone could fill the log with warnings
        proxy_headers=False,  # what a header says of the caller's address counts for nothing
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=GRACE_S + CANCELLING_S,
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


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection that brings no whole head within `HEAD_S`, or too many bytes without a head or a part of a body.

    An answer under way is not broken off; a body that does not come is for `middleware.Guard`, an idle connection for
    uvicorn. `on_...` are callbacks of httptools.
    """

    _timer: asyncio.TimerHandle | None = None
    _pending_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_S, self._give_up)

    def data_received(self, data: bytes) -> None:
        self._pending_bytes += len(data)
        self._timer = self._timer or self.loop.call_later(HEAD_S, self._give_up)
        super().data_received(data)
        if self._pending_bytes > MAX_HEAD_BYTES:
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._go_on()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._go_on()
        super().on_body(body)

    def _go_on(self) -> None:
        self._pending_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
