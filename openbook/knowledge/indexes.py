"""The derived index of a knowledge base: segments of contents, and views of them as some version saw them.

The database is the truth; the index is a cache of what a search reads. It knows contents, which never change, and nothing of
versions: a version is a set of contents, so a search in any of them is the same search over fewer rows. What a search
finds is a function of that set alone, not of the segments, the order in which contents came, or what else is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from openbook.knowledge import index_builder, index_store, shared_segments
from openbook.knowledge.blobs import Blobs
from openbook.knowledge.bm25 import Bm25
from openbook.knowledge.index_builder import Source
from openbook.knowledge.index_store import SavedSegment, Writer
from openbook.knowledge.segments import Live, Segment, Selection
from openbook.knowledge.vectors import VectorSearch

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Indexes", "Ranked", "Source", "View"]

RATIO = 4  # a segment joins a new one that has at least 1/RATIO of its rows
SMALL = 1_024  # rows; smaller segments count as this
MOST_SEGMENTS = 8
MOST_DROPPED = 0.25  # of a segment's rows, before it is written anew without them
WORDS_WEIGHT = 0.5  # in the score; chosen on training queries only (benchmarks/fusion.py), and flat from 0.45 to 0.55


@dataclass(frozen=True, slots=True)
class Ranked:
    """A passage's row id and its ranks from 1 among the candidates of each kind, None where it is not among them.

    `contents`: all that hold its text, ascending.
    """

    passage: int
    contents: tuple[int, ...]
    score: float
    dense_rank: int | None
    bm25_rank: int | None
    similarity: float | None


class Indexes:
    """Immutable once opened; safe to share between threads."""

    def __init__(self, segments: Sequence[Segment], dimensions: int) -> None:
        """No content is in two of the segments."""
        self._segments, self._dimensions = tuple(segments), dimensions
        self._bases = np.cumsum([0, *map(len, segments)]).tolist()

    @classmethod
    def open(
        cls,
        folder: Path,
        source: Source,
        wanted: NDArray[np.int64],
        *,
        every_byte: bool = False,
        blobs: Blobs | None = None,
    ) -> Indexes:
        """Saved segments that are whole and belong to `source`, and in memory those contents of `wanted` that none holds.

        Never writes, but for what it fetches from `blobs`, where machines share their segments. `every_byte` as in
        `index_store.read`. Raises Damage when the truth is damaged.
        """
        if blobs is not None:
            shared_segments.pull(blobs, folder, source)
        saved, problems = index_store.read(folder, source, every_byte=every_byte)
        if problems and blobs is not None:
            shared_segments.pull(blobs, folder, source, again=True)
            saved = index_store.read(folder, source, every_byte=every_byte)[0]
        found = [each.segment for each in saved]
        missing = np.setdiff1d(wanted, contents_of(found))
        return cls([*found, *index_builder.build(source, map(int, missing))], source.dimensions)

    @classmethod
    def refresh(
        cls,
        folder: Path,
        source: Source,
        keep: NDArray[np.int64],
        *,
        forget: bool = False,
        blobs: Blobs | None = None,
        anew: bool = False,
    ) -> Indexes:
        """Save the contents of `keep` that are missing, and drop others where much of a segment is not in it.

        With `forget`, no byte of a content outside `keep` is left in any file of ours. Switches in one step: readers, or a crash,
        meet the old state or the new one. With `blobs`, the same happens there; `anew` then uses nothing of what is there.
        Needs the write lock. Raises OSError, StorageError, KnowledgeBaseInvalid, KnowledgeBaseBusy, Damage.
        """
        renew = partial(_renewed, folder, source, keep, forget=forget)
        saved = (
            renew()
            if blobs is None
            else shared_segments.refresh(blobs, folder, source, renew, forget=forget, anew=anew)
        )
        return cls([each.segment for each in saved], source.dimensions)

    def contents(self) -> NDArray[np.int64]:
        """Ids of the indexed contents, ascending."""
        return np.unique(contents_of(self._segments))

    def view(self, live: NDArray[np.int64]) -> View:
        """A search over the contents `live` and no others. Raises ValueError when one of them is not indexed."""
        if len(lacking := np.setdiff1d(live, contents_of(self._segments))):
            raise ValueError(f"{len(lacking)} of {len(live)} contents are not indexed")
        masks = [segment.rows_of(np.isin(segment.contents, live)) for segment in self._segments]
        seen = np.concatenate([np.empty(0, np.bool_), *masks])
        duplicates = self._duplicates.of(seen)
        seen[duplicates.rows[1:][duplicates.keys[1:] == duplicates.keys[:-1]]] = False
        parts: list[Live] = []
        for segment, start in zip(self._segments, self._bases[:-1], strict=True):
            mask = seen[start : start + len(segment)]
            if mask.any():
                parts.append(Live(segment, None if mask.all() else mask, start))
        return View(parts, self._dimensions, duplicates)

    @cached_property
    def _duplicates(self) -> _Duplicates:
        keys, variants, passages = (
            np.concatenate([np.empty(0, kind), *(getattr(segment, name) for segment in self._segments)])
            for name, kind in (("keys", np.uint64), ("variants", np.uint64), ("passages", np.int64))
        )
        ordered = np.sort(keys)
        twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        rows = np.flatnonzero(np.isin(keys, twice)) if len(twice) else np.empty(0, np.intp)
        rows = rows[np.lexsort((passages[rows], variants[rows], keys[rows]))]
        contents = np.empty(len(rows), np.int64)
        for segment, start in zip(self._segments, self._bases[:-1], strict=True):
            here = (rows >= start) & (rows < start + len(segment))
            contents[here] = segment.contents_of(rows[here] - start)
        return _Duplicates(rows, keys[rows], contents)


@dataclass(frozen=True, slots=True)
class _Duplicates:
    """Rows, numbered through all segments, whose text stands in the index more than once, with their keys and contents.

    Ascending by key; of each key the first comes first whatever the order in which contents came. Of those that are live, a
    view has that one alone.
    """

    rows: NDArray[np.intp]
    keys: NDArray[np.uint64]
    contents: NDArray[np.int64]

    def of(self, seen: NDArray[np.bool_]) -> _Duplicates:
        live = seen[self.rows]
        return _Duplicates(self.rows[live], self.keys[live], self.contents[live])

    def holding(self, key: np.uint64) -> NDArray[np.int64]:
        low, high = (np.searchsorted(self.keys, key, side=side) for side in ("left", "right"))
        return self.contents[low:high]


class View:
    """One set of contents: a version, perhaps filtered. Safe to share between threads."""

    def __init__(self, parts: Sequence[Live], dimensions: int, duplicates: _Duplicates) -> None:
        self._parts, self._duplicates = parts, duplicates
        self._bm25, self._vectors = Bm25(parts), VectorSearch(parts, dimensions)
        self.passages = self._bm25.rows

    def search(self, query: str, vector: NDArray[np.float32], limit: int, *, candidates: int = 100) -> list[Ranked]:
        """The best passages by both, best first. `vector` is the query's unit vector, float32 [D].

        The `candidates` nearest by vector and the `candidates` best by words are scored by both, exactly, and fused.
        """
        if limit < 1:
            return []
        count = max(candidates, limit)
        dense = self._top(*self._vectors.search(vector, count), count)[0]
        words = self._top(*self._bm25.search(query, count), count)[0]
        rows = np.union1d(dense, words)
        similarity, bm25 = self._vectors.cosines(vector, rows), self._bm25.scores(query, rows)
        order, scores = self._top(rows, fuse(similarity, bm25, self._bm25.ceiling(query)), limit)
        dense_ranks, word_ranks = ({int(r): n for n, r in enumerate(found, start=1)} for found in (dense, words))
        cosines = dict(zip(rows.tolist(), similarity.tolist(), strict=True))
        return [
            Ranked(passage, self._contents(row), score, dense_ranks.get(row), word_ranks.get(row), cosines[row])
            for passage, score, row in zip(self._passages(order), scores.tolist(), order.tolist(), strict=True)
        ]

    def _contents(self, row: int) -> tuple[int, ...]:
        """Ids of the contents that hold the text of a row."""
        part = next(each for each in self._parts if row < each.base + len(each.segment))
        local = np.array([row - part.base])
        found = self._duplicates.holding(part.segment.keys[local[0]])
        return tuple(np.unique(found if len(found) else part.segment.contents_of(local)).tolist())

    def dense(self, vector: NDArray[np.float32], limit: int, *, exact: bool = False) -> list[tuple[int, float]]:
        """(passage row id, cosine), nearest first; with `exact`, by comparing every row."""
        rows, scores = self._top(*self._vectors.search(vector, limit, exact=exact), limit)
        return list(zip(self._passages(rows), scores.tolist(), strict=True))

    def bm25(self, query: str, limit: int) -> list[tuple[int, float]]:
        """(passage row id, BM25 score), best first, of passages that hold a word of `query`."""
        rows, scores = self._top(*self._bm25.search(query, limit), limit)
        return list(zip(self._passages(rows), scores.tolist(), strict=True))

    def _top(
        self, rows: NDArray[np.int64], scores: NDArray[np.float64], limit: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The `limit` highest of ascending `rows`, highest first; equal scores by the identity of their texts."""
        order = np.lexsort((self._column("keys", rows), -scores))[: max(limit, 0)]
        return rows[order], scores[order]

    def _passages(self, rows: NDArray[np.int64]) -> list[int]:
        order = np.argsort(rows)
        found = np.empty(len(rows), dtype=np.int64)
        found[order] = self._column("passages", rows[order])
        return [int(passage) for passage in found]

    def _column(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.int64 | np.uint64]:
        """A segment's array at ascending `rows`."""
        found = [getattr(part.segment, name)[part.local(rows)[1]] for part in self._parts]
        return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def fuse(similarity: NDArray[np.float64], bm25: NDArray[np.float64], ceiling: float) -> NDArray[np.float64]:
    """The score of each candidate [n], from its exact cosine and BM25 score: higher is better, at most 1.

    `ceiling` is what no passage's BM25 score can exceed for this query, so that both parts are shares of the possible
    (Bruch, Gai and Ingber, 2023: theoretical bounds instead of those of the candidates). A passage's score depends on
    its own two scores alone, whatever else is a candidate, and never falls when one of them rises.
    """
    words = bm25 / ceiling if ceiling > 0.0 else np.zeros_like(bm25)
    return (1.0 - WORDS_WEIGHT) * similarity + WORDS_WEIGHT * words


# --- what to keep and what to join ------------------------------------------------------------------------------------


def contents_of(segments: Sequence[Segment]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, np.int64), *(s.contents for s in segments)])


def _renewed(folder: Path, source: Source, keep: NDArray[np.int64], *, forget: bool) -> list[SavedSegment]:
    """The segments of `keep` in the folder, after those that are missing were written. As `Indexes.refresh`."""
    saved, problems = index_store.read(folder, source)
    missing = np.setdiff1d(keep, contents_of([each.segment for each in saved]))
    kept = [Selection(each.segment, np.isin(each.segment.contents, keep)) for each in saved]
    stale = [not k.contents.all() and _dropped(k) >= (0.0 if forget else MOST_DROPPED) for k in kept]
    changed = len(missing) or any(stale) or problems or len(kept) > MOST_SEGMENTS
    if changed or any(index_store.leftovers(index_store.index_folder(folder), saved)):
        writer = Writer(folder, source)
        writer.clean(saved, strict=forget)  # first, for the room that a killed run's leftovers take
        if changed:
            saved = _merged(writer, list(zip(saved, kept, stale, strict=True)), _fresh(writer, source, missing))
            writer.switch(saved)
            writer.clean(saved, strict=forget)
    return saved


def _dropped(kept: Selection) -> float:
    """The share of its rows that goes; of its contents, when it has no rows."""
    return 1.0 - float((kept.rows if len(kept.segment) else kept.contents).mean())


def _whole(segment: Segment) -> Selection:
    return Selection(segment, np.ones(len(segment.contents), dtype=np.bool_))


def _fresh(writer: Writer, source: Source, missing: NDArray[np.int64]) -> list[Selection]:
    """Segments of `missing`; all but the last is put on disk, so that one is in memory at a time."""
    found: list[Selection] = []
    for segment in index_builder.build(source, map(int, missing)):
        if found:
            found[-1] = _whole(writer.write(found[-1:]).segment)
        found.append(_whole(segment))
    return found


def _merged(
    writer: Writer, old: Sequence[tuple[SavedSegment, Selection, bool]], fresh: Sequence[Selection]
) -> list[SavedSegment]:
    """The segments to switch to. One new one holds what is fresh, what is left of stale ones, and small ones.

    A segment is joined when what it is joined with has at least 1/RATIO of its rows: so each segment that stays alone
    is RATIO times as large as all smaller ones together, and a passage is copied a logarithmic number of times.
    """
    pool = [*fresh, *(kept for _, kept, is_stale in old if is_stale and kept.contents.any())]
    rows = sum(int(kept.rows.sum()) for kept in pool)
    alone = sorted((int(kept.rows.sum()), i) for i, (_, kept, is_stale) in enumerate(old) if not is_stale)
    while alone and ((pool and alone[0][0] <= RATIO * max(rows, SMALL)) or len(alone) + bool(pool) > MOST_SEGMENTS):
        size, smallest = alone.pop(0)
        pool.append(old[smallest][1])
        rows += size
    result = [old[i][0] for _, i in alone]
    return [*result, writer.write(pool)] if pool else result
