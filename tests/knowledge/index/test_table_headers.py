from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.knowledge.index.table_headers import MAX_ROW_CHARS, MAX_TABLE_CHARS, table_header
from openbook.parsers import parse_bytes

MARKDOWN = """Fares of all ferries:

| to | adult | child |
|:---|------:|---|
| Kilverry | 8.90 | 4.50 |
| Anghos | 12.00 | 6.00 |

Dogs | travel free.
"""
ROWS = "Fares\nto | adult | child\nKilverry | 8.90 | 4.50\nto the islands\nAnghos | 12.00\n\nDogs travel free."


HEADER = "| to | adult | child |\n|:---|------:|---|"
LINE = "+------+-------+"
GRID = f"{LINE}\n| Port | Adult |\n{LINE.replace('-', '=')}\n| Brae | 8.90  |\n{LINE}\n| Oban | 9.20  |\n{LINE}\n"
HTML = "<table><tr><th>to<th>adult</tr><tr><td>Kilverry<td>8.90</tr><tr><td>Anghos<td>12.00</tr></table>"


@pytest.mark.parametrize(
    ("text", "words", "header"),
    [
        (MARKDOWN, "| Kilverry", HEADER),
        (MARKDOWN, "| Anghos", HEADER),
        (MARKDOWN, "12.00", HEADER),  # a passage may begin inside a row
        (MARKDOWN, "\n| Anghos", HEADER),  # or with the white space before it
        *((MARKDOWN, words, "") for words in ("Fares", "| to", "adult", "|:---", "--:", "\nDogs", "Dogs", "free")),
        # As parsers write rows.
        (ROWS, "Kilverry", "to | adult | child"),
        (ROWS, "Anghos", "to | adult | child"),
        (ROWS, "to | adult", ""),
        (ROWS, "Dogs", ""),
        (parse_bytes(HTML.encode(), "a.html").text, "Anghos", "to | adult"),
        # A row of values is no header, but years may be; nor is one without words, or one with fewer cells.
        ("Kilverry | 8.90\nAnghos | 12.00", "Anghos", ""),
        ("Port | 2023 | 2024\nAnghos | 12 | 14", "Anghos", "Port | 2023 | 2024"),
        ("|  |  |\n|---|---|\n| Port | Kilverry |\n| Boat | Anna |", "| Boat", ""),
        ("ls | wc\ncat ferries | sort | uniq", "cat", ""),
        # A grid of reStructuredText.
        (GRID, "| Oban", "| Port | Adult |"),
        (GRID, LINE, ""),
    ],
)
def test_the_header_of_a_row(text: str, words: str, header: str) -> None:
    assert table_header(text, text.index(words)) == header


def test_a_row_far_below_has_no_header() -> None:
    row = "| Kilverry | 8.90 | 4.50 |\n"
    text = "| to | adult | child |\n|---|---|---|\n" + row * (MAX_TABLE_CHARS // len(row) + 2)
    assert table_header(text, 100) != ""
    assert table_header(text, len(text) - 10) == ""


@given(st.text("a| -:\n5", max_size=60), st.integers(0, 60), st.text("a|\n", max_size=40), st.text("|\n", max_size=9))
def test_a_header_depends_on_the_text_near_by_alone(text: str, start: int, far: str, after: str) -> None:
    header = table_header(text, start)
    assert header in text[:start]
    padding = "x" * MAX_TABLE_CHARS
    whole, at = far + padding + text[:start], len(far + padding + text[:start])
    whole += text[start:].ljust(MAX_ROW_CHARS)
    begin = at - MAX_TABLE_CHARS - 1
    if begin >= 0:
        near = table_header(whole[begin : at + MAX_ROW_CHARS], at - begin)
        assert table_header(whole + after, at) == near
