"""Text that grows block by block: paragraphs, list items, headings, table rows, with pages where the format has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from openbook.parsers.cleaning import clean, one_line
from openbook.records import HeadingMark, PageSpan

MOST_DEPTH = 8


class Blocks:
    """Blank lines between blocks; list items and the rows of one table stay close together."""

    def __init__(self) -> None:
        self.headings: list[HeadingMark] = []
        self.pages: list[PageSpan] = []
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
        """A paragraph that is one line of a program: its indentation means something."""
        self._put(clean(text).rstrip(), kind="code")

    def heading(self, text: str, level: int) -> None:
        text = clean(text).strip()
        if text:
            start = self._put(text)
            self.headings.append(HeadingMark(start, max(level, 1), one_line(text)))

    def begin_page(self) -> None:
        self._page_start = None
        self._last = ""

    def end_page(self, number: int) -> None:
        """Every page has a span, an empty one where it holds no text; the gap between two belongs to neither."""
        start = self._length if self._page_start is None else self._page_start
        self.pages.append(PageSpan(number, start, self._length))

    def _put(self, text: str, *, kind: str = "") -> int:
        if not text:
            return self._length
        gap = "" if not self._length else "\n" if kind and kind == self._last else "\n\n"
        start = self._length + len(gap)
        self._parts += (gap, text)
        self._length = start + len(text)
        self._last = kind
        if self._page_start is None:
            self._page_start = start
        return start
