from __future__ import annotations

from pathlib import Path

import pytest

from openbook.errors import KnowledgeBaseInvalid
from openbook.knowledge import KnowledgeBase, Scope, sync
from openbook.knowledge.embeddings import reembed
from openbook.records import EmbedderIdentity, Vectors
from openbook.testing import HashEmbedder


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for i in range(150):
        (folder / f"{i:03}.txt").write_text(f"Document number {i} is about subject{i}.")
    return folder


@pytest.fixture
def base(tmp_path: Path, docs: Path, embedder: HashEmbedder) -> KnowledgeBase:
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)
    sync(base, docs, embedder)
    (docs / "000.txt").write_text("Changed, now about ferries.")
    sync(base, docs, embedder)
    return base


class Interrupted:
    """An embedder that stops after some batches."""

    def __init__(self, inner: HashEmbedder, batches: int) -> None:
        self._inner, self._left = inner, batches

    @property
    def identity(self) -> EmbedderIdentity:
        return self._inner.identity

    def embed_query(self, text: str) -> Vectors:
        return self._inner.embed_query(text)

    def embed_passages(self, texts: list[str]) -> Vectors:
        if self._left == 0:
            raise KeyboardInterrupt
        self._left -= 1
        return self._inner.embed_passages(texts)


def test_all_kept_versions_get_the_new_vectors_in_one_switch(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    other = HashEmbedder(dimensions=32, name="other")
    reader = KnowledgeBase.open(base.folder)
    assert reader.search("subject7", embedder)[1]
    version, count = reembed(base, other)
    assert (version, count) == (3, 151)
    with pytest.raises(KnowledgeBaseInvalid, match="another embedder meanwhile"):
        reader.search("subject7", embedder)
    again = KnowledgeBase.open(base.folder, other.identity)
    assert again.search("subject7", other)[1][0].passage.text.endswith("subject7.")
    assert "subject0" in again.search("subject0", other, scope=Scope(1))[1][0].passage.text
    with pytest.raises(KnowledgeBaseInvalid, match="made with the embedder 'other'"):
        again.search("subject7", embedder)


def test_interrupted_it_changes_nothing_and_goes_on_later(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    other = HashEmbedder(dimensions=32, name="other")
    before = base.search("subject7", embedder)
    with pytest.raises(KeyboardInterrupt):
        reembed(base, Interrupted(other, 1))  # type: ignore[arg-type]
    assert base.search("subject7", embedder) == before
    assert reembed(base, other)[1] == 151 - 64


def test_vectors_of_a_third_embedder_are_not_taken_for_the_new_ones(base: KnowledgeBase) -> None:
    with pytest.raises(KeyboardInterrupt):
        reembed(base, Interrupted(HashEmbedder(dimensions=32, name="third"), 1))  # type: ignore[arg-type]
    assert reembed(base, HashEmbedder(dimensions=16, name="other"))[1] == 151


def test_a_writer_of_before_never_mixes_two_embedders(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    reembed(KnowledgeBase.open(base.folder), HashEmbedder(dimensions=32, name="other"))
    (docs / "new.txt").write_text("A document that comes later.")
    with pytest.raises(KnowledgeBaseInvalid, match="another embedder meanwhile"):
        sync(base, docs, embedder)  # opened before the switch
    later = KnowledgeBase.open(base.folder)
    sync(later, docs, HashEmbedder(dimensions=32, name="other"))
    assert (
        "comes later"
        in later.search("a document that comes later", HashEmbedder(dimensions=32, name="other"))[1][0].passage.text
    )
