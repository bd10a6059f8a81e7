from __future__ import annotations

import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from openbook.errors import KnowledgeBaseBusy, KnowledgeBaseInvalid, KnowledgeBaseMissing
from openbook.knowledge import KnowledgeBase, RunOptions, add, schema
from openbook.knowledge.scope import EVERYTHING
from openbook.records import EmbedderIdentity
from openbook.testing import HashEmbedder

LEAVE = (
    "# Leave\n\nEvery employee has 28 days of annual leave.\n\n## Carrying over\n\nUp to 5 days may be carried over.\n"
)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "leave.md").write_text(LEAVE)
    (folder / "travel.txt").write_text("Travel by train is paid in second class.\n\nHotels cost up to 140 euros.\n")
    return folder


@pytest.fixture
def base(tmp_path: Path, docs: Path, embedder: HashEmbedder) -> KnowledgeBase:
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)
    add(base, [docs], embedder)
    return base


def found(base: KnowledgeBase, query: str, embedder: HashEmbedder) -> list[str]:
    return [Path(hit.passage.document).name for hit in base.search(query, embedder, 5)[1]]


def test_a_hit_says_where_it_stands_and_its_text_stands_there(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    version, hits = base.search("How many days of annual leave?", embedder)
    assert version == 1
    passage = hits[0].passage
    assert passage.document == str(docs / "leave.md")
    assert base.text(passage.document) == LEAVE
    for hit in hits:
        text = base.text(hit.passage.document)
        assert text is not None
        assert text[hit.passage.start : hit.passage.end] == hit.passage.text
    assert base.passage(passage.id, EVERYTHING) == passage


def test_passages_cover_each_document_exactly_a_copy_too(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    (docs / "copy.md").write_text(LEAVE)
    add(base, [docs], embedder)
    assert len(base.documents()) == 3
    for document in base.documents():
        passages = base.passages(document)
        assert "".join(p.text for p in passages) == base.text(document)
        assert {p.document for p in passages} == {document}


def test_another_embedder_is_refused_by_name(base: KnowledgeBase) -> None:
    with pytest.raises(KnowledgeBaseInvalid, match="made with the embedder 'hash'"):
        KnowledgeBase.open(base.folder, EmbedderIdentity("other", "ff" * 32, 64))
    with pytest.raises(KnowledgeBaseInvalid, match="made with the embedder 'hash'"):
        base.search("leave", HashEmbedder(dimensions=32, name="other"))


def test_no_knowledge_base_there(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeBaseMissing, match="openbook add"):
        KnowledgeBase.open(tmp_path / "nothing")


def test_a_folder_with_other_files_is_not_made_into_one(docs: Path, embedder: HashEmbedder) -> None:
    with pytest.raises(KnowledgeBaseInvalid, match=r"leave\.md"):
        KnowledgeBase.ensure(docs, embedder.identity)
    assert sorted(p.name for p in docs.iterdir()) == ["leave.md", "travel.txt"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("PRAGMA user_version = 99", "format 99"),
        ("PRAGMA application_id = 0", "not an OpenBook knowledge base"),
        ("UPDATE meta SET value = '{}' WHERE key = 'embedder'", "its embedder lacks the key"),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused(base: KnowledgeBase, damage: str, words: str) -> None:
    base.close()
    with closing(sqlite3.connect(base.folder / schema.FILE_NAME, isolation_level=None)) as connection:
        connection.execute(damage)
    with pytest.raises(KnowledgeBaseInvalid, match=words):
        KnowledgeBase.open(base.folder)


def test_while_one_writes_others_read_and_a_second_writer_is_refused(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    shutil.rmtree(base.folder / "index")
    other = KnowledgeBase.open(base.folder)
    with base.writing(0.0):
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(found, other, "annual leave", embedder).result()[0] == "leave.md"
        with pytest.raises(KnowledgeBaseBusy, match="Another process is writing"):
            add(other, [docs], embedder, RunOptions(lock_timeout_s=0.0))


def test_threads_search_at_the_same_time(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    expected = base.search("annual leave", embedder)
    with ThreadPoolExecutor(6) as threads:
        runs = [threads.submit(base.search, "annual leave", embedder) for _ in range(6)]
    assert [run.result() for run in runs] == [expected] * 6


def test_an_empty_one_finds_nothing(tmp_path: Path, embedder: HashEmbedder) -> None:
    assert KnowledgeBase.ensure(tmp_path / "kb", embedder.identity).search("anything", embedder) == (0, [])


def test_hits_depend_on_the_documents_and_not_on_how_they_came_in(tmp_path: Path, embedder: HashEmbedder) -> None:
    docs = tmp_path / "many"
    docs.mkdir()
    for i in range(12):
        (docs / f"{i:02}.txt").write_text(
            f"The ferry number {i} leaves harbour {i % 7} and carries {'many ' * (i % 5)}cars."
        )
    final = {p: p.read_text() for p in docs.iterdir()}
    straight = KnowledgeBase.ensure(tmp_path / "straight", embedder.identity)
    add(straight, [docs], embedder)

    detours = KnowledgeBase.ensure(tmp_path / "detours", embedder.identity)
    for path in final:
        path.write_text("Something about lighthouses that will go away again.")
    add(detours, sorted(docs.iterdir(), reverse=True)[:6], embedder)
    for path, text in final.items():
        path.write_text(text)
    for path in sorted(docs.iterdir(), reverse=True):
        add(detours, [path], embedder)

    for query in ("ferry harbour 3", "many cars", "Which ferry carries cars?", "leaves"):
        expected = straight.search(query, embedder, 15)[1]
        assert detours.search(query, embedder, 15)[1] == expected
    shutil.rmtree(detours.folder / "index")
    in_memory = KnowledgeBase.open(detours.folder)
    assert in_memory.search("ferry harbour 3", embedder, 15) == detours.search("ferry harbour 3", embedder, 15)
