from __future__ import annotations

import pytest

from openbook.answers.prompts import open_book_prompt, question_about_excerpts, question_of_block
from openbook.core.records import Passage


def test_prose_broken_for_width_is_shown_whole_and_rows_stay_rows() -> None:
    text = (
        "The nightly backup starts at 01:40 and is usually\nover by 03:15.\n\nVessel | Station\nisolde | a\n"
        "name,days\nada,24\nIn short lines\nnothing changes."
    )
    passage = Passage("p1", "a.txt", "", 0, len(text), None, (), text)
    assert open_book_prompt("When?", [passage]).passages == (
        "[1]\n" + text.replace("usually\nover", "usually over") + "\n\n",
    )


@pytest.mark.parametrize(
    ("question", "shape"),
    [
        ("is it ok to keep it?", "yes or no"),
        ("And does it float?", "yes or no"),
        ("Isn't it dangerous?", "yes or no"),
        ("can I take the train or the ferry?", "sentences"),
        ("Which one is it?", "sentences"),
        ("isolation of what?", "sentences"),
    ],
)
def test_the_shape_of_the_answer_follows_the_question(question: str, shape: str) -> None:
    asked = question_about_excerpts(question)
    assert shape in asked
    assert question_of_block(asked) == question
