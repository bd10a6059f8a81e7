"""A knowledge base in a folder. The laws of every store stand in `tests/conformance/stores.py`."""

from __future__ import annotations

import gc
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from openbook.core.errors import KnowledgeBaseBusy, KnowledgeBaseInvalid, KnowledgeBaseMissing, StorageError
from openbook.knowledge import KnowledgeBase, RunOptions
from openbook.knowledge.check import check
from openbook.knowledge.index.scope import UNLABELLED
from openbook.knowledge.store import schema
from tests.knowledge.conftest import Library

LEAVE = "# Leave\n\nEveryone has 28 days of annual leave.\n\n## Carrying over\n\nUp to 5 days may be carried over.\n"


@pytest.fixture
def library(library: Library) -> Library:
    library.write("leave.md", LEAVE)
    library.write("travel.txt", "Travel by train is paid in second class.\n\nHotels cost up to 140 euros.\n")
    library.add()
    return library


def test_a_hit_has_its_place_and_passages_cover_their_document(library: Library) -> None:
    base = library.base
    library.write("copy.md", LEAVE)
    library.add()
    hits = library.hits("How many days of annual leave?")
    assert (hits[0].passage.document, hits[0].passage.also_in) == (library.path("copy.md"), (library.path("leave.md"),))
    assert base.passage(hits[0].passage.id, UNLABELLED) == replace(hits[0].passage, also_in=())
    for hit in hits:
        assert (base.text(hit.passage.document) or "")[hit.passage.start : hit.passage.end] == hit.passage.text
    assert base.text(library.path("leave.md")) == LEAVE
    for document in base.documents():
        passages = base.passages(document)
        assert "".join(p.text for p in passages) == base.text(document)
        assert {p.document for p in passages} == {document}


def test_a_folder_without_a_base_is_refused_and_so_is_one_with_other_files(library: Library) -> None:
    with pytest.raises(KnowledgeBaseMissing, match="openbook add"):
        KnowledgeBase.open(library.docs / "nothing")
    with pytest.raises(KnowledgeBaseInvalid, match=r"leave\.md"):
        KnowledgeBase.ensure(library.docs, library.embedder.identity)
    assert sorted(p.name for p in library.docs.iterdir()) == ["leave.md", "travel.txt"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("PRAGMA user_version = 3", "a development version of OpenBook: move"),
        (
            "UPDATE meta SET value = replace(value, '0,', '9,') WHERE key = 'sizing'",
            "a development version of OpenBook: move",
        ),
        ("PRAGMA user_version = 99", "format 99"),
        ("PRAGMA application_id = 0", "not an OpenBook knowledge base"),
        ("UPDATE meta SET value = '{}' WHERE key = 'embedder'", "its embedder lacks the key"),
    ],
)
def test_a_foreign_file_is_refused(library: Library, damage: str, words: str) -> None:
    library.base.close()
    with closing(sqlite3.connect(library.base.folder / schema.FILE_NAME, isolation_level=None)) as connection:
        connection.execute(damage)
    with pytest.raises(KnowledgeBaseInvalid, match=words):
        library.reopened()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / schema.FILE_NAME).mkdir()
    with pytest.raises(
        StorageError, match=r"Check that kb\.sqlite3 is a file, and that you may read and write it .*or choose another"
    ):
        KnowledgeBase.open(tmp_path)
    found = pytest.raises(StorageError, match=r"^Cannot read or write .*nothing: No such file")
    with found, schema.database_errors(tmp_path):
        (tmp_path / "nothing").read_bytes()


def test_the_size_on_disk_skips_broken_links(library: Library) -> None:
    before = library.base.status().bytes_on_disk
    (library.base.folder / "gone").symlink_to("nothing")
    (library.base.folder / "four").write_bytes(b"four")
    assert library.base.status().bytes_on_disk == before + 4


def test_a_check_that_cannot_write_the_indexes_says_why(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise StorageError("The disk is full.")

    shutil.rmtree(library.base.indexes.folder / "index")
    monkeypatch.setattr(library.base.indexes, "refresh", refuse)
    found = check(library.base)
    assert not found.repaired
    assert found.index_problems[-1] == "The disk is full."


def test_threads_read_during_a_write_and_a_second_writer_is_refused(library: Library) -> None:
    expected = library.base.search("annual leave", library.embedder)
    assert Path(expected[1][0].passage.document).name == "leave.md"
    shutil.rmtree(library.base.indexes.folder / "index")
    other = library.reopened()
    with library.base.writing(0.0):
        with ThreadPoolExecutor(6) as threads:
            runs = [threads.submit(other.search, "annual leave", library.embedder) for _ in range(6)]
        assert [run.result() for run in runs] == [expected] * 6
        library.base = other
        with pytest.raises(KnowledgeBaseBusy, match="Another process is writing"):
            library.add(options=RunOptions(lock_timeout_s=0.0))


def test_a_dropped_connection_is_closed_in_any_thread(tmp_path: Path) -> None:
    path = tmp_path / schema.FILE_NAME
    connections = [schema.SqliteConnection(path)]
    connections[0].begin()  # so that no one else can write
    connections.clear()
    with ThreadPoolExecutor(1) as another:
        another.submit(gc.collect).result()
    with closing(schema.SqliteConnection(path)) as connection:
        connection.begin()
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):  # and no other warning
        schema.SqliteConnection(tmp_path)
