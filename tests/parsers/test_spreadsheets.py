from __future__ import annotations

import csv
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.core.errors import UnreadableFile
from openbook.parsers import parse_bytes
from openbook.parsers.formats.spreadsheets import parse_delimited, parse_workbook

from .samples import odf_file, page_texts, workbook

Value = str | int | float | None


def lines(text: str, name: str = "a.csv") -> list[str]:
    return parse_delimited(text.encode(), name).text.splitlines()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_rows_say_what_they_mean(delimiter: str) -> None:
    text = "name,born,city\nAda,1815,London\nBob,,Paris\n".replace(",", delimiter)
    assert lines(text) == ["name: Ada; born: 1815; city: London", "name: Bob; city: Paris"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('name,note\n"L, Ada","first\nsecond ""line"""\n', ['name: L, Ada; note: first second "line"']),
        ("name;note\nAda;one, two, three\nBob;one\n", ["name: Ada; note: one, two, three", "name: Bob; note: one"]),
        ("a,b\n1,2,3\n4\n", ["a: 1; b: 2; 3", "a: 4"]),
        ("name,born\n", ["name | born"]),
        ("Industry\nHealth\nSales\n", ["Industry: Health", "Industry: Sales"]),
        ("1,2\n3,4\n", ["1 | 2", "3 | 4"]),  # without a header no row is taken for one
        ("a,a\nb,c\n", ["a | a", "b | c"]),
        ("2024-01-01,5 %\n2024-01-02,6 %\n", ["2024-01-01 | 5 %", "2024-01-02 | 6 %"]),
    ],
)
def test_cells_and_headers(text: str, expected: list[str]) -> None:
    assert lines(text) == expected


def test_a_tab_wins_in_a_file_named_tsv() -> None:
    assert lines("a,x\tb,y\n1,2\t3,4\n", "a.tsv") == ["a,x: 1,2; b,y: 3,4"]


def test_a_cell_over_the_modules_limit_leaves_the_lines_as_they_are() -> None:
    text = "a,b\n" + "x" * (csv.field_size_limit() + 1) + ",2\n"
    assert parse_delimited(text.encode(), "a.csv").text == text


words = st.text(st.characters(categories=("L", "N", "P", "Zs"), exclude_characters='"'), min_size=1, max_size=8)


@given(st.lists(st.lists(words, min_size=3, max_size=3), min_size=1, max_size=8))
def test_no_cell_is_lost(rows: list[list[str]]) -> None:
    out = StringIO()
    csv.writer(out).writerows([["first", "second", "third"], *rows])
    text = parse_delimited(out.getvalue().encode(), "a.csv").text
    assert all(" ".join(cell.split()) in text for row in rows for cell in row)


def cell(reference: str, value: Value, style: int = 0) -> str:
    if value is None:
        return f'<c r="{reference}"/>'
    if isinstance(value, str):
        return f'<c r="{reference}" t="inlineStr"><is><t>{value}</t></is></c>'
    return f'<c r="{reference}" s="{style}"><v>{value}</v></c>'


def rows_xml(*rows: list[Value]) -> str:
    shown = "".join(
        f'<row r="{number}">{"".join(cell(f"{chr(65 + i)}{number}", value) for i, value in enumerate(row))}</row>'
        for number, row in enumerate(rows, 1)
    )
    return f"<sheetData>{shown}</sheetData>"


def text_of(*rows: list[Value], more: str = "") -> str:
    return parse_workbook(workbook({"S": rows_xml(*rows) + more}), "a.xlsx").text.removeprefix("S\n\n")


LARGE: list[list[Value]] = [[f"Port number {i}", i] for i in range(2_000)]
MERGED = '<mergeCells><mergeCell ref="A2:A3"/></mergeCells>'


@pytest.mark.parametrize(
    ("rows", "more", "text"),
    [
        (  # blank rows divide tables
            [["Fares", None], [None], ["to", "fare"], ["K", 8.9], ["S", 12], [None], ["Note"]], "",
            "Fares\n\nto | fare\nK | 8.9\nS | 12\n\nNote",
        ),
        (  # merged cells hold their value in every row
            [["area", "to", "fare"], ["North", "K", 1], [None, "S", 2]], MERGED,
            "area | to | fare\nNorth | K | 1\nNorth | S | 2",
        ),
        (  # rows of a large table name their columns
            [["to", "fare"], *LARGE], "", "\n".join(f"to: {port}; fare: {fare}" for port, fare in LARGE),
        ),
    ],
)  # fmt: skip
def test_cells_stand_side_by_side(rows: list[list[Value]], more: str, text: str) -> None:
    assert text_of(*rows, more=more) == text


def test_sheets_are_pages_and_hidden_ones_are_left_out() -> None:
    sheets = {"One": rows_xml(["a"]), "Secret": rows_xml(["hidden"]), "Empty": "<sheetData/>", "Two": rows_xml(["b"])}
    content = parse_workbook(workbook(sheets, hidden="Secret"), "fares.xlsx")
    assert page_texts(content) == ["One\n\na", "Empty", "Two\n\nb"]
    assert [mark.title for mark in content.headings] == ["One", "Empty", "Two"]
    assert content.title == "fares"


@pytest.mark.parametrize(
    ("value", "style", "shown"),
    [
        (45351, 1, "2024-02-29"),
        (45351.5, 2, "2024-02-29 12:00:00"),
        (0.30000000000000004, 0, "0.3"),
        (12.0, 0, "12"),
        (1e300, 0, "1e+300"),
    ],
)
def test_values_are_shown_as_a_person_would_write_them(value: float, style: int, shown: str) -> None:
    sheet = f'<sheetData><row r="1">{cell("A1", value, style)}</row></sheetData>'
    assert parse_workbook(workbook({"S": sheet}), "a.xlsx").text == f"S\n\n{shown}"


def test_the_bytes_of_a_workbook_say_its_media_type() -> None:
    table = '<table:table table:name="S"><table:table-row><table:table-cell><text:p>a</text:p></table:table-cell></table:table-row></table:table>'
    assert parse_workbook(workbook({"S": rows_xml(["a"])}), "a.ods").media_type.endswith("spreadsheetml.sheet")
    opened = odf_file("spreadsheet", table, more={"META-INF/manifest.xml": "<manifest:manifest NS/>"})
    assert parse_workbook(opened, "a.xlsx").media_type.endswith("opendocument.spreadsheet")


def test_cells_that_are_filled_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openbook.parsers.formats.spreadsheets.MAX_CELLS", 2)
    rows = [f'<row r="{row}">{cell(f"A{row}", row, 0)}</row>' for row in (1, 900, 901)]
    far_apart = workbook({"S": f"<sheetData>{''.join(rows[:2])}</sheetData>"})
    assert parse_workbook(far_apart, "a.xlsx").text == "S\n\n1\n\n900"
    with pytest.raises(UnreadableFile, match="holds more than 0 million filled cells"):
        parse_workbook(workbook({"S": f"<sheetData>{''.join(rows)}</sheetData>"}), "a.xlsx")


def test_open_document() -> None:
    cells = '<table:table-cell office:value-type="string"><text:p>nine</text:p></table:table-cell>'
    table = f'<table:table table:name="Fares"><table:table-row>{cells}</table:table-row></table:table>'
    data = odf_file("spreadsheet", table, more={"META-INF/manifest.xml": "<manifest:manifest NS/>"})
    assert parse_bytes(data, "a.ods").text == "Fares\n\nnine"
