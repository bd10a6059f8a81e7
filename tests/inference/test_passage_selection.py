from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from openbook.inference.passage_selection import LEAST, RANK_PRICE, SURE, AbstentionScore, choose, enough

INCLINATIONS = st.lists(
    st.builds(AbstentionScore, st.floats(-60.0, 0.0), st.booleans()),
    max_size=12,
)


def sure(odds: float, *, abstains: bool = False) -> AbstentionScore:
    """Inclined to answer by these log-odds."""
    return AbstentionScore(-math.log1p(math.exp(odds)), abstains)


def test_log_odds_are_those_of_answering() -> None:
    assert math.isclose(sure(1.5).answer_log_odds, 1.5, rel_tol=1e-9)
    assert AbstentionScore(0.0, abstains=True).answer_log_odds < -20
    assert AbstentionScore(-200.0, abstains=False).answer_log_odds > 20


def test_the_surest_answers_unless_a_better_found_one_is_nearly_as_sure() -> None:
    assert choose([sure(2.0), sure(2.0 + RANK_PRICE / 2)]) == 0
    assert choose([sure(2.0), sure(2.0 + RANK_PRICE * 2)]) == 1
    assert choose([sure(2.0), sure(2.0)]) == 0


def test_when_all_abstain_or_none_is_sure_enough_nothing_is_chosen() -> None:
    assert choose([]) is None
    assert choose([sure(9.0, abstains=True)]) is None
    assert choose([sure(LEAST - 0.01)]) is None
    assert choose([sure(LEAST + 0.01)]) == 0


@given(INCLINATIONS)
def test_what_is_chosen_is_inclined_to_answer(scores: list[AbstentionScore]) -> None:
    chosen = choose(scores)
    if chosen is not None:
        assert not scores[chosen].abstains
        assert scores[chosen].answer_log_odds - RANK_PRICE * chosen >= LEAST
        # Passages behind it that abstain change nothing.
        assert choose([*scores, AbstentionScore(0.0, abstains=True)]) == chosen


def test_one_that_is_sure_is_enough_at_its_rank() -> None:
    assert not enough([])
    assert enough([sure(SURE + 0.01)])
    assert not enough([sure(SURE - 0.01)])
    assert not enough([sure(9.0, abstains=True)])
    assert enough([sure(0.0), sure(SURE + RANK_PRICE + 0.01)])
    assert not enough([sure(0.0), sure(SURE + RANK_PRICE - 0.01)])


@given(INCLINATIONS, INCLINATIONS)
def test_what_is_enough_has_a_choice_and_stays_enough(
    scores: list[AbstentionScore], further: list[AbstentionScore]
) -> None:
    if enough(scores):
        assert choose(scores) is not None
        assert enough(scores + further)
