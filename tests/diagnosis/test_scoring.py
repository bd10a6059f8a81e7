from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.diagnosis.scoring import (
    interval,
    mcnemar,
    normalised,
    paired,
    says_accepted,
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


def test_the_interval_of_a_difference_is_never_empty() -> None:
    none, some, turned = paired(0, 0, 50), paired(9, 1, 50), paired(1, 9, 50)
    assert none.low < 0.0 == none.mean < none.high < 0.1
    assert 0.0 < some.low < some.mean == 0.16 < some.high < 0.3
    assert (turned.mean, turned.low, turned.high) == (-some.mean, -some.high, -some.low)


def test_mcnemar_is_the_exact_sign_test_for_however_many() -> None:
    for first, second, p in ((0, 0, 1.0), (5, 5, 1.0), (1, 0, 1.0), (0, 6, 0.03125), (2, 10, 0.03857421875)):
        assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(p)
    assert mcnemar(40_000, 41_000) == pytest.approx(0.00044782, rel=1e-4)


@pytest.mark.parametrize(
    ("answer", "accepted", "right"),
    [
        ("Yes, it does.", ["yes"], True),
        ("Yes, but it is not uniform.", ["not"], False),
        ("Yes, but it is not uniform.", ["no", "It does not carry any."], False),
        ("It doesn't.", ["no"], True),
        ("It does not carry any.", ["not"], True),
        ("No.", ["not"], True),
        ("No idea.", ["no"], False),
        ("The ferry.", ["no"], False),
        ("", ["no"], False),
        ("False, I think.", ["no"], True),
        ("A van can hold anywhere from 2 to 100 cylinders.", ["two", "2"], False),
        ("It varies between 2 and 5.", ["two", "2"], False),
        ("At most 2 gas bottles.", ["two", "2"], True),
        ("From 2 to 5 of them.", ["two", "2"], True),  # may be what was asked
    ],
)
def test_yes_no_and_ranges_are_what_is_said(answer: str, accepted: list[str], right: bool) -> None:
    assert says_accepted(answer, accepted) == right
