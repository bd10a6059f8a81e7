"""OpenDocument texts and presentations to text (ODF 1.3 part 3)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from openbook.core.errors import UnreadableFile
from openbook.core.records import Content
from openbook.parsers.blocks import Blocks
from openbook.parsers.characters import one_line
from openbook.parsers.formats.elements import (
    attribute,
    child,
    children,
    descendants,
    local,
    number,
    outermost,
    text_chars,
)
from openbook.parsers.formats.packages import Package, core_properties

_MEDIA_TYPE = "application/vnd.oasis.opendocument."
_MAX_COUNT = 999_999_999
_MAX_SPACES = 1_000
# Deleted text, notes (collected separately), descriptions of drawings, and readings of Japanese words.
_SKIPPED = frozenset(
    {"tracked-changes", "note", "annotation", "desc", "ruby-text", "forms", "notes", "event-listeners"}
)
_FURNITURE = frozenset({"date-time", "footer", "header", "page-number", "page"})


def parse_odf(data: bytes, name: str) -> Content:
    package = Package(data, "an OpenDocument file")
    if "content.xml" not in package:
        raise UnreadableFile("not an OpenDocument file")
    root = package.xml("content.xml")
    body = child(root, "body")
    kind = next((each for each in ("text", "presentation") if child(body, each) is not None), "")
    if not kind:
        raise UnreadableFile("not an OpenDocument text, presentation or spreadsheet")
    content = child(body, kind)
    trees = [tree for tree in (package.optional_xml("styles.xml"), root) if tree is not None]
    writer = _Writer(trees)
    if kind == "presentation":
        for slide in children(content, "page"):
            _slide(slide, writer)
            writer.out.end_page()
    else:
        writer.blocks(content)
        writer.notes(content)
    writer.out.chars = text_chars(content)
    title, metadata = core_properties(package)
    return writer.out.content(_MEDIA_TYPE + kind, writer.title or title, name, metadata)


def _slide(slide: Any, writer: _Writer) -> None:
    shapes = [shape for shape in slide if attribute(shape, "class") not in _FURNITURE and local(shape) not in _SKIPPED]
    for shape in shapes:
        if attribute(shape, "class") == "title":
            writer.out.heading(writer.joined(shape), 1)
    for shape in shapes:
        if attribute(shape, "class") != "title":
            writer.blocks(shape)
    frames = [frame for frame in children(child(slide, "notes")) if attribute(frame, "class") == "notes"]
    writer.out.section("Notes", 2, map(writer.joined, frames))


class _Writer:
    def __init__(self, trees: list[Any]) -> None:
        self.out = Blocks()
        self.title = ""
        # By list style and level: the first number (none for bullets), and the last one so far.
        self._starts: dict[tuple[str, int], int] = {}
        self._counts: dict[tuple[str, int], int] = {}
        self._titles = {"Title": 1, "Subtitle": 2}  # levels of these paragraph styles and those derived from them
        self._notes = 0
        for tree in trees:
            for style in descendants(tree, "list-style"):
                for level in children(style, "list-level-style-number"):
                    if attribute(level, "num-format"):
                        place = attribute(style, "name"), number(attribute(level, "level"), 1, 99)
                        self._starts[place] = number(attribute(level, "start-value"), 0, _MAX_COUNT, 1)
            for style in descendants(tree, "style"):
                if level := self._titles.get(attribute(style, "parent-style-name")):
                    self._titles.setdefault(attribute(style, "name"), level)

    def blocks(self, elements: Iterable[Any]) -> None:
        """The XML parser bounds the depth."""
        for element in elements:
            name = local(element)
            if name == "h":
                self.out.heading(self.line(element), number(attribute(element, "outline-level"), 1, 10))
            elif name == "p":
                self._paragraph(element)
            elif name == "list":
                self._list(element, 1, "")
            elif name == "table":
                left: dict[int, int] = {}
                rows = outermost(element, frozenset({"table-row"}), _SKIPPED)
                self.out.rows(self._cells(row, left) for row in rows)
            elif name not in _SKIPPED:
                self.blocks(element)

    def _paragraph(self, element: Any) -> None:
        text, level = self.line(element), self._titles.get(attribute(element, "style-name"), 0)
        if level:
            self.out.heading(text, level)
            self.title = self.title or (one_line(text) if level == 1 else "")
        else:
            self.out.paragraph(text)
        self._boxes(element)

    def _boxes(self, paragraph: Any) -> None:
        for box in outermost(paragraph, frozenset({"text-box"}), _SKIPPED):
            self.blocks(box)

    def _list(self, element: Any, depth: int, style: str) -> None:
        style = attribute(element, "style-name") or style
        goes_on = attribute(element, "continue-numbering") == "true" or attribute(element, "continue-list")
        before = self._starts.get((style, depth), 1) - 1
        count = self._counts.get((style, depth), before) if goes_on else before
        for item in element:
            if local(item) == "list-header":  # precedes the list, without a number
                self.blocks(item)
                continue
            if any(local(part) != "list" for part in item):  # an item that only holds a list has no number
                count = number(attribute(item, "start-value"), 0, _MAX_COUNT, count + 1)
                self._counts[style, depth] = count
            marker = f"{count}." if (style, depth) in self._starts else "-"
            for part in item:
                if local(part) == "list":
                    self._list(part, depth + 1, style)
                elif local(part) == "p" and marker:
                    text = self.line(part)
                    self.out.item(text, depth - 1, marker)
                    self._boxes(part)
                    marker = "" if text.strip() else marker
                else:
                    self.blocks([part])  # headings may be in lists, and a second paragraph has no number

    def _cells(self, row: Any, left: dict[int, int]) -> Iterator[str | None]:
        """`left`: by column, the number of rows that the cell above still covers."""
        for at, cell in enumerate(outermost(row, frozenset({"table-cell", "covered-table-cell"}), _SKIPPED)):
            if local(cell) == "table-cell":
                left[at] = number(attribute(cell, "number-rows-spanned"), 1, 10_000) - 1
                yield self.joined(cell)
            else:
                left[at] = left.get(at, 0) - 1
                yield None if left[at] >= 0 else ""

    def notes(self, container: Any) -> None:
        """Write numbered footnotes and endnotes, then comments."""
        bodies = [body for note in descendants(container, "note") if (body := child(note, "note-body")) is not None]
        comments = []
        for note in descendants(container, "annotation"):
            author = note.findtext("{*}creator")
            comments.append(f"{author}: {self.joined(note)}" if author else self.joined(note))
        self.out.section("Notes", 1, [f"[{at}] {self.joined(body)}" for at, body in enumerate(bodies, 1)])
        self.out.section("Comments", 1, comments)

    def joined(self, element: Any) -> str:
        paragraphs = outermost(element, frozenset({"p", "h"}), _SKIPPED)
        return " ".join(filter(None, (" ".join(self.line(part).split()) for part in paragraphs)))

    def line(self, element: Any) -> str:
        """A paragraph with the numbers of footnotes, without text boxes, which are separate blocks."""
        parts = [_collapsed(element.text)]
        for inner in element:
            name = local(inner)
            if name == "s":
                parts.append(" " * number(attribute(inner, "c"), 1, _MAX_SPACES))
            elif name == "tab":
                parts.append("\t")
            elif name == "line-break":
                parts.append("\n")
            elif name == "note":
                self._notes += 1
                parts.append(f"[{self._notes}]")
            elif name not in _SKIPPED and name not in {"text-box", "object", "title"}:
                parts.append(self.line(inner))
            parts.append(_collapsed(inner.tail))
        return "".join(parts)


def _collapsed(text: str | None) -> str:
    # Runs of spaces are written as an element; other white space is XML layout (part 3, 6.1.2).
    return re.sub(r"[ \t\r\n]+", " ", text) if text else ""
