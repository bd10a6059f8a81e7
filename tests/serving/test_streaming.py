"""What is shown of an answer before it is complete."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.serving.streaming import Shown, event
from openbook.wording import ABSTENTION, tidy

PIECES = st.lists(
    st.sampled_from(["A", "ns", "wer", ":", " ", "\t", "a", "Not", " stated", ".", "x", "The", " passages"]), max_size=8
)


@given(PIECES)
def test_what_was_shown_and_the_rest_are_the_answer(pieces: list[str]) -> None:
    shown = Shown([ABSTENTION, "Not stated."])
    early = [shown.feed(piece) for piece in pieces]
    answer = tidy("".join(pieces))
    assert "".join(early) + shown.rest(answer) == answer


@pytest.mark.parametrize("held", ["Not stated.", ABSTENTION])
def test_a_sentence_that_another_stands_for_is_never_shown(held: str) -> None:
    shown = Shown([ABSTENTION, "Not stated."])
    assert [shown.feed(each) for each in (held[:3], held[3:7], held[7:])] == ["", "", ""]
    assert shown.rest(ABSTENTION) == ABSTENTION


def test_a_model_that_abstains_in_its_own_words_is_not_talked_over() -> None:
    shown = Shown([ABSTENTION])
    assert shown.feed("The text does not say it.") == "The text does not say it."
    assert shown.rest(ABSTENTION) == ""


@given(st.text())
def test_text_can_neither_end_an_event_nor_begin_one(text: str) -> None:
    data = event({"content": text})
    assert data.endswith(b"\n\n")
    assert data.startswith(b"data: ")
    assert not {b"\n", b"\r"} & {data[i : i + 1] for i in range(len(data) - 2)}
    assert json.loads(data[len("data: ") :]) == {"content": text}
