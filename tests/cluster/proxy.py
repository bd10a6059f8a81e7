"""A proxy in front of a server of this machine, which breaks its connections when told to."""

from __future__ import annotations

import re
import select
import socket
import struct
import threading
from contextlib import suppress

_ADDRESS = re.compile(r"127\.0\.0\.1:(\d+)")
_LOOK_S = 0.01
_BREAK = struct.pack("ii", 1, 0)  # SO_LINGER: a connection that is closed is reset


class Proxy:
    """In front of the server of the URL `server`; `url` is the same through this proxy. Set `is_broken` at any time."""

    def __init__(self, server: str) -> None:
        self.is_broken = False
        (self._port,) = map(int, _ADDRESS.findall(server))
        self._door = socket.create_server(("127.0.0.1", 0))
        self.url = _ADDRESS.sub(f"127.0.0.1:{self._door.getsockname()[1]}", server)
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exception: object) -> None:
        self.is_broken = True
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
            other = {client: server, server: client}
            while not self.is_broken:
                for source in select.select([client, server], [], [], _LOOK_S)[0]:
                    if not (piece := source.recv(65_536)):
                        return
                    other[source].sendall(piece)
