"""A run holds the write lock only while it stores facts and commits. What others do in between, it notices.

Others act where the run holds no lock: in the embedder, or where it asks whether to go on. So every order is exact.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openbook.errors import KnowledgeBaseBusy, KnowledgeBaseInvalid
from openbook.knowledge import KnowledgeBase, RunOptions, Scope, add, purge, remove, sync
from openbook.knowledge.check import check
from openbook.knowledge.embeddings import BATCH, reembed
from openbook.knowledge.sliced_run import MOST_TRIES, SlicedRun, in_slices
from openbook.knowledge.versions import Retention, prune
from openbook.knowledge.write_lock import TURN, file_lock, write_lock
from openbook.records import Vectors
from openbook.testing import HashEmbedder

SECRET = "The number of the safe in the harbour office is canary-7341, and the clerk keeps it under the lamp."
SOON_S = 5.0  # a lock that is free is had at once; this is for a machine that is busy

Act = Callable[[], object]


class Interrupted(HashEmbedder):
    """Does what others do, one act for each batch, before it embeds that batch."""

    def __init__(self, *acts: Act) -> None:
        super().__init__()
        self._acts = list(acts)

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        if self._acts:
            self._acts.pop(0)()
        return super().embed_passages(texts)


def long_text(about: str, batches: int = 3) -> str:
    return "\n\n".join(f"{about}, part {i}. " + f"word{i} " * 60 for i in range(BATCH * batches))


def written(folder: Path, **texts: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def names(base: KnowledgeBase) -> list[str]:
    return [Path(path).name for path in base.documents()]


def is_on_disk(folder: Path, text: str) -> bool:
    return any(text.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def base(tmp_path: Path, embedder: HashEmbedder) -> KnowledgeBase:
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)
    docs = written(tmp_path / "docs", bridge="The bridge has four lanes.", safe=SECRET)
    add(base, [docs / "bridge.txt", docs / "safe.txt"], embedder)
    return base


@pytest.fixture
def other(base: KnowledgeBase) -> KnowledgeBase:
    """The same knowledge base, as another process has it open."""
    return KnowledgeBase.open(base.folder)


def test_nobody_waits_for_a_text_to_be_read_or_embedded(
    base: KnowledgeBase, other: KnowledgeBase, tmp_path: Path
) -> None:
    held: list[str] = []

    def look(what: str) -> None:
        try:
            with write_lock(base.folder, 0.0):
                pass
        except KnowledgeBaseBusy:
            held.append(what)

    docs = written(tmp_path / "more", long=long_text("The ferry"), short="The ferry is white.")
    looks = [lambda: look("embed")] * 4
    add(base, [docs], Interrupted(*looks), RunOptions(progress=lambda stage, *_: look(stage)))
    assert held == []
    assert names(base) == ["bridge.txt", "safe.txt", "long.txt", "short.txt"]


def test_a_text_that_was_read_before_a_purge_is_not_stored_after_it(
    base: KnowledgeBase, other: KnowledgeBase, tmp_path: Path, embedder: HashEmbedder
) -> None:
    safe = tmp_path / "docs" / "safe.txt"
    safe.write_text(f"{SECRET} It was changed in May.")
    acts: list[Act] = [safe.unlink, lambda: purge(other, ["safe.txt"], lock_timeout_s=SOON_S)]

    def progress(stage: str, done: int, total: int) -> None:
        while stage == "read" and acts:  # it is read, and not stored yet
            acts.pop(0)()

    options = RunOptions(progress=progress)
    sync(base, safe.parent, embedder, options=options)
    assert not acts
    assert names(base) == ["bridge.txt"]
    assert not is_on_disk(base.folder, "canary-7341")


def test_vectors_of_a_purged_text_are_not_stored_after_the_purge(
    base: KnowledgeBase, other: KnowledgeBase, tmp_path: Path
) -> None:
    asked_after = -1

    class PurgedMeanwhile(HashEmbedder):
        def embed_passages(self, texts: Sequence[str]) -> Vectors:
            nonlocal asked_after
            vectors = super().embed_passages(texts)
            purge(other, ["safe.txt"], lock_timeout_s=SOON_S)  # with it goes all that nothing refers to yet
            asked_after = 0
            return vectors

    def go_on() -> None:
        nonlocal asked_after
        asked_after += asked_after >= 0
        if asked_after == 2:  # once before vectors would be stored; now it begins again
            raise KeyboardInterrupt

    docs = written(tmp_path / "more", copy=SECRET.replace("clerk", "porter"))
    with pytest.raises(KeyboardInterrupt):
        add(base, [docs], PurgedMeanwhile(), RunOptions(check_cancelled=go_on))
    assert contents(base) == [1, 1, 1]


def test_labels_that_were_given_meanwhile_are_not_taken_away(
    base: KnowledgeBase, other: KnowledgeBase, tmp_path: Path, embedder: HashEmbedder
) -> None:
    safe = tmp_path / "docs" / "safe.txt"
    safe.write_text(SECRET + " It is blue.")

    def closed() -> None:
        add(other, [safe], embedder, RunOptions(labels=frozenset({"hr"})))

    add(base, [safe], Interrupted(closed))
    assert list(base.labels().values()) == [["hr"]]
    assert "safe.txt" not in [Path(p).name for p in base.documents(Scope(None, "", frozenset()))]


def test_two_that_bring_the_same_text_both_end(base: KnowledgeBase, other: KnowledgeBase, tmp_path: Path) -> None:
    meet = threading.Barrier(2)
    one, two = (written(tmp_path / name, long=long_text("The ferry")) for name in ("one", "two"))
    with ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(add, each, [docs], Interrupted(meet.wait)) for each, docs in ((base, one), (other, two))]
        assert {run.result().version for run in runs} == {2, 3}
    assert names(base).count("long.txt") == 2
    assert check(base).damaged == ()


def test_the_work_of_a_run_that_was_killed_is_found_and_pruning_lets_it_be(
    base: KnowledgeBase, other: KnowledgeBase, tmp_path: Path, embedder: HashEmbedder
) -> None:
    def killed() -> None:
        raise KeyboardInterrupt

    docs = written(tmp_path / "more", long=long_text("The ferry"))
    with pytest.raises(KeyboardInterrupt):
        add(base, [docs], Interrupted(lambda: None, lambda: prune(other, Retention(versions=1)), killed))
    assert base.version == 1
    done = add(base, [docs], embedder).passages_embedded
    assert 0 < done <= BATCH * 2 - 1 + BATCH


# --- the end of a run that nobody wants any more ----------------------------------------------------------------------


class Unwanted(Exception):
    pass


def test_wherever_a_run_is_told_to_end_it_leaves_nothing(
    base: KnowledgeBase, tmp_path: Path, embedder: HashEmbedder
) -> None:
    docs = written(tmp_path / "more", long=long_text("The ferry"), short="The ferry is white.")
    before = contents(base)
    ended, left = 0, 0

    def go_on() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Unwanted

    while True:
        left = ended
        try:
            report = add(base, [docs], embedder, RunOptions(check_cancelled=go_on))
            break
        except Unwanted:
            ended += 1
        assert base.version == 1
        assert contents(base) == before
    assert ended > 6
    assert report.version == base.version == 2
    assert check(base).damaged == ()


def contents(base: KnowledgeBase) -> list[int]:
    tables = ("contents", "passages", "embeddings")
    return [base.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]


def test_who_waits_for_the_lock_is_told_to_end_too(base: KnowledgeBase, tmp_path: Path, embedder: HashEmbedder) -> None:
    asked = 0

    def go_on() -> None:
        nonlocal asked
        asked += 1
        if asked > 2:
            raise Unwanted

    docs = written(tmp_path / "more", short="The ferry is white.")
    with file_lock(base.folder, SOON_S), pytest.raises(Unwanted):
        add(base, [docs], embedder, RunOptions(check_cancelled=go_on))


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_a_run_that_is_overtaken_again_and_again_keeps_the_lock_at_last(
    base: KnowledgeBase, other: KnowledgeBase, tmp_path: Path, embedder: HashEmbedder
) -> None:
    tries, refused = 0, 0
    mine = written(tmp_path / "mine", long="The lighthouse is red.")

    def overtake(stage: str, done: int, total: int) -> None:
        nonlocal tries, refused
        if stage != "digest":
            return
        tries += 1
        (mine / "long.txt").write_text(f"The lighthouse is red, and {tries} metres high.")
        try:
            add(other, [mine], embedder, RunOptions(lock_timeout_s=0.0))
        except KnowledgeBaseBusy:
            refused += 1

    docs = written(tmp_path / "more", short="The ferry is white.")
    report = add(base, [docs], embedder, RunOptions(progress=overtake))
    assert (tries, refused) == (MOST_TRIES + 1, 1)
    assert [verdict.outcome for verdict in report.verdicts] == ["added"]
    assert "short.txt" in names(base)
    assert check(base).damaged == ()


def test_a_run_that_loses_what_it_stored_again_and_again_gives_up_and_never_embeds_under_the_lock(
    base: KnowledgeBase, other: KnowledgeBase, tmp_path: Path, embedder: HashEmbedder
) -> None:
    victims = written(tmp_path / "victims", **{f"v{i}": f"Victim number {i}." for i in range(MOST_TRIES)})
    add(base, [victims], embedder)
    acts = [lambda i=i: purge(other, [f"v{i}.txt"], lock_timeout_s=SOON_S) for i in range(MOST_TRIES)]
    docs = written(tmp_path / "more", short="The ferry is white.")
    with pytest.raises(KnowledgeBaseBusy, match="deleted 5 times"):
        add(base, [docs], Interrupted(*acts))
    assert add(base, [docs], embedder).passages_embedded == 1


def test_outside_a_slice_a_run_cannot_write(base: KnowledgeBase) -> None:
    def work(run: SlicedRun) -> None:
        with run.slice() as connection:
            connection.execute("DELETE FROM verdicts")
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            run.connection.execute("DELETE FROM verdicts")

    in_slices(base, work, SOON_S)


def test_who_waits_comes_before_who_has_just_had_the_lock(tmp_path: Path) -> None:
    order: list[str] = []

    def wait() -> None:
        with write_lock(tmp_path, SOON_S * 10):
            order.append("waiter")

    with ThreadPoolExecutor(1) as threads:
        with write_lock(tmp_path, SOON_S):
            waiter = threads.submit(wait)
            until = time.monotonic() + SOON_S
            while not _is_taken(tmp_path) and time.monotonic() < until:
                time.sleep(0.001)
        for _ in range(3):
            with write_lock(tmp_path, SOON_S * 10):
                order.append("run")
        waiter.result()
    assert order == ["waiter", "run", "run", "run"]


def _is_taken(folder: Path) -> bool:
    import filelock

    try:
        with filelock.FileLock(folder / TURN, timeout=0):
            return False
    except filelock.Timeout:
        return True


# --- another embedder -------------------------------------------------------------------------------------------------


class Large(Interrupted):
    def __init__(self, *acts: Act) -> None:
        super().__init__(*acts)
        HashEmbedder.__init__(self, 32, "large")


class Small(Interrupted):
    def __init__(self, *acts: Act) -> None:
        super().__init__(*acts)
        HashEmbedder.__init__(self, 16, "small")


def test_what_comes_while_vectors_are_made_anew_gets_them_too(
    base: KnowledgeBase, other: KnowledgeBase, tmp_path: Path, embedder: HashEmbedder
) -> None:
    docs = written(tmp_path / "more", long=long_text("The ferry"))
    late = written(tmp_path / "late", late="The lighthouse is red.")
    add(base, [docs], embedder)
    acts = [lambda: purge(other, ["safe.txt"], lock_timeout_s=SOON_S), lambda: add(other, [late], embedder)]
    reembed(base, Large(*acts))
    again = KnowledgeBase.open(base.folder)
    assert names(again) == ["bridge.txt", "late.txt", "long.txt"]
    assert check(again).damaged == ()
    assert again.search("lighthouse", Large())[1][0].passage.text == "The lighthouse is red."


@pytest.mark.parametrize("verb", ["add", "reembed"])
def test_vectors_of_two_embedders_never_meet(
    base: KnowledgeBase, other: KnowledgeBase, tmp_path: Path, embedder: HashEmbedder, verb: str
) -> None:
    docs = written(tmp_path / "more", long=long_text("The ferry"))
    meanwhile = partial(reembed, other, Small())
    run = (
        partial(add, base, [docs], Interrupted(meanwhile))
        if verb == "add"
        else partial(reembed, base, Large(meanwhile))
    )
    with pytest.raises(KnowledgeBaseInvalid, match="another embedder meanwhile"):
        run()
    assert check(KnowledgeBase.open(base.folder, Small().identity)).damaged == ()


def test_no_vector_goes_into_the_table_of_another_embedder(
    base: KnowledgeBase, other: KnowledgeBase, tmp_path: Path, embedder: HashEmbedder
) -> None:
    def killed() -> None:
        raise KeyboardInterrupt

    def begun_and_killed() -> None:
        with pytest.raises(KeyboardInterrupt):
            reembed(other, Small(lambda: None, killed))

    add(base, [written(tmp_path / "more", long=long_text("The ferry"))], embedder)
    with pytest.raises(KeyboardInterrupt):
        reembed(base, Large(begun_and_killed, killed))
    reembed(other, Small())
    assert check(KnowledgeBase.open(base.folder)).damaged == ()


# --- any order --------------------------------------------------------------------------------------------------------

ACTS = ("remove bridge", "purge safe", "add lamp", "add ferry", "prune")


@settings(max_examples=12)
@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from(ACTS)), min_size=1, max_size=3, unique_by=lambda x: x[1]))
def test_whatever_others_do_in_between_the_end_is_that_of_some_order(acts: list[tuple[int, str]]) -> None:
    embedder = HashEmbedder()
    with tempfile.TemporaryDirectory() as place:
        base = KnowledgeBase.ensure(Path(place) / "kb", embedder.identity)
        first = written(Path(place) / "first", bridge="The bridge has four lanes.", safe=SECRET)
        add(base, [first], embedder)
        docs = written(Path(place) / "docs", ferry=long_text("The ferry", 1), safe=SECRET + " ")
        lamp = written(Path(place) / "lamp", lamp="The lamp is green.")
        other = KnowledgeBase.open(base.folder)
        asked, done = 0, set[str]()

        def act(what: str) -> None:
            done.add(what)
            if what == "remove bridge":
                remove(other, ["bridge.txt"])
            elif what == "purge safe":
                purge(other, [str(first / "safe.txt")], lock_timeout_s=SOON_S)
                assert not is_on_disk(base.folder, "canary-7341")
            elif what == "prune":
                prune(other, Retention(versions=1))
            else:
                add(other, [lamp if what == "add lamp" else docs / "ferry.txt"], embedder)

        def go_on() -> None:
            nonlocal asked
            asked += 1
            for at, what in acts:
                if at == asked and what not in done:
                    act(what)

        report = add(base, [docs], embedder, RunOptions(check_cancelled=go_on))
        wanted = ["docs/ferry.txt", "docs/safe.txt", "first/bridge.txt", "first/safe.txt", "lamp/lamp.txt"]
        gone = {"first/bridge.txt": "remove bridge", "first/safe.txt": "purge safe"}
        here = [p for p in wanted if gone.get(p) not in done and (p != "lamp/lamp.txt" or "add lamp" in done)]
        assert ["/".join(Path(path).parts[-2:]) for path in base.documents()] == here
        assert {v.outcome for v in report.verdicts} <= {"added", "unchanged", "duplicate"}
        assert check(base).damaged == ()
        assert base.search("lane ferry canary", embedder)[1]
        base.close()
        other.close()
        shutil.rmtree(base.folder)
