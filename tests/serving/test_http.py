"""Bytes that are no clear HTTP, clients that send or read slowly, and clients with many connections."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import httpx
import pytest

from openbook.serving import server as server_module
from openbook.serving.server import BoundedProtocol, listen
from openbook.testing import EchoEngine
from tests.serving.conftest import (
    LONG_S,
    QUESTION,
    LongEngine,
    Running,
    Serve,
    WaitingEngine,
    asking,
    connected,
    eventually,
    everything,
)

HOST = b"Host: localhost\r\n"
NEXT = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"  # what a smuggled request would be
POST = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = b'{"query": "bridge"}'
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"13\r\n" + BODY + b"\r\n"


def with_length(value: bytes) -> bytes:
    return POST + b"Content-Length: " + value + b"\r\n\r\n" + BODY


# Where one request ends and the next begins is in doubt: 400 or nothing, and not a byte after it is answered.
IN_DOUBT = {
    "two lengths": POST + b"Content-Length: 19\r\nContent-Length: 20\r\n\r\n" + BODY,
    "a list of one length": with_length(b"19, 19"),
    "length and chunks": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\ncontent-length: 19\r\n\r\n" + CHUNK + b"0\r\n\r\n",
    "chunks twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "chunked behind a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a length with a plus": with_length(b"+19"),
    "a length with an underscore": with_length(b"1_9"),
    "a length in hexadecimal": with_length(b"0x13"),
    "an endless length": with_length(b"1" * 30),
    "an empty length": with_length(b""),
    "a length below zero": with_length(b"-19"),
    "a coding behind chunks": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "a name before a space": POST + b"Content-Length : 19\r\n\r\n" + BODY,
    "a name behind a space": POST + b" Content-Length: 19\r\n\r\n" + BODY,
    "a folded line": b"GET /health HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n",
    "a folded coding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "LF alone everywhere": b"GET /health HTTP/1.1\nHost: localhost\n\n",
    "LF alone after a field": b"GET /health HTTP/1.1\r\n" + HOST + b"X: a\nY: b\r\n\r\n",
    "LF alone at the end of the head": b"GET /health HTTP/1.1\r\nHost: localhost\r\n\n",
    "CR alone in a field": b"GET /health HTTP/1.1\r\n" + HOST + b"X: a\rY: b\r\n\r\n",
    "CR twice": b"GET /health HTTP/1.1\r\r\n" + HOST + b"\r\n",
    "a space first": b" GET /health HTTP/1.1\r\n" + HOST + b"\r\n",
    "NUL in a field": b"GET /health HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n",
    "DEL in a field": b"GET /health HTTP/1.1\r\n" + HOST + b"X: a\x7fb\r\n\r\n",
    "a field without a name": b"GET /health HTTP/1.1\r\n" + HOST + b": a\r\n\r\n",
    "a space in the target": b"GET /hea lth HTTP/1.1\r\n" + HOST + b"\r\n",
    "HTTP/1.2": b"GET /health HTTP/1.2\r\n" + HOST + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a chunk's size before a space": CHUNKED + b"13 \r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk's size with a plus": CHUNKED + b"+13\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk's size with an underscore": CHUNKED + b"1_3\r\n" + BODY + b"\r\n0\r\n\r\n",
    "an endless chunk's size": CHUNKED + b"1" * 30 + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
    "LF alone after a chunk's size": CHUNKED + b"13\n" + BODY + b"\r\n0\r\n\r\n",
    "LF alone in a chunk extension": CHUNKED + b"13;a\nb\r\n" + BODY + b"\r\n0\r\n\r\n",
    "LF alone after a chunk": CHUNKED + b"13\r\n" + BODY + b"\n0\r\n\r\n",
    "a chunk that is longer": CHUNKED + b"12\r\n" + BODY + b"\r\n0\r\n\r\n",
    "LF alone after the last chunk": CHUNKED + CHUNK + b"0\n\r\n",
    "a folded line at the end": CHUNKED + CHUNK + b"0\r\nX: a\r\n b\r\n\r\n",
    "length and coding at the end": CHUNKED + CHUNK + b"0\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
}


def received(server: Running, data: bytes) -> bytes:
    """All that comes back until the server closes. This end closes nothing before, so it is the server that does."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=LONG_S) as connection:
        with suppress(OSError):  # the server may have closed it already
            connection.sendall(data)
        return everything(connection)


def statuses(answers: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", answers)]


def test_connections_do_not_delay_small_writes() -> None:
    with listen("127.0.0.1", 0) as door, socket.create_connection(door.getsockname()), door.accept()[0] as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_ambiguous_request_is_refused_and_nothing_after_it_is_answered(shared: Running) -> None:
    for name, data in IN_DOUBT.items():
        answers = received(shared, data + NEXT)
        assert statuses(answers) in ([], [400]), (name, answers[:300])  # nothing: a reset connection can lose it
    assert statuses(received(shared, NEXT + NEXT + IN_DOUBT["LF alone after a field"] + NEXT)).count(200) <= 2
    assert shared.get("/health").status_code == 200
    for first, rest, seen in (
        (b"", b"GET /health HTTP/1.1\r\nHost: localhost\nX", ([400],)),  # no byte is left unread, so nothing is lost
        (CHUNKED + b"3\r\n{", b'"q\n', ([], [400])),
    ):
        with connected(shared, "", first) as connection:
            connection.sendall(rest)
            assert statuses(everything(connection)) in seen


# What has one end, though it may be odd. (what is sent, the status)
CLEAR = {
    "another coding before chunks": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "chunks of HTTP/1.0": (CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + CHUNK + b"0\r\n\r\n", 200),
    "an empty line first": (b"\r\nGET /health HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    "two spaces in the first line": (b"GET  /health HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    "no version": (b"GET /health\r\n" + HOST + b"\r\n", 200),
    "no host": (b"GET /health HTTP/1.1\r\n\r\n", 421),
    "two hosts": (b"GET /health HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 421),
    "an endless chunk extension": (CHUNKED + b"13;" + b"a" * 40_000 + b"\r\n" + BODY + b"\r\n0\r\n\r\n", 200),
    "a length": (with_length(b"19"), 200),
    "a length between spaces": (with_length(b" \t19 \t"), 200),
    "chunks": (CHUNKED + CHUNK + b"0\r\n\r\n", 200),
    "chunk extensions": (CHUNKED + b'13;a=b;c="d e"\r\n' + BODY + b"\r\n0;e\r\n\r\n", 200),
    "fields at the end": (CHUNKED + CHUNK + b"0\r\nX: a\r\nY: HTTP/2.0\r\n\r\n", 200),
    "line ends in a body": (POST + b"Content-Length: 24\r\n\r\n" + b'\n\r {"query": "bridge"}\n\n', 200),
    "line ends in a chunk": (CHUNKED + b"18\r\n" + b'\n\r {"query": "bridge"}\n\n' + b"\r\n0\r\n\r\n", 200),
    "HTTP/1.0": (b"GET /health HTTP/1.0\r\n" + HOST + b"\r\n", 200),
    "an asterisk": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "HTTP/1.0 without a host": (b"GET /health HTTP/1.0\r\n\r\n", 421),
    "a long target": (b"GET /" + b"a" * 30_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "a body that no route reads": (
        b"GET /health HTTP/1.1\r\n" + HOST + b"Content-Length: " + str(len(NEXT)).encode() + b"\r\n\r\n" + NEXT,
        200,
    ),
}
LAST = b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def test_clear_request_gets_one_answer(shared: Running) -> None:
    for name, (data, status) in CLEAR.items():
        found = statuses(received(shared, data + LAST))
        assert found[0] == status, name
        assert found[1:] in ([200], []), name  # nothing: the shared closed, as for HTTP/1.0
    with connected(shared, "") as connection:
        connection.sendall(NEXT.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"))
        assert statuses(connection.recv(65536)) == [200]
    with connected(shared, "") as connection:
        connection.sendall(POST + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 19\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(BODY)
        assert statuses(everything(connection)) == [200]


# --- slow clients -----------------------------------------------------------------------------------------------------


def test_unfinished_head_ends_the_connection(shared: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HEAD_S", 0.1)
    for head in ("", "\n\n", "GET /health HTTP/1.1\nHost: local"):
        with connected(shared, head) as connection:
            assert everything(connection) == b""
    answered = False
    while not answered:  # on a machine that is busy the first head may come late too
        with connected(shared, "GET /health HTTP/1.1\nHost: localhost\n\n") as connection:
            received = b""
            while b'"ok"' not in received and (data := connection.recv(65536)):
                received += data
            answered = b'"ok"' in received
            with suppress(OSError):
                connection.sendall(b"GET /health HTTP/1.1\r\nHo")
            assert everything(connection) == b""


def test_half_a_head_after_a_request_does_not_cut_its_answer(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server, give_up, given_up = serve(engine := WaitingEngine()), BoundedProtocol._give_up, threading.Event()

    def noted(protocol: BoundedProtocol) -> None:
        give_up(protocol)
        given_up.set()

    with asking(server, stream=False) as connection:
        assert engine.begun.acquire(timeout=LONG_S)
        monkeypatch.setattr(BoundedProtocol, "_give_up", noted)
        monkeypatch.setattr(server_module, "HEAD_S", 0.05)
        connection.sendall(HALF_HEAD)
        assert given_up.wait(LONG_S)
        engine.go_on.set()
        assert statuses(connection.recv(65536)) == [200]


@pytest.mark.parametrize("begun", [b"GET /health HTTP/1.1\r\n", CHUNKED + CHUNK + b"0\r\n"], ids=["head", "trailer"])
def test_endless_fields_end_the_connection(shared: Running, monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    monkeypatch.setattr(server_module, "HEAD_S", LONG_S)
    received(shared, begun + b"X: " + b"a" * 5_000_000)
    received(shared, begun + b"X: a\r\n" * 500_000)


def test_body_that_does_not_come_is_refused_in_time(serve: Serve) -> None:
    server = serve(EchoEngine(), body_s=0.1)
    for path, kind in (("/v1/search", "application/json"), ("/v1/documents", "multipart/form-data; boundary=x")):
        head = f"POST {path} HTTP/1.1\nHost: localhost\nContent-Type: {kind}\nContent-Length: 100\n\n"
        with connected(server, head, b"--x") as connection:
            received = everything(connection)
            assert received.startswith(b"HTTP/1.1 408 ")
            assert b"request_timeout" in received
    assert server.service.uploading.running == 0


def is_served(server: Running) -> bool:
    """Over a connection of its own."""
    with connected(server, "GET /health HTTP/1.1\nHost: localhost\nConnection: close\n\n") as connection:
        return everything(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system ends such connections only on Linux")
@pytest.mark.laws
def test_client_that_does_not_read_loses_its_connection_and_its_generation(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "UNREAD_S", 1)
    server = serve(engine := LongEngine())
    with asking(server, stream=True, reads=False):
        assert engine.was_cancelled.wait(LONG_S)
        eventually(lambda: server.service.reading.running == 0)


# --- many connections -------------------------------------------------------------------------------------------------

MANY = 300
HALF_HEAD = b"GET /health HTTP/1.1\r\nHost: local"
NO_BODY = POST + b"Content-Length: 100\r\n\r\n{"


@contextmanager
def many(server: Running, sent: bytes, count: int = MANY) -> Iterator[list[socket.socket]]:
    with ExitStack() as held:
        found = [held.enter_context(socket.create_connection(("127.0.0.1", server.port), LONG_S)) for _ in range(count)]
        for connection in found:
            connection.sendall(sent)
        yield found


@pytest.mark.parametrize("sent", [b"", HALF_HEAD, NO_BODY], ids=["nothing", "half a head", "no body"])
def test_clients_that_send_half_block_no_request(shared: Running, sent: bytes) -> None:
    with many(shared, sent):
        seen = {shared.client.get("/health").status_code for _ in range(50)}  # over one connection
        for _ in range(5):
            with httpx.Client(base_url=shared.url, timeout=LONG_S, trust_env=False) as client:
                seen.add(client.post("/v1/search", json={"query": "bridge"}).status_code)
    assert seen == {200}


@pytest.mark.laws
def test_requests_sent_before_many_halves_are_answered(serve: Serve) -> None:
    server = serve(engine := WaitingEngine())
    with ThreadPoolExecutor(1) as clients:
        early = clients.submit(server.ask, QUESTION)
        assert engine.begun.acquire(timeout=LONG_S)
        with many(server, NO_BODY), many(server, HALF_HEAD):
            assert is_served(server)
            engine.go_on.set()
            assert early.result(LONG_S).status_code == 200
