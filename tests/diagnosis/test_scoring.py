from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.diagnosis.questions import Question
from openbook.diagnosis.scoring import (
    interval,
    is_right,
    mcnemar,
    normalised,
    squad_contains,
    token_f1,
)

TEXTS = st.text(max_size=40)


@pytest.mark.parametrize(
    ("answer", "accepted", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1.0),
        ("in 1611", ["1611"], 2 / 3),
        ("nothing of it", ["1611"], 0.0),
        ("Denver", ["Denver Broncos", "Denver"], 1.0),
        ("the the", ["a"], 1.0),  # articles alone are nothing, as in the reference script
    ],
)
def test_scores_as_the_reference_script(answer: str, accepted: list[str], f1: float) -> None:
    assert token_f1(answer, accepted) == pytest.approx(f1)


def test_an_answer_is_held_by_whole_words_only() -> None:
    assert squad_contains("The capital is Paris.", ["Paris"])
    assert not squad_contains("Parisian", ["Paris"])
    assert not squad_contains("Paris", [""])


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3))
def test_the_score_of_an_answer_is_a_share_and_1_for_the_accepted_one(answer: str, accepted: list[str]) -> None:
    assert 0.0 <= token_f1(answer, accepted) <= token_f1(answer, [*accepted, answer]) == 1.0
    assert normalised(normalised(answer)) == normalised(answer)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_an_interval_holds_its_mean(scores: list[float]) -> None:
    found = interval(scores)
    assert found.low <= found.mean + 1e-12
    assert found.mean <= found.high + 1e-12
    assert found.n == len(scores)


def test_intervals_of_extreme_scores() -> None:
    for n in (1, 2, 11, 22, 27, 44, 47, 54, 77, 83, 88, 94):
        none, every = interval([0.0] * n), interval([1.0] * n)
        assert (none.low, every.high) == (0.0, 1.0)
        assert none.high == pytest.approx(1.0 - every.low)
    for scores in ([0.5], [0.5] * 8, [1 / 3] * 40, [1.0] * 49 + [0.5]):
        found = interval(scores)
        assert 0.0 <= found.low < found.mean < found.high <= 1.0
    assert interval([0.0] * 10).high == pytest.approx(0.2775, abs=1e-3)  # Wilson's
    assert str(interval([])) == "no data"


def test_mcnemar_is_the_exact_sign_test_for_however_many() -> None:
    for first, second, p in ((0, 0, 1.0), (5, 5, 1.0), (1, 0, 1.0), (0, 6, 0.03125), (2, 10, 0.03857421875)):
        assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(p)
    assert mcnemar(40_000, 41_000) == pytest.approx(0.00044782, rel=1e-4)


@pytest.mark.parametrize(
    ("answer", "accepted", "right"),
    [
        ("Yes, it does.", "yes", True),
        ("Yes it does.", "yes", True),
        ("Yes\n\nThe ferry runs.", "yes", True),
        ("No\nThe ferry does not run.", "no", True),
        ("**Yes**", "Yes.", True),
        ("True.", "true", True),
        ("Answer: No.", "no", True),
        ("I have read both, and the answer is no.", "No", True),
        ("No — not on Sundays.", "no", True),
        ("Yes, no car is left behind.", "no", False),
        ("The answer is not yes.", "yes", False),
        ("False, I think.", "no", False),  # list it
        ("No idea.", "no", False),
        ("No passage states it.", "no", False),
        ("I'm not sure.", "no", False),
        ("It does not.", "no", False),
        ("", "no", False),
    ],
)
def test_yes_and_no_are_said_first_or_as_the_answer(answer: str, accepted: str, right: bool) -> None:
    assert is_right(answer, Question("q", "Is it so?", (accepted,))) is right


@pytest.mark.parametrize(
    ("answer", "accepted", "right"),
    [
        ("It has 28 days.", "28 days", True),
        ("twenty-eight days", "28 days", False),  # list it
        ("28 days or 30 days", "28 days", True),
        ("from 28-30 days", "28 days", False),
        ("2,600,000 litres", "2600000 litres", True),
        ("€450 an hour", "450", True),
        ("450 €", "450", True),
        ("$450", "€450", False),
        ("at most 20°C", "20 °C", True),
        ("-5 degrees", "5 degrees", False),
        ("It is −5 degrees", "-5 degrees", True),
        ("Rent is 150 or 1.5", "15", False),
        ("See #670.", "#670", True),
        ("See 6701.", "#670", False),
        ("alarm A40", "40", False),
    ],
)
def test_a_number_stands_there_as_a_whole(answer: str, accepted: str, right: bool) -> None:
    assert is_right(answer, Question("q", "How many?", ("nothing of it", accepted))) is right
