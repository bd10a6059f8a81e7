"""The HTTP/1.1 server (uvicorn and httptools), with bounds on stalled clients."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from openbook.core.errors import ConfigError

MAX_HEAD_BYTES = 65_536
HEAD_S = 10  # for a request's head to arrive
UNREAD_S = 60  # until the system drops a client that does not read what was sent
GRACE_S = 20  # for answers in progress when the server stops
CANCELLING_S = 5  # for the rest to stop and tell their clients


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. `port` 0: any free port. Raises ConfigError when the address is unavailable."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(found[4][:2], family=found[0])
    except (OSError, UnicodeError) as error:  # UnicodeError: a label of the name is empty or too long
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"Cannot listen on {host}, port {port}: {why}. Choose another with --host and --port."
        ) from error
    # Connections inherit these. asyncio sets TCP_NODELAY only on sockets that name their protocol, which these do not;
    # without it, the body of an answer waits 40 ms for its head to be acknowledged.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_S * 1000)
    return listener


def http_server(app: FastAPI) -> uvicorn.Server:
    """The server. Start it with `run(sockets=[listen(...)])`, on the main thread if Ctrl-C must work."""
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        log_level="error",  # anyone could fill the log with warnings
        proxy_headers=False,  # headers about the caller's address are not trusted
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=GRACE_S + CANCELLING_S,
    )
    return _Server(config, app.state.service.ends)


class _Server(uvicorn.Server):
    """Sets `ends` after `GRACE_S` of shutdown."""

    def __init__(self, config: uvicorn.Config, ends: threading.Event) -> None:
        super().__init__(config)
        self._ends = ends

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        timer = asyncio.get_running_loop().call_later(GRACE_S, self._ends.set)
        await super().shutdown(sockets)
        timer.cancel()


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections that complete no head within `HEAD_S`, or exceed MAX_HEAD_BYTES between parts.

    It never cuts an answer. `middleware.Guard` handles slow bodies, uvicorn idle connections.
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
