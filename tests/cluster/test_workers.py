"""Work on a cluster gives what work on one machine gives, whatever happens to the workers."""

from __future__ import annotations

import os
import random
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.cluster import workers as module
from openbook.cluster.workers import ClusterParsers, LostTask, Task, Workers
from openbook.core.errors import ClusterError, NotReadNow, StorageError
from openbook.core.records import Embedder
from openbook.knowledge import KnowledgeBase, Report, RunOptions, sync
from openbook.knowledge.check import check
from openbook.parsers.sandbox.protocol import Limits
from openbook.testing import HashEmbedder
from tests.cli.conftest import Out
from tests.cluster.state import state, worker_pids
from tests.conformance.models import EmbedderSuite

HERE = module.fingerprint_of(HashEmbedder())

# --- the law, on a Ray that is none -----------------------------------------------------------------------------------


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(eq=False)
class FakeActor:
    embedder: Embedder
    is_dead: bool = False

    def __getattr__(self, method: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: Reference(self, method, arguments))


@dataclass(eq=False)
class Reference:
    actor: FakeActor
    method: str
    arguments: tuple[Any, ...]


@dataclass
class FakeRay:
    """Calls end in any order, each as `answers` says: with a value, an error, or never (None). At most `cores` actors start."""

    answers: Callable[[Any], Any]
    seed: int = 0
    cores: int = 2
    start: Any = HERE  # what each actor's start ends in
    actors: list[FakeActor] = field(default_factory=list)
    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._ended: dict[Reference, Any] = {}

    def put(self, value: Any) -> Any:
        return value

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, num_cpus: int) -> Any:
        def started(embedder: Embedder) -> FakeActor:
            self.actors.append(FakeActor(embedder))
            return self.actors[-1]

        return lambda cls: SimpleNamespace(remote=started)

    def kill(self, actor: FakeActor) -> None:
        actor.is_dead = True

    def wait(self, references: list[Reference], timeout: float) -> tuple[list[Reference], list[Reference]]:
        alive = [actor for actor in self.actors if not actor.is_dead][: self.cores]
        for reference in self._random.sample(references, len(references)):
            if reference not in self._ended and reference.actor in alive:
                is_start = reference.method == "fingerprint"
                self._ended[reference] = self.start if is_start else self.answers(*reference.arguments)
            if reference.actor.is_dead and self._ended.get(reference) is None:
                self._ended[reference] = RayError("the actor died")
            if self._ended.get(reference) is not None:
                return [reference], []
        return [], references

    def get(self, reference: Reference) -> Any:
        value = self._ended[reference]
        if isinstance(value, RayError):
            if not isinstance(value, RayTaskError):
                reference.actor.is_dead = True
            raise value
        return value


@pytest.fixture(autouse=True, scope="module")
def known_fingerprint() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "fingerprint_of", lambda _: HERE)  # which takes a while
        yield


def on(ray: FakeRay, **options: Any) -> Workers:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ray_module", lambda: ray)
        return Workers(HashEmbedder(), **options)


FAULTS = st.sampled_from(["dies", "has no memory", "says nothing"])


@given(st.lists(st.lists(FAULTS, max_size=4), max_size=30), st.integers(), st.integers(1, 2))
def test_each_result_comes_once_and_in_order_whatever_happens_to_the_actors(
    faults: list[list[str]], seed: int, cores: int
) -> None:
    """A task is given up after three faults; where an actor is silent, a task that waited behind it may be, too."""
    left = [list(each) for each in faults]

    def answer(number: int) -> Any:
        if not left[number]:
            return number + 1
        fault = left[number].pop()
        return {"dies": RayError("killed"), "has no memory": RayTaskError(MemoryError())}.get(fault)

    taken = 0

    def tasks() -> Iterator[Task]:
        nonlocal taken
        for number in range(len(faults)):
            taken += 1
            yield Task((number,)) if number % 5 else Task(result=number + 1)

    ray = FakeRay(answer, seed, cores)
    with on(ray) as workers:
        results: list[object] = []
        for result in workers.results("method", tasks(), 1.0):
            assert taken - len(results) <= module.AHEAD * 2
            results.append(result)
    assert len(results) == len(faults)
    for number, result in enumerate(results):
        assert result == number + 1 or isinstance(result, LostTask)
        assert number % 5 or result == number + 1
        if len(faults[number]) >= module.MAX_DEATHS and number % 5:
            assert isinstance(result, LostTask)
    if not any(faults):
        assert not any(isinstance(each, LostTask) for each in results)
    assert all(actor.is_dead for actor in ray.actors)


class TestClusterEmbedder(EmbedderSuite):
    def make_embedder(self) -> Embedder:
        return on(FakeRay(HashEmbedder().embed_passages)).embedder


def test_large_files_travel_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES_AHEAD", 10)
    under_way, most = 0, 0

    def tasks() -> Iterator[Task]:
        nonlocal under_way, most
        for number in range(20):
            under_way += 1
            most = max(most, under_way)
            yield Task((number,), bytes=6)

    with on(FakeRay(lambda number: number + 1)) as workers:
        for _ in workers.results("method", tasks()):
            under_way -= 1
    assert most == 2


def test_results_that_nobody_waits_for_disturb_nothing_and_no_task_starts_no_actor() -> None:
    ray = FakeRay(lambda number: number + 1)
    with on(ray) as workers:
        assert list(workers.results("method", ())) == ray.actors == []
        dropped = workers.results("method", (Task((n,)) for n in range(50)))
        next(dropped)
        later = workers.results("method", (Task((n,)) for n in range(50)))
        first = next(later)
        del dropped
        assert [first, *later] == list(range(1, 51))
        assert len(ray.actors) == 2


@pytest.mark.parametrize(
    ("ray", "error", "said"),
    [
        (FakeRay(lambda _: 1, cores=0), ClusterError, r"^No worker of the cluster was there within 120 s\."),
        (FakeRay(lambda _: 1, start=RayError("on fire")), ClusterError, "^3 workers in a row died .* on fire"),
        (FakeRay(lambda _: RayTaskError(KeyError("x"))), ClusterError, r"^A worker failed: KeyError: 'x'\.$"),
        (FakeRay(lambda _: RayTaskError(StorageError("No disk."))), StorageError, r"^No disk\.$"),
        (
            FakeRay(lambda _: 1, start=replace(HERE, vectors=b"")),
            ClusterError,
            "computes other vectors than this machine",
        ),
    ],
)  # fmt: skip
def test_what_ends_a_run(ray: FakeRay, error: type[Exception], said: str) -> None:
    with on(ray) as workers, pytest.raises(error, match=said):
        list(workers.results("method", [Task((1,))]))
    assert all(actor.is_dead for actor in ray.actors)


class NoWorkers:
    def results(self, method: str, tasks: Iterator[Task], patience_s: float) -> Iterator[object]:
        return (LostTask() for _ in tasks)


def test_a_file_that_kills_every_worker_is_tried_again_by_the_next_run(docs: Path) -> None:
    parsers = ClusterParsers(NoWorkers(), Limits(), "")  # type: ignore[arg-type]  # a fake
    ((_, outcome),) = parsers.parse_all([docs / "01.md"])
    assert isinstance(outcome, NotReadNow)
    assert str(outcome) == "3 workers died while they read it"


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        (HERE, "^$"),
        (
            replace(HERE, host="gamma", software=HERE.software | {"lxml": "99.1"}),
            rf"^The worker on gamma has lxml 99\.1, this machine {HERE.software['lxml']}\. Install the same on both\.$",
        ),
        (replace(HERE, software=HERE.software | {"openbook": "0.0.1"}), r"has openbook 0\.0\.1"),
        (
            replace(HERE, embedder=HashEmbedder(32, "tiny").identity),
            r"has the embedder 'tiny' \(.{12}\), the knowledge base needs 'hash' \(.{12}\)\.$",
        ),
        (replace(HERE, vectors=HERE.vectors[:-1] + b"?"), "computes other vectors than this machine"),
    ],
)
def test_what_another_machine_would_do_differently_is_said(there: module.WorkerFingerprint, reason: str) -> None:
    assert re.search(reason, module.why_refused(HERE, there))


def test_a_worker_that_reads_other_scans_is_refused() -> None:
    worker = module.Worker(HashEmbedder())
    with pytest.raises(
        ClusterError, match=r"reads scanned pages with 'tesseract eng of which .*', this machine with 'rapidocr 1'"
    ):
        worker.parse(b"a.txt", b"A text.", Limits(), "eng", "rapidocr 1")


# --- on Ray -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    for number in range(40):
        words = " ".join(f"word{number * each}" for each in range(5 + 37 * (number % 7)))
        (folder / f"{number:02}.md").write_text(f"# File {number}\n\nIt is about {words}.\n\n## More\n\n{words}\n")
    (folder / "deep" / "copy.md").write_bytes((folder / "03.md").read_bytes())
    (folder / "deep" / os.fsdecode(b"half \xff name.txt")).write_text("Its name is not UTF-8.")
    (folder / "empty.txt").write_text("")
    (folder / "film.mp4").write_bytes(b"\0\0")
    (folder / "secret.pdf").write_bytes(b"%PDF-1.7 and nothing else")
    (folder / "page.html").write_text("<title>A page</title><p>It says <b>this</b>.")
    (folder / "larger.txt").write_text("x" * 600_000)
    return folder


OPTIONS = RunOptions(limits=Limits(max_file_bytes=500_000))


def synced(folder: Path, docs: Path, embedder: Embedder, options: RunOptions = OPTIONS) -> tuple[KnowledgeBase, Report]:
    base = KnowledgeBase.ensure(folder, embedder.identity)
    return base, sync(base, docs, embedder, options=options)


@pytest.mark.laws
@pytest.mark.usefixtures("ray_session")
def test_a_cluster_makes_what_one_machine_makes_though_workers_are_killed_and_a_file_changes(
    docs: Path, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill(stage: str, done: int, total: int) -> None:
        if stage == "read" and len(killed) < 2 and done >= total * (1 + len(killed)) // 4:
            for pid in [each for each in worker_pids() if each not in killed][-1:]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    here, expected = synced(tmp_path / "here", docs, HashEmbedder())
    with Workers(HashEmbedder()) as workers:
        options = replace(OPTIONS, parsers=workers.parsers, progress=kill)
        base, report = synced(tmp_path / "there", docs, workers.embedder, options)
        assert len(killed) == 2
        (docs / "05.md").write_text("# New\n\nIt says something else now.\n")
        second = sync(base, docs, workers.embedder, options=replace(OPTIONS, parsers=workers.parsers))
        again = sync(here, docs, HashEmbedder(), options=OPTIONS)
    assert report == expected
    assert {each.outcome for each in report.verdicts} == {"added", "duplicate", "failed", "skipped"}
    assert second == again
    assert [Path(each.path).name for each in second.verdicts if each.outcome == "updated"] == ["05.md"]
    assert state(base) == state(here)
    assert not check(base).damaged
    for each in (base, here):
        each.close()


@pytest.mark.laws
@pytest.mark.usefixtures("ray_session", "fakes")
def test_the_command_line_works_on_a_cluster(docs: Path, tmp_path: Path, out: Out) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    said = out.ok("sync", docs, "--kb", here, "--json", "--lenient")
    assert out.ok("sync", docs, "--kb", there, "--json", "--lenient", "--cluster", "local") == said.replace(
        str(here), str(there)
    )
    with closing(KnowledgeBase.open(here)) as one, closing(KnowledgeBase.open(there)) as other:
        assert state(one) == state(other)
