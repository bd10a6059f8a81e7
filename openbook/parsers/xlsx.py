"""Excel workbooks to text: a page and a heading for each visible sheet. Rows are read as a stream.

Only the rows and cells that are written count; what a sheet says about its size is not looked at.
ECMA-376 part 1, 18.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from io import BytesIO
from typing import Any

from openbook.errors import UnreadableFile
from openbook.parsers.blocks import Blocks
from openbook.parsers.charts import write_charts
from openbook.parsers.cleaning import title_from_name
from openbook.parsers.packages import (
    Package,
    Relation,
    child,
    children,
    core_properties,
    descendants,
    local,
    open_package,
)
from openbook.parsers.sheets import MOST_CELLS, Cell, Merge, Row, shown_number, write_sheet
from openbook.records import Content

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
MOST_COLUMNS = 16_384

_DATE_FORMATS = frozenset({*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)})  # 18.8.30
_FORMAT_LITERALS = re.compile(r'"[^"]*"|\\.|_.|\*.|\[(?!(?:h+|m+|s+)\])[^\]]*\]', re.I)
_REFERENCE = re.compile(r"\$?([A-Z]{1,3})\$?(\d{1,7})")


@dataclass(slots=True)
class _Workbook:
    strings: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)  # of each cell format: `date`, `percent N`, or empty
    epoch: datetime = datetime(1899, 12, 30)  # noqa: DTZ001 — a spreadsheet's dates have no zone
    cells: int = 0
    chars: int = 0


def read_xlsx(data: bytes, name: str) -> Content:
    package = open_package(data, "an Excel workbook")
    part = package.main_part("xl/workbook.xml")
    if part not in package:
        raise UnreadableFile("not an Excel workbook")
    if part.lower().endswith(".bin"):
        raise UnreadableFile("a binary Excel workbook: save it as .xlsx")
    root = package.xml(part)
    relations = package.relations(part)
    book = _workbook(package, root, list(relations.values()))
    out = Blocks()
    sheets = child(root, "sheets")
    visible = [sheet for sheet in (sheets if sheets is not None else ()) if sheet.get("state", "visible") == "visible"]
    for number, sheet in enumerate(visible, 1):
        relation = relations.get(next((value for key, value in sheet.items() if key.endswith("}id")), ""))
        out.begin_page()
        if relation and relation.target in package:
            _write(package, relation.target, sheet.get("name", ""), book, out)
        out.end_page(number)
    stated, metadata = core_properties(package)
    return Content(
        out.text,
        MEDIA_TYPE,
        stated or title_from_name(name),
        tuple(out.pages),
        tuple(out.headings),
        book.chars,
        metadata,
    )


def _workbook(package: Package, root: Any, related: list[Relation]) -> _Workbook:
    book = _Workbook()
    properties = child(root, "workbookPr")
    if properties is not None and properties.get("date1904") in {"1", "true"}:
        book.epoch = datetime(1904, 1, 1)  # noqa: DTZ001
    for relation in related:
        if relation.kind == "sharedStrings" and relation.target in package:
            book.strings = [_string(item) for item in _stream(package, relation.target, "si")]
        elif relation.kind == "styles":
            book.styles = _styles(package.optional_xml(relation.target))
    return book


def _stream(package: Package, part: str, *names: str) -> Iterator[Any]:
    """The elements of these names as they are read. Each is emptied when the next is asked for."""
    from lxml import etree

    tags = tuple(f"{{*}}{name}" for name in names)
    try:
        for _, element in etree.iterparse(
            BytesIO(package.read(part)),
            tag=tags,
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
        ):
            yield element
            element.clear()
            while element.getprevious() is not None:
                del element.getparent()[0]
    except etree.LxmlError as error:
        raise package.damaged() from error


def _string(item: Any) -> str:
    """The text of a shared or inline string, in whatever runs, without its phonetic reading."""
    runs = (run for run in descendants(item, "t") if local(run.getparent()) != "rPh")
    return "".join(run.text or "" for run in runs)


def _styles(root: Any) -> list[str]:
    if root is None:
        return []
    own = {element.get("numFmtId", ""): element.get("formatCode", "") for element in descendants(root, "numFmt")}
    formats = child(root, "cellXfs")
    ids = [element.get("numFmtId", "0") for element in formats] if formats is not None else []
    return [_style(identifier, own.get(identifier)) for identifier in ids]


def _style(identifier: str, code: str | None) -> str:
    if code is None:
        number = int(identifier) if identifier.isascii() and identifier.isdigit() and len(identifier) < 6 else 0
        return "date" if number in _DATE_FORMATS else {9: "percent 0", 10: "percent 2"}.get(number, "")
    shape = _FORMAT_LITERALS.sub("", code[:500]).partition(";")[0].lower()
    if "general" not in shape and re.search("[ymdhs]", shape):
        return "date"
    if shape.rstrip().endswith("%"):
        return f"percent {len(shape.partition('.')[2].rstrip(' %'))}"
    return ""


def _write(package: Package, part: str, name: str, book: _Workbook, out: Blocks) -> None:
    book.chars += len(name)
    out.heading(name, 1)
    merges: list[Merge] = []
    rows: list[tuple[int, Row]] = []
    last = -1
    for element in _stream(package, part, "row", "mergeCell"):
        if local(element) == "mergeCell":
            merges += _merge(element.get("ref", ""))
            continue
        stated = element.get("r", "")
        number = int(stated) - 1 if stated.isascii() and stated.isdigit() and len(stated) < 8 else last + 1
        row = _row(element, book)
        if row and number > last:
            rows.append((number, row))
        elif row:  # rows out of order: a damaged file, but its cells are legible
            rows.append((last + 1, row))
        last = max(number, last + 1) if row else last
    write_sheet(rows, merges, out)
    _write_drawings(package, part, out)
    _write_comments(package, part, book, out)


def _row(element: Any, book: _Workbook) -> Row:
    row: Row = {}
    column = -1
    for cell in children(element, "c"):
        column = _column(cell.get("r", ""), column + 1)
        shown = _cell(cell, book)
        if shown.text.strip():
            row[column] = shown
            book.chars += len(shown.text)
            book.cells += 1
    if book.cells > MOST_CELLS:
        raise UnreadableFile(f"holds more than {MOST_CELLS // 1_000_000} million cells")
    return row


def _column(reference: str, default: int) -> int:
    found = _REFERENCE.fullmatch(reference)
    return _letters(found[1]) if found else min(default, MOST_COLUMNS)


def _letters(letters: str) -> int:
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number - 1


def _merge(reference: str) -> list[Merge]:
    first, _, last = reference.partition(":")
    a, b = _REFERENCE.fullmatch(first), _REFERENCE.fullmatch(last)
    return [Merge(int(a[2]) - 1, _letters(a[1]), int(b[2]) - 1, _letters(b[1]))] if a and b else []


def _cell(cell: Any, book: _Workbook) -> Cell:
    kind = cell.get("t", "n")
    if kind == "inlineStr":
        inline = child(cell, "is")
        return Cell(_string(inline) if inline is not None else "")
    held = child(cell, "v")
    value = (held.text or "") if held is not None else ""
    if kind == "s":
        index = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else -1
        return Cell(book.strings[index] if 0 <= index < len(book.strings) else "")
    if kind == "str":
        return Cell(value)
    if kind == "b":
        return Cell({"1": "TRUE", "0": "FALSE"}.get(value, value), is_text=False)
    style = cell.get("s", "0")
    index = int(style) if style.isascii() and style.isdigit() and len(style) < 7 else 0
    return Cell(_number(value, book.styles[index] if index < len(book.styles) else "", book.epoch), is_text=False)


def _number(value: str, style: str, epoch: datetime) -> str:
    if not style:
        return shown_number(value)
    try:
        number = float(value)
        if style == "date":
            return _date(number, epoch)
        return f"{number:.{min(int(style.split()[1]), 10)}%}"
    except (ValueError, OverflowError):
        return value


def _date(days: float, epoch: datetime) -> str:
    """A serial date in ISO 8601; a part of a day alone is a time."""
    if days < 0:
        return shown_number(str(days))
    if epoch.year == 1899 and 1 <= days < 60:  # Excel believes in a 29 February 1900
        days += 1
    moment = epoch + timedelta(seconds=round(days * 86_400))
    if days < 1:
        return moment.time().isoformat()
    return (
        moment.isoformat(sep=" ")
        if moment.time().replace(microsecond=0) != datetime.min.time()
        else moment.date().isoformat()
    )


def _write_drawings(package: Package, part: str, out: Blocks) -> None:
    for relation in package.relations(part).values():
        if relation.kind == "drawing":
            root = package.optional_xml(relation.target)
            for body in descendants(root, "txBody") if root is not None else ():
                out.lines("".join(run.text or "" for run in descendants(line, "t")) for line in children(body, "p"))
            write_charts(package, relation.target, out)


def _write_comments(package: Package, part: str, book: _Workbook, out: Blocks) -> None:
    found = [relation.target for relation in package.relations(part).values() if relation.kind == "comments"]
    texts = []
    for target in found:
        root = package.optional_xml(target)
        for comment in descendants(root, "comment") if root is not None else ():
            text = " ".join(_string(comment).partition("Comment:")[2].split() or _string(comment).split())
            book.chars += len(text)
            texts.append(f"{comment.get('ref', '')}: {text}")
    if texts:
        out.heading("Comments", 2)
        for text in texts:
            out.paragraph(text)
