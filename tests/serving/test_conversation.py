"""From a follow-up to what is searched for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.answer import MAX_QUESTION_CHARS
from openbook.conversation import condensed

EARLIER = ["Who opened the bridge?", "When does the ferry leave?"]


@pytest.mark.parametrize(
    "question",
    [
        "Which books does the library in Lund keep?",
        "Wer unterschreibt die Reisekosten der Firma?",
        "What's the price of a ticket to Sandhavn?",
        "HOW\u2019S the weather usually in Sandhavn?",
    ],
)
def test_a_question_that_stands_alone_is_searched_for_as_it_is(question: str) -> None:
    assert condensed(EARLIER, question) == question


@pytest.mark.parametrize(
    "question",
    [
        "How much does it cost for children?",
        "And on Sundays in the winter?",
        "On Sundays?",
        "Wann fährt sie am Sonntag?",
        "Why?",
    ],
)
def test_one_that_refers_back_is_searched_for_with_the_last_turns(question: str) -> None:
    assert condensed(EARLIER, question) == f"Who opened the bridge?\nWhen does the ferry leave?\n{question}"
    assert condensed(["Earliest.", *EARLIER], question) == condensed(EARLIER, question)
    assert condensed([], question) == question


@given(st.lists(st.text(max_size=6000), max_size=4), st.text(max_size=MAX_QUESTION_CHARS))
def test_the_query_ends_with_the_question_and_can_always_be_asked(earlier: list[str], question: str) -> None:
    query = condensed(earlier, question)
    assert query.endswith(question)
    assert len(query) <= MAX_QUESTION_CHARS
    assert query == condensed(earlier, question)
