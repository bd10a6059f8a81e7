"""A request that is cancelled while the server says nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue

import pytest

from openbook.inference import connect_model
from openbook.records import Completion, Decoding
from openbook.testing import PROMPT


class SilentServer(ThreadingHTTPServer):
    """Sends as many words as the model's name says, and then nothing more, until the client hangs up."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fell_silent = threading.Event()
        self.after_that: SimpleQueue[bytes] = SimpleQueue()


class _Handler(BaseHTTPRequestHandler):
    server: SilentServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        words = int(body["model"])
        if words:
            self.send_response(200)
            self.end_headers()
        for _ in range(words):
            self.wfile.write(b'data: {"choices": [{"delta": {"content": "word "}}]}\n\n')
        self.server.fell_silent.set()
        self.server.after_that.put(self.rfile.read(1))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        pass


@pytest.fixture
def server() -> Iterator[SilentServer]:
    server = SilentServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("words", [0, 2])
def test_a_silent_server_is_hung_up_on(server: SilentServer, words: int) -> None:
    shown: list[str] = []

    def cancelled() -> bool:
        return server.fell_silent.is_set() and len(shown) == words

    with closing(connect_model(str(words), base_url=f"http://127.0.0.1:{server.server_port}/v1")) as model:
        stream = model.stream(PROMPT, Decoding(), cancelled)
        while True:
            try:
                shown.append(next(stream))
            except StopIteration as done:
                completion: Completion = done.value
                break
    assert (completion.text, completion.finish_reason) == ("word " * words, "cancelled")
    assert server.after_that.get(timeout=30) == b"", "the server sees that nobody listens any more"
