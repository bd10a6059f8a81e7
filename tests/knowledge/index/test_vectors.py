from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from openbook.knowledge.index import vectors
from openbook.knowledge.index.segments import RowsInScope, Segment
from openbook.knowledge.index.vectors import VectorSearch, sign_words, widened

DIMENSIONS = 70  # no multiple of 64


def rows_of(count: int, seed: int = 0) -> NDArray[np.float16]:
    """Vectors in clusters, as texts have them."""
    chance = np.random.default_rng(seed)
    centres = chance.normal(size=(20, DIMENSIONS))
    found = centres[chance.integers(0, 20, count)] + 0.8 * chance.normal(size=(count, DIMENSIONS))
    rows: NDArray[np.float16] = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype("<f2")
    return rows


def segment_of(rows: NDArray[np.float16]) -> Segment:
    signs, rotated = sign_words(widened(rows))
    none, ids = np.empty(0, np.int64), np.arange(len(rows))
    return Segment(
        ids, np.arange(len(rows) + 1), ids, ids.astype(np.uint64), ids.astype(np.uint64), ids.astype(np.uint16),
        none.astype(np.uint64), np.zeros(1, np.int64), none.astype(np.uint32), none.astype(np.uint8),
        rows, np.ascontiguousarray(signs.T), rotated,
    )  # fmt: skip


def parted(rows: NDArray[np.float16], *cuts: int, mask: NDArray[np.bool_] | None = None) -> VectorSearch:
    parts, edges = [], [0, *cuts, len(rows)]
    for start, end in pairwise(edges):
        flags = None if mask is None or mask[start:end].all() else mask[start:end]
        parts.append(RowsInScope(segment_of(rows[start:end]), flags, start))
    return VectorSearch(parts, rows.shape[1])


def signed(
    index: VectorSearch, query: NDArray[np.float32], limit: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """What is found among the rows that signs choose."""
    signs = index.signs(query)
    cut = vectors.cut_at(signs.counts(), max(vectors.NEAR, 8 * limit))
    among = signs.chosen(cut, vectors.cut_at(signs.rotated_counts(cut), max(vectors.NEARER, 4 * limit)))
    return index.search(query, limit, among)


@pytest.fixture
def small_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The passes over signs, at a size that a test can have."""
    monkeypatch.setattr(vectors, "NEAR", 400)
    monkeypatch.setattr(vectors, "NEARER", 200)


QUERY = widened(rows_of(1, seed=9))[0]


@pytest.mark.parametrize("limit", [1, 10, 5000])
def test_every_row_is_compared_while_there_are_few(limit: int) -> None:
    rows = rows_of(600)
    mask = np.arange(600) % 7 > 0
    found, cosines = parted(rows, 100, 333, mask=mask).search(QUERY, limit)
    true = np.where(mask, rows.astype(np.float64) @ QUERY.astype(np.float64), -2.0)
    best = np.argsort(-true)[: min(limit, int(mask.sum()))]
    assert set(best.tolist()) <= set(found.tolist())
    assert mask[found].all()
    assert cosines == pytest.approx(true[found], abs=1e-12)


@pytest.mark.usefixtures("small_cuts")
def test_passes_over_signs_find_the_same_in_any_segments() -> None:
    rows, chance = rows_of(3000), np.random.default_rng(1)
    mask = chance.random(3000) < 0.8
    alive = rows[mask]
    one = parted(alive)
    for seed in range(20):
        query = widened(rows_of(1, seed=100 + seed))[0]
        found, cosines = signed(one, query, 10)
        again, again_cosines = signed(parted(rows, 40, 1999, mask=mask), query, 10)
        assert np.array_equal(np.flatnonzero(mask)[found], again)
        assert np.array_equal(cosines, again_cosines)


@pytest.mark.usefixtures("small_cuts")
def test_passes_over_signs_miss_little() -> None:
    rows, chance = rows_of(5000), np.random.default_rng(5)
    index, shares = parted(rows, 2500), []
    for row in range(0, 5000, 125):
        moved = widened(rows[row : row + 1])[0] + chance.normal(0.0, 0.06, DIMENSIONS)
        query = (moved / np.linalg.norm(moved)).astype(np.float32)
        true = set(np.argsort(-(rows.astype(np.float64) @ query))[:10].tolist())
        found, _ = signed(index, query, 10)
        assert set(index.search(query, 10)[0].tolist()) >= true
        shares.append(len(true & set(found.tolist())) / 10)
    assert np.mean(shares) > 0.9


@given(arrays.arrays(np.uint16, st.integers(0, 200)))
def test_widening_is_exact(bits: NDArray[np.uint16]) -> None:
    half = bits.view(np.float16)
    half = half[np.isfinite(half)]
    assert np.array_equal(widened(half), half.astype(np.float32))


@given(st.integers(0, 50), st.integers(1, 50))
def test_signs_depend_on_their_row_alone(start: int, size: int) -> None:
    rows = widened(rows_of(100))
    for whole, part in zip(sign_words(rows), sign_words(rows[start : start + size]), strict=True):
        assert np.array_equal(whole[start : start + size], part)


@pytest.mark.parametrize("query", [np.ones(3, np.float32), np.full(DIMENSIONS, np.nan, np.float32)])
def test_a_query_of_other_numbers_is_refused(query: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match="70 finite numbers"):
        parted(rows_of(5)).search(query, 3)


def test_nothing_to_find() -> None:
    assert VectorSearch([], DIMENSIONS).search(QUERY, 3)[0].size == 0
    assert parted(rows_of(4)).search(QUERY, 0)[0].size == 0
