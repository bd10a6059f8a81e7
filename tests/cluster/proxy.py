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

# What holds for open connections and for new ones: they are broken; or are open, and nothing passes.
Fault: TypeAlias = Literal["", "break", "stall"]

_ADDRESS = re.compile(r"127\.0\.0\.1:(\d+)")
_LOOK_S = 0.01
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
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", self._port)) as server:
            self._pass_on(client, server)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        while self.fault != "break":
            if self.fault == "stall":
                time.sleep(_LOOK_S)
                continue
            for source in select.select([client, server], [], [], _LOOK_S)[0]:
                piece = source.recv(65_536)
                if not piece:
                    return
                other[source].sendall(piece)
