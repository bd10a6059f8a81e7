"""XML elements by local name: strict formats use other namespaces with the same names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any


def local(element: Any) -> str:
    """Empty for an unresolved entity."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def attribute(element: Any, name: str) -> str:
    """The value of the attribute with this local name; empty if there is none."""
    attributes = element.attrib if element is not None else {}
    return next((str(value) for key, value in attributes.items() if key.rpartition("}")[2] == name), "")


def children(element: Any, name: str = "*") -> Iterator[Any]:
    return iter(element.iterchildren(f"{{*}}{name}") if element is not None else ())


def child(element: Any, *names: str) -> Any:
    """The first descendant along the path `names`, else None."""
    return element.find("/".join(f"{{*}}{name}" for name in names)) if element is not None else None


def descendants(element: Any, name: str) -> Iterator[Any]:
    return iter(element.iter(f"{{*}}{name}") if element is not None else ())


def outermost(element: Any, names: frozenset[str], without: frozenset[str] = frozenset()) -> Iterator[Any]:
    """Descendants of these names in order, except those inside another one or inside one of `without`."""
    waiting = [iter(element)]
    while waiting:
        found = next(waiting[-1], None)
        if found is None:
            waiting.pop()
        elif local(found) in names:
            yield found
        elif local(found) not in without:
            waiting.append(iter(found))


def text_chars(element: Any) -> int:
    """Characters of text in an element, without white space between elements."""
    return sum(len(text) for text in element.itertext() if not text.isspace())


def number(text: str, least: int, most: int, default: int | None = None) -> int:
    """`text` as a number within inclusive bounds; else `default`, or `least`."""
    if re.fullmatch(r"-?[0-9]{1,9}", text):
        return min(max(int(text), least), most)
    return least if default is None else default
