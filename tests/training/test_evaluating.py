from __future__ import annotations

import pytest

from openbook.training.evaluating import reader_numbers
from openbook.training.objective import Reading

NOT = 7  # the first token of the abstention


def reading(kind: str, question: str, exact: bool, first_token: int = 1) -> Reading:
    return Reading(kind, question, 1.0, 2, exact, first_token, NOT if kind == "abstention" else 1)


def test_a_question_is_right_with_any_of_its_answers() -> None:
    found = [
        reading("answer", "a", False),
        reading("answer", "a", True),
        reading("answer", "b", False, first_token=NOT),
        reading("abstention", "c", False),
        reading("abstention", "d", True, first_token=NOT),
        reading("abstention", "e", False),
    ]
    numbers = reader_numbers(found)
    assert numbers["exact"] == 0.5
    assert numbers["abstained_wrongly"] == 0.5
    assert numbers["abstained_rightly"] == pytest.approx(1 / 3)
    assert numbers["score"] == pytest.approx(5 / 12)


def test_wrong_abstentions_are_seen_though_none_was_right() -> None:
    found = [reading("answer", "a", False, first_token=NOT), reading("abstention", "b", False)]
    assert reader_numbers(found)["abstained_wrongly"] == 1.0


def test_where_there_is_nothing_to_count_there_is_no_number() -> None:
    assert reader_numbers([reading("answer", "a", True)]) == {"exact": 1.0, "score": 1.0}
    assert reader_numbers([reading("abstention", "a", True)]) == {"abstained_rightly": 1.0, "score": 1.0}
