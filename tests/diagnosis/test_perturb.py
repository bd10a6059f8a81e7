"""A value in a text becomes another of its kind, everywhere, and nothing else of the text changes."""

from __future__ import annotations

from datetime import date, datetime, time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from openbook.core.records import Passage
from openbook.diagnosis.perturb import accepted_after, altered, changes, is_name, names_in, replaced
from openbook.diagnosis.questions import Question
from openbook.diagnosis.scoring import text_holds_any

NAMES = ["Lila Ortega", "Petra Lindqvist", "Kvamsholm Verft", "Bergen", "Oslo", "Østlund Bunker AS", "Bay of Hessay"]


def first(value: str, key: str = "q1") -> str | None:
    change = next(changes(value, NAMES, key), None)
    return None if change is None else change.new


KINDS = {
    "number": "09:40|9.40 a.m.|9 am|14 March 2026|March 14, 2026|Feb. 29|2026-03-14|14.03.2026|May 2025|1611|in 1999|31 April"
    "|28 days|€0.46|40 %|2.6 million litres|28|412,380|7.3.2|HP-3",
    "word": "the 30th of April|May|on Mondays|Monday|six weeks|twelve",
    "name": "Ailsa Petrie|Bay of Biscay|Ostrevik",
    None: "green|Water in oil|yes|twenty-eight days|nineteen|25th|0|",
}


def kind_of(value: str) -> str | None:
    change = next(changes(value, NAMES, "q1"), None)
    return None if change is None else change.kind


@pytest.mark.parametrize(("kind", "value"), [(kind, each) for kind, all_ in KINDS.items() for each in all_.split("|")])
def test_a_value_has_a_kind_or_none(kind: str | None, value: str) -> None:
    assert kind_of(value) == kind
    new = first(value)
    assert new is None or (kind_of(new) == kind and new != value)


def test_what_is_not_part_of_the_value_stays() -> None:
    assert str(first("€0.46 per km")).startswith("€0.")
    assert str(first("at least 18,600,000 euros")).endswith("00,000 euros")
    assert str(first("Wednesday 14 May 2025")).startswith("Wednesday ")
    assert first("Ailsa Petrie") in ("Lila Ortega", "Petra Lindqvist", "Kvamsholm Verft")
    assert first("Ostrevik") in ("Bergen", "Oslo")


@given(st.dates(date(1600, 1, 1), date(2090, 12, 31)), st.times(), st.text(max_size=8))
@settings(max_examples=15)
def test_a_date_stays_a_date_and_a_time_a_time(day: date, at: time, key: str) -> None:
    for written, form in ((f"{day:%Y-%m-%d}", "%Y-%m-%d"), (f"{day:%d.%m.%Y}", "%d.%m.%Y"), (f"{at:%H:%M}", "%H:%M")):
        for change in changes(written, NAMES, key):
            assert datetime.strptime(change.new, form).strftime(form) == change.new  # noqa: DTZ007


DATES = st.dates(date(1600, 1, 1), date(2090, 12, 31))
WRITTEN = st.sampled_from(
    ["{0:%Y-%m-%d}", "{0:%d.%m.%Y}", "{0.day} {0:%B %Y}", "{0:%B} {0.day}, {0.year}", "{0.day} {0:%b}"]
)
UNITS = st.sampled_from(["", " days", " %", " euros", " km", " GB", " centimetres"])
VALUES = st.one_of(
    st.builds(lambda d, f: f.format(d), DATES, WRITTEN),
    st.times().map(lambda t: time(t.hour, t.minute).strftime("%H:%M")),
    st.builds(lambda n, unit: f"{n}{unit}", st.integers(0, 10**9), UNITS),
    st.builds(lambda n, unit: f"{n:,}{unit}", st.integers(1000, 10**9), UNITS),
    st.builds(lambda n, unit: f"{n / 100:.2f}{unit}", st.integers(1, 10**7), UNITS),
    st.sampled_from(["two", "twelve", "Nine"]).map("{} weeks".format),
    st.sampled_from(["Ailsa Petrie", "Solveig Thorsdatter", "Ostrevik", "Haugmoen"]),
)
WORDS = st.lists(st.sampled_from("the ferry leaves pier with salt bread under a blue sky".split()), max_size=6).map(
    " ".join
)


@given(VALUES, st.lists(WORDS, min_size=2, max_size=4), st.text(max_size=8))
def test_a_new_value_is_another_of_the_same_kind_and_the_rest_is_as_it_was(
    value: str, around: list[str], key: str
) -> None:
    text = f" {value} ".join(around)
    passage = Passage("p", "d.txt", "Ferries", 10, 10 + len(text), None, ("Times",), text)
    copy = altered(passage, Question(key or "q", "What is asked?", (value,)), NAMES)
    assume(copy is not None)
    assert copy is not None
    change = copy.change
    assert change.kind == kind_of(value)
    assert change.new.casefold() != value.casefold()
    assert copy.passage.text == f" {change.new} ".join(around)
    assert (copy.passage.title, copy.passage.headings, copy.passage.id) == ("Ferries", ("Times",), "p")
    assert not text_holds_any(copy.passage.text, (value,))
    assert text_holds_any(copy.passage.text, copy.answers)
    assert not text_holds_any(text, copy.answers)


@given(st.one_of(VALUES, st.text(max_size=30)), st.text(max_size=8))
def test_the_same_key_gives_the_same_values(value: str, key: str) -> None:
    found = list(changes(value, NAMES, key))
    assert found == list(changes(value, list(NAMES), key))
    assert all(change.new != value for change in found)


def test_the_new_value_is_written_and_accepted_in_the_ways_of_the_old_one() -> None:
    change = next(changes("six weeks", NAMES, "q"))
    text = replaced("Six weeks. In six weeks.", change.old, change.new)
    assert text == f"{change.new.capitalize()}. In {change.new}."
    change = next(changes("28 days", NAMES, "q"))
    assert accepted_after(change, ("28 days", "28", "twenty-eight days")) == (change.new, change.new_part)
    person = next(changes("Ailsa Petrie", ["Lila Ortega"], "q"))
    assert accepted_after(person, ("Ailsa Petrie", "Petrie")) == ("Lila Ortega", "Ortega")


def test_names_are_found_but_not_the_first_word_of_a_sentence() -> None:
    text = "Yesterday the mayor, Lila Ortega, came to Bergen. Dogs wait. On Monday in May the Bay of Hessay froze.\nPriya Nandakumar, Safety"
    assert names_in([text, text]) == ["Lila Ortega", "Bergen", "Bay of Hessay", "Nandakumar", "Safety"]
    assert not is_name("lila Ortega")
    assert not is_name("A B C D E F G")
