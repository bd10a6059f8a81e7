"""A promoted model answers later requests; those in progress end with the model that they began with."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from openbook.core.errors import ModelNotVerified
from openbook.core.records import Digest, ModelIdentity, sha256_hex
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from openbook.models import ModelStore, import_gguf
from openbook.models.gguf import ValueType
from openbook.serving.configuration import Configuration
from openbook.serving.model_reload import CurrentModel, ModelSource, named_in_store
from tests.models.gguf_files import Recipe
from tests.serving.conftest import LONG_S, QUESTION, Running, Serve, WaitingEngine, asking, eventually, running


class Engine(WaitingEngine):
    """Answers at once, unless `go_on` is cleared; tells that it was closed."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.go_on.set()
        self.digest = sha256_hex(b"%d" % number)
        self.identity = ModelIdentity("echo", self.digest, "verified")
        self.closed = threading.Event()

    def close(self) -> None:
        assert not self.closed.is_set()
        self.closed.set()
        super().close()


class Named:
    """A name that means one of some engines. `may_open`: an opening waits for it."""

    def __init__(self, *engines: Engine) -> None:
        self.engines, self.now, self.opened = engines, 0, 0
        self.may_open, self.fails = threading.Event(), False
        self.may_open.set()

    @property
    def source(self) -> ModelSource:
        return ModelSource(lambda: self.now, self._open)

    def _open(self, digest: Digest) -> FrozenModel | None:
        engine = self.engines[self.now]
        if engine.digest == digest:
            return None
        self.opened += 1
        assert self.may_open.wait(LONG_S)
        if self.fails:
            raise ModelNotVerified("A byte of it is another one.")
        return FrozenModel(engine)


@pytest.fixture
def name() -> Named:
    return Named(*map(Engine, range(3)))


@pytest.fixture
def renewed(serve: Serve, name: Named) -> Running:
    return serve(name.engines[0], source=name.source)


def digest_of(server: Running) -> str:
    digest: str = server.ask(QUESTION).json()["openbook"]["receipt"]["model"]["digest"]
    return digest


def until_answers(server: Running, engine: Engine) -> None:
    eventually(lambda: digest_of(server) == engine.digest)


def test_later_requests_get_the_model_that_the_name_means_now(
    configuration: Configuration, base: KnowledgeBase, name: Named
) -> None:
    """While it is opened, the old one answers. The last one is closed with the server."""
    first, second, third = name.engines
    with running(configuration, FrozenModel(first), {"kb": base}, source=name.source) as renewed:
        assert [digest_of(renewed) for _ in range(3)] == [first.digest] * 3
        assert name.opened == 0
        name.may_open.clear()
        name.now = 1
        assert [digest_of(renewed) for _ in range(5)] == [first.digest] * 5
        eventually(lambda: name.opened == 1)
        assert not first.closed.is_set()
        name.may_open.set()
        until_answers(renewed, second)
        assert first.closed.wait(LONG_S)
        models = renewed.client.get("/v1/models").json()["data"]
        assert models[0]["openbook"]["digest"] == second.digest
        name.now = 2
        until_answers(renewed, third)
        assert second.closed.wait(LONG_S)
        assert (third.closed.is_set(), name.opened) == (False, 2)
    assert third.closed.is_set()


def test_request_in_progress_keeps_its_model(renewed: Running, name: Named) -> None:
    """Which is closed when the last of its clients has its answer or has gone."""
    first, second, _ = name.engines
    first.go_on.clear()
    with ThreadPoolExecutor(2) as clients:
        whole, streamed = (clients.submit(renewed.ask, QUESTION, stream=stream) for stream in (False, True))
        leaves = asking(renewed, stream=True)
        for _ in range(3):
            assert first.begun.acquire(timeout=LONG_S)
        name.now = 1
        assert renewed.client.get("/health").status_code == 200  # any request notices it
        until_answers(renewed, second)
        leaves.close()
        assert first.was_cancelled.wait(LONG_S)
        assert not first.closed.is_set()
        first.go_on.set()
        value: dict[str, Any] = whole.result(LONG_S).json()
    assert value["openbook"]["receipt"]["model"]["digest"] == first.digest
    assert value["system_fingerprint"] != renewed.ask(QUESTION).json()["system_fingerprint"]
    assert first.digest in streamed.result(LONG_S).text
    assert first.closed.wait(LONG_S)


def test_model_that_cannot_be_opened_is_logged_once_and_the_old_one_stays(
    renewed: Running, name: Named, caplog: pytest.LogCaptureFixture
) -> None:
    first, _, third = name.engines
    name.fails, name.now = True, 1
    with caplog.at_level(logging.ERROR, "openbook.serving"):
        eventually(lambda: digest_of(renewed) == first.digest and bool(caplog.records))
        assert [digest_of(renewed) for _ in range(3)] == [first.digest] * 3
    assert name.opened == 1
    assert ["A byte of it is another one." in each.getMessage() for each in caplog.records] == [True]
    name.fails, name.now = False, 2
    until_answers(renewed, third)


def test_model_opened_after_the_end_is_closed_and_the_first_is_left_to_its_owner(name: Named) -> None:
    models = CurrentModel(FrozenModel(name.engines[0]), name.source)
    name.may_open.clear()
    name.now = 1
    with models.lease() as model:
        eventually(lambda: name.opened == 1)
        models.end()
        name.may_open.set()
        assert name.engines[1].closed.wait(LONG_S)
        assert model.identity.digest == name.engines[0].digest
    assert not name.engines[0].closed.is_set()


def test_promoted_name_in_the_store_is_noticed(tmp_path: Path) -> None:
    store, digests = ModelStore(tmp_path / "models"), list[Digest]()
    for seed in range(2):
        template = Recipe().with_value("tokenizer.chat_template", ValueType.STRING, f"{{{{ messages }}}}{seed}")
        (tmp_path / f"{seed}.gguf").write_bytes(template.build())
        digests.append(import_gguf(store, tmp_path / f"{seed}.gguf", name=f"model-{seed}").digest)
    store.set_name("served", digests[0])
    new = FrozenModel(Engine(1))
    source = named_in_store(store.root, "served", lambda: new)
    before = source.stamp()
    assert before is not None
    assert (source.stamp(), source.open(digests[0])) == (before, None)
    store.set_name("served", digests[1])
    assert source.stamp() not in (None, before)
    assert (source.open(digests[0]), source.open(digests[1])) == (new, None)
    store.rollback("served")
    assert source.open(digests[0]) is None
    for name in ("other", digests[0], "../models", ""):
        assert named_in_store(store.root, name, lambda: new).stamp() is None
