"""IMAP servers for tests: pymap, a whole server; TLS in front of it; and one that says what a test wants."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
            for _ in range(600):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield port
        finally:
            server.terminate()


def certificate(folder: Path, *names: str) -> tuple[Path, Path]:
    """(certificate, key) of this machine under `names`, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    others = [x509.DNSName(each) for each in names]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([*others, x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files[1].write_bytes(private)
    return files


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that hangs up


@contextmanager
def _served(handler: type[socketserver.BaseRequestHandler]) -> Iterator[int]:
    with _Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()


@contextmanager
def tls_before(port: int, files: tuple[Path, Path]) -> Iterator[int]:
    """TLS from the first byte, in front of the server at `port`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with context.wrap_socket(self.request, server_side=True) as outer, socket.socket() as inner:
                inner.connect(("127.0.0.1", port))
                back = threading.Thread(target=_copy, args=(inner, outer))
                back.start()
                _copy(outer, inner)
                inner.shutdown(socket.SHUT_WR)
                back.join()

    with _served(Relay) as found:
        yield found


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # the client may leave before the last word
        while data := source.recv(65_536):
            target.sendall(data)


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
def scripted(changes: dict[str, Reply]) -> Iterator[tuple[int, list[bytes]]]:
    """A server that replies to a command as HONEST with `changes` says; None: it hangs up. Yields (port, lines received)."""
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

    with _served(Handler) as port:
        yield port, received
