"""Word documents to text, in the order of the body; then footnotes, endnotes and comments. Read from the XML.

Element names: ECMA-376 part 1, section 17. Headers and footers repeat on every page and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from openbook.errors import UnreadableFile
from openbook.parsers.blocks import Blocks
from openbook.parsers.charts import write_charts
from openbook.parsers.cleaning import clean, one_line, title_from_name
from openbook.parsers.docx_math import linear
from openbook.parsers.docx_numbering import Numbering, read_numbering
from openbook.parsers.docx_styles import Style, read_styles
from openbook.parsers.packages import Package, Relation, core_properties, open_package, text_chars
from openbook.records import Content

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"

# Deleted and moved-away text, the second rendering of a shape, and paragraphs inside a shape (they follow their host).
_SKIPPED = frozenset({f"{_W}del", f"{_W}moveFrom", f"{_MC}Fallback", f"{_W}txbxContent", f"{_W}pPr", f"{_W}rPr"})
_CHARACTERS = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-", f"{_W}ptab": "\t"}
_REFERENCES = {f"{_W}footnoteReference": "footnote", f"{_W}endnoteReference": "endnote"}
_MOST_SPAN = 100
_OFF = frozenset({"0", "false", "off"})


@dataclass(slots=True)
class _Notes:
    """Footnotes and endnotes get their numbers in the order in which the text refers to them."""

    numbers: dict[tuple[str, str], int] = field(default_factory=dict)

    def marker(self, reference: Any) -> str:
        kind, identifier = _REFERENCES[reference.tag], reference.get(f"{_W}id", "")
        last = sum(1 for known, _ in self.numbers if known == kind)
        return _marker(kind, self.numbers.setdefault((kind, identifier), last + 1))


def _marker(kind: str, number: int) -> str:
    return f"[{number}]" if kind == "footnote" else f"[e{number}]"


def read_docx(data: bytes, name: str) -> Content:
    package = open_package(data, "a Word document")
    part = package.main_part("word/document.xml")
    if part not in package:
        raise UnreadableFile("not a Word document")
    root = package.xml(part)
    related = {relation.kind: relation for relation in package.relations(part).values()}
    styles, numbering = (_related(package, related, kind) for kind in ("styles", "numbering"))
    writer = _Writer(read_styles(styles), read_numbering(numbering))
    body = root.find(f"{_W}body")
    if body is None:
        raise package.damaged()
    writer.blocks(body)
    write_charts(package, part, writer.out)
    chars = text_chars(body) + writer.append_notes({kind: _related(package, related, kind) for kind in _NOTE_PARTS})
    stated, metadata = core_properties(package)
    headings = tuple(writer.out.headings)
    title = writer.title or stated or (headings[0].title if headings else "") or title_from_name(name)
    return Content(writer.out.text, MEDIA_TYPE, title, headings=headings, source_chars=chars, metadata=metadata)


_NOTE_PARTS = {"footnotes": "footnote", "endnotes": "endnote", "comments": "comment"}


def _related(package: Package, related: dict[str, Relation], kind: str) -> Any:
    relation = related.get(kind)
    return package.optional_xml(relation.target) if relation else None


class _Writer:
    def __init__(self, styles: dict[str, Style], numbering: Numbering) -> None:
        self.out = Blocks()
        self.title = ""
        self._styles = styles
        self._numbering = numbering
        self._notes = _Notes()

    def blocks(self, container: Any) -> None:
        """Paragraphs and tables in document order, through content controls and other wrappers."""
        waiting = [iter(container)]
        while waiting:
            element = next(waiting[-1], None)
            if element is None:
                waiting.pop()
            elif element.tag == f"{_W}p":
                self._paragraph(element)
                waiting.append(_boxes(element))
            elif element.tag == f"{_W}tbl":
                framed = _framed(element)
                if framed is None:
                    self._table(element)
                else:
                    waiting.append(iter(framed))
            elif element.tag not in _SKIPPED or element.tag == f"{_W}txbxContent":
                waiting.append(iter(element))

    def append_notes(self, roots: dict[str, Any]) -> int:
        """Write the notes that the text refers to, and the comments; returns how many characters their parts hold."""
        chars = 0
        for part, kind in _NOTE_PARTS.items():
            root = roots[part]
            if root is None:
                continue
            chars += text_chars(root)
            lines = list(self._note_lines(root, kind))
            if lines:
                self.out.heading(part.capitalize(), 1)
                for line in lines:
                    self.out.paragraph(line)
        return chars

    def _note_lines(self, root: Any, kind: str) -> Iterator[str]:
        notes = {element.get(f"{_W}id", ""): element for element in root.iterchildren(f"{_W}{kind}")}
        if kind == "comment":
            for note in notes.values():
                text, author = self._note_text(note), one_line(note.get(f"{_W}author", ""))
                if text:
                    yield f"{author}: {text}" if author else text
            return
        for (known, identifier), number in list(self._notes.numbers.items()):
            text = self._note_text(notes[identifier]) if known == kind and identifier in notes else ""
            if text:
                yield f"{_marker(kind, number)} {text}"

    def _note_text(self, note: Any) -> str:
        return " ".join(filter(None, (self._text(paragraph).strip() for paragraph in note.iter(f"{_W}p"))))

    def _paragraph(self, element: Any) -> None:
        raw = self._text(element)
        text = clean(raw).strip()
        if not text:
            return
        style = self._style(element)
        label = self._numbering.label(style.numbering, style.depth) if style.numbering else ""
        if style.level:
            self.out.heading(f"{label} {text}" if label else text, style.level)
            self.title = self.title or (one_line(text) if style.title else "")
        elif style.listed:
            self.out.item(text, style.depth, label or "-")
        elif style.code:
            self.out.code(raw)
        else:
            self.out.paragraph(text)

    def _table(self, table: Any) -> None:
        self.out.rows(self._table_rows(table))

    def _table_rows(self, table: Any) -> Iterator[list[str]]:
        """A cell over several rows is repeated in each, so that every row says what it is about."""
        above: dict[int, str] = {}  # by column of the grid
        for row in table.iterchildren(f"{_W}tr"):
            texts: list[str] = []
            for cell in _cells(row):
                span, goes_on = _merged(cell)
                column = len(texts)
                text = above.get(column, "") if goes_on else self._cell_text(cell)
                above[column] = text
                texts += [text, *[""] * (span - 1)]
            yield texts

    def _cell_text(self, cell: Any) -> str:
        return " ".join(self._text(paragraph) for paragraph in cell.iter(f"{_W}p"))

    def _style(self, paragraph: Any) -> Style:
        properties = paragraph.find(f"{_W}pPr")
        if properties is None:
            return self._styles.get("", Style())
        named = properties.find(f"{_W}pStyle")
        base = self._styles.get(named.get(f"{_W}val", "") if named is not None else "", Style())
        return base.with_properties(properties)

    def _text(self, element: Any) -> str:
        return "".join(self._pieces(element))

    def _pieces(self, element: Any) -> Iterator[str]:
        waiting = [iter(element)]
        while waiting:
            child = next(waiting[-1], None)
            if child is None:
                waiting.pop()
            elif child.tag == f"{_W}t":
                yield child.text or ""
            elif child.tag == f"{_M}oMath":
                before = child.getprevious()
                yield ("\n" if before is not None and before.tag == child.tag else "") + linear(child)
            elif child.tag in _CHARACTERS:
                yield _CHARACTERS[child.tag]
            elif child.tag in _REFERENCES:
                yield self._notes.marker(child)
            elif child.tag not in _SKIPPED and not _is_hidden(child):
                waiting.append(iter(child))


def _is_hidden(run: Any) -> bool:
    """Text that Word does not show."""
    mark = run.find(f"{_W}rPr/{_W}vanish") if run.tag == f"{_W}r" else None
    return mark is not None and mark.get(f"{_W}val", "1") not in _OFF


def _boxes(paragraph: Any) -> Iterator[Any]:
    """The text boxes anchored in a paragraph, outermost only, each once."""
    return _outermost(paragraph, f"{_W}txbxContent")


def _cells(row: Any) -> Iterator[Any]:
    """The cells of a row, through content controls, but not those of tables inside its cells."""
    return _outermost(row, f"{_W}tc")


def _outermost(element: Any, tag: str) -> Iterator[Any]:
    waiting = [iter(element)]
    while waiting:
        child = next(waiting[-1], None)
        if child is None:
            waiting.pop()
        elif child.tag == tag:
            yield child
        elif child.tag not in _SKIPPED:
            waiting.append(iter(child))


def _merged(cell: Any) -> tuple[int, bool]:
    """How many columns a cell takes, and whether it goes on one from the row above."""
    span = cell.find(f"{_W}tcPr/{_W}gridSpan")
    width = span.get(f"{_W}val", "") if span is not None else ""
    merge = cell.find(f"{_W}tcPr/{_W}vMerge")
    goes_on = merge is not None and merge.get(f"{_W}val", "continue") == "continue"
    return min(max(int(width), 1), _MOST_SPAN) if width.isascii() and width.isdigit() and len(width) < 6 else 1, goes_on


def _framed(table: Any) -> Any:
    """The cell of a table that has only one: a frame around paragraphs, not data. Otherwise None."""
    rows = list(table.iterchildren(f"{_W}tr"))
    cells = list(_cells(rows[0])) if len(rows) == 1 else []
    return cells[0] if len(cells) == 1 else None
