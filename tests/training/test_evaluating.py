from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.training.evaluating import MOST_WRONGLY, reader_numbers, threshold_of
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
    assert 0.9 < numbers["declines_above"] <= 0.95  # lower, half of the answerable would be declined
    assert numbers["exact"] == 1.0
    assert numbers["abstained_wrongly"] == 0.0
    assert numbers["abstained_rightly"] == 0.0
    assert numbers["score"] == pytest.approx(1 / 2)


def test_where_there_is_nothing_to_count_there_is_no_number() -> None:
    assert reader_numbers([reading("answer", "a", True)]) == {"exact": 1.0, "score": 1.0}
    only = reader_numbers([reading("abstention", "a", True, abstention=0.9)])
    assert only == {"abstained_rightly": 1.0, "score": 1.0}


@given(CHANCES, CHANCES)
def test_one_in_ten_is_declined_wrongly_and_no_lower_threshold_would_do(
    answerable: list[float], unanswerable: list[float]
) -> None:
    def wrongly(threshold: float) -> float:
        return sum(chance >= threshold for chance in answerable) / len(answerable)

    found = threshold_of(answerable, unanswerable)
    assert 0.05 <= found <= 0.95
    assert wrongly(found) <= MOST_WRONGLY or found == 0.95
    assert found == 0.05 or wrongly(found - 0.01) > MOST_WRONGLY
