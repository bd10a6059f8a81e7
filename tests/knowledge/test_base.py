from __future__ import annotations

import shutil
import sqlite3
import threading
from pathlib import Path

import numpy as np
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


def test_passages_cover_each_document_exactly(base: KnowledgeBase) -> None:
    for document in base.documents():
        assert "".join(p.text for p in base.passages(document)) == base.text(document)


def test_ids_are_the_same_in_every_knowledge_base(
    base: KnowledgeBase, docs: Path, tmp_path: Path, embedder: HashEmbedder
) -> None:
    other = KnowledgeBase.ensure(tmp_path / "other", embedder.identity)
    add(other, [docs / "travel.txt"], embedder)
    document = str(docs / "travel.txt")
    assert other.passages(document) == base.passages(document)


@pytest.mark.parametrize("query", ["AND OR NOT", 'days" OR text:*', "(((", "leave^9 ~", "id:1", "\\", "[a TO z]", "*"])
def test_nothing_in_a_query_is_an_operator(base: KnowledgeBase, embedder: HashEmbedder, query: str) -> None:
    base.search(query, embedder)


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


def test_a_corrupt_file_is_named(base: KnowledgeBase) -> None:
    base.close()
    (base.folder / schema.FILE_NAME).write_bytes(b"this is not a database" * 100)
    with pytest.raises(KnowledgeBaseInvalid, match="damaged"):
        KnowledgeBase.open(base.folder)


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / schema.FILE_NAME).execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(KnowledgeBaseInvalid, match="not an OpenBook knowledge base"):
        KnowledgeBase.open(tmp_path)


def test_a_later_format_is_refused(base: KnowledgeBase) -> None:
    base.close()
    connection = sqlite3.connect(base.folder / schema.FILE_NAME)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(KnowledgeBaseInvalid, match="format 99"):
        KnowledgeBase.open(base.folder)


def test_readers_work_while_another_process_holds_the_lock(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    shutil.rmtree(base.folder / "index")
    reader = KnowledgeBase.open(base.folder)
    with base.writing(0.0):
        done: list[list[str]] = []
        thread = threading.Thread(target=lambda: done.append(found(reader, "annual leave", embedder)))
        thread.start()
        thread.join()
    assert done[0][0] == "leave.md"


def test_a_second_writer_is_refused_with_a_sentence(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    with base.writing(0.0), pytest.raises(KnowledgeBaseBusy, match="Another process is writing"):
        add(KnowledgeBase.open(base.folder), [docs], embedder, RunOptions(lock_timeout_s=0.0))


def test_threads_search_at_the_same_time(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    expected = base.search("annual leave", embedder)
    results: list[object] = []
    threads = [threading.Thread(target=lambda: results.append(base.search("annual leave", embedder))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 6


def test_an_empty_one_finds_nothing(tmp_path: Path, embedder: HashEmbedder) -> None:
    assert KnowledgeBase.ensure(tmp_path / "kb", embedder.identity).search("anything", embedder) == (0, [])


def test_the_vectors_kept_are_the_embedders(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    _, hits = base.search("Hotels", embedder, 3)
    assert all(h.similarity is not None and -1.01 <= h.similarity <= 1.01 for h in hits)
    stored = base.connection.execute("SELECT vector FROM embeddings").fetchall()
    for (vector,) in stored:
        assert np.linalg.norm(np.frombuffer(vector, "<f2").astype(np.float32)) == pytest.approx(1.0, abs=1e-2)


def test_hits_depend_on_the_documents_and_not_on_how_they_came_in(tmp_path: Path, embedder: HashEmbedder) -> None:
    docs = tmp_path / "many"
    docs.mkdir()
    for i in range(40):
        (docs / f"{i:02}.txt").write_text(
            f"The ferry number {i} leaves harbour {i % 7} and carries {'many ' * (i % 5)}cars."
        )
    final = {p: p.read_text() for p in docs.iterdir()}
    straight = KnowledgeBase.ensure(tmp_path / "straight", embedder.identity)
    add(straight, [docs], embedder)

    detours = KnowledgeBase.ensure(tmp_path / "detours", embedder.identity)
    for path in final:
        path.write_text("Something about lighthouses that will go away again.")
    add(detours, sorted(docs.iterdir(), reverse=True)[:20], embedder)
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


def test_passages_of_a_duplicate_are_its_own(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    (docs / "copy.md").write_text(LEAVE)
    add(base, [docs], embedder)
    for name in ("leave.md", "copy.md"):
        passages = base.passages(str(docs / name))
        assert "".join(p.text for p in passages) == LEAVE
        assert {p.document for p in passages} == {str(docs / name)}


def test_a_damaged_embedder_record_is_a_sentence(base: KnowledgeBase) -> None:
    base.close()
    connection = sqlite3.connect(base.folder / schema.FILE_NAME)
    connection.execute("UPDATE meta SET value = '{}' WHERE key = 'embedder'")
    connection.commit()
    connection.close()
    with pytest.raises(KnowledgeBaseInvalid, match="its embedder lacks the key"):
        KnowledgeBase.open(base.folder)
