from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from openbook.errors import KnowledgeBaseInvalid
from openbook.knowledge import KnowledgeBase, Scope, sync
from openbook.knowledge.embeddings import BATCH, reembed
from openbook.records import Vectors
from openbook.testing import HashEmbedder

OTHER = HashEmbedder(dimensions=32, name="other")


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    parts = (f"Part number {i} is about subject{i}. " + "word " * 80 for i in range(150))
    (folder / "many.txt").write_text("\n\n".join(parts))
    (folder / "one.txt").write_text("A document about bridges.")
    return folder


@pytest.fixture
def base(tmp_path: Path, docs: Path, embedder: HashEmbedder) -> KnowledgeBase:
    """Two versions; of the first, one text is in no other."""
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)
    sync(base, docs, embedder)
    (docs / "one.txt").write_text("Changed, now about ferries.")
    sync(base, docs, embedder)
    return base


def texts_in(base: KnowledgeBase) -> int:
    return int(base.connection.execute("SELECT count(*) FROM embeddings").fetchone()[0])


class StopsAfterOneBatch(HashEmbedder):
    batches = 1

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        if self.batches == 0:
            raise KeyboardInterrupt
        self.batches -= 1
        return super().embed_passages(texts)


def test_all_kept_versions_get_the_new_vectors_in_one_switch(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    reader = KnowledgeBase.open(base.folder)
    assert reader.search("subject7", embedder)[1]
    assert reembed(base, OTHER) == (3, texts_in(base))
    with pytest.raises(KnowledgeBaseInvalid, match="another embedder meanwhile"):
        reader.search("subject7", embedder)
    (docs / "new.txt").write_text("A document that comes later.")
    with pytest.raises(KnowledgeBaseInvalid, match="another embedder meanwhile"):
        sync(reader, docs, embedder)  # opened before the switch: it never mixes two embedders
    again = KnowledgeBase.open(base.folder, OTHER.identity)
    assert "subject7." in again.search("subject7", OTHER)[1][0].passage.text
    assert "bridges" in again.search("bridges", OTHER, scope=Scope(1))[1][0].passage.text
    with pytest.raises(KnowledgeBaseInvalid, match="made with the embedder 'other'"):
        again.search("subject7", embedder)
    sync(again, docs, OTHER)
    assert "comes later" in again.search("a document that comes later", OTHER)[1][0].passage.text


def test_interrupted_it_changes_nothing_and_goes_on_later_with_the_same_embedder(
    base: KnowledgeBase, embedder: HashEmbedder
) -> None:
    before = base.search("subject7", embedder)
    with pytest.raises(KeyboardInterrupt):
        reembed(base, StopsAfterOneBatch(dimensions=16, name="third"))
    with pytest.raises(KeyboardInterrupt):
        reembed(base, StopsAfterOneBatch(dimensions=32, name="other"))
    assert base.search("subject7", embedder) == before
    assert reembed(base, OTHER)[1] == texts_in(base) - BATCH
