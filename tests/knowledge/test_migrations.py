"""Every past format of the knowledge base must still open. `golden/kb-format-N.sql` is a dump written by that format's code."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from openbook.errors import KnowledgeBaseDamaged, KnowledgeBaseInvalid
from openbook.knowledge import KnowledgeBase, Scope, schema
from openbook.knowledge.check import check
from openbook.knowledge.erasure import resolve_in_all_versions
from openbook.knowledge.versions import history
from openbook.testing import HashEmbedder

GOLDEN = Path(__file__).parent / "golden"


def restore_dump(folder: Path, name: int | str) -> Path:
    folder.mkdir()
    connection = sqlite3.connect(folder / schema.FILE_NAME)
    connection.executescript((GOLDEN / f"kb-format-{name}.sql").read_text())
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    return folder


def shape(folder: Path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(folder / schema.FILE_NAME)
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
    ).fetchall()
    connection.close()
    return rows


def test_format_1_opens_with_all_that_it_held(tmp_path: Path, embedder: HashEmbedder) -> None:
    base = KnowledgeBase.open(restore_dump(tmp_path / "kb", 1), embedder.identity)
    assert base.documents() == ["/old/docs/bees.txt", "/old/docs/ferry.md"]
    assert [v.version for v in history(base)] == [2, 1, 0]
    assert base.id == "f" * 32
    found = base.search("When does the ferry leave?", embedder)[1][0].passage.text
    assert found.startswith("# Ferry\n\nThe ferry leaves at ten.")
    assert "at nine" in (base.text("/old/docs/ferry.md", version=1) or "")
    assert [(v.path, v.outcome) for v in base.status().not_in] == [("/old/docs/broken.pdf", "failed")]
    assert check(base).damaged == ()


def test_format_2_opens_with_all_that_it_held(tmp_path: Path, embedder: HashEmbedder) -> None:
    base = KnowledgeBase.open(restore_dump(tmp_path / "kb", 2), embedder.identity)
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
    base = KnowledgeBase.open(restore_dump(tmp_path / "kb", "2-renamed"), embedder.identity)
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


def test_an_upgrade_does_not_make_whole_what_was_damaged_before(tmp_path: Path, embedder: HashEmbedder) -> None:
    folder = restore_dump(tmp_path / "kb", 2)
    connection = sqlite3.connect(folder / schema.FILE_NAME)
    connection.execute("UPDATE contents SET text = replace(text, 'fifty', 'sixty')")
    connection.execute("UPDATE contents SET text = CAST(x'ff' AS TEXT) WHERE id = 3")
    connection.commit()
    connection.close()
    base = KnowledgeBase.open(folder)
    assert base.text("/old/docs/ferry.md")
    with pytest.raises(KnowledgeBaseDamaged, match="content 1 is not what was stored"):
        base.text("/old/docs/bees.txt")
    with pytest.raises(KnowledgeBaseDamaged, match="a stored text is not UTF-8"):
        base.text("/old/docs/salaries.md")


@pytest.mark.parametrize("number", [1, 2])
def test_a_damaged_number_of_the_format_upgrades_nothing(tmp_path: Path, number: int) -> None:
    folder = restore_dump(tmp_path / "kb", 2)
    KnowledgeBase.open(folder).close()
    before = (folder / schema.FILE_NAME).read_bytes()
    connection = sqlite3.connect(folder / schema.FILE_NAME)
    connection.execute(f"PRAGMA user_version = {number}")
    connection.close()
    with pytest.raises(KnowledgeBaseDamaged, match=f"says format {number}, but has tables of a later one"):
        KnowledgeBase.open(folder)
    connection = sqlite3.connect(folder / schema.FILE_NAME)
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    assert KnowledgeBase.open(folder).labels() == {"/old/docs/salaries.md": ["hr"]}
    assert len((folder / schema.FILE_NAME).read_bytes()) == len(before)


@pytest.mark.parametrize("number", [1, 2])
def test_an_upgraded_file_has_the_tables_of_a_new_one(tmp_path: Path, embedder: HashEmbedder, number: int) -> None:
    KnowledgeBase.open(restore_dump(tmp_path / "old", number)).close()
    KnowledgeBase.ensure(tmp_path / "new", embedder.identity).close()
    assert shape(tmp_path / "old") == shape(tmp_path / "new")
    connection = sqlite3.connect(tmp_path / "old" / schema.FILE_NAME)
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_an_upgrade_that_fails_leaves_the_old_one_whole(tmp_path: Path) -> None:
    folder = restore_dump(tmp_path / "kb", 1)
    before = shape(folder)
    connection = sqlite3.connect(folder / schema.FILE_NAME)
    connection.execute("CREATE TABLE old_passages (x)")  # in the way
    connection.commit()
    connection.close()
    with pytest.raises(KnowledgeBaseInvalid):
        KnowledgeBase.open(folder)
    assert [row for row in shape(folder) if row[0] != "old_passages"] == before
