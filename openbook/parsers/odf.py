"""OpenDocument texts, presentations and spreadsheets to text. They share one vocabulary (ODF 1.3 part 3)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from openbook.errors import UnreadableFile
from openbook.parsers.blocks import Blocks
from openbook.parsers.cleaning import one_line, title_from_name
from openbook.parsers.packages import (
    Package,
    attribute,
    child,
    children,
    descendants,
    local,
    open_package,
    text_chars,
)
from openbook.parsers.properties import stated
from openbook.parsers.sheets import MOST_CELLS, Cell, Merge, Row, write_sheet
from openbook.records import Content, Metadata

_MEDIA_TYPE = "application/vnd.oasis.opendocument."
_BODIES = {"text": "text", "presentation": "presentation", "spreadsheet": "spreadsheet"}
# A row or cell may be repeated to the end of the sheet; what repeats and is not empty is data only so often.
_MOST_REPEATED_ROWS = 1_000
_MOST_REPEATED_CELLS = 256
_MOST_SPACES = 1_000
# Deleted text, notes (they are collected), what a drawing is called, and the readings of Japanese words.
_SKIPPED = frozenset(
    {"tracked-changes", "note", "annotation", "desc", "ruby-text", "forms", "notes", "event-listeners"}
)
_SPACES = re.compile(r"[ \t\r\n]+")
_TITLES = frozenset({"title"})
_FURNITURE = frozenset({"date-time", "footer", "header", "page-number", "page"})


def read_odf(data: bytes, name: str) -> Content:
    package = open_package(data, "an OpenDocument file")
    _refuse_encrypted(package)
    if "content.xml" not in package:
        raise UnreadableFile("not an OpenDocument file")
    root = package.xml("content.xml")
    body = child(root, "body")
    kind = next((local(element) for element in (body if body is not None else ()) if local(element) in _BODIES), "")
    if not kind:
        raise UnreadableFile("not an OpenDocument text, presentation or spreadsheet")
    content = child(body, kind)
    out = Blocks()
    styles = package.optional_xml("styles.xml")
    writer = _Writer(out, {**_listed_styles(styles), **_listed_styles(root)}, _title_styles(styles, root))
    if kind == "presentation":
        _presentation(content, writer)
    elif kind == "spreadsheet":
        _spreadsheet(content, _hidden_tables(root), writer)
    else:
        writer.blocks(content)
        writer.asides(content)
    said, metadata = _meta(package)
    title = writer.title or said or (out.headings[0].title if out.headings and kind != "spreadsheet" else "")
    pages, headings = tuple(out.pages), tuple(out.headings)
    title = title or title_from_name(name)
    return Content(out.text, _MEDIA_TYPE + kind, title, pages, headings, text_chars(content), metadata)


def _refuse_encrypted(package: Package) -> None:
    manifest = package.optional_xml("META-INF/manifest.xml")
    if "encrypted-package" in package or (
        manifest is not None and next(descendants(manifest, "encryption-data"), None) is not None
    ):
        raise UnreadableFile("encrypted with a password")


def _meta(package: Package) -> tuple[str, Metadata]:
    root = child(package.optional_xml("meta.xml"), "meta")
    values = {local(element): element.text or "" for element in root} if root is not None else {}
    metadata = stated(
        authors=(values.get("creator") or values.get("initial-creator", ""),),
        dates=(values.get("date", ""), values.get("creation-date", "")),
        language=values.get("language", ""),
    )
    return one_line(values.get("title", "")), metadata


def _listed_styles(root: Any) -> dict[tuple[str, int], bool]:
    """Whether a level of a list style counts (True) or has bullets."""
    found = {}
    for style in descendants(root, "list-style") if root is not None else ():
        for level in style:
            number = attribute(level, "level")
            if number.isascii() and number.isdigit() and len(number) < 3:
                counts = local(level) == "list-level-style-number" and bool(attribute(level, "num-format"))
                found[attribute(style, "name"), int(number)] = counts
    return found


def _title_styles(styles: Any, root: Any) -> dict[str, int]:
    """Paragraph styles that are or come from `Title` (level 1) and `Subtitle` (2)."""
    found = {"Title": 1, "Subtitle": 2}
    for tree in (styles, root):
        for style in descendants(tree, "style") if tree is not None else ():
            parent = attribute(style, "parent-style-name")
            if parent in found:
                found.setdefault(attribute(style, "name"), found[parent])
    return found


class _Writer:
    def __init__(self, out: Blocks, listed: dict[tuple[str, int], bool], titles: dict[str, int]) -> None:
        self.out = out
        self.title = ""
        self._listed = listed
        self._titles = titles
        self._counts: dict[tuple[str, int], int] = {}  # how far a list has counted, for those that continue it
        self._notes = 0

    def blocks(self, container: Any) -> None:
        """Headings, paragraphs, lists, tables and text boxes in order. Depth is bounded by the XML parser."""
        for element in container:
            self._block(element)

    def _block(self, element: Any) -> None:
        name = local(element)
        if name == "h":
            self.out.heading(self.line(element), _number(attribute(element, "outline-level"), 1, 10))
        elif name == "p":
            self._paragraph(element)
        elif name == "list":
            self._list(element, 1, "")
        elif name == "table":
            self.out.rows(self._table_rows(element))
        elif name not in _SKIPPED:
            self.blocks(element)

    def _paragraph(self, element: Any) -> None:
        text, level = self.line(element), self._titles.get(attribute(element, "style-name"), 0)
        if level and text.strip():
            self.out.heading(text, level)
            self.title = self.title or (one_line(text) if level == 1 else "")
        else:
            self.out.paragraph(text)
        for box in _boxes(element):
            self.blocks(box)

    def _list(self, element: Any, depth: int, style: str) -> None:
        style = attribute(element, "style-name") or style
        counts = self._listed.get((style, depth), False)
        goes_on = attribute(element, "continue-numbering") == "true" or attribute(element, "continue-list")
        number = self._counts.get((style, depth), 0) if goes_on else 0
        for item in element:
            if local(item) not in {"list-item", "list-header"}:
                continue
            number = _number(attribute(item, "start-value"), number + 1, 1_000_000)
            self._counts[style, depth] = number
            marker = f"{number}." if counts else "-"
            for part in item:
                if local(part) == "list":
                    self._list(part, depth + 1, style)
                elif local(part) == "p":
                    self.out.item(self.line(part), depth - 1, marker)
                    for box in _boxes(part):
                        self.blocks(box)
                else:
                    self._block(part)  # numbered headings stand in lists

    def _table_rows(self, table: Any) -> Iterator[list[str]]:
        """A cell over several rows is repeated in each, so that every row says what it is about."""
        spanned: dict[int, tuple[str, int]] = {}  # by column: the text and how many rows still have it
        for row in _rows(table):
            texts: list[str] = []
            for cell in row:
                name = local(cell)
                text, left = spanned.get(len(texts), ("", 0))
                if name == "table-cell":
                    text = self.cell_text(cell)
                    spanned[len(texts)] = text, _number(attribute(cell, "number-rows-spanned"), 1, 10_000) - 1
                    texts.append(text)
                elif name == "covered-table-cell":
                    spanned[len(texts)] = text, max(left - 1, 0)
                    texts.append(text if left > 0 else "")
            yield texts

    def cell_text(self, cell: Any) -> str:
        return " ".join(filter(None, (self.line(part).strip() for part in _outermost(cell, {"p", "h"}))))

    def line(self, element: Any) -> str:
        """The text of a paragraph; a footnote leaves its number, a text box nothing: it is a block of its own."""
        parts: list[str] = []
        self._line(element, parts)
        return "".join(parts)

    def _line(self, element: Any, parts: list[str]) -> None:
        parts.append(_collapsed(element.text))
        for inner in element:
            name = local(inner)
            if name == "s":
                parts.append(" " * _number(attribute(inner, "c"), 1, _MOST_SPACES))
            elif name == "tab":
                parts.append("\t")
            elif name == "line-break":
                parts.append("\n")
            elif name == "note":
                self._notes += 1
                parts.append(f"[{self._notes}]")
            elif name not in _SKIPPED and name not in {"text-box", "object", "title"}:
                self._line(inner, parts)
            parts.append(_collapsed(inner.tail))

    def asides(self, container: Any) -> None:
        """Footnotes and endnotes with their numbers, then comments."""
        notes = [note for note in descendants(container, "note") if child(note, "note-body") is not None]
        texts = [f"[{number}] {self.cell_text(child(note, 'note-body'))}" for number, note in enumerate(notes, 1)]
        self._aside("Notes", texts)
        self._aside("Comments", [self._comment(note) for note in descendants(container, "annotation")])

    def _comment(self, note: Any) -> str:
        text, author = self.cell_text(note), child(note, "creator")
        return f"{author.text}: {text}" if text and author is not None and author.text else text

    def _aside(self, word: str, texts: list[str]) -> None:
        if any(texts):
            self.out.heading(word, 1)
            for text in texts:
                self.out.paragraph(text)


def _collapsed(text: str | None) -> str:
    # More than one space is written as an element; white space in the file is layout of the XML (part 3, 6.1.2).
    return _SPACES.sub(" ", text) if text else ""


def _boxes(paragraph: Any) -> Iterator[Any]:
    return _outermost(paragraph, {"text-box"})


def _outermost(element: Any, names: set[str]) -> Iterator[Any]:
    for inner in element:
        if local(inner) in names:
            yield inner
        elif local(inner) not in _SKIPPED:
            yield from _outermost(inner, names)


def _rows(table: Any) -> Iterator[Any]:
    return _outermost(table, {"table-row"})


def _number(text: str, least: int, most: int) -> int:
    """`text` as a number within bounds; `least` where it is none."""
    return min(max(int(text), least), most) if text.isascii() and text.isdigit() and len(text) < 10 else least


# --- presentations ----------------------------------------------------------------------------------------------------


def _presentation(content: Any, writer: _Writer) -> None:
    out = writer.out
    for number, page in enumerate(children(content, "page"), 1):
        out.begin_page()
        shapes = [shape for shape in page if attribute(shape, "class") not in _FURNITURE and local(shape) != "notes"]
        for shape in shapes:
            if attribute(shape, "class") in _TITLES:
                out.heading(" ".join(writer.cell_text(shape).split()), 1)
        for shape in shapes:
            if attribute(shape, "class") not in _TITLES and local(shape) not in _SKIPPED:
                writer.blocks(shape)
        notes = child(page, "notes")
        frames = [] if notes is None else [frame for frame in notes if attribute(frame, "class") == "notes"]
        if any(writer.cell_text(frame) for frame in frames):
            out.heading("Notes", 2)
            for frame in frames:
                writer.blocks(frame)
        out.end_page(number)


# --- spreadsheets -----------------------------------------------------------------------------------------------------


def _hidden_tables(root: Any) -> set[str]:
    return {
        attribute(style, "name")
        for style in descendants(root, "style")
        if any(attribute(properties, "display") == "false" for properties in children(style, "table-properties"))
    }


def _spreadsheet(content: Any, hidden: set[str], writer: _Writer) -> None:
    left = MOST_CELLS
    tables = (table for table in children(content, "table") if attribute(table, "style-name") not in hidden)
    for number, table in enumerate(tables, 1):
        writer.out.begin_page()
        writer.out.heading(attribute(table, "name"), 1)
        rows, merges = _sheet_rows(table, writer, left)
        left -= sum(len(row) for _, row in rows)
        write_sheet(rows, merges, writer.out)
        for shapes in children(table, "shapes"):
            writer.blocks(shapes)
        writer.out.end_page(number)


def _sheet_rows(table: Any, writer: _Writer, most: int) -> tuple[list[tuple[int, Row]], list[Merge]]:
    rows: list[tuple[int, Row]] = []
    merges: list[Merge] = []
    number = held = 0
    for element in _rows(table):
        row = _sheet_row(element, number, merges, writer)
        repeated = _number(attribute(element, "number-rows-repeated"), 1, 1 << 20)
        if row:
            times = min(repeated, _MOST_REPEATED_ROWS)
            held += times * len(row)
            if held > most:
                raise UnreadableFile(f"holds more than {MOST_CELLS // 1_000_000} million cells")
            rows += [(number + i, dict(row)) for i in range(times)]
        number += repeated
    return rows, merges


def _sheet_row(element: Any, number: int, merges: list[Merge], writer: _Writer) -> Row:
    row: Row = {}
    column = 0
    for cell in element:
        if local(cell) not in {"table-cell", "covered-table-cell"}:
            continue
        repeated = _number(attribute(cell, "number-columns-repeated"), 1, 1 << 14)
        shown = _sheet_cell(cell, writer) if len(cell) and local(cell) == "table-cell" else None
        if shown and shown.text:
            for i in range(min(repeated, _MOST_REPEATED_CELLS)):
                row[column + i] = shown
            down, across = (
                _number(attribute(cell, f"number-{way}-spanned"), 1, 1 << 20) for way in ("rows", "columns")
            )
            if down * across > 1:
                merges.append(Merge(number, column, number + down - 1, column + across - 1))
        column += repeated
    return row


def _sheet_cell(cell: Any, writer: _Writer) -> Cell:
    kind = attribute(cell, "value-type") or "string"
    text = writer.cell_text(cell)
    if kind == "date":  # shown in the writer's own way, stated in ISO 8601
        date = attribute(cell, "date-value")[:40]
        text = date.removesuffix("T00:00:00").replace("T", " ") or text
    return Cell(text, is_text=kind == "string")
