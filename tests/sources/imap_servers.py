"""IMAP servers for tests: pymap, a whole server; and one that says what a test wants."""

from __future__ import annotations

import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trustme

USER, PASSWORD = "ann@example.org", "sesame öpen"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def pymap(*options: str) -> Iterator[int]:
    """An empty mailbox of USER. Yields the port."""
    port = free_port()
    program = [str(Path(sys.executable).parent / "pymap"), "--host", "127.0.0.1", "--port", str(port), *options]
    user = ["dict", "--demo-user", USER, "--demo-password", PASSWORD]
    with subprocess.Popen([*program, *user], stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(port)
            yield port
        finally:
            server.terminate()


def wait_for(port: int) -> None:
    until = time.monotonic() + 600
    while not listens(port):
        assert time.monotonic() < until
        time.sleep(0.02)


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def certificate(folder: Path, *names: str) -> tuple[Path, Path]:
    """(the authority's certificate, the key and chain of this machine under `names`)"""
    authority = trustme.CA()
    files = folder / "authority.pem", folder / "server.pem"
    authority.cert_pem.write_to_path(files[0])
    authority.issue_cert("127.0.0.1", *names).private_key_and_cert_chain_pem.write_to_path(files[1])
    return files


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    tls: ssl.SSLContext | None = None

    def get_request(self) -> tuple[socket.socket, Any]:
        client, address = super().get_request()
        return (self.tls.wrap_socket(client, server_side=True) if self.tls else client), address

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that hangs up


Reply = bytes | Callable[[bytes], bytes] | None

# As pymap 0.36 says it.
HONEST: dict[str, Reply] = {
    "CAPABILITY": b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nTAG OK CAPABILITY completed.\r\n",
    "AUTHENTICATE": b"+ \r\n",
    "ANSWER": b"TAG OK Authentication successful.\r\n",
    "LIST": b'* LIST (\\HasNoChildren) "/" INBOX\r\nTAG OK LIST completed.\r\n',
    "EXAMINE": b"* OK [UIDVALIDITY 7] UIDs valid.\r\n* 2 EXISTS\r\nTAG OK [READ-ONLY] Selected mailbox.\r\n",
    "UID SEARCH": b"* SEARCH 1 2\r\nTAG OK UID SEARCH completed.\r\n",
    "UID FETCH": lambda line: (
        b"".join(_message(int(uid)) for uid in line.split()[3].split(b",")) + b"TAG OK UID FETCH completed.\r\n"
    ),
    "LOGOUT": b"* BYE\r\nTAG OK LOGOUT completed.\r\n",
}


def _message(uid: int) -> bytes:
    data = b"From: a@b\r\nMessage-ID: <m%d@x>\r\n\r\nThe pier has lights.\r\n" % uid
    return b"* %d FETCH (UID %d BODY[]<0> {%d}\r\n%s)\r\n" % (uid, uid, len(data), data)


@contextmanager
def scripted(changes: dict[str, Reply], chain: Path | None = None) -> Iterator[tuple[int, list[bytes]]]:
    """A server that replies to a command as HONEST with `changes` says; None: it hangs up. Yields (port, lines received).

    `chain`: key and certificates for TLS from the first byte.
    """
    replies, received = {**HONEST, **changes}, list[bytes]()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"* OK Server ready.\r\n")
            tag = b""
            while line := self.rfile.readline().rstrip(b"\r\n"):
                received.append(line)
                first, _, command = line.partition(b" ")
                tag = first if command else tag
                words = command.split()[: 2 if command.startswith(b"UID") else 1]
                reply = replies[b" ".join(words).decode() or "ANSWER"]
                said = reply(line) if callable(reply) else reply
                if said is None:
                    return
                self.wfile.write(said.replace(b"TAG", tag))

    with _Server(("127.0.0.1", 0), Handler) as server:
        if chain:
            server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.tls.load_cert_chain(chain)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield int(server.server_address[1]), received
        finally:
            server.shutdown()
