"""Builds a text block by block: paragraphs, list items, headings, table rows, and pages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from openbook.core.records import Content, HeadingMark, Metadata, PageSpan
from openbook.parsers.characters import clean, one_line, title_from_name

MAX_DEPTH = 8


class Text:
    """`gap`: newlines before the next part; -1: a space."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.length = 0
        self.gap = 0
        self.headings: list[HeadingMark] = []

    @property
    def text(self) -> str:
        return "".join(self.parts)

    def need(self, gap: int) -> None:
        self.gap = max(self.gap, gap)

    def put(self, body: str) -> int:
        """Returns the offset of `body`."""
        before = (" " if self.gap < 0 else "\n" * self.gap) if self.length else ""
        self.parts += (before, body)
        start = self.length + len(before)
        self.length = start + len(body)
        self.gap = 0
        return start

    def put_marked(self, text: str, headings: Iterable[HeadingMark]) -> int:
        """Returns the offset of `text`."""
        start = self.put(text)
        self.headings += [replace(mark, start=start + mark.start) for mark in headings]
        return start


class Blocks(Text):
    """Blank lines between blocks; list items stay together. `chars` counts the text that the file holds."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: list[PageSpan] = []
        self.chars = 0
        self._last = ""  # kind of the last block, if blocks of that kind stay together
        self._page_start: int | None = None  # of the open page's first block

    def paragraph(self, text: str) -> None:
        self._block(clean(text).strip())

    def lines(self, lines: Iterable[str]) -> None:
        self._block("\n".join(line for line in map(clean, lines) if line.strip()))

    def rows(self, rows: Iterable[Iterable[str | None]]) -> None:
        """Table rows with ` | ` between cells, without empty rows and final empty cells.

        None repeats the cell above (a merged cell), so that every row is complete.
        """
        lines = []
        above: list[str] = []
        for row in rows:
            cells: list[str] = []
            for cell in row:
                at = len(cells)
                repeated = above[at] if at < len(above) else ""
                cells.append(repeated if cell is None else " ".join(clean(cell).split()))
            above = cells
            lines.append(" | ".join(cells).rstrip(" |"))
        self.lines(lines)

    def item(self, text: str, depth: int, marker: str) -> None:
        text = clean(text).strip()
        if text:
            self._block("  " * min(depth, MAX_DEPTH) + f"{marker} {text}", kind="item")

    def code(self, text: str) -> None:
        self._block(clean(text).strip("\n").rstrip(), kind="code")

    def heading(self, text: str, level: int) -> None:
        text = clean(text).strip()
        self._block(text, [HeadingMark(0, level, one_line(text))])

    def section(self, word: str, level: int, texts: Iterable[str]) -> None:
        """Paragraphs under a heading; no heading if all are empty."""
        shown = [text for text in texts if text.strip()]
        if shown:
            self.heading(word, level)
        for text in shown:
            self.paragraph(text)

    def include(self, text: str, headings: Iterable[HeadingMark] = ()) -> None:
        """A text of several blocks, such as a chapter or an attachment."""
        lead = len(text) - len(text.lstrip("\n"))
        self._block(text[lead:].rstrip(), [replace(mark, start=mark.start - lead) for mark in headings])

    def end_page(self) -> None:
        """Every page has a span, which may be empty; the gap between two pages belongs to neither."""
        start = self.length if self._page_start is None else self._page_start
        self.pages.append(PageSpan(len(self.pages) + 1, start, self.length))
        self._page_start = None
        self._last = ""

    def content(self, media_type: str, title: str, name: str, metadata: Metadata = ()) -> Content:
        found = text_content(self.text, media_type, name, tuple(self.headings), metadata, title=title, chars=self.chars)
        return replace(found, pages=tuple(self.pages))

    def _block(self, text: str, headings: Iterable[HeadingMark] = (), *, kind: str = "") -> None:
        if text.strip():
            self.gap = 1 if kind and kind == self._last else 2
            start = self.put_marked(text, headings)
            self._last = kind
            if self._page_start is None:
                self._page_start = start


def text_content(
    text: str,
    media_type: str,
    name: str,
    headings: tuple[HeadingMark, ...] = (),
    metadata: Metadata = (),
    *,
    title: str = "",
    chars: int | None = None,
) -> Content:
    """The default title comes from the metadata, the first heading or the file's name."""
    stated = one_line(str(dict(metadata).get("title", "")))
    title = one_line(title or stated or (headings[0].title if headings else "") or title_from_name(name))
    source_chars = len(text) if chars is None else chars
    return Content(text, media_type, title, headings=headings, source_chars=source_chars, metadata=metadata)
