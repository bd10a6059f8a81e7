from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from openbook.errors import ConfigError, KnowledgeBaseInvalid
from openbook.inference import token_counter
from openbook.knowledge import KnowledgeBase, RunOptions, sync
from openbook.knowledge.sizing import Sizing
from openbook.models import ModelReference
from openbook.testing import HashEmbedder

TEXT = " ".join(f"Sentence number {i} is about harbour {i % 7}." for i in range(100))


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text(TEXT)
    return folder


def test_the_size_is_that_of_the_knowledge_base_ever_after(docs: Path, tmp_path: Path, embedder: HashEmbedder) -> None:
    KnowledgeBase.ensure(tmp_path / "kb", embedder.identity, sizing=Sizing(size=200, overlap=60)).close()
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)
    sync(base, docs, embedder)
    passages = base.passages(str(docs / "a.txt"))
    assert max(p.end - p.start for p in passages) <= 200
    assert any(b.start < a.end for a, b in pairwise(passages))
    assert passages[0].start == 0
    assert passages[-1].end == len(TEXT)


def test_passages_in_tokens_need_who_counts(docs: Path, tmp_path: Path, embedder: HashEmbedder) -> None:
    def words(texts: object) -> list[int]:
        return [len(str(text).split()) for text in texts]  # type: ignore[attr-defined]

    sizing = Sizing("tokens", 20, 0, "d" * 64, "some-reader")
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity, sizing=sizing)
    with pytest.raises(ConfigError, match="tokens of 'some-reader'"):
        sync(base, docs, embedder)
    sync(base, docs, embedder, options=RunOptions(count=words))
    lengths = [len(p.text.split()) for p in base.passages(str(docs / "a.txt"))]
    assert 10 < max(lengths) <= 20


@pytest.mark.model
def test_tokens_are_counted_as_the_reader_counts_them(model_reference: ModelReference) -> None:
    count = token_counter(model_reference)
    assert count(["", "The ferry leaves at nine."]) == [0, 6]


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (10, 6), (10, -1)])
def test_sizes_that_make_no_sense_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(ConfigError, match="make no sense"):
        Sizing(size=size, overlap=overlap)


def test_a_damaged_record_is_a_sentence() -> None:
    assert Sizing.from_json(Sizing("tokens", 9, 2, "a", "b").to_json()) == Sizing("tokens", 9, 2, "a", "b")
    for text in ("", "[]", '{"siz": 3}'):
        with pytest.raises(KnowledgeBaseInvalid, match="passage size"):
            Sizing.from_json(text)
