"""The head that judges support, with numbers that were drawn: it computes, whatever it learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openbook.errors import EngineError
from openbook.inference import load_embedder
from openbook.inference.support import JudgingEmbedder
from openbook.models import ModelReference
from openbook.records import SupportJudge, sha256_hex
from openbook.testing import HashEmbedder

pytestmark = pytest.mark.model
WIDTH, CLASSES = 384, 3
QUESTION = "Who opened the bridge?"
PAIRS = [
    ("Lila Ortega did.", "Mayor Lila Ortega opened the bridge."),
    ("Tomas Brandl opened it.", "Mayor Lila Ortega opened the bridge."),
    ("", ""),
    ("word " * 1_000, "another " * 1_000),  # more than it reads
]


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "head.npz"
    monkeypatch.setattr("openbook.inference.support.HEAD", str(path))
    write_head(path, 1.0)
    return path


def write_head(path: Path, scale: float) -> None:
    draw = np.random.default_rng(0)
    layers: dict[str, Any] = {
        "pooler.weight": draw.normal(0, 0.1, (WIDTH, WIDTH)),
        "pooler.bias": np.zeros(WIDTH),
        "classifier.weight": draw.normal(0, 0.3, (WIDTH, CLASSES)) * scale,
        "classifier.bias": np.zeros(CLASSES),
    }
    np.savez(path, **{name: layer.astype(np.float16) for name, layer in layers.items()})


def opened(reference: ModelReference) -> JudgingEmbedder:
    embedder = load_embedder(reference)
    assert isinstance(embedder, JudgingEmbedder)
    return embedder


def test_only_the_default_embedder_judges(embedder_reference: ModelReference, head: Path) -> None:
    embedder = opened(embedder_reference)
    assert isinstance(embedder, SupportJudge)
    assert embedder.judge_digest == sha256_hex(head.read_bytes())
    assert not isinstance(HashEmbedder(), SupportJudge)


@pytest.mark.usefixtures("head")
def test_a_pair_has_the_same_bits_alone_and_beside_others(embedder_reference: ModelReference) -> None:
    embedder = opened(embedder_reference)
    rows = embedder.judge(QUESTION, PAIRS)
    assert rows.shape == (len(PAIRS), CLASSES)
    assert rows.dtype == np.float32
    assert np.allclose(rows.sum(axis=1), 1, atol=1e-6)
    assert not np.allclose(rows[0], rows[1], atol=1e-4)
    assert np.array_equal(embedder.judge(QUESTION, PAIRS[::-1]), rows[::-1])
    for pair, row in zip(PAIRS, rows, strict=True):
        assert np.array_equal(opened(embedder_reference).judge(QUESTION, [pair])[0], row)
    assert not np.array_equal(embedder.judge("", PAIRS)[0], rows[0])
    assert embedder.judge(QUESTION, []).shape == (0, CLASSES)


@pytest.mark.usefixtures("head")
def test_vectors_are_those_of_the_embedder_without_it(embedder_reference: ModelReference) -> None:
    embedder, other = opened(embedder_reference), opened(embedder_reference)
    embedder.judge(QUESTION, PAIRS)
    texts = [passage for _, passage in PAIRS[:2]]
    assert np.array_equal(embedder.embed_passages(texts), other.embed_passages(texts))


def test_numbers_that_are_none_are_an_error(embedder_reference: ModelReference, head: Path) -> None:
    write_head(head, np.nan)
    with pytest.raises(EngineError, match="no valid numbers"):
        opened(embedder_reference).judge(QUESTION, PAIRS[:1])
