from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from openbook.knowledge.index.search import WORDS_WEIGHT, fuse

COSINE = st.floats(-1.0, 1.0, width=32)
BM25 = st.floats(0.0, 40.0, width=32)
CANDIDATES = st.lists(st.tuples(COSINE, BM25), min_size=1, max_size=30)
CEILING = st.floats(40.0, 80.0)


def fused(candidates: list[tuple[float, float]], ceiling: float) -> list[float]:
    similarity, bm25 = np.array(candidates, dtype=np.float64).T
    return list(fuse(similarity, bm25, ceiling).tolist())


@given(CANDIDATES, CEILING, st.data())
def test_a_score_depends_neither_on_the_other_candidates_nor_on_their_order(
    candidates: list[tuple[float, float]], ceiling: float, data: st.DataObject
) -> None:
    chosen = data.draw(st.integers(0, len(candidates) - 1))
    assert fused([candidates[chosen]], ceiling) == [fused(candidates, ceiling)[chosen]]


@given(COSINE, BM25, COSINE, BM25, CEILING)
def test_whoever_is_not_worse_in_both_does_not_score_lower(
    cosine: float, bm25: float, more_cosine: float, more_bm25: float, ceiling: float
) -> None:
    low, high = fused([(cosine, bm25), (max(cosine, more_cosine), max(bm25, more_bm25))], ceiling)
    assert low <= high <= 1.0


def test_scores_are_weighted_shares_of_what_is_possible() -> None:
    assert fused([(1.0, 20.0), (0.5, 0.0)], 20.0) == [1.0, (1.0 - WORDS_WEIGHT) * 0.5]


def test_a_query_whose_words_stand_nowhere_is_ranked_by_its_vector() -> None:
    assert fused([(0.2, 0.0), (0.6, 0.0)], 0.0) == [(1.0 - WORDS_WEIGHT) * 0.2, (1.0 - WORDS_WEIGHT) * 0.6]
    assert fuse(np.empty(0), np.empty(0), 3.0).shape == (0,)
