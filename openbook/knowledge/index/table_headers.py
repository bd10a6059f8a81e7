"""Table headers for rows in later passages: without its header a row says nothing."""

from __future__ import annotations

import re
from itertools import takewhile

MAX_TABLE_CHARS = 20_000  # before a place in a table; bounds the work per passage
MAX_ROW_CHARS = 1_000  # after it
MAX_HEADER_CHARS = 400  # of a header that is worth repeating

_WORD = re.compile(r"\w")
_DELIMITER = re.compile(r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*")
_YEAR = re.compile(r"(?:19|20)\d\d")
_VALUE = re.compile(r"[-+\d.,:/ %€$£]*\d[-+\d.,:/ %€$£]*")


def table_header(text: str, start: int) -> str:
    """The header of the table around `start`, if `start` is below it; else empty.

    Two lines in Markdown, or the first row where parsers write ` | `. Depends on no more than `MAX_TABLE_CHARS` + 1 characters before `start` and
    `MAX_ROW_CHARS` after it.
    """
    after = text[start : start + MAX_ROW_CHARS]
    skipped = len(after) - len(after.lstrip())
    before = text[max(start - MAX_TABLE_CHARS, 0) : start] + after[:skipped]
    row = before[before.rfind("\n") + 1 :] + after[skipped:].split("\n", 1)[0]
    if "|" not in row and not row.lstrip().startswith("+-"):  # a line between the rows of reStructuredText
        return ""
    lines = before.split("\n")[:-1]
    block = list(takewhile(str.strip, reversed(lines)))[::-1]
    if len(block) == len(lines) and start > MAX_TABLE_CHARS:
        return ""  # it begins further up
    header = next((number for number, line in enumerate(block) if "|" in line), None)
    if header is None or len(block[header]) > MAX_HEADER_CHARS or _is_delimiter(row):
        return ""
    found, rest = block[header], block[header + 1 :]
    if rest and _is_delimiter(rest[0]):
        found += "\n" + rest[0]
    else:
        names = _cells(found)
        if len(_cells(row)) > len(names) or any(_VALUE.fullmatch(n) and not _YEAR.fullmatch(n) for n in names):
            return ""
    return found if _WORD.search(found) else ""


def _is_delimiter(line: str) -> bool:
    return len(line) <= MAX_HEADER_CHARS and _DELIMITER.fullmatch(line) is not None


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]
