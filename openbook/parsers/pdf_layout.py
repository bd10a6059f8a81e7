"""From pieces of text with their places on a page to lines in reading order. Pure geometry, no PDF library.

A PDF keeps text in the order in which a program drew it, which is often, but not always, the order a person reads. The
rules: columns of prose are read one after the other; everything else is read in rows from top to bottom; rows whose
pieces stand under each other are a table and get their cells divided by ` | `.
"""

from __future__ import annotations

import re
import statistics
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

MOST_PIECES = 4_000  # a page with more is a drawing; its pieces stay in the order of the file
MOST_ROWS = 400  # a page with more is no page of columns, and finding them takes the square of the rows

_SAME_LINE = 0.5  # share of the lower height by which two pieces on one line overlap
_COLUMN_ROWS = 4
_COLUMN_CHARS = 22  # a line of a column is at least so long, in the middle of the pack
_COLUMN_FILL = 0.35  # and fills so much of the column's width; more
_TABLE_FILL = 0.75  # where the file draws line by line across both columns, which is how it draws tables
_BULLET = re.compile(r"[^\w\s$€£%+-]{1,2}|[-–]|\(?\w{1,2}[.)]")  # a sign of money, or of plus, is a cell of its own
_ITEM = re.compile(r"(?:[^\w\s]|\d{1,2}[.)])\s")
_RIGHT_TO_LEFT = frozenset({"R", "AL"})


@dataclass(frozen=True, slots=True)
class Piece:
    """Text without a wide gap inside. Points from the lower left corner of the page: `bottom` < `top`."""

    left: float
    bottom: float
    right: float
    top: float
    text: str
    order: int = 0  # of drawing

    @property
    def height(self) -> float:
        return self.top - self.bottom


_Row = list[Piece]


def lay_out(pieces: Sequence[Piece]) -> str:
    """The text of a page in reading order: lines, and a blank line where the page leaves more room than usual."""
    upright = [piece for piece in pieces if not _is_turned(piece)]
    turned = [piece.text for piece in pieces if _is_turned(piece)]
    if sum(map(len, turned)) > sum(len(piece.text) for piece in upright) or len(pieces) > MOST_PIECES:
        return "\n".join(piece.text for piece in pieces)
    blocks = _region(upright, depth=0)
    return "\n\n".join([*filter(None, map(_block_text, blocks)), *turned])


def _is_turned(piece: Piece) -> bool:
    return len(piece.text) > 3 and piece.height > 3 * (piece.right - piece.left)


def _region(pieces: list[Piece], depth: int) -> list[list[_Row]]:
    """Blocks of rows: where a run of rows stands in columns, a block for each column's regions."""
    rows = _rows(pieces)
    blocks: list[list[_Row]] = []
    plain: list[_Row] = []
    start = 0
    while start < len(rows):
        end, gutter = _columns_from(rows, start) if depth < 3 and len(rows) <= MOST_ROWS else (start, 0.0)
        if end > start:
            if plain:
                blocks.append(plain)
                plain = []
            inside = [piece for row in rows[start:end] for piece in row]
            for part in (
                [piece for piece in inside if piece.right <= gutter],
                [piece for piece in inside if piece.right > gutter],
            ):
                blocks += _region(part, depth + 1)
            start = end
        else:
            plain.append(rows[start])
            start += 1
    return [*blocks, plain] if plain else blocks


def _rows(pieces: list[Piece]) -> list[_Row]:
    """Rows from top to bottom, each from left to right."""
    rows: list[_Row] = []
    for piece in sorted(pieces, key=lambda p: (-(p.top + p.bottom), p.left)):
        row = rows[-1] if rows else []
        if row and min(row[0].top, piece.top) - max(row[0].bottom, piece.bottom) > _SAME_LINE * min(
            row[0].height, piece.height
        ):
            row.append(piece)
        else:
            rows.append([piece])
    return [_without_bullets(sorted(row, key=lambda p: p.left)) for row in rows]


# --- columns ----------------------------------------------------------------------------------------------------------


def _columns_from(rows: list[_Row], start: int) -> tuple[int, float]:
    """Where the longest run of rows from `start` that leaves a gutter free ends, and the gutter; else `start`."""
    left = min(piece.left for row in rows for piece in row)
    right = max(piece.right for row in rows for piece in row)
    least = 0.8 * statistics.median(piece.height for row in rows[start : start + 40] for piece in row)
    spans: list[tuple[float, float]] = []
    end, found = start, 0.0
    for number in range(start, len(rows)):
        spans = _union([*spans, *((piece.left, piece.right) for piece in rows[number])])
        gutter = _widest_gap(spans, left, right, least)
        if gutter:
            end, found = number + 1, gutter
        elif len(spans) == 1 and spans[0][1] - spans[0][0] > 0.6 * (right - left):
            break
    while end - start > _COLUMN_ROWS and _stands_apart(rows, end - 1, end - 2):
        end -= 1
    if end - start < _COLUMN_ROWS or _stands_apart(rows, start, start + 1) or not _are_columns(rows[start:end], found):
        return start, 0.0
    return end, found


def _stands_apart(rows: list[_Row], number: int, beside: int) -> bool:
    """Whether a row at the edge of columns belongs to none of them, such as a page's number."""
    row, other = rows[number], rows[beside]
    gap = max(_bottom(row) - _top(other), _bottom(other) - _top(row))
    return len(row) == 1 and _weight(row[0].text) < _COLUMN_CHARS and gap > row[0].height


def _widest_gap(spans: list[tuple[float, float]], left: float, right: float, least: float) -> float:
    """The middle of the widest gap that is no narrower than `least` and not at the margin; 0 where there is none."""
    margin = 0.15 * (right - left)
    gaps = [(b[0] - a[1], (a[1] + b[0]) / 2) for a, b in pairwise(spans)]
    fit = [(width, middle) for width, middle in gaps if width >= least and left + margin < middle < right - margin]
    return max(fit)[1] if fit else 0.0


def _union(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for low, high in sorted(spans):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return merged


def _are_columns(rows: list[_Row], gutter: float) -> bool:
    sides = [[piece for row in rows for piece in row if (piece.right <= gutter) == left] for left in (True, False)]
    numbers = [sorted(piece.order for piece in side) for side in sides]
    if any(len(_rows(side)) < _COLUMN_ROWS for side in sides):
        return False
    # Columns are drawn one after the other, tables row by row; a few pieces (page numbers) come when they like.
    trim = [side[len(side) // 10 : len(side) - len(side) // 10] for side in numbers]
    apart = trim[0][-1] < trim[1][0] or trim[1][-1] < trim[0][0]
    return all(_is_prose(side, _COLUMN_FILL if apart else _TABLE_FILL) for side in sides)


def _is_prose(pieces: list[Piece], fill: float) -> bool:
    """Whether the longest piece of most rows is a line of prose; a side may hold further columns, or a small table."""
    longest = [max(row, key=lambda piece: piece.right - piece.left) for row in _rows(pieces)]
    widths = sorted(piece.right - piece.left for piece in longest)
    chars = statistics.median(_weight(piece.text) for piece in longest)
    # Nearly the widest line tells the column's width; a page number or a heading may reach further.
    full = widths[9 * len(widths) // 10]
    return statistics.median(widths) > fill * full and chars >= _COLUMN_CHARS


def _weight(text: str) -> int:
    return len(text) + sum(1 for char in text if unicodedata.east_asian_width(char) in "WF")


# --- rows and tables --------------------------------------------------------------------------------------------------


def _block_text(rows: list[_Row]) -> str:
    gaps = [max(_bottom(above) - _top(row), 0.0) for above, row in pairwise(rows)]
    usual = statistics.median_low(gaps) if gaps else 0.0
    lines: list[str] = []
    start = 0
    while start < len(rows):
        end = start
        while end < len(rows) and len(rows[end]) > 1:
            end += 1
        end = _whole_table(rows, start, end)
        if end - start > 1 or len(rows[start]) > 2:
            end = max(end, start + 1)
            new = _table_lines(rows[start:end])
        else:
            end = start + 1
            new = [" ".join(piece.text for piece in _in_reading_direction(rows[start]))]
        if lines and gaps[start - 1] > usual + 0.5 * _height(rows[start]):
            lines.append("")
        lines += new
        start = end
    return "\n".join(lines)


def _whole_table(rows: list[_Row], start: int, end: int) -> int:
    """A row of a table may have one cell only; it is of the table where it stands in one of its columns, near enough."""
    if end - start < 2:
        return end
    columns = _column_spans(rows[start:end])
    while end < len(rows):
        row = rows[end]
        near = _bottom(rows[end - 1]) - _top(row) < 0.8 * _height(row)
        inside = [sum(1 for low, high in columns if p.left < high and p.right > low) for p in row]
        if not near or len(columns) < 3 or any(count != 1 for count in inside) or _weight(row[0].text) > 40:
            break
        end += 1
    return end


def _without_bullets(row: _Row) -> _Row:
    """A list item's bullet or number is no cell."""
    joined: list[Piece] = []
    for piece in row:
        before = joined[-1] if joined else None
        if before and _BULLET.fullmatch(before.text):
            bottom, top = min(before.bottom, piece.bottom), max(before.top, piece.top)
            joined[-1] = Piece(before.left, bottom, piece.right, top, f"{before.text} {piece.text}", before.order)
        else:
            joined.append(piece)
    return joined


def _table_lines(rows: list[_Row]) -> list[str]:
    columns = _column_spans(rows)
    if len(columns) < 2:
        return [" ".join(piece.text for piece in _in_reading_direction(row)) for row in rows]
    if _are_lists(rows, columns):
        pieces = [piece for row in rows for piece in row]
        sides = ([p for p in pieces if p.left < high and p.right > low] for low, high in columns)
        return [piece.text for side in sides for piece in side]
    lines = []
    for row in rows:
        cells = [""] * len(columns)
        for piece in row:
            at = next((i for i, (low, high) in enumerate(columns) if piece.left < high and piece.right > low), 0)
            cells[at] = f"{cells[at]} {piece.text}".strip()
        if _is_right_to_left("".join(cells)):
            cells.reverse()
        lines.append(" | ".join(cells).rstrip(" |") if any(cells) else "")
    return lines


def _are_lists(rows: list[_Row], columns: list[tuple[float, float]]) -> bool:
    """Whether lists stand beside each other, as on slides: mostly items, each column drawn before the next begins."""
    pieces = [piece for row in rows for piece in row]
    items = sum(1 for piece in pieces if _ITEM.match(piece.text))
    inside = [sum(1 for low, high in columns if p.left < high and p.right > low) for p in pieces]
    if 2 * items < len(pieces) or any(count != 1 for count in inside):
        return False
    numbers = [sorted(p.order for p in pieces if p.left < high and p.right > low) for low, high in columns]
    drawn = sorted(numbers)
    return all(a[-1] < b[0] for a, b in pairwise(drawn))


def _column_spans(rows: list[_Row]) -> list[tuple[float, float]]:
    """The horizontal extents of a table's columns. A piece over several columns, such as their common title, is ignored."""
    most = max(len(row) for row in rows)
    full = [row for row in rows if len(row) == most]
    spans = _union([(piece.left, piece.right) for row in full for piece in row])
    for row in rows:
        for piece in row:
            if sum(1 for low, high in spans if piece.left < high and piece.right > low) <= 1:
                spans = _union([*spans, (piece.left, piece.right)])
    return spans


def _in_reading_direction(row: _Row) -> _Row:
    return row[::-1] if len(row) > 1 and _is_right_to_left("".join(piece.text for piece in row)) else row


def _is_right_to_left(text: str) -> bool:
    letters = [unicodedata.bidirectional(char) for char in text if char.isalpha()]
    return 2 * sum(1 for kind in letters if kind in _RIGHT_TO_LEFT) > len(letters)


def _top(row: _Row) -> float:
    return max(piece.top for piece in row)


def _bottom(row: _Row) -> float:
    return min(piece.bottom for piece in row)


def _height(row: _Row) -> float:
    return statistics.median(piece.height for piece in row)
