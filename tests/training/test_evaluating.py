from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.training.evaluating import best_threshold, reader_numbers
from openbook.training.objective import Reading

CHANCES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def reading(kind: str, question: str, exact: bool, abstention: float = 0.1) -> Reading:
    return Reading(kind, question, 1.0, 2, exact, abstention)


def test_a_question_is_right_with_any_of_its_answers() -> None:
    found = [
        reading("answer", "a", False),
        reading("answer", "a", True),
        reading("answer", "b", True, abstention=0.9),
        reading("abstention", "c", False, abstention=0.2),
        reading("abstention", "d", True, abstention=0.9),
        reading("abstention", "e", False, abstention=0.9),
    ]
    numbers = reader_numbers(found)
    assert 0.1 < numbers["declines_above"] <= 0.2
    assert numbers["exact"] == 0.5
    assert numbers["abstained_wrongly"] == 0.5
    assert numbers["abstained_rightly"] == 1.0
    assert numbers["score"] == pytest.approx(3 / 4)


def test_where_there_is_nothing_to_count_there_is_no_number() -> None:
    assert reader_numbers([reading("answer", "a", True)]) == {"exact": 1.0, "score": 1.0}
    only = reader_numbers([reading("abstention", "a", True, abstention=0.9)])
    assert only == {"abstained_rightly": 1.0, "score": 1.0}


@given(CHANCES, CHANCES)
def test_no_threshold_is_better(answerable: list[float], unanswerable: list[float]) -> None:
    def right(threshold: float) -> float:
        answers = sum(chance < threshold for chance in answerable) / len(answerable)
        return answers + sum(chance >= threshold for chance in unanswerable) / len(unanswerable)

    found = best_threshold(answerable, unanswerable)
    assert 0.05 <= found <= 0.95
    assert right(found) == max(right(i / 100) for i in range(5, 96))
