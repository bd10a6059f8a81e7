"""Numbers, dates and times that are the same, and those that only look so."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.diagnosis.scoring import equal_value, says_accepted
from openbook.knowledge.values import SMALL_NUMBERS, TENS, accepted_value, stated_values

EQUAL = [
    ("28 days", "twenty-eight days"), ("28", "28 days"), ("28 (twenty-eight) days", "28 days"),
    ("A full-time employee has 28 days of leave.", "twenty-eight days"), ("2.6 million litres", "2,600,000 liters"),
    ("two thousand three hundred", "2,300"), ("€3.50", "3.50 euros"), ("€3.50", "3.5"),
    ("450 euros an hour", "€450 per hour"), ("€450", "€450 per hour"), ("40%", "40 per cent"),
    ("40GB", "40 gigabytes"), ("two", "at most two"), ("It may carry 2 gas bottles.", "two gas bottles"),
    ("two dozen", "24"), ("-5", "−5"), ("30 April 2024", "30 April"), ("April 30th", "30 April"),
    ("Wednesday 14 May 2025", "14 May 2025"), ("The meeting is on 14 May 2025 at 13:00.", "May 14, 2025"),
    ("August 2025", "Aug 2025"), ("1:40 am", "01:40"), ("9 p.m.", "21:00"), ("nine o'clock", "9:00"),
    ("noon", "12:00"),
]  # fmt: skip
DIFFERENT = [
    ("28 hours", "28 days"), ("28, that is 28 hours", "28 days"), ("28 days or 30 days", "28 days"), ("not 28 days", "28 days"),
    ("more than 28 days", "28 days"), ("5-7 days", "5 days"), ("two and a half days", "2 days"), ("1.5", "15"),
    ("No one knows.", "1"), ("twenty to thirty", "20"), ("nineteen ninety", "109"), ("€450 per day", "€450 per hour"),
    ("$450", "€450"), ("alarm A40", "40"), ("10.0.0.1", "10"), ("30 April", "30 April 2024"),
    ("30 April 2023", "30 April 2024"), ("31 April", "30 April"), ("03/04/2024", "3 April 2024"), ("8:15 pm", "08:15"),
    ("25:10", "1:10"), ("two gas cylinders", "two gas bottles"), ("", "28"), ("28 Tage", "28 days"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "accepted", "equal"), [*((*e, True) for e in EQUAL), *((*d, False) for d in DIFFERENT)]
)
def test_which_values_are_equal(answer: str, accepted: str, equal: bool) -> None:
    assert equal_value(answer, [accepted]) is equal
    assert not equal or says_accepted(answer, ["nothing of it", accepted])


def test_one_accepted_answer_with_a_unit_rules_out_other_units() -> None:
    accepted = ["28 days", "28"]
    assert not equal_value("28 hours", accepted)
    assert not says_accepted("28 hours", accepted)
    assert says_accepted("28 days, of which 5 can be carried over", accepted)
    assert says_accepted("28 hours", ["28"])  # the question has the unit
    assert not equal_value("14 May 2024", ["14 May 2025", "14 May"])


@pytest.mark.parametrize(
    ("answer", "accepted", "right"),
    [
        ("It is Paris.", "Paris", True),
        ("Louis 14", "Louis 14", True),
        ("form HR-11, on paper", "form HR-11", True),
        ("Rome", "Paris", False),
    ],
)
def test_text_is_right_as_it_was(answer: str, accepted: str, right: bool) -> None:
    assert says_accepted(answer, [accepted]) is right
    assert not says_accepted(answer, [])


@pytest.mark.parametrize(
    "text", ["9" * 100_000, "9" * 29, "million " * 400, "9 " + "billion " * 400, "two and " * 400, "1 " * 50_000]
)
def test_hostile_numbers_are_none(text: str) -> None:
    assert equal_value(text, ["9", text]) == 0.0


@given(st.integers(0, 999_999))
def test_all_ways_to_write_a_number_are_equal(number: int) -> None:
    grouped = f"{number:,}"
    for written in (str(number), grouped, grouped.replace(",", "\u202f"), f"{number}.0", in_words(number)):
        assert equal_value(f"{written} days", [f"{number} days"]) == 1.0
        assert equal_value(f"{number} days", [f"{written} days"]) == 1.0
        assert equal_value(f"{written} days", [f"{number + 1} days"]) == 0.0


@given(st.dates())
def test_all_ways_to_write_a_date_are_equal(day: datetime.date) -> None:
    month, year = day.strftime("%B"), f"{day.year:04}"
    forms = [
        f"{day.day} {month} {year}",
        f"{month} {day.day}, {year}",
        f"the {day.day}th of {month} {year}",
        day.isoformat(),
    ]
    for form in forms:
        assert all(equal_value(form, [other]) == 1.0 for other in forms)
        assert equal_value(form, [f"{day.day} {month}"]) == 1.0
        assert equal_value(f"{day.day} {month}", [form]) == 0.0


@given(st.text(max_size=60), st.text("0123456789.,-€% ahmdyourseight", max_size=12))
def test_any_text_can_be_read(text: str, accepted: str) -> None:
    stated_values(text)
    assert accepted_value(text) is None or equal_value(text, [text]) == 1.0
    assert equal_value(text, []) == 0.0
    assert equal_value(text, [accepted]) <= says_accepted(text, [accepted])


def in_words(number: int) -> str:
    if number < 20:
        return [*SMALL_NUMBERS][number]
    if number < 100:
        return [*TENS][number // 10 - 2] + (f"-{in_words(number % 10)}" if number % 10 else "")
    if number < 1000:
        return f"{in_words(number // 100)} hundred" + (f" and {in_words(number % 100)}" if number % 100 else "")
    return f"{in_words(number // 1000)} thousand" + (f" {in_words(number % 1000)}" if number % 1000 else "")
