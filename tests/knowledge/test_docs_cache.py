from __future__ import annotations

from pathlib import Path

import pytest

from openbook.errors import KnowledgeError
from openbook.knowledge import KnowledgeBase, RunOptions
from openbook.knowledge.docs_cache import for_documents
from openbook.testing import HashEmbedder


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for i in range(10):
        (folder / f"{i}.txt").write_text(f"Document {i} is about topic {i * i}.")
    return folder


def test_the_second_run_finds_what_the_first_built(docs: Path, tmp_path: Path, embedder: HashEmbedder) -> None:
    first, report = for_documents([docs], tmp_path / "cache", embedder)
    assert report is not None
    assert len(first.documents()) == 10
    second, report = for_documents([docs], tmp_path / "cache", embedder)
    assert report is None
    assert second.folder == first.folder


def test_a_change_gives_another_one_and_embeds_only_what_changed(
    docs: Path, tmp_path: Path, embedder: HashEmbedder
) -> None:
    first, _ = for_documents([docs], tmp_path / "cache", embedder)
    (docs / "3.txt").write_text("Document 3 is about lighthouses now.")
    (docs / "4.txt").unlink()
    second, report = for_documents([docs], tmp_path / "cache", embedder)
    assert second.folder != first.folder
    assert report is not None
    assert report.passages_embedded == 1
    assert len(second.documents()) == 9


def test_unfinished_work_is_never_taken_for_whole(docs: Path, tmp_path: Path, embedder: HashEmbedder) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "embed":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        for_documents([docs], tmp_path / "cache", embedder, RunOptions(progress=interrupt))
    base, report = for_documents([docs], tmp_path / "cache", embedder)
    assert report is not None
    assert len(base.documents()) == 10


def test_two_folders_with_equal_files_keep_their_own_paths(docs: Path, tmp_path: Path, embedder: HashEmbedder) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "0.txt").write_text((docs / "0.txt").read_text())
    base, _ = for_documents([other], tmp_path / "cache", embedder)
    assert base.documents() == [str(other / "0.txt")]


def test_old_ones_are_dropped(tmp_path: Path, embedder: HashEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openbook.knowledge.docs_cache.KEPT", 2)
    file = tmp_path / "a.txt"
    bases: list[KnowledgeBase] = []
    for i in range(4):
        file.write_text(f"Version {i}.")
        bases.append(for_documents([file], tmp_path / "cache", embedder)[0])
    assert [b.folder.exists() for b in bases] == [False, False, True, True]


def test_vectors_of_another_embedder_are_never_borrowed(docs: Path, tmp_path: Path, embedder: HashEmbedder) -> None:
    for_documents([docs], tmp_path / "cache", embedder)
    other = HashEmbedder(dimensions=32, name="other")
    base, report = for_documents([docs], tmp_path / "cache", other)
    assert report is not None
    assert report.passages_embedded == 10
    assert base.search("topic 49", other)[1]


def test_a_damaged_one_is_built_again(docs: Path, tmp_path: Path, embedder: HashEmbedder) -> None:
    base, _ = for_documents([docs], tmp_path / "cache", embedder)
    base.close()
    (base.folder / "kb.sqlite3").write_bytes(b"garbage" * 1000)
    again, report = for_documents([docs], tmp_path / "cache", embedder)
    assert report is not None
    assert len(again.documents()) == 10
    again.close()
    (again.folder / "kb.sqlite3").write_bytes(b"garbage" * 1000)
    (docs / "new.txt").write_text("A new document.")  # so that the damaged one is only borrowed from
    assert len(for_documents([docs], tmp_path / "cache", embedder)[0].documents()) == 11


def test_a_file_that_changes_while_it_is_read_never_stands_under_the_old_key(
    docs: Path, tmp_path: Path, embedder: HashEmbedder
) -> None:
    def save(stage: str, done: int, total: int) -> None:
        if stage == "read" and done == 0:
            (tmp_path / "new.txt").write_text("Version B.")
            (tmp_path / "new.txt").replace(docs / "5.txt")  # whole, whenever it is read

    changed, _ = for_documents([docs], tmp_path / "cache", embedder, RunOptions(progress=save))
    assert changed.text(str(docs / "5.txt")) == "Version B."
    (docs / "5.txt").write_text("Document 5 is about topic 25.")
    original, _ = for_documents([docs], tmp_path / "cache", embedder)
    assert original.text(str(docs / "5.txt")) == "Document 5 is about topic 25."


def test_files_that_never_stop_changing_are_an_error(docs: Path, tmp_path: Path, embedder: HashEmbedder) -> None:
    count = 0

    def save(stage: str, done: int, total: int) -> None:
        nonlocal count
        count += 1
        (docs / "5.txt").write_text(f"Version {count}.")

    with pytest.raises(KnowledgeError, match="keep changing"):
        for_documents([docs], tmp_path / "cache", embedder, RunOptions(progress=save))


def test_equal_documents_give_the_same_id_on_every_machine(docs: Path, tmp_path: Path, embedder: HashEmbedder) -> None:
    ids = {for_documents([docs], tmp_path / cache, embedder)[0].id for cache in ("one", "two")}
    assert len(ids) == 1
