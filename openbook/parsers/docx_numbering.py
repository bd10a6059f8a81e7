"""The numbers that Word shows before list items and headings. They are not in the text but counted from definitions.

ECMA-376 part 1, 17.9.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_LEVELS = 9
_MOST_COUNT = 1_000_000
_LONGEST_LABEL_CHARS = 60
_PLACE = re.compile(r"%([1-9])")
_ROMAN = ((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"),
          (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Level:
    shape: str = "bullet"  # w:numFmt
    text: str = ""  # w:lvlText, such as `%1.%2.`
    start: int = 1


@dataclass(slots=True)
class _List:
    """One `w:abstractNum` with its counts. Lists that share it go on counting, unless they override a start."""

    levels: dict[int, _Level]
    counts: list[int | None] = field(default_factory=lambda: [None] * _LEVELS)


@dataclass(slots=True)
class Numbering:
    """Feed it the paragraphs of lists in document order."""

    _lists: dict[str, _List]
    _starts: dict[str, dict[int, int]]  # by w:numId, the starts that it overrides and that have not taken effect yet

    def label(self, identifier: str, depth: int) -> str:
        """What stands before the next item of the list: a number such as `2.1.`, or empty for a bullet."""
        listed = self._lists.get(identifier)
        level = listed.levels.get(depth) if listed else None
        if listed is None or level is None or not 0 <= depth < _LEVELS:
            return ""
        for above in range(depth):  # a level that was left out counts as begun
            if listed.counts[above] is None:
                listed.counts[above] = listed.levels.get(above, _Level()).start
        override = self._starts.get(identifier, {}).pop(depth, None)
        count = listed.counts[depth]
        listed.counts[depth] = override if override is not None else level.start if count is None else count + 1
        listed.counts[depth + 1 :] = [None] * (_LEVELS - depth - 1)
        if level.shape in {"bullet", "none"}:
            return ""
        return _PLACE.sub(lambda place: _shown(listed, int(place[1]) - 1), level.text)[:_LONGEST_LABEL_CHARS].strip()


def read_numbering(root: Any) -> Numbering:
    """From `w:numbering`, or None for a document without lists."""
    if root is None:
        return Numbering({}, {})
    abstract = {
        element.get(f"{_W}abstractNumId", ""): _List(
            {_depth(level): _level(level) for level in element.iterchildren(f"{_W}lvl")}
        )
        for element in root.iterchildren(f"{_W}abstractNum")
    }
    lists: dict[str, _List] = {}
    starts: dict[str, dict[int, int]] = {}
    for element in root.iterchildren(f"{_W}num"):
        identifier = element.get(f"{_W}numId", "")
        lists[identifier] = abstract.get(_value(element, "abstractNumId"), _List({}))
        for override in element.iterchildren(f"{_W}lvlOverride"):
            start = _value(override, "startOverride")
            if start:
                starts.setdefault(identifier, {})[_depth(override)] = _count(start)
    return Numbering(lists, starts)


def _level(element: Any) -> _Level:
    return _Level(
        _value(element, "numFmt") or "decimal", _value(element, "lvlText"), _count(_value(element, "start") or "1")
    )


def _depth(element: Any) -> int:
    return _count(element.get(f"{_W}ilvl", "0"))


def _value(element: Any, name: str) -> str:
    found = element.find(f"{_W}{name}")
    return str(found.get(f"{_W}val", "")) if found is not None else ""


def _count(text: str) -> int:
    return min(int(text), _MOST_COUNT) if text.isascii() and text.isdigit() and len(text) < 10 else 1


def _shown(listed: _List, depth: int) -> str:
    level, count = listed.levels.get(depth, _Level()), listed.counts[depth]
    if count is None:
        count = level.start
    if level.shape in {"lowerLetter", "upperLetter"}:
        letters = chr(ord("a") + (count - 1) % 26) * min((count - 1) // 26 + 1, 8)
        return letters.upper() if level.shape == "upperLetter" else letters
    if level.shape in {"lowerRoman", "upperRoman"}:
        return _roman(count).upper() if level.shape == "upperRoman" else _roman(count)
    return f"{count:02}" if level.shape == "decimalZero" else str(count)


def _roman(number: int) -> str:
    if not 0 < number < 4000:
        return str(number)
    out = ""
    for value, letters in _ROMAN:
        out += letters * (number // value)
        number %= value
    return out
