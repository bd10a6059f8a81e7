"""A run holds the write lock only while it stores facts and commits. What others do in between, it notices.

Others act where the run holds no lock: in the embedder, or where it asks whether to go on. So every order is exact.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openbook.core.errors import KnowledgeBaseBusy, KnowledgeBaseInvalid
from openbook.core.locks import is_held
from openbook.core.records import Vectors
from openbook.knowledge import KnowledgeBase, Report, Scope, add, purge, remove
from openbook.knowledge.check import check
from openbook.knowledge.ingest.contents import RunOptions
from openbook.knowledge.ingest.embeddings import BATCH
from openbook.knowledge.ingest.long_run import MAX_TRIES, LongRun, in_slices
from openbook.knowledge.store.write_lock import TURN, write_lock
from openbook.knowledge.updates import reembed
from openbook.knowledge.versions import prune, tag
from openbook.testing import HashEmbedder
from tests.knowledge.conftest import Act, Interrupted, Library, killed

SECRET = "The number of the safe in the harbour office is canary-7341, and the clerk keeps it under the lamp."
SOON_S = 60.0  # for a free lock, on a machine however busy


def large(*acts: Act) -> Interrupted:
    return Interrupted(*acts, dimensions=32, name="large")


def small(*acts: Act) -> Interrupted:
    return Interrupted(*acts, dimensions=16, name="small")


def long_text(about: str, batches: int = 3) -> str:
    return "\n\n".join(f"{about}, part {i}. " + f"word{i} " * 60 for i in range(BATCH * batches))


class Shared(Library):
    """What others do, they do with `other`, which is the same knowledge base as another process has it open."""

    def __init__(self, place: Path, embedder: HashEmbedder) -> None:
        super().__init__(place, embedder)
        self.write("bridge.txt", "The bridge has four lanes.")
        self.write("safe.txt", SECRET)
        self.add()
        self.other = self.reopened()

    def run(self, embedder: HashEmbedder | None = None, options: RunOptions = RunOptions(), /, **texts: str) -> Report:
        """Add texts, which are in a folder of their own: `long` of several batches unless others are given."""
        folder = self.docs.parent / "more"
        for name, text in (texts or {"long": long_text("The ferry")}).items():
            self.write(f"../more/{name}.txt", text)
        return add(self.base, [folder], embedder or self.embedder, options)

    def others_purge(self, name: str = "safe.txt") -> None:
        purge(self.other, [name], lock_timeout_s=SOON_S)

    def others_add(self, name: str, text: str, options: RunOptions = RunOptions()) -> None:
        add(self.other, [self.write(name, text)], self.embedder, options)

    def counts(self) -> list[int]:
        tables = ("contents", "passages", "embeddings")
        return [self.base.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]

    def is_whole(self) -> bool:
        with closing(self.reopened()) as base:
            return check(base).damaged == ()


@pytest.fixture
def shared(tmp_path: Path, embedder: HashEmbedder) -> Shared:
    return Shared(tmp_path, embedder)


def test_the_write_lock_is_free_while_a_run_reads_and_embeds(shared: Shared) -> None:
    held: list[str] = []

    def look(what: str) -> None:
        try:
            with write_lock(shared.base.folder, 0.0):
                pass
        except KnowledgeBaseBusy:
            held.append(what)

    looks = [lambda: look("embed")] * 4
    options = RunOptions(progress=lambda stage, *_: look(stage))
    shared.run(Interrupted(*looks), options, long=long_text("The ferry"), short="The ferry is white.")
    assert held == []
    assert shared.names() == ["bridge.txt", "safe.txt", "long.txt", "short.txt"]


def test_a_text_read_before_a_purge_is_not_stored_after_it(shared: Shared) -> None:
    acts: list[Act] = [shared.write("safe.txt", f"{SECRET} It was changed in May.").unlink, shared.others_purge]

    def progress(stage: str, done: int, total: int) -> None:
        while stage == "read" and acts:  # it is read, and not stored yet
            acts.pop(0)()

    shared.sync(options=RunOptions(progress=progress))
    assert not acts
    assert shared.names() == ["bridge.txt"]
    assert b"canary-7341" not in shared.all_bytes()


def test_vectors_of_a_purged_text_are_not_stored_after_the_purge(shared: Shared) -> None:
    asked_after = -1

    class PurgedMeanwhile(HashEmbedder):
        def embed_passages(self, texts: Sequence[str]) -> Vectors:
            nonlocal asked_after
            vectors = super().embed_passages(texts)
            shared.others_purge()  # with it goes all that nothing refers to yet
            asked_after = 0
            return vectors

    def go_on() -> None:
        nonlocal asked_after
        asked_after += asked_after >= 0
        if asked_after == 2:  # once before vectors would be stored; now it begins again
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shared.run(PurgedMeanwhile(), RunOptions(check_cancelled=go_on), copy=SECRET.replace("clerk", "porter"))
    assert shared.counts() == [1, 1, 1]


def test_labels_given_during_a_run_stay(shared: Shared) -> None:
    safe, hr = shared.write("safe.txt", SECRET + " It is blue."), RunOptions(labels=frozenset({"hr"}))
    add(shared.base, [safe], Interrupted(lambda: add(shared.other, [safe], shared.embedder, hr)))
    assert list(shared.base.labels().values()) == [["hr"]]
    assert shared.names(Scope()) == ["bridge.txt"]


def test_other_writers_delete_nothing_of_a_living_run(shared: Shared) -> None:
    asked: list[int] = []

    class Counting(Interrupted):
        def embed_passages(self, texts: Sequence[str]) -> Vectors:
            asked.append(len(texts))
            return super().embed_passages(texts)

    report = shared.run(Counting(lambda: None, lambda: prune(shared.other, 1), lambda: tag(shared.other, "now")))
    assert sum(asked) == report.passages_embedded > 2 * BATCH
    assert not list(shared.base.folder.glob(".run-*"))


class Unwanted(Exception):
    pass


def ends_after(times: int) -> RunOptions:
    """Asked once more than that whether to go on, it says no."""
    left = times

    def go_on() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Unwanted

    return RunOptions(check_cancelled=go_on)


def test_a_run_cancelled_at_any_point_leaves_nothing(shared: Shared) -> None:
    texts = {"long": long_text("The ferry"), "short": "The ferry is white."}
    before, ended = shared.counts(), 0
    while True:
        try:
            report = shared.run(shared.embedder, ends_after(ended), **texts)
            break
        except Unwanted:
            ended += 1
        assert shared.base.version == 1
        assert shared.counts() == before
    assert ended > 6
    assert report.version == shared.base.version == 2
    assert shared.is_whole()


def test_a_run_overtaken_too_often_keeps_the_lock(shared: Shared) -> None:
    tries, refused = 0, 0

    def overtake(stage: str, done: int, total: int) -> None:
        nonlocal tries, refused
        if stage != "digest":
            return
        tries += 1
        text = f"The lighthouse is red, and {tries} metres high."
        try:
            shared.others_add("lighthouse.txt", text, RunOptions(lock_timeout_s=0.0))
        except KnowledgeBaseBusy:
            refused += 1

    report = shared.run(shared.embedder, RunOptions(progress=overtake), short="The ferry is white.")
    assert (tries, refused) == (MAX_TRIES + 1, 1)
    assert [verdict.outcome for verdict in report.verdicts] == ["added"]
    assert "short.txt" in shared.names()
    assert shared.is_whole()


def test_a_run_that_loses_its_contents_too_often_gives_up(shared: Shared) -> None:
    victims = [f"victim{i}.txt" for i in range(MAX_TRIES)]
    for name in victims:
        shared.write(name, f"The text of {name}.")
    shared.add()
    with pytest.raises(KnowledgeBaseBusy, match="changed the knowledge base 5 times"):
        shared.run(Interrupted(*(partial(shared.others_purge, name) for name in victims)), short="The ferry is white.")
    assert shared.run(short="The ferry is white.").passages_embedded == 1


def test_a_run_writes_only_in_a_slice(shared: Shared) -> None:
    def work(run: LongRun) -> None:
        with run.slice() as connection:
            connection.execute("DELETE FROM verdicts")
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            run.connection.execute("DELETE FROM verdicts")

    in_slices(shared.base, work, SOON_S)


def test_a_waiting_writer_comes_before_the_last_one(tmp_path: Path) -> None:
    order: list[str] = []

    def write(who: str) -> None:
        with write_lock(tmp_path, SOON_S):
            order.append(who)

    with ThreadPoolExecutor(1) as threads:
        with write_lock(tmp_path, SOON_S):
            waiter = threads.submit(write, "waiter")
            until = time.monotonic() + SOON_S
            while not is_held(tmp_path / TURN) and time.monotonic() < until:
                time.sleep(0.001)
        for _ in range(3):
            write("run")
        waiter.result()
    assert order == ["waiter", "run", "run", "run"]


def test_reembedding_switches_all_versions_at_once(shared: Shared) -> None:
    shared.run()
    shared.others_add("bridge.txt", "The bridge has six lanes.")
    before = shared.embedder
    assert reembed(shared.base, large()) == (4, shared.counts()[2])
    late = shared.write("late.txt", "A document that comes later.")
    for work in (lambda: shared.other.search("word7", before), lambda: add(shared.other, [late], before)):
        with pytest.raises(KnowledgeBaseInvalid, match="another embedder meanwhile"):
            work()  # opened before the switch: it never mixes two embedders
    shared.base, shared.embedder = KnowledgeBase.open(shared.base.folder, large().identity), large()
    assert "word7 " in shared.hits("word7")[0].passage.text
    assert "four lanes" in shared.hits("lanes of the bridge", Scope(2))[0].passage.text
    with pytest.raises(KnowledgeBaseInvalid, match="made with the embedder 'large'"):
        shared.base.search("word7", before)
    shared.add()
    assert "comes later" in shared.hits("a document that comes later")[0].passage.text


def test_interrupted_reembedding_changes_nothing_and_resumes(shared: Shared) -> None:
    shared.run()
    before = shared.hits("word7")
    for embedder in (small(lambda: None, killed), large(lambda: None, killed)):
        with pytest.raises(KeyboardInterrupt):
            reembed(shared.base, embedder)
    assert shared.hits("word7") == before
    assert reembed(shared.base, large())[1] == shared.counts()[2] - BATCH


def test_documents_added_during_reembedding_are_embedded_too(shared: Shared) -> None:
    shared.run()
    reembed(shared.base, large(shared.others_purge, lambda: shared.others_add("late.txt", "The lighthouse is red.")))
    again = shared.reopened()
    assert [Path(path).name for path in again.documents()] == ["bridge.txt", "late.txt", "long.txt"]
    assert shared.is_whole()
    assert again.search("lighthouse", large())[1][0].passage.text == "The lighthouse is red."


@pytest.mark.parametrize("verb", ["add", "reembed"])
def test_vectors_of_two_embedders_never_meet(shared: Shared, verb: str) -> None:
    def meanwhile() -> None:
        reembed(shared.other, small())

    with pytest.raises(KnowledgeBaseInvalid, match="another embedder meanwhile"):
        shared.run(Interrupted(meanwhile)) if verb == "add" else reembed(shared.base, large(meanwhile))
    assert KnowledgeBase.open(shared.base.folder, small().identity)
    assert shared.is_whole()


def test_no_vector_goes_into_the_table_of_another_embedder(shared: Shared) -> None:
    def begun_and_killed() -> None:
        with pytest.raises(KeyboardInterrupt):
            reembed(shared.other, small(lambda: None, killed))

    shared.run()
    with pytest.raises(KeyboardInterrupt):
        reembed(shared.base, large(begun_and_killed, killed))
    reembed(shared.other, small())
    assert shared.is_whole()


ACTS = ("remove bridge", "purge safe", "add lamp", "add ferry", "prune")


@pytest.mark.laws
@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from(ACTS)), min_size=1, max_size=3, unique_by=lambda x: x[1]))
def test_interleaved_writers_end_as_in_some_order(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[int, str]]
) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as place:
        interleave(Path(place), acts)


def test_interleaved_writers_end_as_in_some_order_once(tmp_path: Path) -> None:
    interleave(tmp_path, [(3, "purge safe"), (5, "add ferry"), (7, "remove bridge"), (8, "add lamp"), (9, "prune")])


def interleave(place: Path, acts: list[tuple[int, str]]) -> None:
    shared = Shared(place, HashEmbedder())
    ferry = shared.write("../more/ferry.txt", long_text("The ferry", 1))
    lamp = shared.write("../lamp/lamp.txt", "The lamp is green.")
    asked, done = 0, set[str]()

    def act(what: str) -> None:
        done.add(what)
        if what == "remove bridge":
            remove(shared.other, ["bridge.txt"])
        elif what == "purge safe":
            shared.others_purge(shared.path("safe.txt"))
            assert b"canary-7341" not in shared.all_bytes()
        elif what == "prune":
            prune(shared.other, 1)
        else:
            add(shared.other, [lamp if what == "add lamp" else ferry], shared.embedder)

    def go_on() -> None:
        nonlocal asked
        asked += 1
        for at, what in acts:
            if at == asked and what not in done:
                act(what)

    report = shared.run(
        shared.embedder, RunOptions(check_cancelled=go_on), ferry=long_text("The ferry", 1), safe=SECRET + " "
    )
    gone = {"docs/bridge.txt": "remove bridge", "docs/safe.txt": "purge safe"}
    wanted = [path for path, what in gone.items() if what not in done]
    wanted += ["lamp/lamp.txt"] if "add lamp" in done else []
    wanted += ["more/ferry.txt", "more/safe.txt"]
    assert ["/".join(Path(path).parts[-2:]) for path in shared.base.documents()] == wanted
    assert {v.outcome for v in report.verdicts} <= {"added", "unchanged", "duplicate"}
    assert shared.is_whole()
    assert shared.hits("lane ferry canary")
    shared.base.close()
    shared.other.close()
