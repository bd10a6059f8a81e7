from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from openbook.answers.answer_text import (
    TextPreview,
    json_prose,
    json_says_nothing,
    printable,
    says_nothing_found,
    tidied,
    tidy,
)
from openbook.answers.prompts import ABSTENTION

WORDS = ["ns", "wer", "Not", " stated", "The", "[2, 3]", "```", *"A:a.x[1] \t`\n"]
PIECES = st.lists(st.sampled_from(WORDS), max_size=12)
HELD = [ABSTENTION, "Not stated."]


def shown(pieces: list[str]) -> str:
    found: list[str] = []
    shown = TextPreview(found.append, HELD)
    for piece in pieces:
        shown.feed(piece)
    return "".join(found)


@example(pieces=["A", "[2, 3]", ":", "[2, 3]"])
@example(pieces=["A", "[2, 3]", ":", "`"])
@example(pieces=["A", ":", ":"])
@given(PIECES)
def test_the_shown_text_is_a_prefix_of_the_answer(pieces: list[str]) -> None:
    assert tidy("".join(pieces)).startswith(shown(pieces))


@example(pieces=["A", "\n", "[2, 3]"])
@given(PIECES)
def test_marks_lie_within_the_tidy_text(pieces: list[str]) -> None:
    text, marks = tidied("".join(pieces))
    assert all(0 <= at <= len(text) and numbers for at, numbers in marks)


@pytest.mark.parametrize(
    ("pieces", "seen"),
    [
        (["The bridge", " has four"], "The bridge has four"),
        (["It has [", "1"], "It has"),  # a word is shown when the next one begins
        *(([held[:3], held[3:7], held[7:]], "") for held in HELD),  # another sentence stands for it
        (["The text does not say", " it."], "The text does not say it"),  # the model's own words have been shown
    ],
)
def test_what_is_shown_early(pieces: list[str], seen: str) -> None:
    assert shown(pieces) == seen


@pytest.mark.parametrize(
    ("text", "plain", "numbers"),
    [
        ("Answer: It has 30 days [1]. Ask [2][3].", "It has 30 days. Ask.", [{1}, {2}, {3}]),
        ("Use `argv[1]` for it [1, 2]", "Use `argv[1]` for it", [{1, 2}]),
        ("x = a[1] + 2", "x = a[1] + 2", []),
        ("It is so.[1] And so on[2].\n- one [3]", "It is so. And so on.\n- one", [{1}, {2}, {3}]),
        ("Run:\n```\nx = a[1]\n```\nThen [2] stop.", "Run:\n```\nx = a[1]\n```\nThen stop.", [{2}]),
        ("[1] First. [2] Second", "First. Second", [{1}, {2}]),
    ],
)
def test_excerpt_marks_are_removed_from_prose_only(text: str, plain: str, numbers: list[set[int]]) -> None:
    found, marks = tidied(text)
    assert found == plain
    assert [set(each) for _, each in marks] == numbers


ABSTENTIONS = """
The passages do not say.
The passage does not provide a specific answer to the question.
The text doesn't mention it.
It is not mentioned in the passages.
No information is given in the passage.
I don't know.
There is no information about the colour in the text.
The given context does not explicitly state it.
Not specified.
The provided documents do not contain this information.
""".strip().splitlines()
ANSWERS = """
28 days.
The ferry does not sail on Sundays.
Passengers may not take dogs into the saloon.
The document is kept for ten years.
Knowing the code is not enough.
Confidential information is not to be given to third parties.
Personal documents are not included in the insurance.
Staff must not be given the documents before signing.
Unknown callers are sent to the reception.
Work documents do not include private letters.
The text of the contract is kept for ten years.
""".strip().splitlines()


@pytest.mark.parametrize(("texts", "abstains"), [(ABSTENTIONS, True), (ANSWERS, False)])
def test_abstentions_in_the_models_words_are_told_from_answers(texts: list[str], abstains: bool) -> None:
    assert [text for text in texts if says_nothing_found(text) != abstains] == []


def test_control_characters_become_spaces() -> None:
    assert printable("a\x1b[31mb\x9b\u202ec\td\n") == "a [31mb  c\td\n"


@given(
    st.recursive(
        st.text() | st.integers() | st.none(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
        max_leaves=8,
    )
)
@settings(max_examples=40)
def test_what_json_states_stays_at_its_place(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False)
    for cut in (text, text[: len(text) // 2]):
        prose = json_prose(cut)
        assert len(prose) == len(cut)
        assert all(new == old or new in " \n" for new, old in zip(prose, cut, strict=True))


@pytest.mark.parametrize(
    ("text", "lines", "declines"),
    [
        ('{"who": "Ann: [1]", "of": [3, null], "x": {"a\\"b": true}}', ["Ann: [1]", "3", "true"], False),
        ('{"who": null, "of": ""}', [], True),
        ('["The passages do not say.", "not stated"]', ["The passages do not say.", "not stated"], True),
        ('{"who": "The passages do not say.", "of": 0}', ["The passages do not say.", "0"], False),
        ('{"who": "The passages do not', ["The passages do not"], False),
        ("{}", [], False),
    ],
)
def test_what_json_states_and_whether_it_states_nothing(text: str, lines: list[str], declines: bool) -> None:
    assert [line.strip() for line in json_prose(text).split("\n") if line.strip()] == lines
    assert json_says_nothing(text) is declines
