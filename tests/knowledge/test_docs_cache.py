from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from openbook.core.errors import KnowledgeError
from openbook.knowledge import KnowledgeBase, Report
from openbook.knowledge.docs_cache import for_documents
from openbook.knowledge.ingest.contents import RunOptions
from openbook.testing import HashEmbedder
from tests.knowledge.conftest import bytes_below, vectors_of

Built = Callable[..., tuple[KnowledgeBase, Report | None]]


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for i in range(10):
        (folder / f"{i}.txt").write_text(f"Document {i} is about topic {i * i}.")
    return folder


@pytest.fixture
def built(docs: Path, tmp_path: Path, embedder: HashEmbedder) -> Built:
    """The knowledge base of the documents as they are, and the report if it had to be made."""

    def build(
        paths: Path = docs, options: RunOptions = RunOptions(), embedder: HashEmbedder = embedder
    ) -> tuple[KnowledgeBase, Report | None]:
        return for_documents([paths], tmp_path / "cache", embedder, options)

    return build


def test_a_cached_base_is_found_by_paths_and_contents(
    built: Built, docs: Path, tmp_path: Path, embedder: HashEmbedder
) -> None:
    first, report = built()
    assert report is not None
    assert len(first.documents()) == 10
    second, report = built()
    assert (second.folder, report) == (first.folder, None)
    assert for_documents([docs], tmp_path / "elsewhere", embedder)[0].id == first.id  # on every machine
    other = tmp_path / "other"
    other.mkdir()
    (other / "0.txt").write_text((docs / "0.txt").read_text())
    assert built(other)[0].documents() == [str(other / "0.txt")]
    (docs / "3.txt").write_text("Document 3 is about lighthouses now.")
    (docs / "4.txt").unlink()
    third, report = built()
    assert third.folder != first.folder
    assert report is not None
    assert report.passages_embedded == 1  # the other vectors are borrowed
    assert len(third.documents()) == 9
    small = HashEmbedder(dimensions=32, name="other")  # whose vectors are never borrowed
    base, report = built(embedder=small)
    assert report is not None
    assert report.passages_embedded == 9
    assert base.search("topic 49", small)[1]


def test_vectors_of_deleted_files_are_not_borrowed(built: Built, docs: Path) -> None:
    first, _ = built()
    gone = vectors_of(first, "Document 3")
    assert gone
    (docs / "3.txt").unlink()
    again, _ = built()
    assert not any(vector in bytes_below(again.folder) for vector in gone)


def test_old_bases_are_dropped(built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openbook.knowledge.docs_cache.KEPT", 2)
    bases: list[KnowledgeBase] = []
    for i in range(4):
        (tmp_path / "a.txt").write_text(f"Version {i}.")
        bases.append(built(tmp_path / "a.txt")[0])
    assert [b.folder.exists() for b in bases] == [False, False, True, True]


def test_unfinished_or_damaged_bases_are_rebuilt(built: Built, docs: Path) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "embed":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built(options=RunOptions(progress=interrupt))
    for _ in range(2):
        base, report = built()
        assert report is not None
        assert len(base.documents()) == 10
        base.close()
        (base.folder / "kb.sqlite3").write_bytes(b"garbage" * 1000)
    (docs / "new.txt").write_text("A new document.")  # so that the damaged one is only borrowed from
    assert len(built()[0].documents()) == 11


def test_a_file_that_changes_while_it_is_read_gets_a_new_key(built: Built, docs: Path, tmp_path: Path) -> None:
    def save(stage: str, done: int, total: int) -> None:
        if stage == "read" and done == 0:
            (tmp_path / "new.txt").write_text("Version B.")
            (tmp_path / "new.txt").replace(docs / "5.txt")  # whole, whenever it is read

    assert built(options=RunOptions(progress=save))[0].text(str(docs / "5.txt")) == "Version B."
    (docs / "5.txt").write_text("Document 5 is about topic 25.")
    assert built()[0].text(str(docs / "5.txt")) == "Document 5 is about topic 25."


def test_files_that_never_stop_changing_are_an_error(built: Built, docs: Path) -> None:
    def save(stage: str, done: int, total: int) -> None:
        with (docs / "5.txt").open("a") as file:
            file.write("More of it. ")

    with pytest.raises(KnowledgeError, match="keep changing"):
        built(options=RunOptions(progress=save))
