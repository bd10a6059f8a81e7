"""Writes start tags, end tags and text as plain text: blocks apart, white space collapsed, table rows on one line."""

from __future__ import annotations

import re

from openbook.parsers.cleaning import clean, one_line
from openbook.records import HeadingMark

HEADINGS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}

# What must stand before the next text, the larger request wins.
_NOTHING, _SPACE, _LINE, _BLANK = range(4)
_GAPS = ("", " ", "\n", "\n\n")

_BLOCKS = frozenset({
    *HEADINGS,
    "address", "article", "aside", "blockquote", "body", "center", "dd", "details", "div", "dl", "fieldset", "figure",
    "footer", "form", "header", "hr", "main", "ol", "p", "pre", "section", "table", "ul",
})  # fmt: skip
_LINES = frozenset({
    "caption", "dt", "figcaption", "legend", "li", "optgroup", "option", "rp", "summary", "td", "th", "tr",
})  # fmt: skip
_SPACES = re.compile(r"[ \t\n\xa0]+")
_INVISIBLE = str.maketrans("", "", "\xad\u200b\ufeff")  # soft hyphens and the like would hide words from a search


class Writer:
    """Feed it in document order, then `finish`. Text inside a data table's cell or a `<pre>` is held back whole."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._gap = _NOTHING
        self._lists = 0
        self._marker = ""
        self._tables: list[bool] = []  # of each open table, whether it only lays out
        self._row: list[str] = []
        self._cell: list[str] | None = None
        self._spans = (1, 1)  # of the open cell
        self._spanned: dict[int, tuple[str, int]] = {}  # by column: a cell from above and how many rows still have it
        self._pre: list[str] | None = None
        self._headings: list[HeadingMark] = []
        self._heading = ""  # the open heading's tag
        self._heading_at: tuple[int, int] | None = None  # offset and part where its text begins

    def start(self, tag: str, *, layout: bool = False, spans: tuple[int, int] = (1, 1)) -> None:
        if tag == "br":
            self._line_break()
        elif self._cell is not None:
            self._cell.append(" " if tag in _BLOCKS or tag in _LINES else "")
        elif tag == "table":
            self._break(_BLANK)
            self._tables.append(layout)
            self._spanned = {}
        elif tag in {"td", "th"} and self._tables and not self._tables[-1]:
            self._cell, self._spans = [], spans
        elif self._pre is None:
            self._start_block(tag)

    def _start_block(self, tag: str) -> None:
        if tag in {"ul", "ol"}:
            self._break(_LINE if self._lists else _BLANK)
            self._lists += 1
        elif tag in _BLOCKS:
            self._break(_BLANK)
        elif tag in _LINES:
            self._break(_LINE)
        if tag == "li":
            self._marker = "  " * max(min(self._lists, 12) - 1, 0) + "- "
        elif tag == "pre":
            self._pre = []
        elif tag in HEADINGS:
            self._heading, self._heading_at = tag, None

    def end(self, tag: str) -> None:
        if tag in {"td", "th"} and self._cell is not None:
            self._end_cell(" ".join(clean("".join(self._cell)).translate(_INVISIBLE).split()))
        elif tag == "table" and self._tables:
            self._end_row()
            self._tables.pop()
            self._break(_BLANK)
        elif self._cell is not None:
            self._cell.append(" " if tag in _BLOCKS or tag in _LINES else "")
        elif tag == "tr" and self._tables and not self._tables[-1]:
            self._end_row()
        elif tag == "pre" and self._pre is not None:
            self._end_pre()
        elif self._pre is None:
            self._end_block(tag)

    def _end_block(self, tag: str) -> None:
        if tag == self._heading:
            self._end_heading()
        if tag in {"ul", "ol"}:
            self._lists = max(self._lists - 1, 0)
            self._break(_LINE if self._lists else _BLANK)
        elif tag in {"li", "dt"}:
            # Items stay close together even where their text stands in paragraphs.
            self._marker, self._gap = "", min(_LINE, max(self._gap, _LINE))
        elif tag in _BLOCKS:
            self._break(_BLANK)
        elif tag in _LINES:
            self._break(_LINE)

    def text(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)
        elif self._pre is not None:
            self._pre.append(data)
        else:
            self._collapsed(clean(data).translate(_INVISIBLE))

    def _collapsed(self, data: str) -> None:
        data = _SPACES.sub(" ", data)
        if data.startswith(" "):
            self._gap = max(self._gap, _SPACE)
        body = data.strip(" ")
        if body:
            self._put(body)
            if data.endswith(" "):
                self._gap = _SPACE

    def finish(self) -> tuple[str, tuple[HeadingMark, ...]]:
        if self._cell is not None:
            self.end("td")
        self._end_row()
        self._end_pre()
        self._end_heading()
        return "".join(self._parts), tuple(self._headings)

    def _break(self, gap: int) -> None:
        if not self._marker:  # the text of a list item begins on the line of its marker
            self._gap = max(self._gap, gap)

    def _line_break(self) -> None:
        if self._cell is not None:
            self._cell.append(" ")
        elif self._pre is not None:
            self._pre.append("\n")
        else:
            self._break(_BLANK if self._gap == _LINE else _LINE)

    def _put(self, body: str) -> None:
        gap = _GAPS[self._gap] if self._length else ""
        if self._heading and self._heading_at is None:
            self._heading_at = (self._length + len(gap), len(self._parts) + 2)
        for part in (gap, self._marker, body):
            self._parts.append(part)
            self._length += len(part)
        self._gap, self._marker = _NOTHING, ""

    def _end_cell(self, text: str) -> None:
        """A cell over several rows is repeated in each, so that every row says what it is about."""
        self._cell = None
        self._from_above()
        rows, columns = self._spans
        if rows > 1 and text:
            self._spanned[len(self._row)] = (text, rows - 1)
        self._row += [text, *[""] * (columns - 1)]

    def _from_above(self) -> None:
        while len(self._row) in self._spanned:
            text, left = self._spanned.pop(len(self._row))
            if left > 1:
                self._spanned[len(self._row)] = (text, left - 1)
            self._row.append(text)

    def _end_row(self) -> None:
        if self._row:
            self._from_above()
        row, self._row = self._row, []
        while row and not row[-1]:
            row.pop()
        if row:
            self._break(_LINE)
            self._put(" | ".join(row))
            self._break(_LINE)

    def _end_pre(self) -> None:
        if self._pre is not None:
            body = clean("".join(self._pre)).strip("\n").rstrip()
            self._pre = None
            if body.strip():
                self._put(body)
            self._break(_BLANK)

    def _end_heading(self) -> None:
        if self._heading_at is not None:
            start, part = self._heading_at
            title = one_line("".join(self._parts[part:]))
            self._headings.append(HeadingMark(start, HEADINGS[self._heading], title))
        self._heading, self._heading_at = "", None
