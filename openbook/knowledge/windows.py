"""Windows: what is read around passages that were found. A passage is small, to be found; a window is whole, to be read.

The passages of a document are joined to windows once and for all, by its headings and pages alone. So a window is the same
for every question, and what a model computed of it serves all of them.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import Protocol

from openbook.knowledge import integrity
from openbook.knowledge.indexes import Ranked
from openbook.knowledge.passages import documents_holding, passage_of
from openbook.knowledge.scope import Condition
from openbook.knowledge.tables import table_header
from openbook.records import Hit, Passage

WINDOW_CHARS = 900  # about 220 tokens; chosen by measurement (docs/benchmarks.md)
MORE = (
    0.3  # what a further passage that was found counts in its window's score, of its own score above the last one found
)

_ID = re.compile(r"(?P<first>.+?)(?:\+(?P<more>[1-9][0-9]{0,3}))?")


class Part(Protocol):
    """What of a passage decides to which window it belongs."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def page(self) -> int | None: ...
    @property
    def headings(self) -> tuple[str, ...]: ...


def partition(passages: Sequence[Part], limit: int = WINDOW_CHARS) -> list[range]:
    """Which passages of a document, given in text order, make each window: runs that cover all of them.

    A window has at most `limit` characters, or one passage. It lies on one page. A section that fits is not cut; one that does
    not is cut into windows of about one length. Small sections are joined with the siblings and subsections after them.
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


def _size(passages: Sequence[Part], run: range) -> int:
    return passages[run.stop - 1].end - passages[run.start].start


def _joins(passages: Sequence[Part], window: range, section: range, limit: int) -> bool:
    before, after = passages[window.start], passages[section.start]
    return (
        before.page == after.page
        and len(after.headings) >= len(before.headings)
        and before.headings[:-1] == after.headings[: len(before.headings) - 1 if before.headings else 0]
        and _size(passages, range(window.start, section.stop)) <= limit
    )


def _cut(passages: Sequence[Part], section: range, limit: int) -> list[range]:
    """A section in as few windows as will do, each about as long as the others."""
    target = _size(passages, section) / -(-_size(passages, section) // limit)
    windows: list[range] = []
    start = section.start
    for at in range(section.start + 1, section.stop + 1):
        run = range(start, at)
        ends = at == section.stop or _size(passages, range(start, at + 1)) > limit
        if ends or _size(passages, run) >= target:
            windows.append(run)
            start = at
    return windows


def _text(parts: Sequence[Passage]) -> str:
    """From the first to the last of passages that follow each other; they may overlap."""
    pieces, end = list[str](), parts[0].start
    for part in parts:
        pieces.append(part.text[max(end - part.start, 0) :])
        end = max(end, part.end)
    return "".join(pieces)


def joined(parts: Sequence[Passage]) -> Passage:
    """The window that passages of one document make, which follow each other."""
    first, last = parts[0], parts[-1]
    if len(parts) == 1:
        return first
    headings = first.headings
    while any(part.headings[: len(headings)] != headings for part in parts):
        headings = headings[:-1]
    return Passage(
        id=f"{first.id}+{len(parts) - 1}",
        document=first.document,
        title=first.title,
        start=first.start,
        end=last.end,
        page=first.page,
        headings=headings,
        text=_text(parts),
        also_in=first.also_in,
        labels=first.labels,
        parts=tuple(part.digest for part in parts),
    )


def in_windows(passages: Sequence[Passage]) -> list[Passage]:
    """The windows that all passages of a document make."""
    return _windows(passages, partition(passages))


def _windows(passages: Sequence[Passage], runs: Iterable[range]) -> list[Passage]:
    """Those of these runs, each with the header row of a table in which it begins. `passages`: all of the document."""
    text = _text(passages) if passages else ""
    windows = [joined(passages[run.start : run.stop]) for run in runs]
    return [replace(window, header=table_header(text, window.start)) for window in windows]


def passages_of_id(name: str) -> tuple[str, int]:
    """(id of the first passage, how many follow it) of a passage or window of that id."""
    match = _ID.fullmatch(name)
    return (match["first"], int(match["more"] or 0)) if match else (name, 0)


def windows_around(connection: sqlite3.Connection, ranked: Sequence[Ranked], seen: Condition) -> list[Hit]:
    """The windows of the passages that were found, best first, each once, with the documents that are `seen` and hold it.

    Raises sqlite3.DatabaseError when something is not there, or not what was stored.
    """
    holders = documents_holding(connection, {content for each in ranked for content in each.contents}, seen)
    marks = ", ".join(str(each.passage) for each in ranked)
    names = dict(connection.execute(f"SELECT id, passage_id FROM passages WHERE id IN ({marks})"))
    found: dict[int, list[tuple[Ranked, dict[str, tuple[str, ...]]]]] = {}
    for each in ranked:
        # Contents of one text may differ in their headings: the one is taken whose document is the first by its path.
        holding = [content for content in each.contents if holders.get(content)]
        if not holding or each.passage not in names:
            raise sqlite3.DatabaseError(f"the passage {each.passage}, or its document, is not there")
        chosen = min(holding, key=lambda content: min(holders[content]))
        held_by = dict(sorted(held for content in holding for held in holders[content].items()))
        found.setdefault(chosen, []).append((each, held_by))
    floor = min((each.score for each in ranked), default=0.0)
    hits = []
    for content, members in found.items():
        passages = passages_in(connection, content, members[0][1])
        at = {passage.id: number for number, passage in enumerate(passages)}
        if any(names[each.passage] not in at for each, _ in members):
            raise sqlite3.DatabaseError(f"a passage of content {content} is not there")
        inside = [(run, [e for e, _ in members if at[names[e.passage]] in run]) for run in partition(passages)]
        inside = [each for each in inside if each[1]]
        windows = _windows(passages, [run for run, _ in inside])
        hits += [_hit(window, ranked, floor) for window, (_, ranked) in zip(windows, inside, strict=True)]
    return sorted(hits, key=lambda hit: (-hit.score, hit.passage.id))


def _hit(window: Passage, inside: Sequence[Ranked], floor: float) -> Hit:
    """It counts as much as its best passage, and a little more for each further one that was found. `inside`: best first."""
    best = inside[0]
    score = best.score + MORE * sum(each.score - floor for each in inside[1:])
    ranks = [
        [rank for rank in column if rank] for column in zip(*((e.dense_rank, e.bm25_rank) for e in inside), strict=True)
    ]
    similar = [each.similarity for each in inside if each.similarity is not None]
    dense, words = (min(column, default=None) for column in ranks)
    return Hit(window, score, dense, words, max(similar, default=None))


def passages_in(connection: sqlite3.Connection, content: int, held_by: Mapping[str, tuple[str, ...]]) -> list[Passage]:
    """All passages of a content, in text order. Raises sqlite3.DatabaseError when one is not what was stored."""
    stored = integrity.content(connection, content)
    sql = f"SELECT {integrity.PASSAGE_COLUMNS} FROM passages p WHERE p.content_id = ? ORDER BY p.start_char, p.end_char"
    rows = integrity.whole(connection.execute(sql, (content,)), stored)
    return [passage_of(row, stored.title, stored.text[row[3] : row[4]], held_by) for row in rows]
