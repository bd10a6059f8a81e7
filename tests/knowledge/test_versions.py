"""Versions in detail. That each can be searched, tagged, compared, restored and pruned is in `tests/conformance/stores.py`."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from openbook.core.errors import KnowledgeError, QuestionError
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.store import version_rows
from openbook.knowledge.versions import diff, drop_tag, history, prune, resolve_version, set_retention, tag
from tests.knowledge.conftest import Library


@pytest.fixture
def library(library: Library) -> Library:
    """Four versions: a; a, b; a changed, b; a changed, c."""
    for changes in (
        {"a.txt": "Ferries leave at nine."},
        {"b.txt": "Harbours close at night."},
        {"a.txt": "Ferries leave at ten."},
        {"c.txt": "Lighthouses shine."},
    ):
        for name, text in changes.items():
            library.write(name, text)
        if "c.txt" in changes:
            (library.docs / "b.txt").unlink()
        library.sync()
    return library


@pytest.fixture
def base(library: Library) -> KnowledgeBase:
    return library.base


def test_a_version_is_named_by_number_tag_or_time(base: KnowledgeBase) -> None:
    for _ in range(2):
        tag(base, "spring", 2)
    soon = datetime.now(UTC) + timedelta(minutes=1)
    for name, version in (("2", 2), ("spring", 2), (soon.isoformat(), 4), (soon.date().isoformat(), 4)):
        assert resolve_version(base, name) == version
    for name, words in (
        ("2001-01-01", "oldest kept, 0"),
        ("sprint", "Did you mean 'spring'"),
        ("17", "there are 0 to 4"),
        ("2026-13-45", "not a time"),
        ("0001-01-01T00:00+05:00", "."),
        ("9999-12-31T23:59-05:00", "."),
        ("\udcff", "."),
    ):
        with pytest.raises(KnowledgeError, match=words):
            resolve_version(base, name)
        with pytest.raises(KnowledgeError, match="No tag"):
            drop_tag(base, name)
    with pytest.raises(KnowledgeError, match="already names version 2"):
        tag(base, "spring", 3)
    for bad in ("2", "2026-01-01", "", "a b", "x" * 65):
        with pytest.raises(QuestionError, match="not a tag"):
            tag(base, bad)
    drop_tag(base, "spring")
    with pytest.raises(KnowledgeError, match="No tag"):
        drop_tag(base, "spring")


def test_the_clock_may_go_back(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version_rows, "now", lambda: "2001-01-01T00:00:00+00:00")
    library.write("d.txt", "Written long ago, it seems.")
    library.sync()
    times = [v.created_at for v in history(library.base)]
    assert times == sorted(times, reverse=True)
    assert resolve_version(library.base, datetime.now(UTC).isoformat()) == 5


def test_diff_lists_documents_and_passages_and_can_be_cancelled(library: Library) -> None:
    found = diff(library.base, 2, 4)
    changes = [library.path(f"{name}.txt") for name in "cab"]
    assert [*found.added, *found.changed, *found.removed] == changes
    assert [c.text for c in found.passages_added] == ["Ferries leave at ten.", "Lighthouses shine."]
    assert [c.text for c in found.passages_removed] == ["Ferries leave at nine.", "Harbours close at night."]
    assert diff(library.base, 3, 3).passages_added == ()
    back = diff(library.base, 4, 2)
    assert (back.added, back.passages_added) == (found.removed, found.passages_removed)
    calls = iter(range(100))

    def check() -> None:
        if next(calls) == 3:  # of two documents a side
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        diff(library.base, 2, 4, check=check)


def test_a_version_pruned_during_a_diff_is_not_damage(library: Library) -> None:
    def check() -> None:
        prune(other, 1)

    gone = pytest.raises(KnowledgeError, match="Version 2 is not kept")
    with closing(library.reopened()) as other, gone:
        diff(library.base, 2, 4, check=check)


def test_a_time_of_pruned_versions_is_refused(base: KnowledgeBase) -> None:
    with base.writing(5.0) as connection:
        then = "'2026-01-0' || version || 'T12:00:00+00:00'"
        connection.execute(f"UPDATE versions SET created_at = {then} WHERE version > 0")
    tag(base, "first", 1)
    assert prune(base, 1).contents == 1
    with pytest.raises(KnowledgeError, match=r"Version 3 is not kept in .*; there are 1, 4"):
        base.kept_version(3)
    assert resolve_version(base, "2026-01-04T12:00") == 4
    with pytest.raises(KnowledgeError, match=r"may be one of 2 to 3, which are not kept.*is kept: version 1\."):
        resolve_version(base, "2026-01-03T18:00")


def test_retention_is_applied_after_every_change(library: Library) -> None:
    set_retention(library.base, 2)
    library.write("a.txt", "Ferries leave at eleven.")
    library.sync()
    assert [v.version for v in history(library.base)] == [5, 4]
    assert library.base.connection.execute("SELECT count(*) FROM contents").fetchone() == (3,)
