from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.diagnosis.scoring import exact_match, holds_answer, interval, normalised, token_f1

TEXTS = st.text(max_size=40)


@pytest.mark.parametrize(
    ("answer", "accepted", "exact", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1.0, 1.0),
        ("in 1611", ["1611"], 0.0, 2 / 3),
        ("nothing of it", ["1611"], 0.0, 0.0),
        ("Denver", ["Denver Broncos", "Denver"], 1.0, 1.0),
        ("the the", ["a"], 1.0, 1.0),  # articles alone are nothing, as in the reference script
    ],
)
def test_scores_as_the_reference_script(answer: str, accepted: list[str], exact: float, f1: float) -> None:
    assert exact_match(answer, accepted) == exact
    assert token_f1(answer, accepted) == pytest.approx(f1)


def test_an_answer_is_held_by_whole_words_only() -> None:
    assert holds_answer("The capital is Paris.", ["Paris"])
    assert not holds_answer("Parisian", ["Paris"])
    assert not holds_answer("Paris", [""])


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3))
def test_an_exact_match_has_f1_1_and_all_scores_are_shares(answer: str, accepted: list[str]) -> None:
    exact, f1 = exact_match(answer, accepted), token_f1(answer, accepted)
    assert 0.0 <= exact <= f1 <= 1.0
    assert normalised(normalised(answer)) == normalised(answer)
    assert exact_match(answer, [answer]) == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_an_interval_holds_its_mean(scores: list[float]) -> None:
    found = interval(scores)
    assert found.low <= found.mean + 1e-12
    assert found.mean <= found.high + 1e-12
    assert found.n == len(scores)


def test_wilsons_interval_of_none_of_ten_is_not_empty() -> None:
    found = interval([0.0] * 10)
    assert found.low == pytest.approx(0.0, abs=1e-12)
    assert found.high == pytest.approx(0.2775, abs=1e-3)
    assert str(interval([])) == "no data"
