"""A knowledge base that 0.1.0 wrote must still open. `golden/kb-format-2.sql` is a dump written by its code."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from openbook.core.errors import KnowledgeBaseDamaged, KnowledgeBaseInvalid
from openbook.knowledge import KnowledgeBase, Scope
from openbook.knowledge.check import check
from openbook.knowledge.erasure import resolve_in_all_versions
from openbook.knowledge.store import schema
from openbook.knowledge.versions import history
from openbook.testing import HashEmbedder

GOLDEN = Path(__file__).parents[1] / "golden"


def sql(folder: Path, *statements: str) -> list[tuple[object, ...]]:
    """What the last one gives."""
    with closing(sqlite3.connect(folder / schema.FILE_NAME)) as connection:
        rows = [connection.execute(statement).fetchall() for statement in statements]
        connection.commit()
    return rows[-1]


def restore_dump(folder: Path, *statements: str, name: str = "kb-format-2") -> Path:
    """The knowledge base of a dump, and what was done to it then."""
    folder.mkdir()
    with closing(sqlite3.connect(folder / schema.FILE_NAME)) as connection:
        connection.executescript((GOLDEN / f"{name}.sql").read_text())
    sql(folder, "PRAGMA journal_mode = WAL", *statements)
    return folder


def shape(folder: Path) -> list[tuple[object, ...]]:
    return sql(folder, "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name")


def test_format_2_opens_with_all_that_it_held(tmp_path: Path, embedder: HashEmbedder) -> None:
    base = KnowledgeBase.open(restore_dump(tmp_path / "kb"), embedder.identity)
    assert base.documents() == ["/old/docs/bees.txt", "/old/docs/ferry.md", "/old/docs/salaries.md"]
    assert base.labels() == {"/old/docs/salaries.md": ["hr"]}
    assert [(v.version, v.tags) for v in history(base)] == [(3, ()), (2, ("spring",)), (1, ()), (0, ())]
    question = "How much does the captain earn?"
    assert not any("captain" in hit.passage.text for hit in base.search(question, embedder)[1])
    hits = base.search(question, embedder, scope=Scope(labels=frozenset({"hr"})))[1]
    assert "four thousand euros" in hits[0].passage.text
    assert "at nine" in (base.text("/old/docs/ferry.md", version=1) or "")
    assert check(base).damaged == ()


def test_format_2_opens_with_its_labels_and_what_was_renamed(tmp_path: Path, embedder: HashEmbedder) -> None:
    base = KnowledgeBase.open(restore_dump(tmp_path / "kb", name="kb-format-2-renamed"), embedder.identity)
    hr = frozenset({"hr"})
    assert [v.version for v in history(base)] == [6, 5, 4, 3, 2]
    assert base.documents() == ["/old/docs/bees.txt", "/old/docs/plan.md", "/old/docs/z-plan.md"]
    # The label that z-plan.md got in version 5 closes it in version 3 too, when it was plan.md; not the later plan.md.
    assert base.documents(Scope(3)) == base.documents(Scope(4)) == ["/old/docs/bees.txt"]
    assert base.documents(Scope(3, labels=hr)) == ["/old/docs/bees.txt", "/old/docs/plan.md"]
    assert base.documents(Scope(6)) == ["/old/docs/bees.txt", "/old/docs/plan.md"]
    assert resolve_in_all_versions(base, ["wages.txt"]) == [
        "/old/docs/wages.txt"
    ]  # of which no version is kept: its label waits for it
    assert base.connection.execute("SELECT labels FROM identities WHERE path LIKE '%wages.txt'").fetchall() == [
        ('["board"]',)
    ]


def test_format_3_opens_with_all_that_it_held(tmp_path: Path, embedder: HashEmbedder) -> None:
    base = KnowledgeBase.open(restore_dump(tmp_path / "kb", name="kb-format-3"), embedder.identity)
    assert base.labels() == {"/old/docs/salaries.md": ["hr"]}
    assert [(v.version, v.tags) for v in history(base)] == [(3, ()), (2, ()), (1, ("spring",)), (0, ())]
    assert base.search("When does the ferry leave?", embedder, scope=Scope(as_of=2))[1][0].passage.text.endswith(
        "nine."
    )
    assert check(base).damaged == ()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE documents SET labels = '[]'",
        "DELETE FROM identities WHERE id = 3",
        "DELETE FROM tags",
        "DELETE FROM sums",
    ],
)
def test_format_3_is_upgraded_only_if_it_is_whole(tmp_path: Path, damage: str) -> None:
    folder = restore_dump(tmp_path / "kb", damage, name="kb-format-3")
    with pytest.raises(KnowledgeBaseDamaged, match="is not what was written"):
        KnowledgeBase.open(folder)
    assert sql(folder, "PRAGMA user_version") == [(3,)]


def test_an_upgrade_does_not_make_whole_what_was_damaged_before(tmp_path: Path, embedder: HashEmbedder) -> None:
    altered = "UPDATE contents SET text = replace(text, 'fifty', 'sixty')"
    no_text = "UPDATE contents SET text = CAST(x'ff' AS TEXT) WHERE id = 3"
    base = KnowledgeBase.open(restore_dump(tmp_path / "kb", altered, no_text))
    assert base.text("/old/docs/ferry.md")
    with pytest.raises(KnowledgeBaseDamaged, match="content 1 is not what was stored"):
        base.text("/old/docs/bees.txt")
    with pytest.raises(KnowledgeBaseDamaged, match="a stored text is not UTF-8"):
        base.text("/old/docs/salaries.md")


def test_a_damaged_number_of_the_format_upgrades_nothing(tmp_path: Path) -> None:
    folder = restore_dump(tmp_path / "kb")
    KnowledgeBase.open(folder).close()
    before = (folder / schema.FILE_NAME).read_bytes()
    sql(folder, "PRAGMA user_version = 2")
    with pytest.raises(KnowledgeBaseDamaged, match="says format 2, but has tables of a later one"):
        KnowledgeBase.open(folder)
    sql(folder, "PRAGMA user_version = 3")
    with pytest.raises(KnowledgeBaseDamaged, match="is not what was written"):
        KnowledgeBase.open(folder)
    sql(folder, f"PRAGMA user_version = {schema.FORMAT}")
    assert KnowledgeBase.open(folder).labels() == {"/old/docs/salaries.md": ["hr"]}
    assert len((folder / schema.FILE_NAME).read_bytes()) == len(before)


def test_an_upgraded_file_has_the_tables_of_a_new_one(tmp_path: Path, embedder: HashEmbedder) -> None:
    KnowledgeBase.open(restore_dump(tmp_path / "old")).close()
    KnowledgeBase.ensure(tmp_path / "new", embedder.identity).close()
    assert shape(tmp_path / "old") == shape(tmp_path / "new")
    assert sql(tmp_path / "old", "PRAGMA foreign_key_check") == []
    assert sql(tmp_path / "old", "PRAGMA integrity_check") == [("ok",)]


def test_an_upgrade_that_fails_leaves_the_old_one_whole(tmp_path: Path) -> None:
    folder = restore_dump(tmp_path / "kb", "ALTER TABLE embeddings ADD COLUMN digest")  # in the way
    before = shape(folder)
    with pytest.raises(KnowledgeBaseInvalid):
        KnowledgeBase.open(folder)
    assert shape(folder) == before
