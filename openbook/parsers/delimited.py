"""CSV and the like: each row is one line of `name: value` pairs, which says what it means wherever it is quoted."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from io import StringIO
from itertools import islice

from openbook.parsers.cleaning import title_from_name
from openbook.parsers.text import read_text
from openbook.records import Content

_SAMPLE_CHARS = 65_536
_SAMPLE_ROWS = 200
_DELIMITERS = ",;\t|"
_LONGEST_NAME_CHARS = 80
_VALUE = re.compile(r"[-+]?[\d.,:/ %€$£-]*\d[\d.,:/ %€$£-]*")  # numbers, dates: what no column is called


def read_delimited(data: bytes, name: str) -> Content:
    text, damage = read_text(data)
    try:
        rows = list(_rows(text, _delimiter(text, name)))
    except csv.Error:  # a field without end, or one over the module's limit: the lines as they are
        return Content(text, "text/plain", title_from_name(name), source_chars=len(text), metadata=damage)
    names = _names(rows)
    body = rows[1:] if names else rows
    lines = [line for row in body if (line := row_line(names, row))] or [row_line([], row) for row in rows]
    written = "\n".join(lines) + "\n" if lines else ""
    media_type = "text/tab-separated-values" if name.lower().endswith((".tsv", ".tab")) else "text/csv"
    return Content(written, media_type, title_from_name(name), source_chars=len(text), metadata=damage)


def row_line(names: Sequence[str], row: Sequence[str]) -> str:
    """`name: Ada; born: 1815`; empty cells are left out. Without names, ` | ` between the cells."""
    cells = [" ".join(cell.split()) for cell in row]
    if not names:
        return " | ".join(cells) if any(cells) else ""
    pairs = [(names[i] if i < len(names) else "", cell) for i, cell in enumerate(cells) if cell]
    return "; ".join(f"{column}: {cell}" if column else cell for column, cell in pairs)


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    return (row for row in csv.reader(StringIO(text, newline=""), delimiter=delimiter) if any(map(str.strip, row)))


def _delimiter(text: str, name: str) -> str:
    """The one that gives the most rows the same number of columns, more than one."""
    sample = text[:_SAMPLE_CHARS]
    if len(text) > _SAMPLE_CHARS:
        sample = sample[: sample.rfind("\n") + 1] or sample
    first = "\t" if name.lower().endswith((".tsv", ".tab")) else ","
    order = sorted(_DELIMITERS, key=lambda delimiter: delimiter != first)
    return max(order, key=lambda delimiter: _regularity(sample, delimiter))  # the first of equals


def _regularity(sample: str, delimiter: str) -> float:
    try:
        widths = Counter(len(row) for row in islice(_rows(sample, delimiter), _SAMPLE_ROWS))
    except csv.Error:
        return 0.0
    if not widths:
        return 0.0
    width, count = max(widths.items(), key=lambda item: (item[0] > 1, item[1], item[0]))
    return count / widths.total() if width > 1 else 0.0


def _names(rows: list[list[str]]) -> list[str]:
    """The first row when it names columns: words, all different, over at least one row and as wide as most."""
    if len(rows) < 2:
        return []
    names = [" ".join(cell.split()) for cell in rows[0]]
    filled = [name for name in names if name]
    if len(filled) < 2 and max(map(len, rows[1:])) > 1:
        return []  # a title above the table
    fit = len(set(filled)) == len(filled) and all(len(name) <= _LONGEST_NAME_CHARS for name in filled)
    return names if fit and filled and not any(_VALUE.fullmatch(name) for name in filled) else []
