"""A question that may refer back: what is searched for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.answers.ask import ask
from openbook.answers.prompts import MAX_QUESTION_CHARS
from openbook.answers.retrieval import GAIN, Corpus, Options, search_query
from openbook.testing import HashEmbedder, echo_model
from tests.conftest import base_with

EARLIER = ["Who opened the bridge?", "When does the ferry to Sandhavn leave?"]
NEAREST = {"And on Sundays?": 0.3, "And in winter?": 0.2, EARLIER[0]: 0.8, EARLIER[1]: 0.8, "Who is Lila?": 0.7}


def nearness(query: str) -> float:
    """As near as the nearest of its lines; one that is searched for below another comes at most as near as that."""
    return max(NEAREST[line] for line in query.splitlines())


@pytest.mark.parametrize(
    ("earlier", "question", "query"),
    [
        ([], "And on Sundays?", ["And on Sundays?"]),
        (EARLIER, "And on Sundays?", [EARLIER[1], "And on Sundays?"]),
        (EARLIER, "Who is Lila?", ["Who is Lila?"]),
        ([EARLIER[1], "And on Sundays?"], "And in winter?", [EARLIER[1], "And on Sundays?", "And in winter?"]),
        ([EARLIER[1], "Who is Lila?"], "And in winter?", ["Who is Lila?", "And in winter?"]),
    ],
)
def test_a_question_that_is_near_to_nothing_is_searched_for_with_what_it_refers_back_to(
    earlier: list[str], question: str, query: list[str]
) -> None:
    assert search_query(earlier, question, nearness) == "\n".join(query)


@given(st.lists(st.text(max_size=6000), max_size=4), st.text(max_size=MAX_QUESTION_CHARS), st.floats(0, 1))
def test_the_query_ends_with_the_question_and_can_always_be_asked(
    earlier: list[str], question: str, near: float
) -> None:
    query = search_query(earlier, question, lambda text: near if "\n" in text else 0.0)
    assert query.endswith(question)
    assert len(query) <= max(MAX_QUESTION_CHARS, len(question))
    if near < GAIN or not earlier:
        assert query == question


def test_the_model_gets_the_question_as_it_was_typed_and_the_passages_that_both_find(tmp_path: Path) -> None:
    texts = {"ferry.md": "The ferry to Sandhavn leaves at nine.", "bridge.md": "Lila Ortega opened the bridge of Lund."}
    with closing(base_with(tmp_path, texts)) as base:

        def asked(question: str, earlier: Sequence[str] = ()) -> tuple[str, tuple[str, ...], str]:
            found = ask(question, echo_model(), Corpus(base, HashEmbedder()), Options(earlier=tuple(earlier)))
            return found.question, found.notes, found.passages[0].passage.document

        question, notes, first = asked("And when on Sundays?", ["When does the ferry to Sandhavn leave?"])
        assert question == "And when on Sundays?"
        assert notes == ("Searched for together: When does the ferry to Sandhavn leave? / And when on Sundays?",)
        assert first.endswith("ferry.md")
        alone = asked("Who opened the bridge of Lund?")
        assert asked("Who opened the bridge of Lund?", ["When does the ferry to Sandhavn leave?"]) == alone
        assert alone[1] == ()
