"""Text that grows block by block: paragraphs, list items, headings, table rows, with pages where the format has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from openbook.parsers.characters import clean, one_line, title_from_name
from openbook.records import Content, HeadingMark, Metadata, PageSpan

MOST_DEPTH = 8


class Blocks:
    """Blank lines between blocks; list items stay close together. `chars` counts the text that the file holds."""

    def __init__(self) -> None:
        self.headings: list[HeadingMark] = []
        self.pages: list[PageSpan] = []
        self.chars = 0
        self._parts: list[str] = []
        self._length = 0
        self._last = ""  # what the last block was, where blocks of that kind stay close together
        self._page_start: int | None = None  # of the open page's first block

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def paragraph(self, text: str) -> None:
        self._put(clean(text).strip())

    def lines(self, lines: Iterable[str]) -> None:
        """Lines of one block, such as the rows of a table."""
        self._put("\n".join(line for line in map(clean, lines) if line.strip()))

    def rows(self, rows: Iterable[Sequence[str]]) -> None:
        """The rows of a table with their cells divided by ` | `; empty rows and empty cells at the end are left out."""
        lines = []
        for row in rows:
            cells = [" ".join(clean(cell).split()) for cell in row]
            while cells and not cells[-1]:
                cells.pop()
            lines.append(" | ".join(cells))
        self.lines(lines)

    def item(self, text: str, depth: int = 0, marker: str = "-") -> None:
        text = clean(text).strip()
        if text:
            self._put("  " * min(depth, MOST_DEPTH) + f"{marker} {text}", kind="item")

    def code(self, text: str) -> None:
        """Lines of a program: their indentation means something."""
        self._put(clean(text).strip("\n").rstrip(), kind="code")

    def heading(self, text: str, level: int) -> None:
        text = clean(text).strip()
        if text:
            start = self._put(text)
            self.headings.append(HeadingMark(start, max(level, 1), one_line(text)))

    def include(self, text: str, headings: Iterable[HeadingMark] = (), *, deeper: int = 0) -> None:
        """A text of several blocks with its headings, such as a chapter or an attachment."""
        lead = len(text) - len(text.lstrip("\n"))
        body = text[lead:].rstrip()
        if body:
            start = self._put(body)
            self.headings += [
                replace(mark, start=start + mark.start - lead, level=mark.level + deeper)
                for mark in headings
                if lead <= mark.start < lead + len(body)
            ]

    def begin_page(self) -> None:
        self._page_start = None
        self._last = ""

    def end_page(self, number: int) -> None:
        """Every page has a span, an empty one where it holds no text; the gap between two belongs to neither."""
        start = self._length if self._page_start is None else self._page_start
        self.pages.append(PageSpan(number, start, self._length))

    def content(self, media_type: str, title: str, name: str, metadata: Metadata = ()) -> Content:
        """The document; without a `title` it has that of its first heading, else its file's name."""
        title = title or (self.headings[0].title if self.headings else "") or title_from_name(name)
        pages, headings = tuple(self.pages), tuple(self.headings)
        return Content(self.text, media_type, one_line(title), pages, headings, self.chars, metadata)

    def _put(self, text: str, *, kind: str = "") -> int:
        if not text.strip():
            return self._length
        gap = "" if not self._length else "\n" if kind and kind == self._last else "\n\n"
        start = self._length + len(gap)
        self._parts += (gap, text)
        self._length = start + len(text)
        self._last = kind
        if self._page_start is None:
            self._page_start = start
        return start
