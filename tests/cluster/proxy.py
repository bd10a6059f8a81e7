"""A proxy before a server of this machine, which spoils what passes when it is told to."""

from __future__ import annotations

import re
import select
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Literal, TypeAlias

# What holds for open connections and for new ones: they are broken; or are open, and nothing passes; or all comes late. Of a
# server that speaks HTTP: new ones are told that the disk is full.
Fault: TypeAlias = Literal["", "break", "stall", "delay", "full"]

_ADDRESS = re.compile(r"127\.0\.0\.1:(\d+)")
_DELAY_S, _LOOK_S = 0.3, 0.01
_FULL = b"HTTP/1.1 507 Insufficient Storage\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_BREAK = struct.pack("ii", 1, 0)  # SO_LINGER: a connection that is closed is reset


class Proxy:
    """Before the server that `server` is the URL of; `url` is the same by way of this proxy. Set `fault` at any time."""

    def __init__(self, server: str) -> None:
        self.fault: Fault = ""
        (self._port,) = map(int, _ADDRESS.findall(server))
        self._door = socket.create_server(("127.0.0.1", 0))
        self.url = _ADDRESS.sub(f"127.0.0.1:{self._door.getsockname()[1]}", server)
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exception: object) -> None:
        self.fault = "break"
        self._door.shutdown(socket.SHUT_RDWR)  # else `accept` would wait on
        self._door.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._door.accept()
                threading.Thread(target=self._serve, args=(client,), name="proxy", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _BREAK)
        with client, suppress(OSError):
            if self.fault == "full":
                _read_request(client)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
                client.sendall(_FULL)
                return
            with socket.create_connection(("127.0.0.1", self._port)) as server:
                self._pass_on(client, server)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        while self.fault not in ("break", "full"):
            if self.fault == "stall":
                time.sleep(_LOOK_S)
                continue
            for source in select.select([client, server], [], [], _LOOK_S)[0]:
                piece = source.recv(65_536)
                if not piece:
                    return
                if self.fault == "delay":
                    time.sleep(_DELAY_S)
                other[source].sendall(piece)


def _read_request(client: socket.socket) -> None:
    with client.makefile("rb") as request:
        size = 0
        while (line := request.readline().strip()) != b"":
            if line.lower().startswith(b"content-length:"):
                size = int(line.partition(b":")[2])
        request.read(size)
