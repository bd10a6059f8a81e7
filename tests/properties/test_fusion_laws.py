from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from openbook.knowledge.fusion import K, fuse

RANKINGS = st.lists(st.lists(st.integers(0, 30), unique=True, max_size=12), max_size=5)


@given(RANKINGS, st.randoms(use_true_random=False))
def test_fusion_does_not_depend_on_the_order_of_the_rankings(rankings: list[list[int]], chance: random.Random) -> None:
    shuffled = list(rankings)
    chance.shuffle(shuffled)
    assert fuse(rankings) == fuse(shuffled)


@given(RANKINGS)
def test_every_item_appears_once_with_its_score(rankings: list[list[int]]) -> None:
    fused = fuse(rankings)
    assert sorted(item for item, _ in fused) == sorted({item for ranking in rankings for item in ranking})
    scores = [score for _, score in fused]
    assert scores == sorted(scores, reverse=True)


@given(st.lists(st.integers(), unique=True, min_size=1, max_size=20))
def test_one_ranking_keeps_its_order(ranking: list[int]) -> None:
    assert [item for item, _ in fuse([ranking])] == ranking


def test_the_scores_are_the_papers() -> None:
    assert fuse([[7, 8], [8]]) == [(8, 1 / (K + 2) + 1 / (K + 1)), (7, 1 / (K + 1))]
