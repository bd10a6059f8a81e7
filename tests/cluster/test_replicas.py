"""Replicas on a small Ray of this machine: the conformance suite of engines, and the server's promises over them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray import serve

from openbook.cluster import replicas
from openbook.cluster.replicas import (
    AffinityRouter,
    EngineReplica,
    OpenModel,
    Replicas,
    ReplicatedEngine,
    affinity_key,
    by_machine,
)
from openbook.core.config import Settings
from openbook.core.derived import DerivedFolder
from openbook.core.errors import ClusterError, ConfigError, EngineError
from openbook.core.parallel import Cancelled, never
from openbook.core.records import Completion, Decoding, Digest, Prompt
from openbook.inference import FrozenModel, prompt_counter
from openbook.inference.frozen import Engine
from openbook.inference.kv_cache import KVCache
from openbook.knowledge import KnowledgeBase
from openbook.models import ModelReference, ModelStore
from openbook.serving.configuration import Bounds, Configuration
from openbook.serving.model_reload import ModelSource
from openbook.testing import EchoEngine
from tests.cli.conftest import Out
from tests.cluster.engines import WAIT, WHO, follow, no_model, stored_model, told_model
from tests.conformance.models import EngineSuite
from tests.conftest import base_with
from tests.serving.conftest import LONG_S, Running, connected, eventually, posted, running
from tests.serving.test_stateless import answer

pytestmark = [pytest.mark.laws, pytest.mark.filterwarnings("ignore::ResourceWarning")]

DOCS = {f"{name}.txt": f"The {name} of the harbour opens at {hour} and closes at dusk." for hour, name in enumerate(
    "bridge ferry office market library museum station theatre".split(), 6)}  # fmt: skip


# --- which replica ----------------------------------------------------------------------------------------------------


def test_the_key_is_that_of_the_first_passage_whatever_is_asked() -> None:
    first = Prompt("Answer.", ("a", "b"), "Who?")
    assert affinity_key(first) == affinity_key(replace(first, passages=("a", "c"), question="When?"))
    assert affinity_key(first) != affinity_key(replace(first, passages=("b", "a")))
    assert affinity_key(replace(first, passages=())) == affinity_key(replace(first, passages=(), question="When?"))


MACHINES = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.sampled_from(["x", "y", "z"]), min_size=2)


@given(MACHINES, st.text(max_size=9), st.data())
def test_without_a_replica_only_keys_of_its_machine_move_and_the_others_keep_their_order(
    machines: dict[str, str], key: str, data: st.DataObject
) -> None:
    lost = data.draw(st.sampled_from(sorted(machines)))
    left = {replica: machine for replica, machine in machines.items() if replica != lost}
    before, after = by_machine(key, machines), by_machine(key, left)
    assert lost in before[0] or after[0] == before[0]
    assert sorted(each for group in before for each in group) == sorted(machines)
    kept = [[each for each in group if each != lost] for group in before]
    assert sorted(filter(None, kept)) == sorted(after)
    assert before == by_machine(key, dict(reversed(machines.items())))


def test_the_machine_of_a_key_outlives_the_replicas_and_those_with_more_have_more_keys() -> None:
    before = {"a": "x", "b": "x", "c": "y", "d": "z"}
    later = {"p": "y", "q": "z", "r": "x", "s": "x"}
    shares: Counter[str] = Counter()
    for key in map(str, range(4000)):
        machine = before[by_machine(key, before)[0][0]]
        assert later[by_machine(key, later)[0][0]] == machine
        shares[machine] += 1
    assert 1850 < shares["x"] < 2150
    assert min(shares.values()) > 900


@pytest.mark.parametrize("method", ["generate", "read_ahead"])
def test_what_is_read_ahead_waits_for_its_machine(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "_machine", str.upper)
    there: Any = [SimpleNamespace(replica_id=SimpleNamespace(unique_id=f"{n}"), node_id="xyz"[n % 3]) for n in range(6)]
    asked: Any = SimpleNamespace(args=["key", method, ()], routing_context=SimpleNamespace())
    router = AffinityRouter.__new__(AffinityRouter)
    chosen = [each for (each,) in asyncio.run(router.choose_replicas(there, asked))]
    assert len(chosen) == (2 if method == "read_ahead" else 6)
    assert chosen[0].node_id == chosen[1].node_id


# --- the engine -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replicas")


@pytest.fixture(scope="module")
def two(ray_session: None) -> Replicas:
    return Replicas.on_cluster(2, 2, 1)


@pytest.fixture(scope="module")
def model(two: Replicas, folder: Path) -> Iterator[FrozenModel]:
    """Two replicas."""
    found = opened(two, partial(told_model, folder))
    yield found
    found.close()


def opened(cluster: Replicas, open_model: OpenModel, digest: Digest = "1" * 64) -> FrozenModel:
    return cluster.open(open_model, bool, digest=digest, count=EchoEngine().count_prompt_tokens, states=KVCache())


def engine_of(model: FrozenModel) -> ReplicatedEngine:
    assert isinstance(model.engine, ReplicatedEngine)
    return model.engine


def beside(model: FrozenModel, numeric_class: str = "echo") -> ReplicatedEngine:
    """Another engine that asks the same replicas, and leaves them alone when it is closed."""
    engine = engine_of(model)
    about = replace(engine._about, numeric_class=numeric_class)
    return ReplicatedEngine(engine._handle, about, EchoEngine().count_prompt_tokens, KVCache())


class TestReplicated(EngineSuite):
    @pytest.fixture(autouse=True)
    def _model(self, model: FrozenModel) -> None:
        self.model_beside = model

    def make_engine(self) -> Engine:
        return beside(self.model_beside)


def process_of(model: FrozenModel, passage: str) -> int:
    return int(model.complete(Prompt("Answer.", (passage,), WHO)).text)


def processes(model: FrozenModel, passages: int = 24) -> dict[str, int]:
    return {passage: process_of(model, passage) for passage in map("passage {}".format, range(passages))}


def test_a_passage_is_read_by_one_replica_and_passages_are_spread(model: FrozenModel) -> None:
    first = processes(model)
    assert min(Counter(first.values()).values()) > 4
    assert len(set(first.values())) == 2
    assert processes(model) == first


def test_full_replica_passes_requests_on_and_where_all_are_full_they_wait(
    model: FrozenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "_BEGIN_S", 0.1)
    place = process_of(model, "a")
    with ThreadPoolExecutor(2 * replicas.RUNNING + 1) as pool:
        streams = [model.stream(Prompt("Answer.", ("a",), WAIT)) for _ in range(replicas.RUNNING)]
        assert [int(text) for text in pool.map(next, streams)] == [place] * replicas.RUNNING
        assert process_of(model, "a") != place
        others = [model.stream(Prompt("Answer.", ("a",), WAIT)) for _ in range(replicas.RUNNING)]
        assert place not in [int(text) for text in pool.map(next, others)]
        waiting = pool.submit(process_of, model, "a")
        list(pool.map(lambda stream: stream.close(), [*streams, *others]))
        assert waiting.result(LONG_S)
    eventually(lambda: process_of(model, "a") == place)


def test_another_numeric_class_is_refused(model: FrozenModel) -> None:
    engine = beside(model, "eight threads")
    stream = FrozenModel(engine).stream(Prompt("Answer.", ("A b c.",), "a b?"))
    with pytest.raises(EngineError, match=r"computes as 'echo', and the first one, on .*, as 'eight threads'\. Run"):
        next(stream)  # before anything is shown


def test_dead_replica_is_replaced_and_its_requests_are_asked_again_or_fail(model: FrozenModel) -> None:
    before = processes(model)
    lost = before["passage 0"]
    stream = model.stream(Prompt("Answer.", ("passage 0",), WAIT))
    assert int(next(stream)) == lost
    os.kill(lost, signal.SIGKILL)
    assert process_of(model, "passage 0") != lost  # asked of the other one, or of the next
    with pytest.raises(ClusterError, match=r"^The replica that was answering is gone\. Ask again\.$"):
        next(stream)
    after = processes(model)
    assert {passage: after[passage] for passage, place in before.items() if place != lost} == {
        passage: place for passage, place in before.items() if place != lost
    }
    eventually(lambda: len(set(processes(model).values())) == 2)


def test_replicas_that_cannot_start_say_why_in_a_sentence(two: Replicas) -> None:
    with pytest.raises(ClusterError, match=r"^The replicas cannot start: A byte of it is another one\.$"):
        opened(two, no_model)


def test_what_is_purged_goes_from_the_states_of_other_machines(
    two: Replicas, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = KVCache(tmp_path / "here"), KVCache(tmp_path / "there")
    there.put(b"a" * 32, b"state", there.purge_mark())
    monkeypatch.setattr(replicas, "_PURGE_S", 0.1)
    count = EchoEngine().count_prompt_tokens
    model = replace(two, least=1, most=1).open(
        partial(told_model, folder), partial(follow, tmp_path / "there"), digest="4" * 64, count=count, states=here
    )  # fmt: skip
    assert there.kept().states == 1
    with DerivedFolder(tmp_path / "here").purging(1.0):
        pass
    eventually(lambda: there.kept().states == 0)
    model.close()


class MarkedEngine(EchoEngine):
    """Has the purge mark of its machine, and notes with which marks it is asked."""

    def __init__(self, own: str) -> None:
        super().__init__()
        self.own, self.marks = own, list[str | None]()

    def purge_mark(self) -> str:
        return self.own

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        self.marks.append(prompt.purge_mark)
        return super().generate(prompt, decoding, cancelled)


@pytest.mark.parametrize(
    ("own", "mark", "noted"),
    [
        ("server", "server", "server"),  # they share a home
        ("server there", "server", "server there"),  # this machine follows the server
        (" there", "", " there"),
        ("server there", "older", "older"),  # nothing is kept: there was a purge since the request began
        ("older there", "server", "server"),  # the replica is yet to be told
        ("server", "older", "older"),
        ("there", "", ""),
        ("there", None, None),
    ],
)
def test_a_replica_keeps_what_it_computes_only_if_it_knows_of_no_purge_since(
    own: str, mark: str | None, noted: str | None
) -> None:
    engine = MarkedEngine(own)
    replica = EngineReplica(lambda: FrozenModel(engine), lambda _: None)

    async def ask() -> None:
        async for _ in replica.compute("", "generate", (Prompt("", (), WHO, purge_mark=mark), Decoding())):
            pass

    asyncio.run(ask())
    assert engine.marks == [noted]


def test_a_request_has_the_purge_mark_of_the_server(tmp_path: Path) -> None:
    cache = KVCache(tmp_path / "here")
    about = replicas.About(EchoEngine().identity, None, "", 0, "here")
    engine = ReplicatedEngine(None, about, EchoEngine().count_prompt_tokens, cache)
    assert engine.purge_mark() == ""
    with DerivedFolder(tmp_path / "here").purging(1.0):
        pass
    assert engine.purge_mark() == DerivedFolder(tmp_path / "here").purge_mark() != ""


def test_more_threads_than_a_machine_has_cores_are_refused(ray_session: None) -> None:
    with pytest.raises(ConfigError, match="No machine of the Ray cluster has 3 cores; set OPENBOOK_THREADS to fewer"):
        Replicas.on_cluster(1, 1, 3)
    assert Replicas.on_cluster(1, 4, 0).threads == 1
    assert Replicas.on_cluster(1, 1, 0).threads == 2


def applications() -> list[str]:
    return list(serve.status().applications)


def test_what_a_killed_process_left_is_ended_by_the_next(
    two: Replicas, model: FrozenModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = "ff" * 4
    with monkeypatch.context() as patch:
        patch.setattr(replicas, "get_runtime_context", lambda: SimpleNamespace(get_job_id=lambda: killed))
        left = opened(replace(two, least=1, most=1), partial(told_model, folder))
    name, kept = engine_of(left)._handle.app_name, engine_of(model)._handle.app_name
    Replicas.on_cluster(1, 1, 1)
    assert {name, kept} <= set(applications())
    monkeypatch.setattr("ray._private.state.jobs", lambda: [{"JobID": killed, "IsDead": True}])
    Replicas.on_cluster(1, 1, 1)
    assert name not in applications()
    assert kept in applications()
    left.close()


# --- the server over it -----------------------------------------------------------------------------------------------


@pytest.fixture
def base(tmp_path: Path) -> Iterator[KnowledgeBase]:
    with closing(base_with(tmp_path, DOCS)) as base:
        yield base


@pytest.fixture
def configuration(own_home: Path) -> Configuration:
    return Configuration(Settings(home=own_home), bounds=replace(Bounds(), running=8))


@pytest.fixture
def server(configuration: Configuration, base: KnowledgeBase, model: FrozenModel) -> Iterator[Running]:
    with running(configuration, FrozenModel(beside(model)), {"kb": base}) as found:
        yield found


def bodies(name: str = "echo") -> list[dict[str, Any]]:
    return [
        {"model": name, "messages": [{"role": "user", "content": f"When does the {thing} open?"}], "stream": stream}
        for thing in [path.partition(".")[0] for path in DOCS]
        for stream in (False, True)
    ]


def test_equal_requests_give_the_bytes_of_the_one_process_server(
    server: Running, configuration: Configuration, base: KnowledgeBase, folder: Path
) -> None:
    asked = bodies()
    with running(configuration, told_model(folder), {"kb": base}) as alone:
        wanted = [answer(alone, body) for body in asked]
    with ThreadPoolExecutor(4) as clients:
        assert list(clients.map(lambda body: answer(server, body), asked)) == wanted


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_place_and_ends_the_work_at_the_replica(
    server: Running, folder: Path, stream: bool
) -> None:
    messages = [{"role": "user", "content": f"{WAIT} The bridge of the harbour opens when?"}]
    request = posted("/v1/chat/completions", {"model": "echo", "stream": stream, "messages": messages})
    before = set(folder.iterdir())
    connections = [connected(server, *request) for _ in range(8)]
    eventually(lambda: server.service.reading.running == 8 and bool(set(folder.glob("waits-*")) - before))
    for connection in connections:
        connection.close()
    eventually(lambda: server.service.reading.running == 0)
    eventually(lambda: bool(set(folder.glob("cancelled-*")) - before))
    assert server.ask("When does the bridge open?").status_code == 200


def test_where_no_replica_is_a_request_ends_with_an_error(
    two: Replicas, folder: Path, configuration: Configuration, base: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = opened(replace(two, least=1, most=1), partial(told_model, folder))
    serve.delete(engine_of(ended)._handle.app_name)
    monkeypatch.setattr(replicas, "_BEGIN_S", 0.1)
    with pytest.raises(ClusterError, match=r"^No replica is running\. Check on the cluster with: serve status$"):
        process_of(ended, "a")
    with running(configuration, ended, {"kb": base}) as server:
        response = server.ask("When does the bridge open?")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "cluster_unavailable")
    assert response.headers["retry-after"] == "5"
    ended.close()
    with pytest.raises(EngineError, match="was closed"):
        process_of(ended, "a")


def test_when_the_name_means_another_model_its_replicas_answer_and_the_old_ones_end(
    configuration: Configuration, base: KnowledgeBase, two: Replicas, folder: Path
) -> None:
    one = replace(two, least=1, most=1)
    now = 1

    def number(number: int) -> FrozenModel:
        return opened(one, partial(told_model, folder, number), f"{number:064x}")

    def renewed(digest: Digest) -> FrozenModel | None:
        return None if digest == f"{now:064x}" else number(now)

    def digest_of(server: Running) -> str:
        digest: str = server.ask("When does the bridge open?").json()["openbook"]["receipt"]["model"]["digest"]
        return digest

    def running_apps() -> list[str]:
        return [name for name in applications() if f"{0:010x}" in name]

    with running(configuration, number(1), {"kb": base}, source=ModelSource(lambda: now, renewed)) as server:
        assert digest_of(server) == f"{1:064x}"
        now = 2
        found = {digest_of(server)}
        eventually(lambda: found.add(digest_of(server)) or f"{2:064x}" in found)  # type: ignore[func-returns-value]
        assert found <= {f"{1:064x}", f"{2:064x}"}
        eventually(lambda: len(running_apps()) == 1)
    eventually(lambda: not running_apps())


@pytest.mark.slow
@pytest.mark.model
def test_with_the_real_reader_16_clients_get_the_bytes_of_the_one_process_server(
    configuration: Configuration,
    base: KnowledgeBase,
    two: Replicas,
    reader_reference: ModelReference,
    model_store: ModelStore,
    tmp_path: Path,
) -> None:
    """Each replica has states of its own, in the memory of its process and in a folder that both share."""
    asked = [{**body, "max_tokens": 8} for body in [*bodies("reader"), *bodies("reader:closed-book")[:2]]]
    open_model = partial(stored_model, model_store.root, reader_reference.digest)
    alone_model = open_model(tmp_path / "alone")
    with running(configuration, alone_model, {"kb": base}) as alone:
        wanted = [answer(alone, body) for body in asked]
    alone_model.close()
    count, digest = prompt_counter(reader_reference), reader_reference.digest
    model = two.open(partial(open_model, tmp_path / "replicas"), bool, digest=digest, count=count, states=KVCache())
    with closing(model), running(configuration, model, {"kb": base}) as server, ThreadPoolExecutor(16) as clients:
        assert model.engine.numeric_class == alone_model.engine.numeric_class
        assert list(clients.map(lambda body: answer(server, body), asked)) == wanted


@pytest.mark.model
def test_tokens_are_counted_without_the_weights(
    reader_reference: ModelReference, model_reference: ModelReference
) -> None:
    for reference in (reader_reference, model_reference):
        model, count = stored_model(reference.path.parent, reference.digest, Path()), prompt_counter(reference)
        prompt = Prompt("Answer.", ("The ferry leaves at nine.", "A ticket costs 4 crowns."), "When?")
        for each in (prompt, replace(prompt, side_by_side=True), replace(prompt, passages=())):
            assert count(each) == model.count_prompt_tokens(each)
        model.close()


# --- the command ------------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_shows_before_a_cluster_is_joined(out: Out) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        out.refused(2, "Cannot listen on 127.0.0.1", "serve", "--cluster", "ray://head:1", "--port", port)
