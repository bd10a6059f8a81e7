"""Numbers, dates and times that are the same, and those that only look so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.diagnosis.scoring import equal_value
from openbook.diagnosis.scoring import says_accepted as is_right
from openbook.knowledge.values import accepted_value, stated_values

EQUAL = [
    ("28 days", "twenty-eight days"),
    ("28", "28 days"),
    ("twenty eight", "28"),
    ("28 (twenty-eight) days", "28 days"),
    ("A full-time employee has 28 days of leave.", "twenty-eight days"),
    ("2.6 million litres", "2,600,000 liters"),
    ("one hundred and five", "105"),
    ("two thousand three hundred", "2,300"),
    ("412380", "412,380"),
    ("412\u202f380", "412,380"),
    ("€3.50", "3.50 euros"),
    ("EUR 3.50".replace("EUR ", "€"), "3.5"),
    ("450 euros an hour", "€450 per hour"),
    ("€450", "€450 per hour"),
    ("40%", "40 per cent"),
    ("40 percent", "40 %"),
    ("40GB", "40 gigabytes"),
    ("two", "at most two"),
    ("It may carry 2 gas bottles.", "two gas bottles"),
    ("two dozen", "24"),
    ("-5", "−5"),
    ("30 April 2024", "30 April"),
    ("April 30th", "30 April"),
    ("the 30th of April", "April 30"),
    ("2024-04-30", "30 April 2024"),
    ("April 30, 2024", "2024-04-30"),
    ("Wednesday 14 May 2025", "14 May 2025"),
    ("The meeting is on 14 May 2025 at 13:00.", "May 14, 2025"),
    ("August 2025", "Aug 2025"),
    ("1:40 am", "01:40"),
    ("9 p.m.", "21:00"),
    ("nine o'clock", "9:00"),
    ("noon", "12:00"),
]
DIFFERENT = [
    ("28 hours", "28 days"),
    ("28 weeks", "28 days"),
    ("27 days", "28 days"),
    ("28 days or 30 days", "28 days"),
    ("not 28 days", "28 days"),
    ("more than 28 days", "28 days"),
    ("5-7 days", "5 days"),
    ("two and a half days", "2 days"),
    ("1.5", "15"),
    ("No one knows.", "1"),
    ("twenty to thirty", "20"),
    ("nineteen ninety", "109"),
    ("€450 per day", "€450 per hour"),
    ("$450", "€450"),
    ("alarm A40", "40"),
    ("10.0.0.1", "10"),
    ("30 April", "30 April 2024"),
    ("30 April 2023", "30 April 2024"),
    ("31 April", "30 April"),
    ("03/04/2024", "3 April 2024"),
    ("8:15 pm", "08:15"),
    ("25:10", "1:10"),
    ("two gas cylinders", "two gas bottles"),
    ("", "28"),
    ("28 Tage", "28 days"),
]


@pytest.mark.parametrize(("answer", "accepted"), EQUAL)
def test_equal(answer: str, accepted: str) -> None:
    assert equal_value(answer, [accepted]) == 1.0
    assert is_right(answer, ["nothing of it", accepted]) == 1.0


@pytest.mark.parametrize(("answer", "accepted"), DIFFERENT)
def test_not_equal(answer: str, accepted: str) -> None:
    assert equal_value(answer, [accepted]) == 0.0


def test_one_accepted_answer_with_a_unit_rules_out_other_units() -> None:
    accepted = ["28 days", "28"]
    assert equal_value("28 hours", accepted) == is_right("28 hours", accepted) == 0.0
    assert is_right("28 days, of which 5 can be carried over", accepted) == 1.0
    assert is_right("28 hours", ["28"]) == 1.0  # the question has the unit
    assert equal_value("14 May 2024", ["14 May 2025", "14 May"]) == 0.0


def test_text_is_right_as_it_was() -> None:
    assert is_right("It is Paris.", ["Paris"]) == 1.0
    assert is_right("Louis 14", ["Louis 14"]) == 1.0
    assert is_right("form HR-11, on paper", ["form HR-11"]) == 1.0
    assert is_right("Rome", ["Paris"]) == 0.0
    assert is_right("1.5", ["15"]) == 0.0
    assert is_right("anything", []) == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "9" * 100_000,
        "9" * 29,
        "million " * 400,
        "million " * 50_000,
        "9 " + "billion " * 400,
        "two and " * 400,
        "1 " * 50_000,
    ],
)
def test_hostile_numbers_are_none(text: str) -> None:
    assert equal_value(text, ["9", text]) == 0.0


@given(st.integers(0, 10**9))
def test_separators_do_not_matter(number: int) -> None:
    for written in (str(number), f"{number:,}", f"{number:,}".replace(",", "\u202f"), f"{number}.0"):
        assert equal_value(f"{written} days", [f"{number} days"]) == 1.0
        assert equal_value(f"{written} days", [f"{number + 1} days"]) == 0.0


@given(st.integers(0, 999_999))
def test_words_are_their_number(number: int) -> None:
    assert equal_value(in_words(number), [str(number)]) == 1.0
    assert equal_value(str(number), [in_words(number)]) == 1.0
    assert equal_value(in_words(number), [str(number + 1)]) == 0.0


@given(st.dates())
def test_all_ways_to_write_a_date_are_equal(day: object) -> None:
    import datetime

    assert isinstance(day, datetime.date)
    month, year = day.strftime("%B"), f"{day.year:04}"
    forms = [
        f"{day.day} {month} {year}",
        f"{month} {day.day}, {year}",
        f"the {day.day}th of {month} {year}",
        day.isoformat(),
    ]
    for form in forms:
        assert equal_value(form, forms) == 1.0
        assert all(equal_value(form, [other]) == 1.0 for other in forms)
        assert equal_value(form, [f"{day.day} {month}"]) == 1.0
        assert equal_value(f"{day.day} {month}", [form]) == 0.0


@given(st.text(max_size=60))
def test_any_text_can_be_read(text: str) -> None:
    stated_values(text)
    value = accepted_value(text)
    assert equal_value(text, [text]) in (0.0, 1.0)
    assert equal_value(text, []) == 0.0
    assert value is None or equal_value(text, [text]) == 1.0


@given(st.lists(st.text(alphabet="0123456789.,-€% ahmdyourseight", max_size=12), max_size=4), st.text(max_size=12))
def test_scores_are_0_or_1(accepted: list[str], answer: str) -> None:
    assert equal_value(answer, accepted) <= is_right(answer, accepted)


ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety"


def in_words(number: int) -> str:
    if number < 20:
        return ONES.split()[number]
    if number < 100:
        return TENS.split()[number // 10] + (f"-{in_words(number % 10)}" if number % 10 else "")
    if number < 1000:
        return f"{in_words(number // 100)} hundred" + (f" and {in_words(number % 100)}" if number % 100 else "")
    return f"{in_words(number // 1000)} thousand" + (f" {in_words(number % 1000)}" if number % 1000 else "")
