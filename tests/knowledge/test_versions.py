from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from openbook.errors import KnowledgeError, QuestionError
from openbook.knowledge import KnowledgeBase, RunOptions, Scope, sync, versions
from openbook.knowledge.discovery import discover
from openbook.knowledge.ingest import FileBatch, Ingest
from openbook.knowledge.sliced_run import in_slices
from openbook.knowledge.versions import (
    Retention,
    diff,
    drop_tag,
    history,
    prune,
    resolve_version,
    restore,
    set_retention,
    tag,
)
from openbook.records import Hit
from openbook.testing import HashEmbedder


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    return folder


@pytest.fixture
def base(tmp_path: Path, docs: Path, embedder: HashEmbedder) -> KnowledgeBase:
    """Four versions: a; a, b; a changed, b; a changed, c."""
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)
    (docs / "a.txt").write_text("Ferries leave at nine.")
    sync(base, docs, embedder)
    (docs / "b.txt").write_text("Harbours close at night.")
    sync(base, docs, embedder)
    (docs / "a.txt").write_text("Ferries leave at ten.")
    sync(base, docs, embedder)
    (docs / "b.txt").unlink()
    (docs / "c.txt").write_text("Lighthouses shine.")
    sync(base, docs, embedder)
    return base


def texts(base: KnowledgeBase, embedder: HashEmbedder, version: int | None = None) -> set[str]:
    return {h.passage.text for h in base.search("ferries harbours lighthouses", embedder, scope=Scope(version))[1]}


def test_history_tells_what_each_version_did(base: KnowledgeBase) -> None:
    assert [(v.version, v.summary, v.documents) for v in history(base)] == [
        (4, "1 added, 1 removed", 2),
        (3, "1 updated", 2),
        (2, "1 added", 2),
        (1, "1 added", 1),
        (0, "created", 0),
    ]


def test_a_query_as_of_a_version_gives_what_it_gave_then(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    def results(version: int) -> list[tuple[Hit, ...]]:
        return [tuple(base.search(q, embedder, scope=Scope(version))[1]) for q in ("ferries leave", "night", "shine")]

    assert texts(base, embedder, 1) == {"Ferries leave at nine."}
    assert texts(base, embedder, 2) == {"Ferries leave at nine.", "Harbours close at night."}
    assert texts(base, embedder, 0) == set()
    then = {version: results(version) for version in range(5)}
    for i in range(20):
        (docs / f"later{i}.txt").write_text(f"Ferries and harbours at night shine, number {i}.")
    sync(base, docs, embedder)
    (docs / "a.txt").unlink()
    sync(base, docs, embedder)
    assert {version: results(version) for version in range(5)} == then
    fresh = KnowledgeBase.open(base.folder)
    assert [tuple(fresh.search("ferries leave", embedder, scope=Scope(2))[1])] == then[2][:1]


def test_versions_are_named_by_number_tag_and_time(base: KnowledgeBase) -> None:
    assert resolve_version(base, "2") == 2
    assert tag(base, "spring", 2) == 2
    assert resolve_version(base, "spring") == 2
    assert resolve_version(base, datetime.now(UTC).date().isoformat()) == 4
    assert resolve_version(base, (datetime.now(UTC) + timedelta(minutes=1)).isoformat()) == 4
    with pytest.raises(KnowledgeError, match="oldest kept, 0"):
        resolve_version(base, "2001-01-01")
    with pytest.raises(KnowledgeError, match="Did you mean 'spring'"):
        resolve_version(base, "sprint")
    with pytest.raises(KnowledgeError, match="there are 0 to 4"):
        resolve_version(base, "17")
    with pytest.raises(KnowledgeError, match="not a time"):
        resolve_version(base, "2026-13-45")


def test_a_tag_names_one_version(base: KnowledgeBase) -> None:
    tag(base, "spring", 2)
    tag(base, "spring", 2)
    with pytest.raises(KnowledgeError, match="already names version 2"):
        tag(base, "spring", 3)
    for bad in ("2", "2026-01-01", "", "a b", "x" * 65):
        with pytest.raises(QuestionError, match="not a tag"):
            tag(base, bad)
    drop_tag(base, "spring")
    with pytest.raises(KnowledgeError, match="No tag"):
        drop_tag(base, "spring")


def test_the_clock_may_go_back(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "now", lambda: "2001-01-01T00:00:00+00:00")
    (docs / "d.txt").write_text("Written long ago, it seems.")
    sync(base, docs, embedder)
    times = [v.created_at for v in history(base)]
    assert times == sorted(times, reverse=True)
    assert resolve_version(base, datetime.now(UTC).isoformat()) == 5


def test_diff_tells_documents_and_passages(base: KnowledgeBase, docs: Path) -> None:
    found = diff(base, 2, 4)
    assert (found.added, found.changed, found.removed) == ((f"{docs}/c.txt",), (f"{docs}/a.txt",), (f"{docs}/b.txt",))
    assert [c.text for c in found.passages_added] == ["Ferries leave at ten.", "Lighthouses shine."]
    assert [c.text for c in found.passages_removed] == ["Ferries leave at nine.", "Harbours close at night."]
    assert diff(base, 3, 3).passages_added == ()
    back = diff(base, 4, 2)
    assert (back.added, back.passages_added) == (found.removed, found.passages_removed)


def test_a_diff_can_be_ended_between_two_documents(base: KnowledgeBase) -> None:
    class EndedError(Exception):
        pass

    calls = iter(range(100))

    def check() -> None:
        if next(calls) == 3:  # of two documents a side
            raise EndedError

    with pytest.raises(EndedError):
        diff(base, 2, 4, check=check)


def test_restore_makes_a_new_version_with_the_old_documents(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    before = embedder.texts_embedded
    assert restore(base, 2) == 5
    assert texts(base, embedder) == texts(base, embedder, 2)
    assert texts(base, embedder, 4) == {"Ferries leave at ten.", "Lighthouses shine."}
    assert restore(base, 2) == 5
    assert embedder.texts_embedded == before
    sync(base, docs, embedder)  # the disk wins again
    assert texts(base, embedder) == {"Ferries leave at ten.", "Lighthouses shine."}


def test_prune_keeps_the_newest_the_tagged_and_what_they_hold(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    tag(base, "spring", 2)
    kept = {version: texts(base, embedder, version) for version in (2, 4)}
    pruned = prune(base, Retention(versions=1))
    assert (pruned.versions, pruned.kept) == (3, (2, 4))
    assert {version: texts(base, embedder, version) for version in (2, 4)} == kept
    with pytest.raises(KnowledgeError, match=r"Version 3 is not kept in .*; there are 2, 4"):
        texts(base, embedder, 3)
    drop_tag(base, "spring")
    assert prune(base, Retention(versions=1)).contents == 2
    assert b"Harbours close" not in b"".join(p.read_bytes() for p in base.folder.rglob("*") if p.is_file())
    assert texts(base, embedder) == kept[4]


def test_prune_by_age_keeps_what_was_in_use_then(base: KnowledgeBase) -> None:
    assert prune(base, Retention(days=1.0)).kept == (0, 1, 2, 3, 4)
    with base.writing(1.0) as writer:
        for version, days in ((0, 9), (1, 7), (2, 5), (3, 3)):
            moment = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
            writer.execute("UPDATE versions SET created_at = ? WHERE version = ?", (moment, version))
    assert prune(base, Retention(days=4.0)).kept == (2, 3, 4)


def test_a_saved_policy_is_applied_after_every_change(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    set_retention(base, Retention(versions=2))
    (docs / "a.txt").write_text("Ferries leave at eleven.")
    sync(base, docs, embedder)
    assert [v.version for v in history(base)] == [5, 4]
    assert base.status().texts == 2


def test_a_time_of_versions_that_are_gone_is_refused(base: KnowledgeBase) -> None:
    with base.writing(5.0) as connection:
        for number in range(1, 5):
            connection.execute(
                "UPDATE versions SET created_at = ? WHERE version = ?", (f"2026-01-0{number}T12:00:00+00:00", number)
            )
    tag(base, "first", 1)
    prune(base, Retention(versions=1))
    assert resolve_version(base, "2026-01-04T12:00") == 4
    with pytest.raises(KnowledgeError, match=r"may be one of 2 to 3, which are not kept.*--as-of 1"):
        resolve_version(base, "2026-01-03T18:00")


@pytest.mark.parametrize("text", ["0001-01-01T00:00+05:00", "9999-12-31T23:59-05:00", "\udcff", "2026-13-01"])
def test_nonsense_for_a_version_is_a_sentence(text: str, base: KnowledgeBase) -> None:
    with pytest.raises(KnowledgeError):
        resolve_version(base, text)
    with pytest.raises(KnowledgeError, match="No tag"):
        drop_tag(base, text)


@pytest.mark.parametrize("policy", [{"versions": 0}, {"days": float("nan")}, {"days": 1e10}, {"days": -1.0}])
def test_a_policy_that_makes_no_sense_is_refused(policy: dict[str, float]) -> None:
    with pytest.raises(QuestionError):
        Retention(**policy)  # type: ignore[arg-type]


def test_a_policy_leaves_unfinished_work_alone(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    set_retention(base, Retention(versions=1))
    found = list(discover([_with(docs.parent / "more", "x.txt")]))
    # What an interrupted run leaves: contents that no version has yet.
    taken = in_slices(base, lambda run: Ingest(run, base.sizing, RunOptions(), {}).add(FileBatch(found)), 5.0)
    unfinished = taken.changes[0].content_id
    (docs / "a.txt").write_text("Ferries leave at noon.")
    sync(base, docs, embedder)
    assert [v.version for v in history(base)] == [5]
    assert base.connection.execute("SELECT count(*) FROM contents WHERE id = ?", (unfinished,)).fetchone() == (1,)
    assert base.connection.execute("SELECT count(*) FROM contents").fetchone() == (3,)


def _with(folder: Path, name: str) -> Path:
    folder.mkdir()
    (folder / name).write_text("Taken in, but not committed.")
    return folder
