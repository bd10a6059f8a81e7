"""Windows: runs of a document's passages.

Passages are small, to be found; windows are larger, to be read. Headings and pages alone decide windows, so they are the same for every question,
and computations on them are reusable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import TypeAlias

from openbook.core.records import Passage, PassageSpan
from openbook.knowledge.index.table_headers import table_header

WINDOW_CHARS = 900  # about 220 tokens; chosen by measurement (research/benchmarks.md)

# Offsets, page and headings decide the window of a passage.
_Parts: TypeAlias = Sequence[Passage] | Sequence[PassageSpan]


def partition(passages: _Parts, limit: int = WINDOW_CHARS) -> list[range]:
    """The windows of a document, as runs of its passages in text order.

    A window has at most `limit` characters, or one passage, and lies on one page. Only too long sections are cut, into about equal windows. Small
    sections are joined with the siblings and subsections after them.
    """
    windows: list[range] = []
    first = 0
    for _, group in groupby(passages, key=attrgetter("page", "headings")):
        section = range(first, first + len(list(group)))
        first = section.stop
        if windows and _joins(passages, windows[-1], section, limit):
            windows[-1] = range(windows[-1].start, section.stop)
        else:
            windows += _cut(passages, section, limit)
    return windows


def _joins(passages: _Parts, window: range, section: range, limit: int) -> bool:
    before, after = passages[window.start], passages[section.start]
    above = before.headings[:-1]
    return (
        before.page == after.page
        and len(after.headings) >= len(before.headings)
        and above == after.headings[: len(above)]
        and passages[section.stop - 1].end - before.start <= limit
    )


def _cut(passages: _Parts, section: range, limit: int) -> list[range]:
    size = passages[section.stop - 1].end - passages[section.start].start
    target = size / -(-size // limit)
    windows: list[range] = []
    start = section.start
    for at in section:
        begin = passages[start].start
        last = at + 1 == section.stop
        if last or passages[at].end - begin >= target or passages[at + 1].end - begin > limit:
            windows.append(range(start, at + 1))
            start = at + 1
    return windows


def window_id(first: str, passages: int) -> str:
    return f"{first}+{passages - 1}" if passages > 1 else first


def joined(parts: Sequence[Passage]) -> Passage:
    first = parts[0]
    if len(parts) == 1:
        return first
    headings = first.headings
    while any(part.headings[: len(headings)] != headings for part in parts):
        headings = headings[:-1]
    return replace(
        first,
        id=window_id(first.id, len(parts)),
        end=parts[-1].end,
        headings=headings,
        text="".join(part.text for part in parts),
        parts=tuple(part.digest for part in parts),
    )


def in_windows(passages: Sequence[Passage]) -> list[Passage]:
    """All windows of a document, each with the header of the table it begins in."""
    text = "".join(each.text for each in passages)
    windows = [joined(passages[run.start : run.stop]) for run in partition(passages)]
    return [replace(window, header=table_header(text, window.start)) for window in windows]
