from __future__ import annotations

import pytest

from openbook.errors import KnowledgeBaseInvalid
from openbook.knowledge import KnowledgeBase, Scope, sync
from openbook.knowledge.embeddings import BATCH, reembed
from openbook.testing import HashEmbedder
from tests.knowledge.conftest import Interrupted, Library, killed

OTHER = HashEmbedder(dimensions=32, name="other")


@pytest.fixture
def library(library: Library) -> Library:
    """Two versions; of the first, one text is in no other."""
    parts = (f"Part number {i} is about subject{i}. " + "word " * 80 for i in range(150))
    library.write("many.txt", "\n\n".join(parts))
    for text in ("A document about bridges.", "Changed, now about ferries."):
        library.write("one.txt", text)
        library.sync()
    return library


def stored_vectors(base: KnowledgeBase) -> int:
    return int(base.connection.execute("SELECT count(*) FROM embeddings").fetchone()[0])


def test_all_kept_versions_get_the_new_vectors_in_one_switch(library: Library) -> None:
    reader, before = library.reopened(), library.embedder
    assert reader.search("subject7", before)[1]
    assert reembed(library.base, OTHER) == (3, stored_vectors(library.base))
    library.write("new.txt", "A document that comes later.")
    for work in (lambda: reader.search("subject7", before), lambda: sync(reader, library.docs, before)):
        with pytest.raises(KnowledgeBaseInvalid, match="another embedder meanwhile"):
            work()  # opened before the switch: it never mixes two embedders
    library.base, library.embedder = KnowledgeBase.open(library.base.folder, OTHER.identity), OTHER
    assert "subject7." in library.hits("subject7")[0].passage.text
    assert "bridges" in library.hits("bridges", Scope(1))[0].passage.text
    with pytest.raises(KnowledgeBaseInvalid, match="made with the embedder 'other'"):
        library.base.search("subject7", before)
    library.sync()
    assert "comes later" in library.hits("a document that comes later")[0].passage.text


def test_interrupted_it_changes_nothing_and_goes_on_later_with_the_same_embedder(library: Library) -> None:
    before = library.hits("subject7")
    for dimensions, name in ((16, "third"), (32, "other")):
        with pytest.raises(KeyboardInterrupt):
            reembed(library.base, Interrupted(lambda: None, killed, dimensions=dimensions, name=name))
    assert library.hits("subject7") == before
    assert reembed(library.base, OTHER)[1] == stored_vectors(library.base) - BATCH
