"""Word documents to text, in the order of the body; then footnotes, endnotes and comments. Read from the XML.

Element names: ECMA-376 part 1, section 17. Headers and footers repeat on every page and are left out. The numbers that
Word shows before headings and list items are not in the text: they are counted here from the list's definition (17.9).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

from openbook.errors import UnreadableFile
from openbook.parsers.blocks import Blocks
from openbook.parsers.characters import one_line
from openbook.parsers.packages import (
    Package,
    attribute,
    child,
    children,
    core_properties,
    descendants,
    local,
    number,
    open_package,
    outermost,
    text_chars,
)
from openbook.records import Content

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

# Deleted and moved-away text, the second rendering of a shape, and paragraphs inside a shape (they follow their host).
_SKIPPED = frozenset({"del", "moveFrom", "Fallback", "txbxContent", "pPr", "rPr"})
_CHARACTERS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-", "ptab": "\t"}
_NOTES = {"footnoteReference": "footnote", "endnoteReference": "endnote"}
_OFF = frozenset({"0", "false", "off"})
_HEADING = re.compile(r"heading ([1-9])$")
_CODE = frozenset({"source code", "code", "code block", "html preformatted", "preformatted text"})
_BODY_LEVEL = 9  # an outline level of 9 is body text
_LEVELS = 9
_MOST_COUNT = 1_000_000
_LONGEST_LABEL_CHARS = 60
_FORMULA_MARKS = {"num": "", "den": "/", "sub": "_", "sup": "^"}
_ROMAN = ((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"),
          (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))  # fmt: skip


def parse_docx(data: bytes, name: str) -> Content:
    package = open_package(data, "a Word document")
    part = package.main_part("word/document.xml")
    if part not in package:
        raise UnreadableFile("not a Word document")
    body = child(package.xml(part), "body")
    if body is None:
        raise package.damaged()
    styles, numbering = (next(package.related(part, kind), None) for kind in ("styles", "numbering"))
    writer = _Writer(_styles(styles), _Numbering.of(numbering))
    writer.blocks(body)
    writer.out.chars = text_chars(body)
    write_charts(package, part, writer.out)
    for kind in ("footnotes", "endnotes", "comments"):
        for root in package.related(part, kind):
            writer.notes(root, kind)
    stated, metadata = core_properties(package)
    return writer.out.content(MEDIA_TYPE, writer.title or stated, name, metadata)


# --- styles -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Style:
    """What a paragraph is. `level` 0 is no heading; `depth` of a list item counts from 0; `numbering` names its list."""

    level: int = 0
    is_title: bool = False
    is_code: bool = False
    is_listed: bool = False
    depth: int = 0
    numbering: str = ""

    def with_properties(self, properties: Any) -> _Style:
        """The style of a paragraph that has these properties (`w:pPr`) of its own, or None for none."""
        style = self
        outline = _value(properties, "outlineLvl")
        if outline.isdigit() and not style.is_title:
            level = number(outline, 0, _BODY_LEVEL)
            style = replace(style, level=level + 1 if level < _BODY_LEVEL else 0)
        listed = child(properties, "numPr")
        if listed is not None:
            depth, numbering = _value(listed, "ilvl"), _value(listed, "numId")
            style = replace(style, is_listed=numbering != "0", numbering=numbering or style.numbering)
            style = replace(style, depth=number(depth, 0, 99) if depth else style.depth)
        return style


def _value(element: Any, name: str) -> str:
    found = child(element, name)
    return attribute(found, "val") if found is not None else ""


def _styles(root: Any) -> dict[str, _Style]:
    """Style id to style; under the empty id the default of a paragraph that names none."""
    elements = {
        attribute(element, "styleId"): element
        for element in children(root, "style")
        if attribute(element, "type") == "paragraph"
    }
    styles: dict[str, _Style] = {}
    for identifier in elements:
        chain: list[str] = []  # of styles that are based on one another; one that bites its tail ends where it does
        while identifier in elements and identifier not in styles and identifier not in chain:
            chain.append(identifier)
            identifier = _value(elements[identifier], "basedOn")
        style = styles.get(identifier, _Style())
        for each in reversed(chain):
            style = styles[each] = _named_style(style, elements[each])
    default = (key for key, element in elements.items() if attribute(element, "default") in {"1", "true", "on"})
    styles[""] = styles.get(next(default, ""), _Style())
    return styles


def _named_style(base: _Style, element: Any) -> _Style:
    # Names are English and lower-case in the file, whatever language Word shows them in; ids are not.
    name = _value(element, "name").lower()
    style = replace(base, is_title=False, level=0) if base.is_title else base
    if heading := _HEADING.match(name):
        style = replace(style, level=int(heading[1]), is_listed=False)
    elif name == "title":
        style = replace(style, level=1, is_title=True)
    elif name.startswith(("list bullet", "list number")):
        style = replace(style, is_listed=True)
    elif name in _CODE:
        style = replace(style, is_code=True)
    return style.with_properties(child(element, "pPr"))


# --- numbers of lists -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _List:
    """A list's definition, as (format, text, start) by level, with its counts. Lists that share it go on counting."""

    levels: dict[int, tuple[str, str, int]] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)

    def shown(self, level: int) -> str:
        shape, _, start = self.levels.get(level, ("decimal", "", 1))
        count = self.counts.get(level, start)
        if shape.endswith("Letter"):
            text = chr(ord("a") + (count - 1) % 26) * min((count - 1) // 26 + 1, 8)
        elif shape.endswith("Roman"):
            text = _roman(count)
        else:
            text = f"{count:02}" if shape == "decimalZero" else str(count)
        return text.upper() if shape.startswith("upper") else text


@dataclass(slots=True)
class _Numbering:
    """Ask it for the paragraphs of lists in document order."""

    lists: dict[str, _List]
    starts: dict[tuple[str, int], int]  # that a list sets itself, until they have taken effect

    @staticmethod
    def of(root: Any) -> _Numbering:
        definitions: dict[str, _List] = {}
        for element in children(root, "abstractNum"):
            definitions[attribute(element, "abstractNumId")] = _List({
                number(attribute(level, "ilvl"), 0, 99): (
                    _value(level, "numFmt") or "decimal", _value(level, "lvlText"), _count(_value(level, "start"))
                )
                for level in children(element, "lvl")
            })  # fmt: skip
        numbering = _Numbering({}, {})
        for element in children(root, "num"):
            identifier = attribute(element, "numId")
            numbering.lists[identifier] = definitions.get(_value(element, "abstractNumId"), _List())
            for override in children(element, "lvlOverride"):
                if start := _value(override, "startOverride"):
                    numbering.starts[identifier, number(attribute(override, "ilvl"), 0, 99)] = _count(start)
        return numbering

    def label(self, identifier: str, depth: int) -> str:
        """What stands before the next item of the list: a number such as `2.1.`, or empty for a bullet."""
        listed = self.lists.get(identifier, _List())
        if depth not in listed.levels or depth >= _LEVELS:
            return ""
        shape, text, start = listed.levels[depth]
        for above in range(depth):  # a level that was left out counts as begun
            listed.counts.setdefault(above, listed.levels.get(above, ("", "", 1))[2])
        following = listed.counts[depth] + 1 if depth in listed.counts else start
        listed.counts[depth] = self.starts.pop((identifier, depth), following)
        listed.counts = {level: count for level, count in listed.counts.items() if level <= depth}
        if shape in {"bullet", "none"}:
            return ""
        label = re.sub(r"%([1-9])", lambda place: listed.shown(int(place[1]) - 1), text)
        return label[:_LONGEST_LABEL_CHARS].strip()


def _count(text: str) -> int:
    return number(text, 0, _MOST_COUNT) if text else 1


def _roman(value: int) -> str:
    if not 0 < value < 4000:
        return str(value)
    out = ""
    for step, letters in _ROMAN:
        out += letters * (value // step)
        value %= step
    return out


# --- the body ---------------------------------------------------------------------------------------------------------


class _Writer:
    def __init__(self, styles: dict[str, _Style], numbering: _Numbering) -> None:
        self.out = Blocks()
        self.title = ""
        self._styles = styles
        self._numbering = numbering
        self._marks: dict[tuple[str, str], str] = {}  # of notes, by kind and id, in the order of their references

    def blocks(self, container: Any) -> None:
        """Paragraphs and tables in document order, through content controls and other wrappers."""
        for element in outermost(container, frozenset({"p", "tbl"}), _SKIPPED):
            if local(element) == "p":
                self._paragraph(element)
                for box in outermost(element, frozenset({"txbxContent"}), _SKIPPED - {"txbxContent"}):
                    self.blocks(box)
                continue
            rows = [list(_cells(row)) for row in children(element, "tr")]
            if len(rows) == 1 and len(rows[0]) == 1:
                self.blocks(rows[0][0])  # a frame around paragraphs, not data
            else:
                self.out.rows(self._rows(rows))

    def notes(self, root: Any, kind: str) -> None:
        """Write the notes that the text refers to, or the comments."""
        self.out.chars += text_chars(root)
        notes = {attribute(note, "id"): note for note in children(root, kind[:-1])}
        if kind == "comments":
            lines = [(one_line(attribute(note, "author")), self._note(note)) for note in notes.values()]
            shown = [f"{author}: {text}" if author else text for author, text in lines if text]
        else:
            marked = [(mark, key) for (known, key), mark in self._marks.items() if known == kind[:-1] and key in notes]
            shown = [f"{mark} {text}" for mark, key in marked if (text := self._note(notes[key]))]
        if shown:
            self.out.heading(kind.capitalize(), 1)
            for line in shown:
                self.out.paragraph(line)

    def _note(self, note: Any) -> str:
        paragraphs = outermost(note, frozenset({"p"}), _SKIPPED)
        return " ".join(filter(None, (self._text(paragraph).strip() for paragraph in paragraphs)))

    def _paragraph(self, element: Any) -> None:
        text = self._text(element)
        if not text.strip():
            return
        properties = child(element, "pPr")
        style = self._styles.get(_value(properties, "pStyle"), _Style()).with_properties(properties)
        label = self._numbering.label(style.numbering, style.depth) if style.numbering else ""
        if style.level:
            self.out.heading(f"{label} {text.strip()}" if label else text, style.level)
            self.title = self.title or (one_line(text) if style.is_title else "")
        elif style.is_listed:
            self.out.item(text, style.depth, label or "-")
        elif style.is_code:
            self.out.code(text)
        else:
            self.out.paragraph(text)

    def _rows(self, rows: list[list[Any]]) -> Iterator[list[str]]:
        """A cell over several rows is repeated in each, so that every row says what it is about."""
        above: dict[int, str] = {}  # by column of the grid
        for row in rows:
            texts: list[str] = []
            for cell in row:
                properties = child(cell, "tcPr")
                merge = child(properties, "vMerge")
                if merge is None or attribute(merge, "val") == "restart":
                    above[len(texts)] = self._note(cell)
                span = number(_value(properties, "gridSpan"), 1, 100)
                texts += [above.get(len(texts), ""), *[""] * (span - 1)]
            yield texts

    def _text(self, element: Any) -> str:
        parts: list[str] = []
        wanted = frozenset({"t", "oMath", *_CHARACTERS, *_NOTES})
        for found in outermost(element, wanted, _SKIPPED):
            name = local(found)
            if _is_hidden(found):
                continue
            if name in _NOTES:
                parts.append(self._mark(_NOTES[name], attribute(found, "id")))
            else:
                parts.append(_CHARACTERS.get(name) or (formula(found) if name == "oMath" else found.text or ""))
        return "".join(parts)

    def _mark(self, kind: str, identifier: str) -> str:
        before = sum(1 for known, _ in self._marks if known == kind)
        return self._marks.setdefault((kind, identifier), f"[{'' if kind == 'footnote' else 'e'}{before + 1}]")


def _cells(row: Any) -> Iterator[Any]:
    """The cells of a row, through content controls, but not those of tables inside its cells."""
    return outermost(row, frozenset({"tc"}), _SKIPPED)


def _is_hidden(element: Any) -> bool:
    """Whether it stands in a run that Word does not show."""
    mark = child(element.getparent(), "rPr", "vanish")
    return mark is not None and (attribute(mark, "val") or "1") not in _OFF


def formula(element: Any) -> str:
    """An equation (OMML, section 22.1) as one would type it: `(a+b)/2`, `x^2`, `√(y)`. Depth is the XML parser's."""
    name = local(element)
    text = "".join(formula(inner) for inner in element if not local(inner).endswith("Pr"))
    if name == "t":
        return element.text or ""
    if name in _FORMULA_MARKS:
        return _FORMULA_MARKS[name] + (text if len(text) < 2 or text.isalnum() else f"({text})") if text else ""
    if name == "nary":
        symbol = child(element, "naryPr", "chr")
        return (attribute(symbol, "val") if symbol is not None else "∫") + text
    return f"√({text})" if name == "rad" else f"({text})" if name == "d" else text


def write_charts(package: Package, part: str, out: Blocks) -> None:
    """The numbers behind the charts of a part, of which the file keeps a copy (21.2): one row a category."""
    for chart in package.related(part, "chart"):
        title = child(chart, "chart", "title")
        if title is not None:
            out.paragraph(" ".join(found.text or "" for found in descendants(title, "t")))
        series = list(descendants(chart, "ser"))
        columns = [[" ".join(_points(child(each, "tx"))), *_points(child(each, "val"))] for each in series]
        labels = next((found for each in series if (found := _points(child(each, "cat")))), [])
        out.rows(zip_longest(["", *labels], *columns, fillvalue=""))


def _points(element: Any) -> list[str]:
    points = descendants(element, "pt") if element is not None else ()
    texts = [(child(point, "v").text or "") if child(point, "v") is not None else "" for point in points]
    # Fifteen digits, as programs show, not the 17 that they store.
    return [f"{float(text):.15g}" if re.fullmatch(r"-?\d+\.\d{15,20}", text) else text for text in texts]
