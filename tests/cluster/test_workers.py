"""Work on a cluster gives what work on one machine gives, whatever happens to the workers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openbook.cluster import workers as module
from openbook.cluster.connection import ray_module
from openbook.cluster.workers import ClusterParsers, LostTask, Task, Workers
from openbook.core.errors import ClusterError, NotReadNow
from openbook.core.records import Embedder, Vectors
from openbook.knowledge import KnowledgeBase, Report, RunOptions, sync
from openbook.knowledge.check import check
from openbook.knowledge.ingest import embeddings
from openbook.parsers.sandbox.protocol import Limits
from openbook.testing import HashEmbedder
from tests.cli.conftest import Out
from tests.cluster.state import state, worker_pids
from tests.conformance.models import EmbedderSuite
from tests.conftest import ROOT
from tests.serving.conftest import eventually

pytestmark = pytest.mark.usefixtures("ray_session")


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
    (folder / "large.txt").write_text("The boats are painted in spring. " * 9_000)
    (folder / "larger.txt").write_text("x" * 600_000)
    return folder


OPTIONS = RunOptions(limits=Limits(max_file_bytes=500_000))


def synced(folder: Path, docs: Path, embedder: Embedder, options: RunOptions = OPTIONS) -> tuple[KnowledgeBase, Report]:
    base = KnowledgeBase.ensure(folder, embedder.identity)
    return base, sync(base, docs, embedder, options=options)


def synced_by(
    workers: Workers, folder: Path, docs: Path, progress: Callable[[str, int, int], None] = lambda *_: None
) -> tuple[KnowledgeBase, Report]:
    options = replace(OPTIONS, parsers=workers.parsers, progress=progress)
    return synced(folder, docs, workers.embedder, options)


@pytest.fixture(scope="module")
def workers(ray_session: None) -> Iterator[Workers]:
    with Workers(HashEmbedder()) as workers:
        yield workers


@pytest.fixture
def free_cores(workers: Workers) -> None:
    """For other workers than those of the module, which come back with their next task."""
    workers.close()
    eventually(lambda: ray_module().available_resources().get("CPU", 0) >= 2)


class TestClusterEmbedder(EmbedderSuite):
    @pytest.fixture(autouse=True)
    def _workers(self, workers: Workers) -> None:
        self.workers = workers

    def make_embedder(self) -> Embedder:
        return self.workers.embedder


def test_a_cluster_makes_the_state_and_the_verdicts_of_one_machine(
    workers: Workers, docs: Path, tmp_path: Path
) -> None:
    told: list[tuple[str, int, int]] = []
    base, report = synced_by(workers, tmp_path / "there", docs, lambda *progress: told.append(progress))
    here, expected = synced(tmp_path / "here", docs, HashEmbedder())
    assert report == expected
    assert state(base) == state(here)
    assert {each.outcome for each in report.verdicts} == {"added", "duplicate", "failed", "skipped"}
    reads = [done for stage, done, total in told if stage == "read"]
    assert reads == list(range(len(reads)))
    assert not check(base).damaged
    assert synced_by(workers, tmp_path / "there", docs)[1].passages_embedded == 0


def test_results_come_in_order_and_tasks_are_not_taken_far_ahead(workers: Workers) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[Task]:
        for number in range(100):
            taken.append(number)
            yield Task(([f"text {number}"],)) if number % 3 else Task(result=number)

    for number, result in enumerate(workers.results("embed", tasks())):
        assert len(taken) - number <= module.AHEAD * 2 + 1
        expected = HashEmbedder().embed_passages([f"text {number}"])
        assert result == number if number % 3 == 0 else (result == expected).all()
    assert taken == list(range(100))
    assert list(workers.results("embed", iter(()))) == []


def test_large_files_travel_few_at_a_time(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES_AHEAD", 10)
    under_way = most = 0

    def tasks() -> Iterator[Task]:
        nonlocal under_way, most
        for _ in range(20):
            under_way += 1
            most = max(most, under_way)
            yield Task((["a text"],), bytes=6)

    for _ in workers.results("embed", tasks()):
        under_way -= 1
    assert most == 2


def test_results_that_nobody_waits_for_disturb_nothing(workers: Workers) -> None:
    dropped = workers.results("embed", (Task(([f"text {n}"],)) for n in range(50)))
    next(dropped)
    later = workers.results("embed", (Task(([f"other {n}"],)) for n in range(50)))
    first = next(later)
    del dropped
    assert len([first, *later]) == 50


@pytest.mark.usefixtures("free_cores")
@pytest.mark.parametrize("stage", ["read", pytest.param("embed", marks=pytest.mark.slow)])
def test_what_a_killed_worker_had_is_done_by_another(
    stage: str, docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "BATCH", 4)  # so that some are still to be embedded
    with Workers(HashEmbedder()) as workers:
        killed: list[int] = []

        def kill(now: str, done: int, total: int) -> None:
            if now == stage and len(killed) < 2 and done >= total * (1 + len(killed)) // 4:
                for pid in [each for each in worker_pids() if each not in killed][-1:]:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

        base, report = synced_by(workers, tmp_path / "there", docs, kill)
        assert len(killed) == 2
    here, expected = synced(tmp_path / "here", docs, HashEmbedder())
    assert report == expected
    assert state(base) == state(here)


class Deadly(HashEmbedder):
    """Ends its process at one text; at others it has no memory or sleeps, unless the file is there."""

    def __init__(self, once: Path) -> None:
        super().__init__()
        self._once, self._here = once, os.getpid()

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        if "stall" in texts and not self._once.exists():
            self._once.touch()
            time.sleep(600)
        if "kill" in texts and os.getpid() != self._here:
            os._exit(1)
        if "swell" in texts and not self._once.exists():
            self._once.touch()
            raise MemoryError
        return super().embed_passages(texts)


@pytest.mark.slow
@pytest.mark.usefixtures("free_cores")
def test_a_worker_without_memory_is_replaced_and_what_kills_every_worker_is_given_up(tmp_path: Path) -> None:
    with Workers(Deadly(tmp_path / "once")) as workers:
        vectors = workers.embedder.embed_passages(["swell"])
        assert (vectors == HashEmbedder().embed_passages(["swell"])).all()
        assert (tmp_path / "once").exists()
        with pytest.raises(ClusterError, match="3 workers died while they embedded the same passages"):
            workers.embedder.embed_passages(["kill"])
        (tmp_path / "once").unlink()
        assert len(list(workers.results("embed", [Task((["stall"],))], patience_s=2.0))) == 1
        assert (tmp_path / "once").exists()
        assert len(workers.embedder.embed_passages(["a text"])) == 1


class NoWorkers:
    def results(self, method: str, tasks: Iterator[Task], patience_s: float) -> Iterator[object]:
        return (LostTask() for _ in tasks)


def test_a_file_that_kills_every_worker_is_tried_again_by_the_next_run(docs: Path) -> None:
    parsers = ClusterParsers(NoWorkers(), Limits(), "")  # type: ignore[arg-type]  # a fake
    ((_, outcome),) = parsers.parse_all([docs / "01.md"])
    assert isinstance(outcome, NotReadNow)
    assert str(outcome) == "3 workers died while they read it"


HERE = module.fingerprint_of(HashEmbedder())


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


class Elsewhere(HashEmbedder):
    """It is another one when it has travelled, or cannot be opened."""

    def __init__(self, *, opens: bool) -> None:
        super().__init__()
        self._opens = opens

    def __setstate__(self, values: dict[str, Any]) -> None:
        if not values["_opens"]:
            raise RuntimeError("the disk is on fire")
        self.__dict__.update(values, identity=HashEmbedder(32, "tiny").identity)


@pytest.mark.usefixtures("free_cores")
def test_a_worker_that_would_give_other_results_is_refused(docs: Path, tmp_path: Path) -> None:
    with Workers(Elsewhere(opens=True), most=1) as few, pytest.raises(ClusterError, match="has the embedder 'tiny'"):
        synced_by(few, tmp_path / "kb", docs)
    assert KnowledgeBase.open(tmp_path / "kb").version == 0


@pytest.mark.slow
@pytest.mark.usefixtures("free_cores")
def test_workers_that_never_start_are_told_of(docs: Path) -> None:
    reason = r"^3 workers in a row died before one of them did anything: .*the disk is on fire"
    with Workers(Elsewhere(opens=False), most=1) as few, pytest.raises(ClusterError, match=reason):
        few.embedder.embed_passages(["a text"])


def test_a_worker_that_reads_other_scans_is_refused() -> None:
    worker = module.Worker(HashEmbedder())
    with pytest.raises(
        ClusterError, match=r"reads scanned pages with 'tesseract eng of which .*', this machine with 'rapidocr 1'"
    ):
        worker.parse(b"a.txt", b"A text.", Limits(), "eng", "rapidocr 1")


def test_a_cluster_without_a_free_core_is_refused(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    workers.embedder.embed_passages(["all cores are taken now"])
    monkeypatch.setattr(module, "START_S", 1.5)
    with Workers(HashEmbedder()) as late, pytest.raises(ClusterError, match=r"was there within 1\.5 s"):
        late.embedder.embed_passages(["a text"])


def test_a_file_that_changes_while_it_travels_is_read_again_by_the_next_run(
    workers: Workers, docs: Path, tmp_path: Path
) -> None:
    changed = docs / "05.md"  # among those that are sent before the first is back

    def change(stage: str, done: int, total: int) -> None:
        if stage == "read" and done == 0:
            changed.write_text("# New\n\nIt says something else now.\n")

    base, first = synced_by(workers, tmp_path / "kb", docs, change)
    _, second = synced_by(workers, tmp_path / "kb", docs)
    assert {each.outcome for each in first.verdicts if each.path.endswith("05.md")} == {"added"}
    assert [Path(each.path).name for each in second.verdicts if each.outcome == "updated"] == ["05.md"]
    texts = [text for _, _, _, text, *_ in state(base)["contents"]]
    assert any("It says something else now." in str(text) for text in texts)


@pytest.mark.usefixtures("free_cores", "fakes")
def test_the_command_line_works_on_a_cluster(docs: Path, tmp_path: Path, out: Out) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    said = out.ok("sync", docs, "--kb", here, "--json", "--lenient")
    assert out.ok("sync", docs, "--kb", there, "--json", "--lenient", "--cluster", "local") == said.replace(
        str(here), str(there)
    )
    assert state(KnowledgeBase.open(here)) == state(KnowledgeBase.open(there))


@pytest.mark.usefixtures("free_cores")
@pytest.mark.parametrize("ended_by", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_run_that_was_ended_is_gone_on_with(
    ended_by: signal.Signals, workers: Workers, docs: Path, tmp_path: Path
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, ray_module().get_runtime_context().gcs_address, tmp_path / "kb", docs],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert child.stdout is not None
    for line in child.stdout:
        if line == "read 20\n":
            child.send_signal(ended_by)
    _, errors = child.communicate(timeout=120)
    if ended_by == signal.SIGINT:
        assert (child.returncode, errors) == (130, "interrupted\n")
    else:
        assert child.returncode == -ended_by
    base = KnowledgeBase.open(tmp_path / "kb")
    assert (base.version, len(base.documents())) == (0, 0)
    stored = len(state(base)["contents"])
    assert stored >= 15
    base, report = synced_by(workers, tmp_path / "kb", docs)
    here, expected = synced(tmp_path / "here", docs, HashEmbedder())
    assert report.verdicts == expected.verdicts
    assert state(base) == state(here)
    assert not check(base).damaged


CHILD = """
import signal, sys, time
from pathlib import Path
from openbook.cluster.connection import connect, disconnect
from openbook.cluster.workers import Workers
from openbook.testing import HashEmbedder
from tests.cluster.test_workers import synced_by

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell runs in the background

def progress(stage, done, total):
    print(stage, done, flush=True)
    if (stage, done) == ("read", 20):
        time.sleep(60)  # until the signal comes

connect(sys.argv[1])
try:
    with Workers(HashEmbedder()) as workers:
        synced_by(workers, Path(sys.argv[2]), Path(sys.argv[3]), progress)
except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    sys.exit(130)
finally:
    disconnect()
"""
