"""Presentations to text: a page for each slide, its title as heading, then shapes, tables, charts, notes and comments.

Shapes come in the order of the file, which is the order a screen reader reads them in. ECMA-376 part 1, 19 and 21.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from openbook.errors import UnreadableFile
from openbook.parsers.blocks import Blocks
from openbook.parsers.charts import write_charts
from openbook.parsers.cleaning import title_from_name
from openbook.parsers.docx_math import linear
from openbook.parsers.packages import (
    Package,
    child,
    children,
    core_properties,
    descendants,
    local,
    open_package,
    text_chars,
)
from openbook.records import Content

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.presentationml.presentation"

_TITLES = frozenset({"title", "ctrTitle"})
_FURNITURE = frozenset({"dt", "ftr", "hdr", "sldNum", "sldImg"})  # date, footer, header, number, the slide in the notes
_BULLETED = frozenset({"body", "obj", ""})  # placeholders whose paragraphs have bullets unless they say otherwise
_COMMENTS = frozenset({"comments", "comment"})


def read_pptx(data: bytes, name: str) -> Content:
    package = open_package(data, "a PowerPoint presentation")
    part = package.main_part("ppt/presentation.xml")
    if part not in package:
        raise UnreadableFile("not a PowerPoint presentation")
    relations = package.relations(part)
    listed = child(package.xml(part), "sldIdLst")
    out = Blocks()
    chars = 0
    # A slide's own `id` has no namespace, the id of its relation has one.
    for number, slide in enumerate(children(listed, "sldId") if listed is not None else (), 1):
        relation = relations.get(next((value for key, value in slide.items() if key.endswith("}id")), ""))
        out.begin_page()
        if relation and relation.target in package:
            chars += _slide(package, relation.target, out)
        out.end_page(number)
    stated, metadata = core_properties(package)
    title = stated if stated.lower() not in _NO_TITLE else ""
    title = title or (out.headings[0].title if out.headings else "") or title_from_name(name)
    return Content(out.text, MEDIA_TYPE, title, tuple(out.pages), tuple(out.headings), chars, metadata)


_NO_TITLE = frozenset({"powerpoint presentation", "powerpoint-präsentation", "présentation powerpoint", "slide 1"})


def _slide(package: Package, part: str, out: Blocks) -> int:
    root = package.optional_xml(part)
    if root is None:
        return 0
    shapes = list(_shapes(root))
    for shape in shapes:
        if _placeholder(shape) in _TITLES:
            out.heading(" ".join(_shape_text(shape).split()), 1)
    for shape in shapes:
        if _placeholder(shape) not in _TITLES:
            _write_shape(shape, out)
    chars = text_chars(root)
    write_charts(package, part, out)
    related = package.relations(part).values()
    for relation in related:
        if relation.kind == "diagramData":
            chars += _diagram(package.optional_xml(relation.target), out)
    for relation in related:
        if relation.kind == "notesSlide":
            chars += _notes(package.optional_xml(relation.target), out)
    for relation in related:
        if relation.kind in _COMMENTS:
            chars += _comments(package.optional_xml(relation.target), out)
    return chars


def _shapes(root: Any) -> Iterator[Any]:
    """Shapes and graphic frames in order, those inside groups too; of alternative forms the first."""
    waiting = [iter(root)]
    while waiting:
        element = next(waiting[-1], None)
        if element is None:
            waiting.pop()
        elif local(element) in {"sp", "graphicFrame", "pic"}:
            yield element
        elif local(element) != "Fallback":
            waiting.append(iter(element))


def _placeholder(shape: Any) -> str | None:
    """The type of the placeholder that a shape fills, empty for one of no type, None for any other shape."""
    found = child(next(iter(shape), None), "nvPr", "ph") if len(shape) else None
    return str(found.get("type", "")) if found is not None else None


def _write_shape(shape: Any, out: Blocks) -> None:
    kind = _placeholder(shape)
    if kind in _FURNITURE:
        return
    if local(shape) == "graphicFrame":
        for table in descendants(shape, "tbl"):
            out.rows(_table_rows(table))
        return
    body = child(shape, "txBody")
    paragraphs = list(children(body, "p")) if body is not None else []
    shown = sum(1 for paragraph in paragraphs if _paragraph_text(paragraph).strip())
    plain: list[str] = []
    number = 0
    for paragraph in paragraphs:
        text = _paragraph_text(paragraph)
        marker = _marker(paragraph, bulleted=kind in _BULLETED and shown > 1)
        number = number + 1 if marker == "#" else 0
        if marker:
            out.lines(plain)
            plain = []
            out.item(text, _level(paragraph), f"{number}." if marker == "#" else "-")
        else:
            plain.append(text)
    out.lines(plain)


def _table_rows(table: Any) -> Iterator[list[str]]:
    """A cell over several rows is repeated in each, so that every row says what it is about."""
    above: list[str] = []
    for row in children(table, "tr"):
        cells = list(children(row, "tc"))
        above += [""] * (len(cells) - len(above))
        texts = [
            above[column] if cell.get("vMerge") in {"1", "true"} else _body_text(cell)
            for column, cell in enumerate(cells)
        ]
        above[: len(texts)] = texts
        yield texts


def _marker(paragraph: Any, *, bulleted: bool) -> str:
    """`-` for a bullet, `#` for a number, empty for neither."""
    properties = child(paragraph, "pPr")
    names = {local(element) for element in properties} if properties is not None else set()
    if "buNone" in names:
        return ""
    if "buAutoNum" in names:
        return "#"
    return "-" if bulleted or names & {"buChar", "buBlip"} else ""


def _level(paragraph: Any) -> int:
    properties = child(paragraph, "pPr")
    level = properties.get("lvl", "0") if properties is not None else "0"
    return int(level) if level in set("012345678") else 0


def _shape_text(shape: Any) -> str:
    body = child(shape, "txBody")
    return _body_text(body) if body is not None else ""


def _body_text(element: Any) -> str:
    return "\n".join(_paragraph_text(paragraph) for paragraph in descendants(element, "p"))


def _paragraph_text(paragraph: Any) -> str:
    parts = []
    for element in paragraph.iter():
        name = local(element)
        if name == "oMath":
            parts.append(linear(element))
        elif name == "br":
            parts.append("\n")
        elif name == "t" and "math" not in element.tag:
            parts.append(element.text or "")
    return "".join(parts).replace("\v", "\n")


def _diagram(root: Any, out: Blocks) -> int:
    """The words of a SmartArt drawing."""
    if root is None:
        return 0
    out.lines(" ".join(_paragraph_text(paragraph).split()) for paragraph in descendants(root, "p"))
    return text_chars(root)


def _notes(root: Any, out: Blocks) -> int:
    if root is None:
        return 0
    texts = [_shape_text(shape).strip() for shape in _shapes(root) if _placeholder(shape) not in _FURNITURE]
    if any(texts):
        out.heading("Notes", 2)
        for text in texts:
            out.paragraph(text)
    return text_chars(root)


def _comments(root: Any, out: Blocks) -> int:
    if root is None:
        return 0
    # Older files write `p:text`, newer ones a text body; a reply follows what it replies to.
    found = [element.text or "" for element in descendants(root, "text")]
    found += [_paragraph_text(paragraph) for paragraph in descendants(root, "p")]
    if any(text.strip() for text in found):
        out.heading("Comments", 2)
        for text in found:
            out.paragraph(text)
    return text_chars(root)
