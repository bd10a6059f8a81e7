"""The words of an answer as they come on a terminal."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from openbook.cli.display import Words

WIDTH = 24
PIECES = st.lists(
    st.sampled_from(["The", " bridge", " was op", "ened", ".", "\n", "- ", "one", " ", "\x1b[31m"]), max_size=30
)


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=WIDTH, color_system=None)


def printed(out: Console) -> str:
    assert isinstance(out.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;]*m", "", out.file.getvalue())


@given(PIECES)
def test_all_words_are_printed_once_and_no_line_is_too_long(pieces: list[str]) -> None:
    out = terminal()
    words, answer = Words(out, None), "".join(pieces)
    for piece in pieces:
        words.show(piece)
    if words.end(answer):
        text = printed(out)
        assert text.split() == "".join(c if c.isprintable() or c == "\n" else " " for c in answer).split()
        assert max(map(len, text.splitlines())) <= WIDTH


def test_what_comes_late_goes_on_where_the_printed_words_end() -> None:
    out = terminal()
    words = Words(out, None)
    words.show("It has ")
    words.show("four")
    assert printed(out) == "It has "
    assert words.end("It has four lanes.")
    assert printed(out) == "It has four lanes.\n"


def test_an_abstention_stands_under_the_words_it_takes_the_place_of() -> None:
    out = terminal()
    words = Words(out, None)
    words.show("The text does not say it. ")
    assert words.end("The passages do not say.")
    assert printed(out).splitlines()[-1] == "The passages do not say."


@pytest.mark.parametrize("pieces", [[], ["One"]])
def test_without_a_printed_word_the_answer_is_still_to_be_printed(pieces: list[str]) -> None:
    words = Words(terminal(), None)
    for piece in pieces:
        words.show(piece)
    assert not words.end("One")
    assert not Words(None, None).end("One")
