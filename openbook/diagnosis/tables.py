"""Questions from tables and from lines such as `Serial number: CV-320-11874`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from openbook.diagnosis.proposing import Proposal, Voice

MAX_CELL_CHARS, MAX_LINE_CHARS = 60, 1_000
_LINE = re.compile(r"[^\n]*\n?")
_RULE = re.compile(r"[\s|+:=\-]*$")
_GAP = re.compile(r" {2,}|\t+")
_MARKS = re.compile(r"^[*_`]+|[*_`]+$")
_FIELD = re.compile(r"^(?:[-*] )?:?\**(?P<key>[A-Z][\w .-]{2,28}?)\**:\**[ \t]+(?P<value>\S[^\n]*?)\s*$")
_VALUE = re.compile(r"^[€$£]?[\d.,]+ ?(?:%|[a-z°C/³²]{1,12})?$|^[—–-]+$|^$")
_VERBAL = re.compile(r"(?:ed|ing|from|to|by|of|for|in|at|on|with|built|held|kept|led)$", re.IGNORECASE)
_NO_KEY = frozenset(
    "note warning tip example subject dear from to cc re ps thus see http https mailto dr mr mrs".split()
)


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Rows:
    """Neighbouring rows with equally many cells. `ruled`: a line is drawn below the first. `cut`: the table began earlier."""

    rows: list[list[Cell]]
    ruled: bool
    cut: bool


def table_proposals(text: str, start: int, end: int, heading: str, title: str, inside: Voice) -> Iterator[Proposal]:
    """Questions from the tables and fields of `text[start:end]`, a passage below `heading` of the document `title`."""
    for table in _tables(text, start, end):
        yield from _table(table, heading, title, inside)
    yield from _fields(text, start, end, title)


def _tables(text: str, start: int, end: int) -> Iterator[_Rows]:
    rows: list[list[Cell]] = []
    ruled, cut = False, _ends_in_row(text, start)
    for cells in _lines(text, start, end):
        if cells == [] and rows:  # a drawn line
            ruled = ruled or len(rows) == 1
        elif cells != []:
            if rows and (cells is None or len(cells) != len(rows[0])):
                yield _Rows(rows, ruled, cut)
                rows, ruled, cut = [], False, False
            if cells is not None:
                rows.append(cells)
            else:
                cut = False
    if rows:
        yield _Rows(rows, ruled, cut)


def _ends_in_row(text: str, start: int) -> bool:
    """Whether what stands before `start` ends in the middle of a table."""
    before = text[max(0, start - 2000) : start]
    lines = [line for line in before.rstrip(" \n").split("\n") if not _RULE.match(line)]
    return not before.endswith("\n\n") and bool(lines) and len(_cells(lines[-1], 0)) > 1


def _lines(text: str, start: int, end: int) -> Iterator[list[Cell] | None]:
    """The cells of each line: None for a line that is no row, empty for one that only draws."""
    for line in _LINE.finditer(text, start, end):
        if not line[0]:
            return
        if not line[0].strip():
            yield None
        elif _RULE.match(line[0]) and re.search(r"--|==", line[0]):
            yield []
        elif len(line[0]) > MAX_LINE_CHARS:
            yield None
        else:
            cells = _cells(line[0].rstrip("\n"), line.start())
            yield cells if len(cells) > 1 else None


def _cells(line: str, at: int) -> list[Cell]:
    if "|" in line:
        begin = len(line) - len(line.lstrip())
        body = line.rstrip()
        first = begin + 1 if body[begin : begin + 1] == "|" else begin
        last = len(body) - 1 if body.endswith("|") and len(body) > first else len(body)
        return [_cell(line, at, s, e) for s, e in _between(line, first, last, re.compile(r"\|"))]
    if not _GAP.search(line.strip()) or line.rstrip().endswith((".", ",", ";")):
        return []
    begin = len(line) - len(line.lstrip())
    return [_cell(line, at, s, e) for s, e in _between(line, begin, len(line.rstrip()), _GAP)]


def _between(line: str, start: int, end: int, separator: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    for match in separator.finditer(line, start, end):
        yield start, match.start()
        start = match.end()
    yield start, end


def _cell(line: str, at: int, start: int, end: int) -> Cell:
    raw = line[start:end]
    stripped = raw.strip()
    inner = _MARKS.sub("", _MARKS.sub("", stripped))
    begin = start + raw.find(inner) if inner else start
    return Cell(inner, at + begin, at + begin + len(inner))


def _table(table: _Rows, heading: str, title: str, inside: Voice) -> Iterator[Proposal]:
    rows = table.rows
    names = [cell.text for cell in rows[0]]
    if len(rows) < 2 or table.cut or any(row[0].text.endswith(":") for row in rows):
        return
    if _is_header(table):
        keys = [row[0].text for row in rows[1:]]
        for row in rows[1:]:
            if row[0].text and keys.count(row[0].text) == 1 and not _VALUE.match(row[0].text):
                for name, cell in zip(names[1:], row[1:], strict=True):
                    if name and names.count(name) == 1 and _fits(cell.text):
                        yield _cell_question(name, row[0].text, cell, heading or title, inside)
    elif len(names) == 2 and (not any(names) or re.search(r"\d", names[1])):
        keys = [row[0].text for row in rows]
        for key, value in rows:
            if keys.count(key.text) == 1 and _is_key(key.text) and _fits(value.text):
                yield _field_question(key.text, value, title)


def _is_header(table: _Rows) -> bool:
    """Whether the first row names columns."""
    names = [cell.text for cell in table.rows[0]]
    if not any(names) or any(len(name.split()) > 6 or (name and not re.match(r"[\w€$£%(]", name)) for name in names):
        return False
    if table.ruled:
        return True
    if any(re.match(r"[€$£]?\d", name) and not re.fullmatch(r"[12]\d{3}", name) for name in names):
        return False
    if len(names) > 2:
        return all(name[:1].isupper() or name in ("", "€", "$", "£", "%") or name.isdigit() for name in names)
    below = [row[1].text for row in table.rows[1:]]
    return not re.search(r"\d", names[1]) and sum(bool(re.search(r"\d", text)) for text in below) * 2 > len(below)


def _fits(text: str) -> bool:
    return 0 < len(text) <= MAX_CELL_CHARS and bool(re.search(r"\w", text)) and not re.search(r"[*`|]", text)


def _is_key(text: str) -> bool:
    words = text.lower().split()
    numbered = re.fullmatch(
        r"(?:part|chapter|section|step|annex|appendix|figure|table|version|week|day) \w+", text.lower()
    )
    return bool(re.match(r"[A-Z]", text)) and len(words) <= 5 and words[0] not in _NO_KEY and not numbered


def _cell_question(name: str, key: str, cell: Cell, place: str, inside: Voice) -> Proposal:
    count = re.fullmatch(r"\d{1,3}(?:,\d{3})*|\d+", cell.text)
    small = inside(name)
    if " " in name or small == name or not name.isalpha() or _VERBAL.search(name):
        what = f"what is given under “{name}”"
    elif name.endswith("s") and not name.endswith("ss"):
        what = f"how many {small} are given" if count else f"what are the {small} given"
    else:
        what = f"what is the {small} given"
    return Proposal(f"In the table “{place}”, {what} for “{key}”?", cell.start, cell.end, (), _tags(cell))


def _tags(cell: Cell) -> tuple[str, ...]:
    return ("table", "number") if re.search(r"\d", cell.text) else ("table",)


def _fields(text: str, start: int, end: int, title: str) -> Iterator[Proposal]:
    for line in _LINE.finditer(text, start, end):
        match = _FIELD.match(line[0]) if 0 < len(line[0]) <= MAX_LINE_CHARS else None
        if match and _is_key(match["key"]) and line[0].strip("# \n") != title:
            value = _cell(match["value"], line.start() + match.start("value"), 0, len(match["value"]))
            if _fits(value.text) and len(value.text.split()) <= 9 and not value.text.endswith((".", ":", ",", ";")):
                yield _field_question(match["key"], value, title)


def _field_question(key: str, value: Cell, title: str) -> Proposal:
    return Proposal(f"In “{title}”, what is given as “{key}”?", value.start, value.end, (), _tags(value))
