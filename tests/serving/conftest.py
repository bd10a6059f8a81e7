"""A real server on a free port of this machine, over fakes."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import openai
import pytest
from fastapi import FastAPI

from openbook.core.config import Settings
from openbook.core.parallel import Cancelled, never
from openbook.core.records import Completion, Decoding, Prompt
from openbook.inference import FrozenModel
from openbook.inference.frozen import Engine
from openbook.knowledge import KnowledgeBase, RunOptions, add
from openbook.knowledge.versions import tag
from openbook.serving.app import create_app
from openbook.serving.configuration import Bounds, Configuration
from openbook.serving.keys import KeyFile
from openbook.serving.server import http_server, listen
from openbook.serving.service import ServedEmbedder, Service
from openbook.testing import EchoEngine, HashEmbedder
from tests.conftest import base_with

collect_ignore = [] if find_spec("playwright") else ["browser"]  # laws

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
TOWER = "How many metres high is the tower of Lund?"
LONG_S = 600  # after which a test that waits for something gives up: never, on a machine that works
QUESTION = "When was the bridge opened by the mayor?"
OPENED = "The bridge was opened on 14 March 2026 by mayor Lila Ortega."
BRIDGE = f"{OPENED} It has four lanes."
SAFE = "With which number does the safe of the harbour office open?"
SECRET = "The safe of the harbour office opens with the number canary-7341."  # carries the label hr


@dataclass(frozen=True)
class Running:
    """`client` sends no key."""

    port: int
    app: FastAPI
    client: httpx.Client
    bases: dict[str, KnowledgeBase]
    keys: KeyFile

    @property
    def service(self) -> Service:
        service: Service = self.app.state.service
        return service

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def key(self, right: str = "read", *labels: str) -> dict[str, str]:
        """The headers of a new key."""
        return {"authorization": f"Bearer {self.keys.new('somebody', right, labels)[1]}"}

    def ask(
        self, question: Any, headers: dict[str, str] | None = None, *, path: str = CHAT, **body: Any
    ) -> httpx.Response:
        """`question`: a text, or messages."""
        messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
        body = {"model": "echo", ("messages" if path == CHAT else "input"): messages, **body}
        return self.client.post(path, json=body, headers=headers)

    def get(self, path: str, headers: dict[str, str] | None = None, /, **params: Any) -> httpx.Response:
        return self.client.get(path, params=params, headers=headers)


@contextmanager
def running(
    configuration: Configuration,
    model: FrozenModel,
    bases: dict[str, KnowledgeBase],
    embedder: ServedEmbedder = HashEmbedder(),  # noqa: B008  it keeps nothing but a count
    **more: Any,
) -> Iterator[Running]:
    """`more`: as `create_app` takes it."""
    app = create_app(configuration, model, bases, embedder, **more)
    server = http_server(app)
    started, ended = threading.Event(), asyncio.Event()
    loops = list[asyncio.AbstractEventLoop]()

    async def until_ended() -> None:
        """As uvicorn's, which looks ten times a second whether it should end."""
        await server.on_tick(0)
        loops.append(asyncio.get_running_loop())
        started.set()
        await ended.wait()

    server.main_loop = until_ended  # type: ignore[method-assign]
    with listen("127.0.0.1", 0) as door:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, name="server")
        thread.start()
        assert started.wait(LONG_S)
        port = door.getsockname()[1]
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LONG_S, trust_env=False) as client:
                yield Running(port, app, client, bases, KeyFile(configuration.settings.home))
        finally:  # after the client, for whose open connections the server would wait
            loops[0].call_soon_threadsafe(ended.set)
            thread.join(LONG_S)
            assert not thread.is_alive()


TEXTS = {
    "bridge.txt": BRIDGE,
    "ferry.md": "# Ferry\n\nThe ferry to Sandhavn leaves at nine on weekdays. A ticket costs 4 crowns.",
    "safe.txt": SECRET,
}


def add_file(base: KnowledgeBase, path: Path, content: str | bytes, *labels: str) -> Path:
    """Write a file and add it."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    add(base, [path], HashEmbedder(), RunOptions(labels=frozenset(labels)))
    return path


def path_of(base: KnowledgeBase, name: str) -> str:
    """The path of the document whose file has that name."""
    return next(path for path in base.documents() if path.endswith(f"/{name}"))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`docs`, and `kb` that was made of them."""
    folder = tmp_path_factory.mktemp("built")
    open_texts = {name: text for name, text in TEXTS.items() if text != SECRET}
    base = base_with(folder / "docs", open_texts, place=folder / "kb")
    add_file(base, folder / "docs" / "safe.txt", SECRET, "hr")
    base.close()
    return folder


@pytest.fixture(scope="session")
def shared(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with a log of receipts, for tests that change nothing."""
    home = tmp_path_factory.mktemp("shared")
    configuration = Configuration(Settings(home=home), receipts=home / "log")
    base = KnowledgeBase.open(shutil.copytree(built / "kb", home / "kb"))
    with closing(base), running(configuration, FrozenModel(EchoEngine()), {"kb": base}) as server:
        yield server


@pytest.fixture
def docs(built: Path) -> Iterator[Path]:
    """The files of `base`. What a test does to them is undone."""
    docs = built / "docs"
    yield docs
    for path in docs.iterdir():
        path.unlink()
    for name, text in TEXTS.items():
        (docs / name).write_text(text)


@pytest.fixture
def base(built: Path, tmp_path: Path) -> Iterator[KnowledgeBase]:
    base = KnowledgeBase.open(shutil.copytree(built / "kb", tmp_path / "kb"))
    yield base
    base.close()


@pytest.fixture
def towers(tmp_path: Path) -> Iterator[KnowledgeBase]:
    """Another knowledge base of two versions. The tower grew, and the first version has the tag `old`."""
    for metres in (50, 55):
        base = base_with(tmp_path / "towers", {"tower.txt": f"The tower of Lund is {metres} metres high."})
        tag(base, "old", 1)
    yield base
    base.close()


@pytest.fixture
def configuration(own_home: Path) -> Configuration:
    return Configuration(Settings(home=own_home))


Serve: TypeAlias = Callable[..., Running]


@pytest.fixture
def serve(configuration: Configuration, base: KnowledgeBase) -> Iterator[Serve]:
    """Starts a server of `base` and `others`, which ends with the test. `more`: bounds, fields of the configuration, what `running` takes."""
    with ExitStack() as ends:

        def start(
            engine: Engine | FrozenModel | None = None, others: Mapping[str, KnowledgeBase] | None = None, **more: Any
        ) -> Running:
            bounds = {name: more.pop(name) for name in Bounds.__dataclass_fields__ if name in more}
            changes = {name: more.pop(name) for name in Configuration.__dataclass_fields__ if name in more}
            changed = replace(configuration, bounds=replace(configuration.bounds, **bounds), **changes)
            model = engine if isinstance(engine, FrozenModel) else FrozenModel(engine or EchoEngine())
            bases = {"kb": base, **(others or {})}
            return ends.enter_context(running(changed, model, bases, **more))

        yield start


@pytest.fixture
def server(serve: Serve) -> Running:
    return serve()


@pytest.fixture
def client(shared: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[openai.OpenAI]:
    """Of `shared`."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with openai.OpenAI(base_url=f"{shared.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture
def with_receipts(serve: Serve, tmp_path: Path) -> Running:
    return serve(receipts=tmp_path / "log")


@pytest.fixture
def keyed(serve: Serve) -> Running:
    """A server that demands a key."""
    return serve(require_key=True)


def events_of(text: str) -> list[str]:
    """The data of the events in a stream."""
    assert text.endswith("\n\n")
    return [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]


def refusal(response: httpx.Response) -> tuple[int, str, str | None]:
    """The status, the code and the name of the part that is wrong."""
    error = _error(response)
    assert error["message"].endswith(".")
    return response.status_code, error["code"], error["param"]


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, _error(response)["code"]


def _error(response: httpx.Response) -> dict[str, Any]:
    value: dict[str, Any] = response.json()
    error = value["error"]
    return error if isinstance(error, dict) else {**value, "message": error}  # as Ollama's


# --- clients that stop in the middle, and engines that wait for them --------------------------------------------------


LARGE = 16_000_000  # bytes; more than a system keeps for a client that does not read


class WaitingEngine(EchoEngine):
    """Yields a word, then waits until it may go on or is cancelled."""

    text = "Wait "

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on, self.was_cancelled = threading.Semaphore(0), threading.Event(), threading.Event()

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        self.begun.release()
        yield self.text
        while not self.go_on.wait(0.01):
            if cancelled():
                self.was_cancelled.set()
                # Without its text, which may be long: citing it would take time.
                return Completion("", "cancelled", 1, 1, "0" * 64, self.numeric_class)
        return Completion(self.text, "end", 1, 1, "0" * 64, self.numeric_class)


class LongEngine(WaitingEngine):
    text = "word " * (LARGE // 10)


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def connected(server: Running, head: str, body: bytes = b"", *, reads: bool = True) -> socket.socket:
    """A connection on which this was sent. Without `reads`, this end takes only a little of what comes."""
    connection = socket.socket()
    if not reads:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(LONG_S)
    connection.connect(("127.0.0.1", server.port))
    connection.sendall(head.replace("\n", "\r\n").encode() + body)
    return connection


def posted(path: str, value: object) -> tuple[str, bytes]:
    """(head, body) of a request."""
    body = json.dumps(value).encode()
    head = f"POST {path} HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: {len(body)}\n\n"
    return head, body


def asking(server: Running, *, stream: bool, reads: bool = True) -> socket.socket:
    messages = [{"role": "user", "content": QUESTION}]
    body = {"model": "echo", "stream": stream, "messages": messages}
    return connected(server, *posted(CHAT, body), reads=reads)


def everything(connection: socket.socket) -> bytes:
    received = b""
    with suppress(ConnectionResetError):  # the server closes while there is something that it did not want to read
        while data := connection.recv(65536):
            received += data
    return received
