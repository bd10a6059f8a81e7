"""The cells of a sheet as text that a person, a search and a model can each read without seeing the sheet.

Rows that belong together form a block. Where a block's first row names its columns, every row is written with those
names (`name: Ada; born: 1815`), so that a row cited alone, or cut off from its header, still says what it says.
Otherwise the cells of a row stand side by side, divided by ` | `.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from openbook.parsers.blocks import Blocks
from openbook.parsers.cleaning import clean

MOST_CELLS = 2_000_000
MOST_MERGED_CELLS = 100_000
_LONGEST_HEADER_CHARS = 80
_YEAR = re.compile(r"(?:19|20)\d\d")


@dataclass(frozen=True, slots=True)
class Cell:
    """`is_text`: the cell holds words, not a number, a date or a truth value."""

    text: str
    is_text: bool = True


Row = dict[int, Cell]  # by column, from 0; empty cells have no entry


@dataclass(frozen=True, slots=True)
class Merge:
    """A range of cells shown as one; all bounds inclusive, from 0."""

    top: int
    left: int
    bottom: int
    right: int


def shown_number(text: str) -> str:
    """A number as a person would write it: 15 digits, as spreadsheets show, not the 17 that they store."""
    try:
        value = float(text)
    except ValueError:
        return text
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return format(value, ".15g")


def write_sheet(rows: Iterable[tuple[int, Row]], merges: Sequence[Merge], out: Blocks) -> None:
    """Write rows, which come with their numbers in ascending order."""
    filled = [(number, row) for number, row in rows if row]
    _fill(dict(filled), merges)
    for block in _blocks(filled):
        for part in _side_by_side(block):
            _write_block(part, out)


def _fill(rows: dict[int, Row], merges: Sequence[Merge]) -> None:
    """Repeat the value of merged cells in each of them, within the rows there are."""
    left = MOST_MERGED_CELLS
    for merge in merges:
        cell = rows.get(merge.top, {}).get(merge.left)
        area = (merge.bottom - merge.top + 1) * (merge.right - merge.left + 1)
        if cell is None or not 1 < area <= left:
            continue
        left -= area
        for number in range(merge.top, merge.bottom + 1):
            if number in rows:
                for column in range(merge.left, merge.right + 1):
                    rows[number].setdefault(column, cell)


def _blocks(rows: Sequence[tuple[int, Row]]) -> Iterator[list[Row]]:
    """Rows without an empty row between, and not wholly to the left or right of those above."""
    block: list[Row] = []
    last = left = right = 0
    for number, row in rows:
        first, final = min(row), max(row)
        if block and (number != last + 1 or first > right or final < left):
            yield block
            block = []
        left, right = (min(left, first), max(right, final)) if block else (first, final)
        block.append(row)
        last = number
    if block:
        yield block


def _side_by_side(block: list[Row]) -> list[list[Row]]:
    """The tables that stand beside each other in a block, if each has a header of its own; else the block whole."""
    columns = sorted({column for row in block for column in row})
    starts = [column for before, column in pairwise(columns) if column > before + 1]
    if not starts or len(starts) > 20:
        return [block]
    bounds = [columns[0], *starts, columns[-1] + 1]
    parts = [
        [{column: cell for column, cell in row.items() if left <= column < right} for row in block]
        for left, right in pairwise(bounds)
    ]
    parts = [[row for row in part if row] for part in parts]
    return parts if all(_split_header(part)[1] for part in parts) else [block]


def _write_block(block: list[Row], out: Blocks) -> None:
    head, names, body = _split_header(block)
    for row in head:
        out.paragraph(_joined(row.values(), " "))
    if names:
        named = {column for row in body for column in row if _one_line(row[column])}
        out.paragraph("; ".join(name for column, name in sorted(names.items()) if column not in named))  # or it is lost
        out.lines(_named(row, names) for row in body)
    else:
        columns = sorted({column for row in body for column in row})
        out.lines(" | ".join(_one_line(row.get(column)) for column in columns).rstrip(" |") for row in body)


def _split_header(block: list[Row]) -> tuple[list[Row], dict[int, str], list[Row]]:
    """Title rows, the columns' names, and the rows below; no names where no row names the columns."""
    wide = max(len(row) for row in block)
    titles = 0
    while wide > 1 and titles < len(block) - 1 and _is_title(block[titles]):
        titles += 1
    head, rest = block[:titles], block[titles:]
    names = {column: _one_line(cell).rstrip(" :") for column, cell in rest[0].items()}
    return (head, names, rest[1:]) if _is_header(rest[0], names, rest[1:]) else (head, {}, rest)


def _is_title(row: Row) -> bool:
    texts = {cell.text for cell in row.values()}
    return len(texts) == 1 and all(cell.is_text for cell in row.values())


def _is_header(row: Row, names: dict[int, str], body: list[Row]) -> bool:
    if len(row) < 2 or not body or len(set(names.values())) < len(names) or "" in names.values():
        return False
    if any(len(name) > _LONGEST_HEADER_CHARS for name in names.values()):
        return False
    if not all(cell.is_text or _YEAR.fullmatch(cell.text) for cell in row.values()):
        return False
    used = {column for line in body for column in line}
    if len(used - set(names)) > 1:  # one more: the names of the rows often stand under an empty corner
        return False
    # Two columns may as well be labels and their values, unless a column of numbers stands under a word.
    numeric = any(
        row[column].is_text and all(not line[column].is_text for line in body if column in line)
        for column in row
        if column in used
    )
    return numeric and len(body) > 1 if len(names) == 2 else numeric or len(names) > 2


def _named(row: Row, names: dict[int, str]) -> str:
    parts = []
    for column in sorted(row):
        value = _one_line(row[column])
        if value:
            parts.append(f"{names[column]}: {value}" if column in names else value)
    return "; ".join(parts)


def _joined(cells: Iterable[Cell], divider: str) -> str:
    return divider.join(dict.fromkeys(_one_line(cell) for cell in cells))


def _one_line(cell: Cell | None) -> str:
    return " ".join(clean(cell.text).split()) if cell else ""
