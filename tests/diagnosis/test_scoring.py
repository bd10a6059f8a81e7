from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.diagnosis.questions import Question
from openbook.diagnosis.scoring import (
    interval,
    is_right,
    mcnemar,
    normalised,
    same_answer,
    squad_contains,
    text_holds_any,
    token_f1,
)
from tests.conftest import ROOT

TEXTS = st.text(max_size=40)


def test_scores_as_the_reference_script() -> None:
    for answer, accepted, f1 in (
        ("The Eiffel Tower!", ["eiffel tower"], 1.0),
        ("in 1611", ["1611"], 2 / 3),
        ("nothing of it", ["1611"], 0.0),
        ("Denver", ["Denver Broncos", "Denver"], 1.0),
        ("the the", ["a"], 1.0),  # articles alone are nothing, as in the reference script
    ):
        assert token_f1(answer, accepted) == pytest.approx(f1), answer
    held = [squad_contains(*each) for each in (("It is Paris.", ["Paris"]), ("Parisian", ["Paris"]), ("Paris", [""]))]
    assert held == [True, False, False]  # by whole words only


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3))
def test_the_score_of_an_answer_is_a_share_and_1_for_the_accepted_one(answer: str, accepted: list[str]) -> None:
    assert 0.0 <= token_f1(answer, accepted) <= token_f1(answer, [*accepted, answer]) == 1.0
    assert normalised(normalised(answer)) == normalised(answer)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_an_interval_holds_its_mean(scores: list[float]) -> None:
    found = interval(scores)
    assert found.low <= found.mean + 1e-12
    assert found.mean <= found.high + 1e-12
    assert found.n == len(scores)


def test_intervals_of_extreme_scores() -> None:
    for n in (1, 2, 11, 22, 27, 44, 47, 54, 77, 83, 88, 94):
        none, every = interval([0.0] * n), interval([1.0] * n)
        assert (none.low, every.high) == (0.0, 1.0)
        assert none.high == pytest.approx(1.0 - every.low)
    for scores in ([0.5], [0.5] * 8, [1 / 3] * 40, [1.0] * 49 + [0.5]):
        found = interval(scores)
        assert 0.0 <= found.low < found.mean < found.high <= 1.0
    assert interval([0.0] * 10).high == pytest.approx(0.2775, abs=1e-3)  # Wilson's
    assert str(interval([])) == "no data"


def test_mcnemar_is_the_exact_sign_test_for_however_many() -> None:
    for first, second, p in ((0, 0, 1.0), (5, 5, 1.0), (1, 0, 1.0), (0, 6, 0.03125), (2, 10, 0.03857421875)):
        assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(p)
    assert mcnemar(4_000, 4_200) == pytest.approx(0.0279724, rel=1e-4)  # 2**8200 is no float


RIGHT = [  # (answer, accepted)
    ("It leaves at 09:40 sharp.", "09:40"), ("The Paris.", "paris"), ("首都是巴黎。", "巴黎"),
    ("Sie liegt in „Köln“.", "Köln"), ("الجواب هو القاهرة؟", "القاهرة"), ("ﬁnal", "final"),
    ("The council keeps its letters for ten years in Hessay", "the council keeps all letters for ten years in hessay"),
    ("The captain’s cabin.", "the captain's cabin"), ("9:00-17:00", "9:00–17:00"), ("co‑operative", "co-operative"),
    ("1\u202f500 euros", "1500 euros"), ("5½ hours", "5.5 hours"), ("STRASSE", "Straße"), ("İstanbul", "Istanbul"),
    ("1,500, as every year", "1500"), ("John A. Smith", "A. Smith"), ("It starts at 9 a.m. sharp.", "9 am"),
    ("Ask IT first.", "IT"), ("it", "IT"), ("It needs vitamin A to grow.", "Vitamin A"), ("12 may attend.", "12"),
    ("on 5 may 2024", "5 May 2024"), ("until 22:00", "22:00"), ("Yes, it does.", "yes"), ("Yes it does.", "yes"),
    ("Yes\n\nThe ferry runs.", "yes"), ("No\nThe ferry does not run.", "no"), ("**Yes**", "Yes."), ("True.", "true"),
    ("Answer: No.", "no"), ("I have read both, and the answer is no.", "No"), ("No — not on Sundays.", "no"),
    ("It has 28 days.", "28 days"), ("28 days or 30 days", "28 days"), ("2,600,000 litres", "2600000 litres"),
    ("€450 an hour", "450"), ("450 €", "450"), ("at most 20°C", "20 °C"), ("It is −5 degrees", "-5 degrees"),
    ("See #670.", "#670"),
]  # fmt: skip
WRONG = [  # (answer, accepted)
    ("It leaves at 109:40.", "09:40"), ("", "Paris"), ("Paris", "!?"),
    ("a long answer that says nothing of it", "the council keeps all letters for ten years in hessay"),
    ("The ferry leaves at 10:40 from the north quay.", "The ferry leaves at 09:40 from the north quay."),
    ("Station B", "Station A"), ("", "the"), ("Version 15", "Version 1.5"), ("350 €", "3,50 €"), ("1/2", "12"),
    ("Unit 12", "Unit 1/2"), (".5", "5"), ("B-", "B+"), ("1\xa0500 euros", "500 euros"), ("106", "10⁶"),
    ("10⁶", "106"), ("2015年", "15年"), ("十二", "二"), ("It is the finance department.", "IT"), ("I'm not sure.", "No"),
    ("It is not stated in the passage.", "No"), ("$5m", "$5"), ("1.5", "1.500"), ("Yes, no car is left behind.", "no"),
    ("The answer is not yes.", "yes"), ("False, I think.", "no"), ("No idea.", "no"), ("No passage states it.", "no"),
    ("I'm not sure.", "no"), ("It does not.", "no"), ("", "no"), ("twenty-eight days", "28 days"),
    ("from 28-30 days", "28 days"), ("$450", "€450"), ("-5 degrees", "5 degrees"), ("Rent is 150 or 1.5", "15"),
    ("See 6701.", "#670"), ("alarm A40", "40"),
]  # fmt: skip


@pytest.mark.parametrize("expected", [True, False])
def test_an_answer_is_right_in_another_spelling_and_wrong_if_it_only_looks_alike(expected: bool) -> None:
    for answer, accepted in RIGHT if expected else WRONG:
        assert is_right(answer, Question("q", "What?", ("none of these", accepted))) is expected, (answer, accepted)


def test_what_only_repeats_the_question_says_nothing() -> None:
    where = Question("q", "Where is Denmark, South Carolina?", ("South Carolina", "Bamberg County"))
    assert not is_right("Denmark, South Carolina is a town of the United States.", where)
    assert is_right("Denmark is in South Carolina.", where)
    assert is_right("South Carolina", where)
    assert is_right("Denmark, South Carolina is a town in Bamberg County.", where)
    assert is_right("Denmark, South Carolina, is in the state of South Carolina.", where)
    which = Question("q", "Is the tower in Arvik or in Brekkan?", ("Arvik",), phrasings=("Which of them has a tower?",))
    assert is_right("It is in Arvik.", which)
    assert is_right("Arvik.", which)


def test_what_the_documentation_says_is_right_and_wrong() -> None:
    text = (ROOT / "docs/formats/diagnosis.md").read_text(encoding="utf-8")
    rows = text.partition("| accepted | right | wrong |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(rows) == 7
    for row in rows:
        accepted, right, wrong = (re.findall("`([^`]+)`", cell) for cell in row.split("|")[1:4])
        for answers, expected in ((right or accepted, True), (wrong, False)):
            for each, answer in zip(accepted if len(accepted) > 1 else accepted * len(answers), answers, strict=True):
                assert is_right(answer, Question("q", "What?", (each,))) is expected, (answer, each)


def test_equal_answers() -> None:
    assert same_answer("Noon.", "It leaves at noon")
    assert same_answer("09:40", "The ferry to the island leaves at 09:40 every day of the week but Sunday.")
    assert not same_answer("28 days", "28 days or 30 days")
    assert not same_answer("Noon.", "At nine")
    assert not same_answer("4", "On 4 May 2024")
    assert not same_answer("the mayor", "It was built by a company of the town whose mayor had asked for it in spring.")
    assert not text_holds_any("", [""])
