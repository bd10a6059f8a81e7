"""Word documents to text, in the order of the body; then footnotes, endnotes and comments.

Element names: ECMA-376 part 1, section 17. Headers and footers are left out. Numbers of headings and list items are not
in the file's text: they are counted here by the list's definition (17.9).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
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

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

# Deleted and moved-away text, the second rendering of a shape, and paragraphs inside a shape (they follow their host).
_SKIPPED = frozenset({"del", "moveFrom", "Fallback", "txbxContent", "pPr", "rPr"})
_CHARACTERS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-", "ptab": "\t"}
_NOTES = {"footnoteReference": "footnotes", "endnoteReference": "endnotes"}
_TEXT = frozenset({"t", "oMath", *_CHARACTERS, *_NOTES})
_OFF = frozenset({"0", "false", "off"})
_HEADING = re.compile(r"heading ([1-9])$")
_CODE = frozenset({"source code", "code", "code block", "html preformatted", "preformatted text"})
_BODY_LEVEL = 9  # an outline level of 9 is body text
_MAX_BASES = 30  # styles that are based on one another
_MAX_COUNT = 999_999_999
_MAX_LABEL_CHARS = 60
_FORMULA_MARKS = {"num": "", "den": "/", "sub": "_", "sup": "^"}
_ROMAN = ((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"),
          (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))  # fmt: skip


def parse_docx(data: bytes, name: str) -> Content:
    package = Package(data, "a Word document")
    part = package.main_part("word/document.xml")
    if part not in package:
        raise UnreadableFile("not a Word document")
    body = child(package.xml(part), "body")
    if body is None:
        raise package.damaged()
    styles, numbering = (next(package.related(part, kind), None) for kind in ("styles", "numbering"))
    writer = _Writer(_Styles(styles), _Numbering(numbering))
    writer.blocks(body)
    writer.out.chars = text_chars(body)
    write_charts(package, part, writer.out)
    for kind in ("footnotes", "endnotes", "comments"):
        for root in package.related(part, kind):
            writer.notes(root, kind)
    stated, metadata = core_properties(package)
    return writer.out.content(MEDIA_TYPE, writer.title or stated, name, metadata)


def _value(element: Any, name: str) -> str:
    return attribute(child(element, name), "val")


@dataclass(frozen=True, slots=True)
class _Style:
    """`level` 0: no heading. `depth` of a list item counts from 0. `numbering`: its list."""

    level: int = 0
    is_title: bool = False
    is_code: bool = False
    is_listed: bool = False
    depth: int = 0
    numbering: str = ""

    def with_properties(self, properties: Any) -> _Style:
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


class _Styles:
    def __init__(self, root: Any) -> None:
        paragraphs = [style for style in children(root, "style") if attribute(style, "type") == "paragraph"]
        self._elements = {attribute(style, "styleId"): style for style in paragraphs}
        self._known: dict[str, _Style] = {}
        default = (key for key, style in self._elements.items() if attribute(style, "default") in {"1", "true", "on"})
        self._default = next(default, "")

    def of(self, paragraph: Any) -> _Style:
        properties = child(paragraph, "pPr")
        return self._named(_value(properties, "pStyle") or self._default, 0).with_properties(properties)

    def _named(self, identifier: str, bases: int) -> _Style:
        if identifier not in self._elements or bases > _MAX_BASES:  # styles may be based on one another in a circle
            return _Style()
        if identifier not in self._known:
            element = self._elements[identifier]
            style = self._named(_value(element, "basedOn"), bases + 1)
            if style.is_title:
                style = replace(style, is_title=False, level=0)
            # Names are English and lower-case in the file, whatever language Word shows them in; ids are not.
            name = _value(element, "name").lower()
            if heading := _HEADING.match(name):
                style = replace(style, level=int(heading[1]), is_listed=False)
            elif name == "title":
                style = replace(style, level=1, is_title=True)
            elif name.startswith(("list bullet", "list number")):
                style = replace(style, is_listed=True)
            elif name in _CODE:
                style = replace(style, is_code=True)
            self._known[identifier] = style.with_properties(child(element, "pPr"))
        return self._known[identifier]


class _Numbering:
    """Call `label` in document order. Lists of one definition share a count."""

    def __init__(self, root: Any) -> None:
        self._levels: dict[tuple[str, int], tuple[str, str, int]] = {}  # by definition and depth: format, text, start
        self._definitions: dict[str, str] = {}  # by list
        self._starts: dict[tuple[str, int], int] = {}  # set by a list itself, until used
        self._counts: dict[str, list[int]] = {}  # by definition, then by depth
        for element in children(root, "abstractNum"):
            for level in children(element, "lvl"):
                shape, text, start = (_value(level, name) for name in ("numFmt", "lvlText", "start"))
                key = attribute(element, "abstractNumId"), number(attribute(level, "ilvl"), 0, 99)
                self._levels[key] = shape or "decimal", text, number(start, 0, _MAX_COUNT, 1)
        for element in children(root, "num"):
            identifier = attribute(element, "numId")
            self._definitions[identifier] = _value(element, "abstractNumId")
            for override in children(element, "lvlOverride"):
                if start := _value(override, "startOverride"):
                    depth = number(attribute(override, "ilvl"), 0, 99)
                    self._starts[identifier, depth] = number(start, 0, _MAX_COUNT, 1)

    def label(self, identifier: str, depth: int) -> str:
        """The label of the next item, such as `2.1.`; empty for a bullet."""
        definition = self._definitions.get(identifier, "")
        if (definition, depth) not in self._levels:
            return ""
        shape, text, start = self._levels[definition, depth]
        counts = self._counts.setdefault(definition, [])
        while len(counts) < depth:  # a skipped level counts as begun
            counts.append(self._levels.get((definition, len(counts)), ("", "", 1))[2])
        following = counts[depth] + 1 if len(counts) > depth else start
        counts[depth:] = [self._starts.pop((identifier, depth), following)]
        if shape in {"bullet", "none"}:
            return ""

        def shown(place: re.Match[str]) -> str:
            at = int(place[1]) - 1
            shape, _, start = self._levels.get((definition, at), ("decimal", "", 1))
            return _count_shown(shape, counts[at] if at < len(counts) else start)

        return re.sub(r"%([1-9])", shown, text)[:_MAX_LABEL_CHARS].strip()


def _count_shown(shape: str, count: int) -> str:
    text = str(count)
    if shape.endswith("Letter"):
        text = chr(ord("a") + (count - 1) % 26) * min((count - 1) // 26 + 1, 8)
    elif shape.endswith("Roman") and 0 < count < 4000:
        text = ""
        for step, letters in _ROMAN:
            text += letters * (count // step)
            count %= step
    return text.upper() if shape.startswith("upper") else text


def _is_on(mark: Any) -> bool:
    return mark is not None and (attribute(mark, "val") or "1") not in _OFF


class _Writer:
    def __init__(self, styles: _Styles, numbering: _Numbering) -> None:
        self.out = Blocks()
        self.title = ""
        self._styles = styles
        self._numbering = numbering
        # By id: the marks of the notes referred to, in the order of references.
        self._marks: dict[str, dict[str, str]] = {"footnotes": {}, "endnotes": {}}

    def blocks(self, container: Any) -> None:
        """Write paragraphs and tables in order, through content controls and other wrappers."""
        for element in outermost(container, frozenset({"p", "tbl"}), _SKIPPED):
            if local(element) == "p":
                self._paragraph(element)
                for box in outermost(element, frozenset({"txbxContent"}), _SKIPPED - {"txbxContent"}):
                    self.blocks(box)
                continue
            # Through content controls, but not into the tables inside a cell.
            rows = [list(outermost(row, frozenset({"tc"}), _SKIPPED)) for row in children(element, "tr")]
            if len(rows) == 1 and len(rows[0]) == 1:
                self.blocks(rows[0][0])  # a frame around paragraphs, not data
            else:
                self.out.rows(self._cells(row) for row in rows)

    def notes(self, root: Any, kind: str) -> None:
        """Write the notes that the text refers to, or the comments."""
        self.out.chars += text_chars(root)
        notes = {attribute(note, "id"): note for note in children(root, kind[:-1])}
        marks = self._marks.get(kind)
        if marks is None:
            authors = {key: one_line(attribute(note, "author")) for key, note in notes.items()}
            marks = {key: f"{author}:" if author else "" for key, author in authors.items()}
        texts = ((mark, self._joined(notes[key])) for key, mark in marks.items() if key in notes)
        self.out.section(kind.capitalize(), 1, [f"{mark} {text}" for mark, text in texts if text])

    def _joined(self, container: Any) -> str:
        paragraphs = outermost(container, frozenset({"p"}), _SKIPPED)
        return " ".join(filter(None, (self._text(paragraph).strip() for paragraph in paragraphs)))

    def _paragraph(self, element: Any) -> None:
        text, mark = self._text(element), child(element, "pPr", "rPr")
        if not text.strip() and any(_is_on(child(mark, name)) for name in ("vanish", "del", "moveFrom")):
            return  # other empty items are counted: Word shows their numbers
        style = self._styles.of(element)
        label = self._numbering.label(style.numbering, style.depth) if style.numbering else ""
        if not text.strip():
            return
        if style.level:
            self.out.heading(f"{label} {text.strip()}" if label else text, style.level)
            self.title = self.title or (one_line(text) if style.is_title else "")
        elif style.is_listed:
            self.out.item(text, style.depth, label or "-")
        elif style.is_code:
            self.out.code(text)
        else:
            self.out.paragraph(text)

    def _cells(self, row: list[Any]) -> Iterator[str | None]:
        for cell in row:
            properties = child(cell, "tcPr")
            merge = child(properties, "vMerge")
            yield self._joined(cell) if merge is None or attribute(merge, "val") == "restart" else None
            yield from [""] * (number(_value(properties, "gridSpan"), 1, 100) - 1)

    def _text(self, element: Any) -> str:
        parts: list[str] = []
        for found in outermost(element, _TEXT, _SKIPPED):
            name, mark = local(found), child(found.getparent(), "rPr", "vanish")
            if _is_on(mark):
                continue  # Word does not show it
            if name in _NOTES:
                marks = self._marks[_NOTES[name]]
                prefix = "e" if name == "endnoteReference" else ""
                parts.append(marks.setdefault(attribute(found, "id"), f"[{prefix}{len(marks) + 1}]"))
            else:
                parts.append(_CHARACTERS.get(name) or (formula(found) if name == "oMath" else found.text or ""))
        return "".join(parts)


def formula(element: Any) -> str:
    """An equation (OMML, section 22.1) as typed: `(a+b)/2`, `x^2`, `√(y)`. The XML parser bounds the depth."""
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
    """Write the numbers of a part's charts, from the copy in the file (21.2): one row per category."""
    for chart in package.related(part, "chart"):
        title = descendants(child(chart, "chart", "title"), "t")
        out.paragraph(" ".join(found.text or "" for found in title))
        series = list(descendants(chart, "ser"))
        columns = [[" ".join(_points(child(each, "tx"))), *_points(child(each, "val"))] for each in series]
        labels = next((found for each in series if (found := _points(child(each, "cat")))), [])
        out.rows(zip_longest(["", *labels], *columns, fillvalue=""))


def _points(element: Any) -> list[str]:
    texts = [point.findtext("{*}v", "") for point in descendants(element, "pt")]
    # 15 digits, as programs show, not the 17 that they store.
    return [f"{float(text):.15g}" if re.fullmatch(r"-?\d+\.\d{15,20}", text) else text for text in texts]
