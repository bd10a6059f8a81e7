"""A real server on a free port of this machine, over fakes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.trace import TracerProvider

from openbook.config import Settings
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, RunOptions, add
from openbook.serving.app import create_app
from openbook.serving.configuration import Configuration
from openbook.serving.keys import KeyFile
from openbook.serving.renewing import Source
from openbook.serving.server import listen, make_server
from openbook.serving.service import ServedEmbedder, Service
from openbook.testing import HashEmbedder, echo_model
from tests.serving.described import Described

LONG_S = 600  # after which a test that waits for something gives up: never, on a machine that works
SECRET = "The safe of the harbour office opens with the number canary-7341."  # carries the label hr


@dataclass(frozen=True)
class Running:
    """`client` sends no key."""

    port: int
    service: Service
    client: httpx.Client
    bases: dict[str, KnowledgeBase]
    keys: KeyFile

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def key(self, right: str = "read", *labels: str) -> dict[str, str]:
        """The headers of a new key."""
        return {"authorization": f"Bearer {self.keys.new('somebody', right, labels)[1]}"}

    def ask(self, question: str, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        messages = [{"role": "user", "content": question}]
        body = {"model": "echo", "messages": messages, **body}
        return self.client.post("/v1/chat/completions", json=body, headers=headers)


@contextmanager
def running(
    configuration: Configuration,
    model: FrozenModel,
    bases: dict[str, KnowledgeBase],
    embedder: ServedEmbedder = HashEmbedder(),  # noqa: B008  it keeps nothing but a count
    tracers: TracerProvider | None = None,
    source: Source | None = None,
) -> Iterator[Running]:
    app = create_app(configuration, model, bases, embedder, tracers, source)
    server = make_server(app, configuration.bounds)
    started = threading.Event()
    startup = server.startup

    async def tell(sockets: Any = None) -> None:
        await startup(sockets)
        started.set()

    server.startup = tell  # type: ignore[method-assign]
    with listen("127.0.0.1", 0) as door:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, name="server")
        thread.start()
        assert started.wait(LONG_S)
        port = door.getsockname()[1]
        hooks = {"response": [Described(app.state.description).check]}
        address = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=address, timeout=LONG_S, trust_env=False, event_hooks=hooks) as client:
            try:
                yield Running(port, app.state.service, client, bases, KeyFile(configuration.settings.home))
            finally:
                server.should_exit = True
                thread.join(LONG_S)
                assert not thread.is_alive()


@pytest.fixture
def base(tmp_path: Path, embedder: HashEmbedder) -> Iterator[KnowledgeBase]:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "bridge.txt").write_text("The bridge was opened on 14 March 2026 by mayor Lila Ortega. It has four lanes.")
    (docs / "ferry.md").write_text(
        "# Ferry\n\nThe ferry to Sandhavn leaves at nine on weekdays. A ticket costs 4 crowns."
    )
    (docs / "safe.txt").write_text(SECRET)
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity, base_id="0" * 32)
    add(base, [docs / "bridge.txt", docs / "ferry.md"], embedder)
    add(base, [docs / "safe.txt"], embedder, RunOptions(labels=frozenset({"hr"})))
    yield base
    base.close()


@pytest.fixture
def configuration(own_home: Path) -> Configuration:
    return Configuration(Settings(home=own_home))


@pytest.fixture
def server(configuration: Configuration, base: KnowledgeBase) -> Iterator[Running]:
    with running(configuration, echo_model(), {"kb": base}) as found:
        yield found


@pytest.fixture
def with_receipts(configuration: Configuration, base: KnowledgeBase, tmp_path: Path) -> Iterator[Running]:
    with running(replace(configuration, receipts=tmp_path / "log"), echo_model(), {"kb": base}) as found:
        yield found


@pytest.fixture
def keyed(configuration: Configuration, base: KnowledgeBase) -> Iterator[Running]:
    """A server that demands a key."""
    with running(replace(configuration, require_key=True), echo_model(), {"kb": base}) as found:
        yield found


def events_of(text: str) -> list[str]:
    """The data of the events in a stream."""
    assert text.endswith("\n\n")
    return [each.removeprefix("data: ") for each in text.removesuffix("\n\n").split("\n\n")]
