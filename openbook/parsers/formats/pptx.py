"""Presentations to text: a page per slide, its title as heading, then shapes, charts, diagrams, notes and comments.

Shapes keep the file's order, that of screen readers. ECMA-376 part 1, 19 and 21.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from openbook.core.errors import UnreadableFile
from openbook.core.records import Content
from openbook.parsers.blocks import Blocks
from openbook.parsers.formats.docx import formula, write_charts
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

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.presentationml.presentation"

_TITLES = frozenset({"title", "ctrTitle"})
_FURNITURE = frozenset({"dt", "ftr", "hdr", "sldNum", "sldImg"})  # date, footer, header, number, the slide in the notes
_BULLETED = frozenset({"body", "obj", ""})  # placeholders whose paragraphs have bullets unless they say otherwise
_NO_TITLE = frozenset({"powerpoint presentation", "powerpoint-präsentation", "présentation powerpoint", "slide 1"})


def parse_pptx(data: bytes, name: str) -> Content:
    package = Package(data, "a PowerPoint presentation")
    part = package.main_part("ppt/presentation.xml")
    if part not in package:
        raise UnreadableFile("not a PowerPoint presentation")
    relations = package.relations(part)
    out = Blocks()
    for slide in children(child(package.xml(part), "sldIdLst"), "sldId"):
        # A slide's own `id` has no namespace; that of its relation has.
        _, target = relations.get(next((value for key, value in slide.items() if key.endswith("}id")), ""), ("", ""))
        if (root := package.optional_xml(target)) is not None:
            _slide(package, target, root, out)
        out.end_page()
    title, metadata = core_properties(package)
    return out.content(MEDIA_TYPE, title if title.lower() not in _NO_TITLE else "", name, metadata)


def _slide(package: Package, part: str, root: Any, out: Blocks) -> None:
    shapes = list(_shapes(root))
    for shape in shapes:
        if _placeholder(shape) in _TITLES:
            out.heading(" ".join(_body_text(shape).split()), 1)
    for shape in shapes:
        if _placeholder(shape) not in _TITLES | _FURNITURE:
            _write_shape(shape, out)
    out.chars += text_chars(root)
    write_charts(package, part, out)
    for diagram in package.related(part, "diagramData"):  # SmartArt
        out.lines(" ".join(_text(paragraph).split()) for paragraph in descendants(diagram, "p"))
        out.chars += text_chars(diagram)
    for notes in package.related(part, "notesSlide"):
        bodies = (shape for shape in _shapes(notes) if _placeholder(shape) not in _FURNITURE)
        out.section("Notes", 2, map(_body_text, bodies))
        out.chars += text_chars(notes)
    for comments in package.related(part, "comments", "comment"):
        # Older files write `p:text`, newer ones a text body; a reply follows its comment.
        found = [element.text or "" for element in descendants(comments, "text")]
        out.section("Comments", 2, [*found, *map(_text, descendants(comments, "p"))])
        out.chars += text_chars(comments)


def _shapes(root: Any) -> Iterator[Any]:
    """In order, also those inside groups; of alternatives the first."""
    return outermost(root, frozenset({"sp", "graphicFrame", "pic"}), frozenset({"Fallback"}))


def _placeholder(shape: Any) -> str | None:
    """The placeholder's type, which may be empty; None for other shapes."""
    found = child(next(iter(shape), None), "nvPr", "ph")
    return str(found.get("type", "")) if found is not None else None


def _write_shape(shape: Any, out: Blocks) -> None:
    for table in descendants(shape, "tbl"):
        rows = (children(row, "tc") for row in children(table, "tr"))
        out.rows((None if cell.get("vMerge") in {"1", "true"} else _body_text(cell) for cell in row) for row in rows)
    paragraphs = list(children(child(shape, "txBody"), "p"))
    shown = sum(1 for paragraph in paragraphs if _text(paragraph).strip())
    bulleted = _placeholder(shape) in _BULLETED and shown > 1
    plain: list[str] = []
    counts: dict[int, tuple[tuple[str, int], int]] = {}  # by level: how it is numbered, and the last number
    for paragraph in paragraphs:
        text, properties = _text(paragraph), child(paragraph, "pPr")
        level, numbered = number(attribute(properties, "lvl"), 0, 8), child(properties, "buAutoNum")
        counts = {at: count for at, count in counts.items() if at < level + (numbered is not None)}
        if numbered is not None and text.strip():  # PowerPoint numbers no empty paragraph
            scheme = attribute(numbered, "type"), number(attribute(numbered, "startAt"), 1, 32_767)
            before, last = counts.get(level, (None, 0))
            counts[level] = scheme, last + 1 if scheme == before else scheme[1]
        marks = set(map(local, children(properties)))
        if "buNone" in marks or not (bulleted or marks & {"buAutoNum", "buChar", "buBlip"}):
            plain.append(text)
            continue
        out.lines(plain)
        plain = []
        out.item(text, level, f"{counts[level][1]}." if level in counts else "-")
    out.lines(plain)


def _body_text(element: Any) -> str:
    return "\n".join(_text(paragraph) for paragraph in descendants(element, "p"))


def _text(paragraph: Any) -> str:
    parts = []
    for element in outermost(paragraph, frozenset({"t", "br", "oMath"})):
        name = local(element)
        parts.append("\n" if name == "br" else formula(element) if name == "oMath" else element.text or "")
    return "".join(parts).replace("\v", "\n")
