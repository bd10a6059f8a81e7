"""Tables: CSV and the like, and workbooks of Excel and OpenDocument (by Calamine), a page per visible sheet.

` | ` divides cells, and passages are shown with the table's header. In large tables and CSV each row names its columns
(`name: Ada; born: 1815`), so that it is complete alone.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from io import BytesIO, StringIO
from itertools import groupby, islice, zip_longest

from openbook.core.errors import UnreadableFile
from openbook.core.records import Content
from openbook.parsers.blocks import Blocks, text_content
from openbook.parsers.characters import title_from_name
from openbook.parsers.files import ENCRYPTED
from openbook.parsers.formats.packages import ZIP_MARK, Package, core_properties
from openbook.parsers.formats.text import read_text

MAX_CELLS = 2_000_000
_MEDIA_TYPES = {
    ".ods": "application/vnd.oasis.opendocument.spreadsheet",
    ".xls": "application/vnd.ms-excel",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
_LARGE_TABLE_CHARS = 20_000  # a header further away is not shown with a row
_SAMPLE_CHARS = 65_536
_SAMPLE_ROWS = 200
_DELIMITERS = ",;\t|"
_MAX_NAME_CHARS = 80
_VALUE = re.compile(r"[-+]?[\d.,:/ %€$£-]*\d[\d.,:/ %€$£-]*")  # numbers, dates: never names of columns


def parse_delimited(data: bytes, name: str) -> Content:
    text = read_text(data)
    first, media_type = ",", "text/csv"
    if name.lower().endswith((".tsv", ".tab")):
        first, media_type = "\t", "text/tab-separated-values"
    try:
        rows = list(_csv_rows(text, _delimiter(text, first)))
    except csv.Error:  # an unclosed or oversized field: keep the lines as they are
        return text_content(text, "text/plain", name)
    lines = _named_lines(rows) or [" | ".join(" ".join(cell.split()) for cell in row) for row in rows]
    written = "\n".join(lines) + "\n" if lines else ""
    return text_content(written, media_type, name, chars=len(text))


def parse_workbook(data: bytes, name: str) -> Content:
    import python_calamine as calamine

    # The check of the package also stops a zip bomb before Calamine unpacks it.
    package = Package(data, "a workbook") if data.startswith(ZIP_MARK) else None
    title, metadata = core_properties(package) if package else ("", ())
    media_type = _MEDIA_TYPES.get(package.kind() if package else ".xls", _MEDIA_TYPES[".xlsx"])
    out = Blocks()
    left = MAX_CELLS
    try:
        with calamine.CalamineWorkbook.from_filelike(BytesIO(data)) as book:
            shown = [sheet for sheet in book.sheets_metadata if sheet.visible == calamine.SheetVisibleEnum.Visible]
            for described in [sheet for sheet in shown if sheet.typ == calamine.SheetTypeEnum.WorkSheet]:
                sheet = book.get_sheet_by_name(described.name)
                rows = [[_shown(cell) for cell in row] for row in sheet.to_python()]
                left -= sum(1 for row in rows for cell in row if cell)
                if left < 0:
                    raise UnreadableFile(f"holds more than {MAX_CELLS // 1_000_000} million filled cells")
                out.heading(described.name, 1)
                out.chars += sum(len(cell) for row in rows for cell in row)
                _repeat_merged(rows, sheet.merged_cell_ranges or (), sheet.start or (0, 0))
                for has_cells, table in groupby(rows, key=any):  # an empty row divides tables
                    if has_cells:
                        _write(list(table), out)
                out.end_page()
    except calamine.PasswordError as error:
        raise UnreadableFile(ENCRYPTED) from error
    except (calamine.CalamineError, OSError, ValueError) as error:
        raise UnreadableFile("a damaged workbook") from error
    return out.content(media_type, title or title_from_name(name), name, metadata)


def _shown(cell: object) -> str:
    """15 digits, as spreadsheets show, not the 17 that they store."""
    if isinstance(cell, bool):
        return str(cell).upper()
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else format(cell, ".15g")
    if isinstance(cell, datetime):
        return cell.isoformat(" ", "seconds").removesuffix(" 00:00:00")
    if isinstance(cell, timedelta):
        return str(cell)
    return cell.isoformat() if isinstance(cell, date) else " ".join(str(cell).split())


def _repeat_merged(
    rows: list[list[str]], merges: Sequence[tuple[tuple[int, int], tuple[int, int]]], start: tuple[int, int]
) -> None:
    """Repeat cells over several rows, so that every row is complete."""
    for (top, left), (bottom, _) in merges:
        top, left, bottom = top - start[0], left - start[1], bottom - start[0]
        if 0 <= top < len(rows) and 0 <= left < len(rows[top]):
            for row in rows[top + 1 : bottom + 1]:
                row[left] = row[left] or rows[top][left]


def _write(table: list[list[str]], out: Blocks) -> None:
    used = [column for column in range(len(table[0])) if any(row[column] for row in table)]
    rows = [[row[column] for column in used] for row in table]
    is_large = sum(len(cell) for row in rows for cell in row) > _LARGE_TABLE_CHARS
    if is_large and (named := _named_lines(rows)):
        out.lines(named)
    else:
        out.rows(rows)


def row_line(cells: Iterable[tuple[str, str]]) -> str:
    """`name: Ada; born: 1815`, without empty cells."""
    shown = [(name, " ".join(cell.split())) for name, cell in cells]
    return "; ".join(f"{name}: {cell}" if name else cell for name, cell in shown if cell)


def _named_lines(rows: list[list[str]]) -> list[str]:
    names = _names(rows)
    lines = (row_line(zip_longest(names, row, fillvalue="")) for row in rows[1:]) if names else ()
    return [line for line in lines if line]


def _names(rows: list[list[str]]) -> list[str]:
    """The first row if it names the columns: different words, no values; else empty."""
    if len(rows) < 2:
        return []
    names = [" ".join(cell.split()) for cell in rows[0]]
    filled = [name for name in names if name]
    if len(filled) < 2 and max(map(len, rows[1:])) > 1:
        return []  # a title above the table
    fit = len(set(filled)) == len(filled) and all(len(name) <= _MAX_NAME_CHARS for name in filled)
    return names if fit and filled and not any(_VALUE.fullmatch(name) for name in filled) else []


def _csv_rows(text: str, delimiter: str) -> Iterator[list[str]]:
    return (row for row in csv.reader(StringIO(text, newline=""), delimiter=delimiter) if any(map(str.strip, row)))


def _delimiter(text: str, first: str) -> str:
    """The delimiter that gives the most rows the same number of columns (at least two); `first` on a tie."""
    sample = text[:_SAMPLE_CHARS]
    if len(text) > _SAMPLE_CHARS:
        sample = sample[: sample.rfind("\n") + 1] or sample
    order = sorted(_DELIMITERS, key=lambda delimiter: delimiter != first)
    return max(order, key=lambda delimiter: _regularity(sample, delimiter))


def _regularity(sample: str, delimiter: str) -> float:
    try:
        widths = Counter(len(row) for row in islice(_csv_rows(sample, delimiter), _SAMPLE_ROWS))
    except csv.Error:
        return 0.0
    width, count = max(widths.items(), key=lambda item: (item[0] > 1, item[1], item[0]), default=(0, 0))
    return count / widths.total() if width > 1 else 0.0
