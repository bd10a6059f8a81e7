"""Word's equations as one line that reads like typed mathematics: `a^2`, `(n)/(k)`, `√(x)`.

ECMA-376 part 1, 22.1. The bare sequence of characters would turn a² + b² into `a2+b2`.
"""

from __future__ import annotations

from typing import Any

_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_PROPERTIES = "Pr"
_DELETED = frozenset({f"{_W}del", f"{_W}moveFrom"})


def linear(element: Any) -> str:
    """The text of `m:oMath` or of anything inside. Depth is bounded by the XML parser."""
    name = element.tag.removeprefix(_M)
    if name == "t":
        return element.text or ""
    if element.tag in _DELETED or name.endswith(_PROPERTIES):
        return ""
    shape = _SHAPES.get(name)
    return shape(element) if shape else "".join(map(linear, element))


def _part(element: Any, name: str) -> str:
    found = element.find(f"{_M}{name}")
    return linear(found).strip() if found is not None else ""


def _property(element: Any, name: str, default: str) -> str:
    found = element.find(f"{_M}{element.tag.removeprefix(_M)}{_PROPERTIES}/{_M}{name}")
    return str(found.get(f"{_M}val", default)) if found is not None else default


def _grouped(text: str) -> str:
    simple = len(text) <= 1 or text.isalnum() or (text[0] == "(" and text.find(")") == len(text) - 1)
    return text if simple else f"({text})"


def _scripts(element: Any) -> str:
    below, above = _part(element, "sub"), _part(element, "sup")
    return (f"_{_grouped(below)}" if below else "") + (f"^{_grouped(above)}" if above else "")


def _scripted(element: Any) -> str:
    base = _part(element, "e")
    return (_grouped(base) if len(base) > 1 else base) + _scripts(element)


def _before(element: Any) -> str:
    return _scripts(element) + _part(element, "e")


def _fraction(element: Any) -> str:
    over, under = _part(element, "num"), _part(element, "den")
    if _property(element, "type", "bar") == "noBar":
        return f"({over} {under})"  # a binomial
    return f"{_grouped(over)}/{_grouped(under)}"


def _root(element: Any) -> str:
    degree = _part(element, "deg")
    return ("√" if not degree else f"root_{_grouped(degree)}") + f"({_part(element, 'e')})"


def _operator(element: Any) -> str:
    return f"{_property(element, 'chr', '∫')}{_scripts(element)} {_part(element, 'e')}"


def _delimited(element: Any) -> str:
    inside = _property(element, "sepChr", "|").join(linear(e).strip() for e in element.iterchildren(f"{_M}e"))
    return _property(element, "begChr", "(") + inside + _property(element, "endChr", ")")


def _function(element: Any) -> str:
    argument = _part(element, "e")
    name = _part(element, "fName")
    return f" {name}{argument}" if argument.startswith("(") else f" {name} {argument}"


def _limit(element: Any) -> str:
    return f"{_part(element, 'e')}_{_grouped(_part(element, 'lim'))}"


def _rows(element: Any) -> str:
    return "; ".join(linear(row).strip() for row in element if not row.tag.endswith(_PROPERTIES))


def _matrix_row(element: Any) -> str:
    return ", ".join(linear(cell).strip() for cell in element)


_SHAPES = {
    "sSup": _scripted,
    "sSub": _scripted,
    "sSubSup": _scripted,
    "sPre": _before,
    "f": _fraction,
    "rad": _root,
    "nary": _operator,
    "d": _delimited,
    "func": _function,
    "limLow": _limit,
    "limUpp": _limit,
    "m": _rows,
    "mr": _matrix_row,
    "eqArr": _rows,
}
