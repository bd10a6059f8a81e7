from __future__ import annotations

import contextlib
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.errors import UnreadableFile
from openbook.parsers.blocks import Blocks
from openbook.parsers.sheets import Cell, Merge, Row, shown_number, write_sheet
from openbook.parsers.xlsx import read_xlsx

from .test_packages import packed
from .test_pptx import relations

Value = str | int | float | None


def column_name(number: int) -> str:
    name = ""
    while number >= 0:
        name = chr(ord("A") + number % 26) + name
        number = number // 26 - 1
    return name


def cell(reference: str, value: Value, style: int = 0) -> str:
    if value is None:
        return f'<c r="{reference}"/>'
    if isinstance(value, str):
        return f'<c r="{reference}" t="inlineStr"><is><t>{value}</t></is></c>'
    return f'<c r="{reference}" s="{style}"><v>{value}</v></c>'


def rows_xml(*rows: list[Value]) -> str:
    lines = []
    for number, row in enumerate(rows, 1):
        cells = "".join(cell(f"{column_name(i)}{number}", value) for i, value in enumerate(row))
        lines.append(f'<row r="{number}">{cells}</row>')
    return f"<sheetData>{''.join(lines)}</sheetData>"


def workbook(
    sheets: dict[str, str], *, states: dict[str, str] | None = None, more: dict[str, str] | None = None, head: str = ""
) -> bytes:
    listed = "".join(
        f'<sheet name="{name}" sheetId="{i}" state="{(states or {}).get(name, "visible")}" r:id="rId{i}"/>'
        for i, name in enumerate(sheets, 1)
    )
    kinds = [("worksheet", f"worksheets/sheet{i}.xml") for i in range(1, len(sheets) + 1)]
    members: dict[str, str | bytes] = {
        "xl/workbook.xml": f'<workbook xmlns="m" xmlns:r="r">{head}<sheets>{listed}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": relations(*kinds, ("sharedStrings", "shared.xml"), ("styles", "styles.xml")),
    }
    for number, body in enumerate(sheets.values(), 1):
        members[f"xl/worksheets/sheet{number}.xml"] = f'<worksheet xmlns="m">{body}</worksheet>'
    return packed(members | (more or {}))


def text_of(*rows: list[Value]) -> str:
    return read_xlsx(workbook({"S": rows_xml(*rows)}), "a.xlsx").text.removeprefix("S\n\n")


def refusal(data: bytes) -> str:
    with pytest.raises(UnreadableFile) as caught:
        read_xlsx(data, "a.xlsx")
    return str(caught.value)


def test_rows_carry_their_columns_names() -> None:
    assert text_of(["to", "fare", "since"], ["Kilverry", 8.9, 2019], ["Sandhavn", 12, None]) == (
        "to: Kilverry; fare: 8.9; since: 2019\nto: Sandhavn; fare: 12"
    )


def test_years_name_columns_too() -> None:
    assert text_of(["place", 2019, 2020], ["Kilverry", 1, 2], ["Sandhavn", 3, 4]) == (
        "place: Kilverry; 2019: 1; 2020: 2\nplace: Sandhavn; 2019: 3; 2020: 4"
    )


def test_rows_without_names_stand_side_by_side() -> None:
    assert text_of(["Name", "Ada"], ["Town", "London"]) == "Name | Ada\nTown | London"
    assert text_of([1, 2], [3, 4]) == "1 | 2\n3 | 4"
    assert text_of(["a", "a", "b"], [1, 2, 3]) == "a | a | b\n1 | 2 | 3"


def test_a_title_row_and_blank_rows_divide_blocks() -> None:
    assert text_of(["Fares of the ferry", None], ["to", "fare"], ["K", 1], ["S", 2], [None], ["Note"]) == (
        "Fares of the ferry\n\nto: K; fare: 1\nto: S; fare: 2\n\nNote"
    )


def test_tables_beside_each_other() -> None:
    left, right = ["a", "b", "c"], ["x", "y", "z"]
    assert text_of([*left, None, *right], [1, 2, 3, None, 4, 5, 6], [7, 8, 9, None, 1, 2, 3]) == (
        "a: 1; b: 2; c: 3\na: 7; b: 8; c: 9\n\nx: 4; y: 5; z: 6\nx: 1; y: 2; z: 3"
    )
    assert (
        text_of(["Voltage", None, "kV", 130], ["Humidity", None, "%", 100]) == "Voltage | kV | 130\nHumidity | % | 100"
    )


def test_sheets_are_pages_and_hidden_ones_are_left_out() -> None:
    sheets = {"One": rows_xml(["a"]), "Secret": rows_xml(["hidden"]), "Empty": "", "Two": rows_xml(["b"])}
    content = read_xlsx(workbook(sheets, states={"Secret": "veryHidden"}), "fares.xlsx")
    assert content.text == "One\n\na\n\nEmpty\n\nTwo\n\nb"
    assert [content.text[page.start : page.end] for page in content.pages] == ["One\n\na", "Empty", "Two\n\nb"]
    assert [mark.title for mark in content.headings] == ["One", "Empty", "Two"]
    assert content.title == "fares"


def test_kinds_of_cells() -> None:
    shared = '<sst xmlns="m"><si><t>plain</t></si><si><r><t>rich </t></r><r><t>text</t></r><rPh><t>reading</t></rPh></si></sst>'
    cells = (
        '<c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c><c r="C1" t="s"><v>99</v></c>'
        '<c r="D1" t="b"><v>1</v></c><c r="E1" t="str"><f>A1&amp;B1</f><v>cached</v></c><c r="F1" t="e"><v>#DIV/0!</v></c>'
        '<c r="G1"><f>1/3</f><v>0.30000000000000004</v></c><c><v>5</v></c>'
    )
    data = workbook({"S": f'<sheetData><row r="1">{cells}</row></sheetData>'}, more={"xl/shared.xml": shared})
    content = read_xlsx(data, "a.xlsx")
    assert content.text == "S\n\nplain | rich text | TRUE | cached | #DIV/0! | 0.3 | 5"
    assert content.source_chars == len("Splainrich textTRUEcached#DIV/0!0.35")


FORMATS = (
    '<styleSheet xmlns="m"><numFmts><numFmt numFmtId="164" formatCode="[$-409]d\\ mmm\\ yyyy;@"/>'
    '<numFmt numFmtId="165" formatCode="&quot;days&quot; 0"/><numFmt numFmtId="166" formatCode="0.0%"/></numFmts><cellXfs>'
    + "".join(f'<xf numFmtId="{number}"/>' for number in (0, 14, 22, 164, 165, 10, 166, 20))
    + "</cellXfs></styleSheet>"
)


@pytest.mark.parametrize(
    ("value", "style", "shown"),
    [
        (45351, 1, "2024-02-29"),
        (45351.5, 2, "2024-02-29 12:00:00"),
        (45351, 3, "2024-02-29"),
        (1, 1, "1900-01-01"),
        (61, 1, "1900-03-01"),
        (0.75, 7, "18:00:00"),
        (7, 4, "7"),
        (0.255, 5, "25.50%"),
        (0.255, 6, "25.5%"),
        (-1, 1, "-1"),
        (1e300, 1, "1e+300"),
        (5, 99, "5"),
    ],
)
def test_dates_times_and_percentages(value: float, style: int, shown: str) -> None:
    data = workbook(
        {"S": f'<sheetData><row r="1">{cell("A1", value, style)}</row></sheetData>'}, more={"xl/styles.xml": FORMATS}
    )
    assert read_xlsx(data, "a.xlsx").text == f"S\n\n{shown}"


@given(st.dates(date(1904, 1, 2), date(2200, 1, 1)))
def test_dates_count_from_1904_where_the_workbook_says_so(day: date) -> None:
    sheet = f'<sheetData><row r="1">{cell("A1", (day - date(1904, 1, 1)).days, 1)}</row></sheetData>'
    data = workbook({"S": sheet}, more={"xl/styles.xml": FORMATS}, head='<workbookPr date1904="1"/>')
    assert read_xlsx(data, "a.xlsx").text == f"S\n\n{day}"
    assert date(1904, 1, 1) - date(1899, 12, 30) == timedelta(1462)


def test_merged_cells_hold_their_value_everywhere() -> None:
    merged = (
        rows_xml(["area", "to", "fare"], ["North", "K", 1], [None, "S", 2])
        + '<mergeCells><mergeCell ref="A2:A3"/></mergeCells>'
    )
    assert (
        read_xlsx(workbook({"S": merged}), "a.xlsx").text
        == "S\n\narea: North; to: K; fare: 1\narea: North; to: S; fare: 2"
    )


def test_a_sheet_that_claims_to_be_huge_costs_what_it_holds() -> None:
    body = (
        '<dimension ref="A1:XFD1048576"/><sheetData><row r="1"><c r="A1"><v>1</v></c></row>'
        '<row r="1048576"><c r="XFD1048576"><v>2</v></c></row></sheetData>'
        '<mergeCells><mergeCell ref="A1:XFD1048576"/><mergeCell ref="A1:ZZZ9999999"/></mergeCells>'
    )
    assert read_xlsx(workbook({"S": body}), "a.xlsx").text == "S\n\n1\n\n2"


def test_comments_and_charts_of_a_sheet() -> None:
    comments = (
        '<comments xmlns="m"><commentList><comment ref="B2"><text><r><t>[Threaded comment] Your version cannot. '
        'Comment:\n    Why?</t></r></text></comment><comment ref="C1"><text><t>Plain.</t></text></comment></commentList></comments>'
    )
    more = {
        "xl/worksheets/_rels/sheet1.xml.rels": relations(("comments", "../c.xml"), ("drawing", "../d.xml")),
        "xl/c.xml": comments,
        "xl/d.xml": '<d xmlns:a="a"><sp><txBody><a:p><a:t>in a box</a:t></a:p></txBody></sp></d>',
    }
    content = read_xlsx(workbook({"S": rows_xml(["a"])}, more=more), "a.xlsx")
    assert content.text == "S\n\na\n\nin a box\n\nComments\n\nB2: Why?\n\nC1: Plain."


def test_refusals() -> None:
    assert refusal(packed({"ppt/presentation.xml": "<x/>"})) == "not an Excel workbook"
    binary: dict[str, str | bytes] = {
        "_rels/.rels": relations(("officeDocument", "xl/workbook.bin")),
        "xl/workbook.bin": b"\x83\x01",
    }
    assert refusal(packed(binary)) == "a binary Excel workbook: save it as .xlsx"
    assert refusal(workbook({"S": "<sheetData><row"})) == "a damaged Excel workbook"


def test_entities_in_a_sheet_expand_to_nothing() -> None:
    data = workbook({"S": rows_xml(["x"])})
    sheet = '<!DOCTYPE w [<!ENTITY e SYSTEM "file:///etc/passwd"><!ENTITY f "bomb">]><w><row><c t="str"><v>a&e;&f;</v></c></row></w>'
    text = read_xlsx(workbook({"S": ""}, more={"xl/worksheets/sheet1.xml": sheet}), "a.xlsx").text
    assert "root:" not in text
    assert "bomb" not in text
    assert read_xlsx(data, "a.xlsx").text.endswith("x")


def test_any_truncation_or_flipped_byte_is_text_or_a_reason() -> None:
    data = workbook({"S": rows_xml(["to", "fare"], ["K", 1])})
    for at in range(0, len(data), 11):
        for changed in (data[:at], data[:at] + b"\xff" + data[at + 1 :]):
            with contextlib.suppress(UnreadableFile):
                read_xlsx(changed, "a.xlsx")


def test_numbers_as_shown() -> None:
    assert [shown_number(text) for text in ("1", "1.0", "-0", "1e3", "0.1", "nan", "x", "1e400")] == [
        "1", "1", "0", "1000", "0.1", "nan", "x", "inf",
    ]  # fmt: skip


words = st.text(alphabet="abcdef ", min_size=1, max_size=8).filter(str.strip)
sheet_rows = st.lists(st.dictionaries(st.integers(0, 6), st.builds(Cell, words, st.booleans()), max_size=5), max_size=8)


@given(sheet_rows, st.lists(st.builds(Merge, *[st.integers(0, 8)] * 4), max_size=3))
def test_no_cell_is_lost_and_lines_stay_lines(rows: list[Row], merges: list[Merge]) -> None:
    held = [cell.text for row in rows for cell in row.values()]
    out = Blocks()
    write_sheet([(number, dict(row)) for number, row in enumerate(rows)], merges, out)
    for text in held:
        assert " ".join(text.split()) in out.text
    assert out.text == out.text.strip("\n")


def test_the_name_of_an_empty_column_is_kept() -> None:
    out = Blocks()
    header = {0: Cell("Berth", True), 1: Cell("Draught", True), 2: Cell("Remarks", True)}
    write_sheet([(0, header), (1, {0: Cell("4", False), 1: Cell("5.1", False)})], [], out)
    assert out.text == "Remarks\n\nBerth: 4; Draught: 5.1"
