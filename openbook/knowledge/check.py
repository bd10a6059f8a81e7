"""Comparing the saved index with the truth, row by row, and its vector search with comparing every row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from openbook.knowledge import facts, saved
from openbook.knowledge.facts import Source
from openbook.knowledge.indexes import Indexes
from openbook.knowledge.segments import Segment
from openbook.knowledge.vectors import EXACT_UP_TO, widened

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TOP = 10


@dataclass(frozen=True, slots=True)
class CheckReport:
    """`problems`: what is damaged, missing or stale; searches do without it, from the truth.

    `recall_at_10`: the share of the true 10 nearest that vector search finds, over stored vectors as queries, 1.0 where
    it compares every row (`exact`); None without passages.
    """

    problems: tuple[str, ...]
    segments: int
    contents: int
    passages: int
    recall_at_10: float | None
    exact: bool


def check_saved(folder: Path, source: Source, wanted: NDArray[np.int64], *, recall_queries: int) -> CheckReport:
    """Reads every byte of the index and builds all of it again. Raises sqlite3.DatabaseError when the truth is damaged."""
    opened = saved.read(folder, source, every_byte=True)
    problems = list(opened.problems)
    for each in opened.saved:
        problems += [f"{each.name}: {problem}" for problem in _differences(each.segment, source)]
    held = np.concatenate([np.empty(0, np.int64), *(each.segment.contents for each in opened.saved)])
    missing = np.setdiff1d(wanted, held)
    if len(missing):
        problems.append(f"{len(missing)} of {len(wanted)} contents are not in the saved index")
    if len(np.unique(held)) != len(held):
        problems.append("a content is in two segments")
    passages = sum(len(each.segment) for each in opened.saved)
    view = Indexes([each.segment for each in opened.saved], source.dimensions).view(np.intersect1d(wanted, held))
    queries = list(_sample([each.segment for each in opened.saved], recall_queries)) if view.passages else []
    found = [_recall({p for p, _ in view.dense(q, _TOP)}, view.dense(q, _TOP, exact=True)) for q in queries]
    recall = float(np.mean(found)) if found else None
    return CheckReport(
        tuple(problems), len(opened.saved), len(held), passages, recall, exact=view.passages <= EXACT_UP_TO
    )


def _recall(found: set[int], true: list[tuple[int, float]]) -> float:
    """The share of `true` that was found, or is no nearer than what was."""
    return sum(passage in found for passage, _ in true) / len(true)


def _sample(segments: list[Segment], count: int) -> Iterator[NDArray[np.float32]]:
    """Up to `count` stored vectors, evenly over all rows, each moved a little so that it is not its own answer."""
    chance = np.random.default_rng(0)
    rows = sum(map(len, segments))
    wanted, base = np.unique(np.linspace(0, rows - 1, min(count, rows)).astype(np.int64)), 0
    for segment in segments:
        for row in wanted[(wanted >= base) & (wanted < base + len(segment))] - base:
            vector = widened(segment.vectors[row : row + 1])[0]
            moved = vector + chance.normal(0.0, 0.5 / np.sqrt(len(vector)), len(vector)).astype(np.float32)
            yield (moved / np.linalg.norm(moved)).astype(np.float32)
        base += len(segment)


def _differences(segment: Segment, source: Source) -> Iterator[str]:
    """What differs between a saved segment and the same contents read from the truth now."""
    gone = [c for c in segment.contents.tolist() if facts.identities(source, c) is None]
    present = [c for c in segment.contents.tolist() if c not in set(gone)]
    if gone:
        yield f"holds {len(gone)} contents that are no more"
    runs = _row_runs(segment, set(gone))
    for again in facts.segments(source, present):
        rows = runs[: len(again)] if len(runs) >= len(again) else runs
        runs = runs[len(again) :]
        if len(rows) != len(again):
            yield "holds fewer passages than the truth"
            return
        for name in ("passages", "keys", "variants", "lengths", "vectors", "turned"):
            if not np.array_equal(getattr(segment, name)[rows], getattr(again, name)):
                yield f"{name} are not those of the truth"
        if not np.array_equal(segment.signs[:, rows], again.signs):
            yield "signs are not those of the vectors"
        if not _same_postings(segment, rows, again):
            yield "words are not those of the truth"
    if len(runs):
        yield "holds more passages than the truth"


def _row_runs(segment: Segment, gone: set[int]) -> NDArray[np.intp]:
    """Rows of the contents that are still there, in their order."""
    chosen = np.array([c not in gone for c in segment.contents.tolist()], dtype=np.bool_)
    return np.flatnonzero(segment.rows_of(chosen)) if len(chosen) else np.empty(0, np.intp)


def _same_postings(segment: Segment, rows: NDArray[np.intp], again: Segment) -> bool:
    wanted = np.zeros(len(segment), dtype=np.bool_)
    wanted[rows] = True
    places = np.flatnonzero(wanted[segment.ordinals])
    terms = segment.terms[np.searchsorted(segment.offsets, places, side="right") - 1]
    owners = np.searchsorted(rows, segment.ordinals[places])
    return (
        np.array_equal(terms, np.repeat(again.terms, np.diff(again.offsets)))
        and np.array_equal(owners, again.ordinals)
        and np.array_equal(segment.counts[places], again.counts)
    )
