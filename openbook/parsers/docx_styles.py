"""What a Word paragraph style says about structure: heading, title, list item."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_HEADING = re.compile(r"heading ([1-9])$")
_LIST = re.compile(r"list (?:bullet|number)\b")
_CODE = frozenset({"source code", "code", "code block", "html preformatted", "preformatted text", "macro", "verbatim"})
_BODY_LEVEL = 9  # w:outlineLvl 9 is body text


@dataclass(frozen=True, slots=True)
class Style:
    """`level` 0 is no heading; `depth` counts from 0."""

    level: int = 0
    title: bool = False
    code: bool = False
    listed: bool = False
    depth: int = 0
    numbering: str = ""  # the id of its list, w:numId

    def with_properties(self, properties: Any) -> Style:
        """The style of a paragraph that has these properties (`w:pPr`) of its own."""
        style = self
        outline = _number(properties.find(f"{_W}outlineLvl"))
        if outline is not None and not style.title:
            style = replace(style, level=outline + 1 if outline < _BODY_LEVEL else 0)
        numbering = properties.find(f"{_W}numPr")
        if numbering is not None:
            depth, number = _number(numbering.find(f"{_W}ilvl")), _number(numbering.find(f"{_W}numId"))
            style = replace(style, listed=number != 0, depth=style.depth if depth is None else depth)
            if number is not None:
                style = replace(style, numbering=str(number) if number else "")
        return style


def _number(element: Any) -> int | None:
    value = element.get(f"{_W}val", "") if element is not None else ""
    return int(value) if value.isascii() and value.isdigit() and len(value) < 6 else None


def read_styles(root: Any) -> dict[str, Style]:
    """Style id to style, from `w:styles` or None; under the empty id the default of a paragraph that names none."""
    elements = {}
    default = ""
    for element in root.iterchildren(f"{_W}style") if root is not None else ():
        if element.get(f"{_W}type") == "paragraph":
            elements[element.get(f"{_W}styleId", "")] = element
            if element.get(f"{_W}default") in {"1", "true", "on"}:
                default = element.get(f"{_W}styleId", "")
    styles: dict[str, Style] = {}
    for identifier in elements:
        _resolve(identifier, elements, styles)
    styles[""] = styles.get(default, Style())
    return styles


def _resolve(identifier: str, elements: dict[str, Any], styles: dict[str, Style]) -> None:
    """Enter a style after those it is based on. A chain that bites its tail ends where it does."""
    chain: list[str] = []
    while identifier in elements and identifier not in styles and identifier not in chain:
        chain.append(identifier)
        based = elements[identifier].find(f"{_W}basedOn")
        identifier = based.get(f"{_W}val", "") if based is not None else ""
    style = styles.get(identifier, Style())
    for name in reversed(chain):
        style = _own(style, elements[name])
        styles[name] = style


def _own(base: Style, element: Any) -> Style:
    # Names are English and lower-case in the file, whatever language Word shows them in; ids are not.
    named = element.find(f"{_W}name")
    name = named.get(f"{_W}val", "").lower() if named is not None else ""
    heading = _HEADING.match(name)
    style = replace(base, title=False, level=0) if base.title else base
    if heading:
        style = replace(style, level=int(heading[1]), listed=False)
    elif name == "title":
        style = replace(style, level=1, title=True)
    elif _LIST.match(name):
        style = replace(style, listed=True)
    if name in _CODE:
        style = replace(style, code=True)
    properties = element.find(f"{_W}pPr")
    return style if properties is None else style.with_properties(properties)
