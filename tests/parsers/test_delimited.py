from __future__ import annotations

import csv
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.parsers.delimited import read_delimited


def lines(text: str, name: str = "a.csv") -> list[str]:
    return read_delimited(text.encode(), name).text.splitlines()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_rows_say_what_they_mean(delimiter: str) -> None:
    text = "name,born,city\nAda,1815,London\nBob,,Paris\n".replace(",", delimiter)
    assert lines(text) == ["name: Ada; born: 1815; city: London", "name: Bob; city: Paris"]


def test_quotes_newlines_and_delimiters_in_cells() -> None:
    text = 'name,note\n"Lovelace, Ada","first\nsecond ""line"""\n'
    assert lines(text) == ['name: Lovelace, Ada; note: first second "line"']


def test_commas_in_text_do_not_hide_the_semicolons() -> None:
    assert lines("name;note\nAda;one, two, three\nBob;one\n") == [
        "name: Ada; note: one, two, three",
        "name: Bob; note: one",
    ]


def test_a_tab_wins_in_a_file_named_tsv() -> None:
    assert lines("a,x\tb,y\n1,2\t3,4\n", "a.tsv") == ["a,x: 1,2; b,y: 3,4"]


@pytest.mark.parametrize("text", ["1,2\n3,4\n", "a,a\nb,c\n", "2024-01-01,5 %\n2024-01-02,6 %\n"])
def test_without_a_header_no_row_is_taken_for_one(text: str) -> None:
    assert lines(text) == [" | ".join(line.split(",")) for line in text.splitlines()]


def test_rows_of_another_width() -> None:
    assert lines("a,b\n1,2,3\n4\n") == ["a: 1; b: 2; 3", "a: 4"]


def test_one_row_or_only_a_header_is_kept() -> None:
    assert lines("name,born\n") == ["name | born"]
    assert lines("name,born\n,\n") == ["name | born"]


def test_one_column() -> None:
    assert lines("Industry\nHealth\nSales\n") == ["Industry: Health", "Industry: Sales"]


def test_a_cell_over_the_modules_limit_leaves_the_lines_as_they_are() -> None:
    text = "a,b\n" + "x" * (csv.field_size_limit() + 1) + ",2\n"
    assert read_delimited(text.encode(), "a.csv").text == text


def test_hostile_quotes_take_linear_time() -> None:
    for text in ('"' * 1_000_000, ',"' * 500_000, '"a\n' * 300_000, "," * 1_000_000, ",\n" * 300_000):
        read_delimited(text.encode(), "a.csv")


words = st.text(st.characters(categories=("L", "N", "P", "Zs"), exclude_characters='"'), min_size=1, max_size=8)


@given(st.lists(st.lists(words, min_size=3, max_size=3), min_size=1, max_size=8))
def test_no_cell_is_lost(rows: list[list[str]]) -> None:
    out = StringIO()
    csv.writer(out).writerows([["first", "second", "third"], *rows])
    text = read_delimited(out.getvalue().encode(), "a.csv").text
    for row in rows:
        for cell in row:
            assert " ".join(cell.split()) in text
