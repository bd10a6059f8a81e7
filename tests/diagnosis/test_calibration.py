"""Certainty on one's own questions: how often each word was right, and the limits that hold there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from openbook.answers.certainty import CertaintyLimits, Signals, certainty
from openbook.diagnosis.calibration import (
    ENOUGH,
    FEWEST,
    LIKELY,
    SUPPORTED,
    Calibration,
    Z,
    area,
    calibration,
    calibration_error,
    limit,
)
from openbook.diagnosis.scoring import wilson
from openbook.diagnosis.summary import summarise
from openbook.diagnosis.verdicts import verdicts_of
from tests.diagnosis.table_engine import HEADER, SURE, judged_cases

NONE = CertaintyLimits()
DOUBTFUL = Signals(0.0, 0.5, 0.1, -2.0)
POOL = [
    (Signals(level / 9, asked, stated, -0.1 * level), level / 9)
    for level in range(10)
    for asked in (0.0, 0.5)
    for stated in (None, level / 9)
]
JUDGED = st.tuples(st.sampled_from(POOL), st.sampled_from((0.0, 0.2, 0.5))).map(lambda it: (it[0][0], it[0][1] > it[1]))
MANY = st.lists(JUDGED, min_size=ENOUGH, max_size=2 * ENOUGH)
LIMITS = st.none() | st.floats(0, 1)


def answers(n: int, wrong: int = 0, signals: Signals = SURE) -> list[tuple[Signals, bool]]:
    return [(signals, number >= wrong) for number in range(n)]


@given(MANY, st.builds(CertaintyLimits, LIMITS, LIMITS))
@settings(max_examples=10)
def test_a_proposed_limit_holds_on_the_answers_it_was_chosen_on(
    judged: list[tuple[Signals, bool]], present: CertaintyLimits
) -> None:
    proposed = calibration(judged, [], present).proposed
    supported = present.supported_from if proposed.supported_from is None else proposed.supported_from
    own = CertaintyLimits(supported, proposed.likely_from)
    for word, found, share in (
        ("supported", proposed.supported_from, SUPPORTED),
        ("likely", proposed.likely_from, LIKELY),
    ):
        right = [its for signals, its in judged if certainty(signals, own)[1] == word]
        if found is not None:
            assert len(right) >= FEWEST
            assert wilson(sum(right) / len(right), len(right), Z).low >= share
    if proposed.supported_from is not None and proposed.likely_from is not None:
        assert proposed.likely_from <= proposed.supported_from


@given(MANY, st.data())
@settings(max_examples=10)
def test_one_more_right_answer_never_raises_the_limit(judged: list[tuple[Signals, bool]], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(judged) - 1))
    better = [(signals, right or number == at) for number, (signals, right) in enumerate(judged)]
    before, after = (calibration(each, [], NONE).proposed.supported_from for each in (judged, better))
    assert before is None or (after is not None and after <= before)


def reaches(share: float, right: NDArray[np.bool_], bound: float = 0.0) -> Callable[[NDArray[np.bool_]], bool]:
    return lambda surer: wilson(float(right[surer].mean()), int(surer.sum()), bound).low >= share


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=60), st.floats(0, 1), st.floats(0, 1))
def test_a_lower_share_never_raises_the_limit(found: list[tuple[float, bool]], one: float, other: float) -> None:
    sure, right = np.array([each for each, _ in found]), np.array([its for _, its in found], dtype=bool)
    low, high = (limit(sure, reaches(share, right)) for share in sorted((one, other)))
    assert high is None or (low is not None and low <= high)


def test_limits_need_enough_answers_and_become_lines_of_the_settings_file() -> None:
    few = calibration(answers(ENOUGH - 1, wrong=2), [True, True, False], NONE)
    assert (str(few.words["supported"])[:5], str(few.words["not found"])[:3]) == ("27/29", "2/3")
    assert few == Calibration(ENOUGH - 1, few.words)
    assert few.notes() == ["Too few answers have a certainty to judge it: 29 of at least 30."]
    assert few.settings == ""
    enough = calibration(answers(ENOUGH), [], NONE)
    assert (enough.settings, enough.area) == (f"supported_from = {certainty(SURE)[0]}", None)  # none was wrong
    wrong = calibration(answers(2 * ENOUGH, wrong=ENOUGH), [], NONE)
    assert (wrong.proposed, wrong.notes()[-1]) == (NONE, "No limit holds on these questions.")
    assert wrong.area is not None
    assert (wrong.area.mean, wrong.area.n) == (0.5, ENOUGH)
    found = calibration([*answers(15), *answers(60, 17, DOUBTFUL), *answers(10, 10, Signals(0, 0, 0, -3))], [], NONE)
    high, low = certainty(SURE)[0], certainty(DOUBTFUL)[0]
    assert found.settings == f"supported_from = {high}\nlikely_from = {low}"
    own = calibration(answers(40), [], CertaintyLimits(supported_from=1.0, likely_from=0.0))
    assert (own.words["supported"].of, own.words["likely"].of) == (0, 40)  # the words are by the present limits


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2))
def test_the_area_is_how_often_a_right_answer_scores_higher(found: list[tuple[int, bool]]) -> None:
    score, right = np.array([float(each) for each, _ in found]), np.array([its for _, its in found])
    pairs = [(a > b) + 0.5 * (a == b) for a in score[right] for b in score[~right]]
    if pairs:
        assert area(score, right) == pytest.approx(sum(pairs) / len(pairs))


def test_the_error_is_the_distance_from_the_share_of_right_answers() -> None:
    right = np.arange(100) % 4 == 0
    assert calibration_error(np.full(100, 0.25), right, 5) == 0
    assert calibration_error(np.full(100, 0.75), right, 5) == 0.5
    found = calibration(answers(50, wrong=50), [], NONE)
    assert found.error == pytest.approx(certainty(SURE)[0])
    assert (found.error or 0) > (found.error_by_chance or 1)


def test_a_limit_is_too_low_for_other_questions_once_in_ten_times_at_most() -> None:
    """Drawn from answers of which three in four are right, whatever their certainty: no limit would hold."""
    chance, draws = np.random.default_rng(0), 100
    sure = np.round(chance.random((draws, 100)), 3)
    right = chance.random((draws, 100)) < 0.75

    def too_low(bound: float) -> int:
        chosen = (limit(at, reaches(SUPPORTED, its, bound)) for at, its in zip(sure, right, strict=True))
        return sum(each is not None for each in chosen)

    assert too_low(Z) <= draws / 10
    assert too_low(0.0) > draws / 2  # by the plain share


def test_of_each_question_the_first_answer_with_documents_counts() -> None:
    once = judged_cases()
    several = [replace(each, asked=each.asked * 3) for each in once]
    assert summarise(HEADER, verdicts_of(several)).calibration == summarise(HEADER, verdicts_of(once)).calibration
    likely = CertaintyLimits(supported_from=1.0, likely_from=0.5)
    assert summarise(HEADER, verdicts_of(several), likely).calibration.words["likely"].of == 42
