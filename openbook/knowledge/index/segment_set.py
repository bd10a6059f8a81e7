"""The derived index: segments of contents, and the parts of them that a search in some version reads.

It knows no versions: a version is a set of contents, which never change. Results are a function of that set alone, not of the segments, the order
of arrival, or other kept contents.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from openbook.knowledge.index import segment_builder, segment_files
from openbook.knowledge.index.search import Duplicates, Shard
from openbook.knowledge.index.segment_builder import IndexSource
from openbook.knowledge.index.segment_files import SavedSegment, SegmentWriter
from openbook.knowledge.index.segments import RowsInScope, Segment, Selection, contents_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

RATIO = 4  # a segment joins a new one that has at least 1/RATIO of its rows
SMALL = 1_024  # rows; smaller segments count as this
MAX_SEGMENTS = 8
MAX_DROPPED = 0.25  # of a segment's rows, before it is rewritten without them


class SegmentSet:
    """Opened segments: immutable and thread-safe."""

    def __init__(self, segments: Sequence[Segment], dimensions: int) -> None:
        """No content is in two of the segments."""
        self._segments, self._dimensions = tuple(segments), dimensions
        self._bases = np.cumsum([0, *map(len, segments)]).tolist()

    @classmethod
    def open(
        cls, folder: Path, source: IndexSource, wanted: NDArray[np.int64], *, every_byte: bool = False
    ) -> SegmentSet:
        """The saved segments of `source`; other contents of `wanted` are indexed in memory. `every_byte`: see `segment_files.read`."""
        found = [each.segment for each in segment_files.read(folder, source, every_byte=every_byte)[0]]
        missing = np.setdiff1d(wanted, contents_of(found))
        return cls([*found, *segment_builder.build(source, map(int, missing))], source.dimensions)

    @classmethod
    def refresh(cls, folder: Path, source: IndexSource, keep: NDArray[np.int64], *, forget: bool = False) -> SegmentSet:
        """Save the missing contents of `keep`, rewrite segments with many others; `forget` deletes all first. Needs the write lock. Raises OSError."""
        if forget:
            segment_files.delete_index(folder)
        return cls([each.segment for each in _renewed(folder, source, keep)], source.dimensions)

    def contents(self) -> NDArray[np.int64]:
        return np.unique(contents_of(self._segments))

    def shard(self, in_scope: NDArray[np.int64], number: int = 0, shards: int = 1) -> Shard:
        """The rows of the contents `in_scope` for shard `number` (from 0) of `shards`. Raises ValueError when one is not indexed.

        Contents are divided by id, in runs of nearly equal rows: a function of `in_scope` alone, so shards whose segments differ miss no row and
        have none twice.
        """
        if len(lacking := np.setdiff1d(in_scope, contents_of(self._segments))):
            raise ValueError(f"{len(lacking)} of {len(in_scope)} contents are not indexed")
        duplicates = self._duplicates.among(in_scope)
        unseen = duplicates.rows[1:][duplicates.keys[1:] == duplicates.keys[:-1]]
        share = in_scope if shards == 1 else self._share(in_scope, number, shards)
        rows: list[RowsInScope] = []
        for segment, base in zip(self._segments, self._bases[:-1], strict=True):
            wanted = np.isin(segment.contents, share)
            if not wanted.any():
                continue
            first, last = int(wanted.argmax()), len(wanted) - int(wanted[::-1].argmax())
            run, base = segment.run_of(first, last), base + int(segment.starts[first])
            mask = run.rows_of(wanted[first:last])
            mask[unseen[(unseen >= base) & (unseen < base + len(run))] - base] = False
            if mask.any():
                rows.append(RowsInScope(run, None if mask.all() else mask, base))
        return Shard(rows, self._dimensions, duplicates)

    def _share(self, in_scope: NDArray[np.int64], number: int, shards: int) -> NDArray[np.int64]:
        contents = contents_of(self._segments)
        sizes = np.concatenate([np.empty(0, np.int64), *(np.diff(segment.starts) for segment in self._segments)])
        order = np.argsort(contents)
        sizes = sizes[order][np.searchsorted(contents, in_scope, sorter=order)]
        ends = np.cumsum(sizes)
        share: NDArray[np.int64] = in_scope[(ends - sizes) * shards // max(int(sizes.sum()), 1) == number]
        return share

    @cached_property
    def _duplicates(self) -> Duplicates:
        keys, variants, passages = (
            np.concatenate([np.empty(0, kind), *(getattr(segment, name) for segment in self._segments)])
            for name, kind in (("keys", np.uint64), ("variants", np.uint64), ("passages", np.int64))
        )
        ordered = np.sort(keys)
        twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        rows = np.flatnonzero(np.isin(keys, twice))
        rows = rows[np.lexsort((passages[rows], variants[rows], keys[rows]))]
        contents = np.empty(len(rows), np.int64)
        for segment, start in zip(self._segments, self._bases[:-1], strict=True):
            here = (rows >= start) & (rows < start + len(segment))
            contents[here] = segment.contents_of_rows(rows[here] - start)
        return Duplicates(rows, keys[rows], contents)


def _renewed(folder: Path, source: IndexSource, keep: NDArray[np.int64]) -> list[SavedSegment]:
    saved, problems = segment_files.read(folder, source)
    missing = np.setdiff1d(keep, contents_of(each.segment for each in saved))
    kept = [Selection(each.segment, np.isin(each.segment.contents, keep)) for each in saved]
    shares = [float((each.rows if len(each.segment) else each.contents).mean()) for each in kept]
    stale = [not each.contents.all() and 1 - share >= MAX_DROPPED for each, share in zip(kept, shares, strict=True)]
    changed = len(missing) or any(stale) or problems or len(kept) > MAX_SEGMENTS
    writer = SegmentWriter(folder, source)
    writer.clean(saved)  # first, to free the space of a killed run
    if changed:
        saved = _merged(writer, list(zip(saved, kept, stale, strict=True)), _fresh(writer, source, missing))
        writer.switch(saved)
        writer.clean(saved)
    return saved


def _whole(segment: Segment) -> Selection:
    return Selection(segment, np.ones(len(segment.contents), dtype=np.bool_))


def _fresh(writer: SegmentWriter, source: IndexSource, missing: NDArray[np.int64]) -> list[Selection]:
    """Segments of `missing`, all but the last on disk: one is in memory at a time."""
    found: list[Selection] = []
    for segment in segment_builder.build(source, map(int, missing)):
        if found:
            found[-1] = _whole(writer.write(found[-1:]).segment)
        found.append(_whole(segment))
    return found


def _merged(
    writer: SegmentWriter, old: Sequence[tuple[SavedSegment, Selection, bool]], fresh: Sequence[Selection]
) -> list[SavedSegment]:
    """The segments to switch to. A new one joins fresh ones, the rest of stale ones, and small ones.

    A lone segment is RATIO times as large as all smaller ones together, so a passage is copied a logarithmic number of times.
    """
    pool = [*fresh, *(kept for _, kept, is_stale in old if is_stale and kept.contents.any())]
    rows = sum(int(kept.rows.sum()) for kept in pool)
    alone = sorted((int(kept.rows.sum()), i) for i, (_, kept, is_stale) in enumerate(old) if not is_stale)
    while alone and ((pool and alone[0][0] <= RATIO * max(rows, SMALL)) or len(alone) + bool(pool) > MAX_SEGMENTS):
        size, smallest = alone.pop(0)
        pool.append(old[smallest][1])
        rows += size
    # So that a shard's share is one run of rows.
    pool.sort(key=lambda each: int(each.segment.contents[each.contents][0]))
    result = [old[i][0] for _, i in alone]
    return [*result, writer.write(pool)] if pool else result
