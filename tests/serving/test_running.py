"""Places, queue, time, and clients that go away. Nothing here depends on how long something takes."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from openbook.inference import FrozenModel
from openbook.inference.frozen import Cancelled, never
from openbook.knowledge import KnowledgeBase
from openbook.records import Completion, Decoding, Prompt
from openbook.serving.configuration import Bounds, Configuration
from openbook.serving.server import listen
from openbook.testing import EchoEngine, echo_model
from tests.serving.conftest import LONG_S, Running, running

QUESTION = "When was the bridge opened by the mayor?"
LARGE = 16_000_000  # bytes; more than a system keeps for a client that does not read


class WaitingEngine(EchoEngine):
    """Yields one word, then waits until it may go on or is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on, self.was_cancelled = threading.Semaphore(0), threading.Event(), threading.Event()

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        self.begun.release()
        yield "Wait "
        while not self.go_on.wait(0.01):
            if cancelled():
                self.was_cancelled.set()
                return Completion("Wait ", "cancelled", 1, 1, "0" * 64, self.numeric_class)
        return Completion("Wait ", "end", 1, 1, "0" * 64, self.numeric_class)


class LongEngine(EchoEngine):
    """Writes more than a system keeps for a client that does not read, then waits until it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.was_cancelled = threading.Event()

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        for _ in range(2):
            yield "word " * (LARGE // 10)
        while not cancelled():
            time.sleep(0.01)
        self.was_cancelled.set()
        return Completion("word", "cancelled", 1, 1, "0" * 64, self.numeric_class)


def bounded(configuration: Configuration, **bounds: float) -> Configuration:
    return replace(configuration, bounds=replace(Bounds(), **bounds))  # type: ignore[arg-type]  # counts are whole here


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def connected(server: Running, head: str, body: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=LONG_S)
    connection.sendall(head.replace("\n", "\r\n").encode() + body)
    return connection


def asking(server: Running, *, stream: bool) -> socket.socket:
    body = json.dumps({"model": "echo", "stream": stream, "messages": [{"role": "user", "content": QUESTION}]}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\nHost: localhost\nContent-Type: application/json\n"
    return connected(server, f"{head}Content-Length: {len(body)}\n\n", body)


def everything(connection: socket.socket) -> bytes:
    received = b""
    with suppress(ConnectionResetError):  # the server closes while there is something that it did not want to read
        while data := connection.recv(65536):
            received += data
    return received


@pytest.mark.parametrize("stream", [False, True])
def test_the_generation_ends_when_the_client_goes(
    configuration: Configuration, base: KnowledgeBase, stream: bool
) -> None:
    engine = WaitingEngine()
    with running(configuration, FrozenModel(engine), {"kb": base}) as server:
        connection = asking(server, stream=stream)
        assert engine.begun.acquire(timeout=LONG_S)
        if stream:
            assert b"200 OK" in connection.recv(65536)
        connection.close()
        assert engine.was_cancelled.wait(LONG_S)
        eventually(lambda: server.service.reading.running == 0)
        assert server.client.get("/health").status_code == 200


def test_beyond_the_queue_a_request_is_sent_away_and_none_is_lost(
    configuration: Configuration, base: KnowledgeBase
) -> None:
    engine = WaitingEngine()
    with (
        running(bounded(configuration, running=1, waiting=2), FrozenModel(engine), {"kb": base}) as server,
        ThreadPoolExecutor(3) as clients,
    ):
        first = clients.submit(server.ask, QUESTION)
        assert engine.begun.acquire(timeout=LONG_S)
        others = [clients.submit(server.ask, QUESTION) for _ in range(2)]
        eventually(lambda: server.service.reading.waiting == 2)
        for response in (server.ask(QUESTION), server.ask(QUESTION, stream=True), server.client.get("/v1/documents")):
            assert response.status_code == 429
            assert int(response.headers["retry-after"]) > 0
            assert response.json()["error"]["type"] == "requests"
        assert 'openbook_waiting{gate="reading"} 2.0' in server.client.get("/metrics").text
        engine.go_on.set()
        assert [each.result(LONG_S).status_code for each in (first, *others)] == [200, 200, 200]


def test_who_goes_while_waiting_is_never_computed_for(configuration: Configuration, base: KnowledgeBase) -> None:
    engine = WaitingEngine()
    with running(bounded(configuration, running=1), FrozenModel(engine), {"kb": base}) as server:
        first = asking(server, stream=True)
        assert engine.begun.acquire(timeout=LONG_S)
        second = asking(server, stream=False)
        eventually(lambda: server.service.reading.waiting == 1)
        second.close()
        third = asking(server, stream=True)
        eventually(lambda: server.service.reading.waiting == 2)
        first.close()
        assert engine.begun.acquire(timeout=LONG_S)
        eventually(lambda: server.service.reading.waiting == 0)
        engine.go_on.set()
        assert b"200 OK" in third.recv(65536)
        third.close()
        eventually(lambda: server.service.reading.running == 0)
        assert not engine.begun.acquire(blocking=False)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_is_broken_off_and_says_so(
    configuration: Configuration, base: KnowledgeBase, stream: bool
) -> None:
    with running(bounded(configuration, answer_s=0.2), FrozenModel(WaitingEngine()), {"kb": base}) as server:
        response = server.ask(QUESTION, stream=stream)
        assert '"code":"timeout"' in response.text.replace(" ", "")
        assert "[DONE]" not in response.text
        if not stream:
            assert response.status_code == 504


def test_a_server_that_ends_lets_answers_end(configuration: Configuration, base: KnowledgeBase) -> None:
    engine = WaitingEngine()
    with ThreadPoolExecutor(1) as clients:
        with running(configuration, FrozenModel(engine), {"kb": base}) as server:
            asked = clients.submit(server.ask, QUESTION)
            assert engine.begun.acquire(timeout=LONG_S)
            threading.Timer(0.05, engine.go_on.set).start()
        assert asked.result(LONG_S).status_code == 200


# --- slow clients -----------------------------------------------------------------------------------------------------


def test_a_head_that_does_not_end_ends_the_connection(configuration: Configuration, base: KnowledgeBase) -> None:
    with running(bounded(configuration, head_s=0.1), FrozenModel(EchoEngine()), {"kb": base}) as server:
        for head in ("", "GET /health HTTP/1.1\nHost: local"):
            with connected(server, head) as connection:
                assert everything(connection) == b""
        answered = False
        while not answered:  # on a machine that is busy the first head may come late too
            with connected(server, "GET /health HTTP/1.1\nHost: localhost\n\n") as connection:
                received = b""
                while b'"ok"' not in received and (data := connection.recv(65536)):
                    received += data
                answered = b'"ok"' in received
                with suppress(OSError):
                    connection.sendall(b"GET /health HTTP/1.1\r\nHo")
                assert everything(connection) == b""


def test_a_body_that_does_not_come_is_not_waited_for(configuration: Configuration, base: KnowledgeBase) -> None:
    with running(bounded(configuration, body_s=0.1), FrozenModel(EchoEngine()), {"kb": base}) as server:
        for path, kind in (("/v1/search", "application/json"), ("/v1/documents", "multipart/form-data; boundary=x")):
            head = f"POST {path} HTTP/1.1\nHost: localhost\nContent-Type: {kind}\nContent-Length: 100\n\n"
            with connected(server, head, b"--x") as connection:
                received = everything(connection)
                assert received.startswith(b"HTTP/1.1 408 ")
                assert b"request_timeout" in received
        assert server.service.receiving.running == 0


@pytest.fixture
def large_report(configuration: Configuration, tmp_path: Path) -> Configuration:
    report = tmp_path / "report.html"
    report.write_bytes(b" " * LARGE)
    return replace(configuration, report=report)


def not_reading(server: Running, head: str, body: bytes = b"") -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(LONG_S)
    connection.connect(("127.0.0.1", server.port))
    connection.sendall(head.replace("\n", "\r\n").encode() + body)
    return connection


def is_served(server: Running) -> bool:
    """Over a connection of its own."""
    with connected(server, "GET /health HTTP/1.1\nHost: localhost\nConnection: close\n\n") as connection:
        return everything(connection).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_does_not_read_loses_its_connection(large_report: Configuration, base: KnowledgeBase) -> None:
    with running(bounded(large_report, write_s=0.2, connections=1), echo_model(), {"kb": base}) as server:
        with not_reading(server, "GET /report HTTP/1.1\nHost: localhost\n\n") as connection:
            eventually(lambda: is_served(server))
            assert len(everything(connection)) < LARGE
        assert is_served(server)


def test_a_client_that_does_not_read_a_stream_ends_its_generation(
    configuration: Configuration, base: KnowledgeBase
) -> None:
    engine = LongEngine()
    with running(bounded(configuration, write_s=0.2), FrozenModel(engine), {"kb": base}) as server:
        body = json.dumps(
            {"model": "echo", "stream": True, "messages": [{"role": "user", "content": QUESTION}]}
        ).encode()
        head = "POST /v1/chat/completions HTTP/1.1\nHost: localhost\nContent-Type: application/json\n"
        with not_reading(server, f"{head}Content-Length: {len(body)}\n\n", body):
            assert engine.was_cancelled.wait(LONG_S)
            eventually(lambda: server.service.reading.running == 0)


def test_a_client_that_reads_gets_everything(large_report: Configuration, base: KnowledgeBase) -> None:
    with (
        running(large_report, echo_model(), {"kb": base}) as server,
        connected(server, "GET /report HTTP/1.1\nHost: localhost\nConnection: close\n\n") as connection,
    ):
        assert len(everything(connection).partition(b"\r\n\r\n")[2]) == LARGE


def test_what_is_written_is_sent_at_once() -> None:
    with (
        listen("127.0.0.1", 0) as door,
        socket.create_connection(door.getsockname()),
        door.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
