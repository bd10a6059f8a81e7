from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.inference.passage_selection import LEAST, RANK_PRICE, SURE, choose, enough, log_odds, score_of

ABSTAINS = -math.inf
SCORES = st.lists(st.just(ABSTAINS) | st.floats(-60.0, 60.0), max_size=12)


def test_log_odds_are_those_of_answering() -> None:
    assert math.isclose(log_odds(-math.log1p(math.exp(1.5))), 1.5, rel_tol=1e-9)
    assert -30 < log_odds(0.0) < -20
    assert 20 < log_odds(-200.0) < 30
    logits = np.array([1.0, 2.0, 1.0], np.float32)
    assert score_of(logits, 1) == ABSTAINS
    assert math.isclose(score_of(logits, 0), math.log(math.e + 1), rel_tol=1e-6)


@pytest.mark.parametrize(
    ("scores", "chosen", "is_enough"),
    [
        ([], None, False),
        ([2.0, 2.0 + RANK_PRICE / 2], 0, True),
        ([2.0, 2.0 + RANK_PRICE * 2], 1, True),
        ([2.0, 2.0], 0, True),
        ([ABSTAINS], None, False),
        ([LEAST - 0.01], None, False),
        ([LEAST + 0.01], 0, False),
        ([SURE + 0.01], 0, True),
        ([SURE - 0.01], 0, False),
        ([0.0, SURE + RANK_PRICE + 0.01], 1, True),
        ([0.0, SURE + RANK_PRICE - 0.01], 1, False),
    ],
)
def test_the_surest_passage_is_chosen_less_a_price_for_its_rank(
    scores: list[float], chosen: int | None, is_enough: bool
) -> None:
    assert (choose(scores), enough(scores)) == (chosen, is_enough)


@given(SCORES, SCORES)
def test_the_chosen_one_would_answer_and_what_is_enough_stays_so(scores: list[float], further: list[float]) -> None:
    chosen = choose(scores)
    if chosen is not None:
        assert scores[chosen] - RANK_PRICE * chosen >= LEAST
        assert choose([*scores, ABSTAINS]) == chosen
    if enough(scores):
        assert chosen is not None
        assert enough(scores + further)
