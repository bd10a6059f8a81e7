from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.inference.passage_selection import LEAST, RANK_PRICE, SURE, AbstentionScore, choose, enough

SCORES = st.lists(st.builds(AbstentionScore, st.floats(-60.0, 0.0), st.booleans()), max_size=12)


def sure(odds: float, *, abstains: bool = False) -> AbstentionScore:
    """A score whose log-odds of answering are `odds`."""
    return AbstentionScore(-math.log1p(math.exp(odds)), abstains)


def test_log_odds_are_those_of_answering() -> None:
    assert math.isclose(sure(1.5).answer_log_odds, 1.5, rel_tol=1e-9)
    assert AbstentionScore(0.0, abstains=True).answer_log_odds < -20
    assert AbstentionScore(-200.0, abstains=False).answer_log_odds > 20


@pytest.mark.parametrize(
    ("scores", "chosen", "is_enough"),
    [
        ([], None, False),
        ([sure(2.0), sure(2.0 + RANK_PRICE / 2)], 0, True),
        ([sure(2.0), sure(2.0 + RANK_PRICE * 2)], 1, True),
        ([sure(2.0), sure(2.0)], 0, True),
        ([sure(9.0, abstains=True)], None, False),
        ([sure(LEAST - 0.01)], None, False),
        ([sure(LEAST + 0.01)], 0, False),
        ([sure(SURE + 0.01)], 0, True),
        ([sure(SURE - 0.01)], 0, False),
        ([sure(0.0), sure(SURE + RANK_PRICE + 0.01)], 1, True),
        ([sure(0.0), sure(SURE + RANK_PRICE - 0.01)], 1, False),
    ],
)
def test_the_surest_passage_is_chosen_less_a_price_for_its_rank(
    scores: list[AbstentionScore], chosen: int | None, is_enough: bool
) -> None:
    assert (choose(scores), enough(scores)) == (chosen, is_enough)


@given(SCORES, SCORES)
def test_the_chosen_one_would_answer_and_what_is_enough_stays_so(
    scores: list[AbstentionScore], further: list[AbstentionScore]
) -> None:
    chosen = choose(scores)
    if chosen is not None:
        assert not scores[chosen].abstains
        assert scores[chosen].answer_log_odds - RANK_PRICE * chosen >= LEAST
        assert choose([*scores, AbstentionScore(0.0, abstains=True)]) == chosen
    if enough(scores):
        assert chosen is not None
        assert enough(scores + further)
