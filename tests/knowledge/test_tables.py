from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.knowledge.tables import MOST_ROW_CHARS, MOST_TABLE_CHARS, table_header
from openbook.parsers import parse_bytes

MARKDOWN = """Fares of all ferries:

| to | adult | child |
|:---|------:|---|
| Kilverry | 8.90 | 4.50 |
| Anghos | 12.00 | 6.00 |

Dogs | travel free.
"""
ROWS = "Fares\nto | adult | child\nKilverry | 8.90 | 4.50\nto the islands\nAnghos | 12.00\n\nDogs travel free."


def header_at(text: str, words: str) -> str:
    return table_header(text, text.index(words))


def test_a_row_of_a_markdown_table_has_its_header() -> None:
    header = "| to | adult | child |\n|:---|------:|---|"
    assert header_at(MARKDOWN, "| Kilverry") == header
    assert header_at(MARKDOWN, "| Anghos") == header
    assert header_at(MARKDOWN, "12.00") == header  # a passage may begin inside a row
    assert header_at(MARKDOWN, "\n| Anghos") == header  # or with the white space before it


@pytest.mark.parametrize("words", ["Fares", "| to", "adult", "|:---", "--:", "\nDogs", "Dogs", "free"])
def test_outside_of_the_rows_there_is_none(words: str) -> None:
    assert header_at(MARKDOWN, words) == ""


def test_a_row_as_parsers_write_it_has_its_header() -> None:
    assert header_at(ROWS, "Kilverry") == "to | adult | child"
    assert header_at(ROWS, "Anghos") == "to | adult | child"
    assert header_at(ROWS, "to | adult") == ""
    assert header_at(ROWS, "Dogs") == ""
    html = "<table><tr><th>to<th>adult</tr><tr><td>Kilverry<td>8.90</tr><tr><td>Anghos<td>12.00</tr></table>"
    assert header_at(parse_bytes(html.encode(), "a.html").text, "Anghos") == "to | adult"


def test_a_row_of_values_is_no_header_but_years_may_be() -> None:
    assert header_at("Kilverry | 8.90\nAnghos | 12.00", "Anghos") == ""
    assert header_at("Port | 2023 | 2024\nAnghos | 12 | 14", "Anghos") == "Port | 2023 | 2024"


def test_a_header_without_words_says_nothing() -> None:
    assert header_at("|  |  |\n|---|---|\n| Port | Kilverry |\n| Boat | Anna |", "| Boat") == ""


def test_a_grid_of_restructuredtext_has_a_header() -> None:
    line = "+------+-------+"
    grid = f"{line}\n| Port | Adult |\n{line.replace('-', '=')}\n| Brae | 8.90  |\n{line}\n| Oban | 9.20  |\n{line}\n"
    assert header_at(grid, "| Oban") == "| Port | Adult |"
    assert table_header(grid, grid.index(line, 60)) == "| Port | Adult |"
    assert table_header(grid, 0) == ""


def test_what_is_wider_than_the_first_row_does_not_belong_to_it() -> None:
    assert header_at("ls | wc\ncat ferries | sort | uniq", "cat") == ""


def test_what_is_far_from_its_header_has_none() -> None:
    row = "| Kilverry | 8.90 | 4.50 |\n"
    text = "| to | adult | child |\n|---|---|---|\n" + row * (MOST_TABLE_CHARS // len(row) + 2)
    assert table_header(text, 100) != ""
    assert table_header(text, len(text) - 10) == ""


@given(st.text("a| -:\n5", max_size=60), st.integers(0, 60), st.text("a|\n", max_size=40), st.text("|\n", max_size=9))
def test_a_header_is_a_part_of_what_is_near_before(text: str, start: int, far: str, after: str) -> None:
    header = table_header(text, start)
    assert header in text[:start]
    padding = "x" * MOST_TABLE_CHARS
    whole, at = far + padding + text[:start], len(far + padding + text[:start])
    whole += text[start:].ljust(MOST_ROW_CHARS)
    begin = at - MOST_TABLE_CHARS - 1
    if begin >= 0:
        near = table_header(whole[begin : at + MOST_ROW_CHARS], at - begin)
        assert table_header(whole + after, at) == near
