"""A segment: the search data of some contents, as arrays that are written once and then only mapped.

It knows no versions. Merging copies segments without dropped contents. A run of its contents is searchable as a segment, without copying.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Shape legend: C contents, N passages (rows), T terms, P postings, D dimensions, W words of 64 bits for D signs; a small letter is one more.

# The type and the shape of each array, in the order in which they are saved.
LAYOUT: dict[str, tuple[str, str]] = {
    "contents": ("<i8", "C"),
    "starts": ("<i8", "c"),
    "passages": ("<i8", "N"),
    "keys": ("<u8", "N"),
    "variants": ("<u8", "N"),
    "lengths": ("<u2", "N"),
    "terms": ("<u8", "T"),
    "offsets": ("<i8", "t"),
    "ordinals": ("<u4", "P"),
    "counts": ("|u1", "P"),
    "vectors": ("<f2", "ND"),
    "signs": ("<u8", "WN"),
    "rotated": ("<u8", "NW"),
}
_BY_ROW = [name for name, (_, letters) in LAYOUT.items() if letters[0] == "N"]
_BLOCK = 1 << 16  # rows copied at a time
_POSTINGS_BLOCK = 1 << 22

# Arrays to save, by name, with their shapes; then blocks, each with the next part of every array.
Saving: TypeAlias = "tuple[dict[str, tuple[int, ...]], Iterable[tuple[NDArray[Any], ...]]]"


class PassageIdentity(NamedTuple):
    """A passage's row id, the first 8 bytes of its text's identity, and a `variant` that tells headings apart."""

    passage: int
    key: int
    variant: int


@dataclass(frozen=True, slots=True)
class Segment:
    """Row r is one passage; the rows of `contents[c]` are `starts[c]:starts[c + 1]`."""

    contents: NDArray[np.int64]  # ids in the database
    starts: NDArray[np.int64]
    passages: NDArray[np.int64]  # this, keys and variants: see PassageIdentity
    keys: NDArray[np.uint64]
    variants: NDArray[np.uint64]
    lengths: NDArray[np.uint16]  # in words
    terms: NDArray[np.uint64]  # ascending
    offsets: NDArray[np.int64]  # postings of term t are offsets[t]:offsets[t + 1]
    ordinals: NDArray[np.uint32]  # rows, ascending within a term
    counts: NDArray[np.uint8]  # term counts in the rows, 255 at most
    vectors: NDArray[np.float16]
    signs: NDArray[np.uint64]  # of the vectors, by word: all rows of the first, then of the next
    rotated: NDArray[np.uint64]  # signs of the rotated vectors
    run: slice | None = None  # for a part: its rows in the whole segment, as `ordinals` count

    def __len__(self) -> int:
        return len(self.passages)

    def rows_of(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """True for the rows of `chosen` contents [C]: bool [N]."""
        return np.repeat(chosen, np.diff(self.starts))

    def contents_of_rows(self, rows: NDArray[np.intp] | NDArray[np.uint32]) -> NDArray[np.int64]:
        return self.contents[np.searchsorted(self.starts, rows, side="right") - 1]

    def passage_identities(self, at: int) -> list[PassageIdentity]:
        rows = slice(int(self.starts[at]), int(self.starts[at + 1]))
        columns = (self.passages[rows], self.keys[rows], self.variants[rows])
        return [PassageIdentity(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]

    def postings(self, term: int) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
        """(rows with the term, ascending; its counts in them)."""
        at = int(np.searchsorted(self.terms, np.uint64(term)))
        if at == len(self.terms) or int(self.terms[at]) != term:
            return self.ordinals[:0], self.counts[:0]
        where = slice(int(self.offsets[at]), int(self.offsets[at + 1]))
        if self.run is None:
            return self.ordinals[where], self.counts[where]
        low, high = np.searchsorted(self.ordinals[where], np.array([self.run.start, self.run.stop], dtype=np.uint32))
        where = slice(where.start + int(low), where.start + int(high))
        return self.ordinals[where] - np.uint32(self.run.start), self.counts[where]

    def run_of(self, first: int, last: int) -> Segment:
        """The contents [first, last) of a whole segment, as a segment that shares its memory."""
        if (first, last) == (0, len(self.contents)):
            return self
        run = slice(int(self.starts[first]), int(self.starts[last]))
        of_rows = {name: getattr(self, name)[run] for name in _BY_ROW}
        return replace(
            self,
            contents=self.contents[first:last],
            starts=self.starts[first : last + 1] - run.start,
            signs=self.signs[:, run],
            run=run,
            **of_rows,
        )

    def check(self, dimensions: int) -> None:
        sizes = {"C": len(self.starts) - 1, "N": len(self.passages), "T": len(self.offsets) - 1}
        sizes |= {"P": len(self.ordinals), "D": dimensions, "W": -(-dimensions // 64)}
        sizes |= {"c": len(self.starts), "t": len(self.offsets)}
        for name, (kind, letters) in LAYOUT.items():
            array: NDArray[Any] = getattr(self, name)
            if array.dtype != np.dtype(kind) or array.shape != tuple(sizes[letter] for letter in letters):
                raise ValueError(f"{name} has the type {array.dtype} and the shape {array.shape}")
        if int(self.starts[-1]) != sizes["N"] or int(self.offsets[-1]) != sizes["P"]:
            raise ValueError("the spans do not fit the rows")


def contents_of(segments: Iterable[Segment]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, np.int64), *(segment.contents for segment in segments)])


@dataclass(frozen=True, slots=True)
class RowsInScope:
    """The rows of a segment in one view: `mask` [N], None for all. Row r is row `base + r` of the view."""

    segment: Segment
    mask: NDArray[np.bool_] | None
    base: int

    @property
    def count(self) -> int:
        return len(self.segment) if self.mask is None else int(np.count_nonzero(self.mask))

    def local(self, rows: NDArray[np.int64]) -> tuple[slice, NDArray[np.uint32]]:
        """(place of this segment's rows in the view's ascending `rows`, their numbers in the segment)."""
        low, high = np.searchsorted(rows, (self.base, self.base + len(self.segment)))
        return slice(int(low), int(high)), (rows[low:high] - self.base).astype(np.uint32)


@dataclass(frozen=True, slots=True)
class Selection:
    segment: Segment
    contents: NDArray[np.bool_]

    @property
    def rows(self) -> NDArray[np.bool_]:
        return self.segment.rows_of(self.contents)


def merge(parts: Sequence[Selection]) -> Iterator[Saving]:
    """The arrays of a new segment of the selected contents, in order. Read all blocks of one item before the next.

    Dropped contents leave no row, posting or term. Memory is bounded by blocks.
    """
    segments, rows = [part.segment for part in parts], [part.rows for part in parts]
    total, words = sum(int(r.sum()) for r in rows), segments[0].signs.shape[0]
    contents = np.concatenate([part.segment.contents[part.contents] for part in parts])
    starts = np.concatenate([[0], *(np.diff(part.segment.starts)[part.contents] for part in parts)]).cumsum()
    yield {"contents": contents.shape}, [(contents,)]
    yield {"starts": starts.shape}, [(starts,)]
    for name in _BY_ROW:
        arrays: list[NDArray[Any]] = [getattr(segment, name) for segment in segments]
        yield {name: (total, *arrays[0].shape[1:])}, _selected(arrays, rows)
    signs = (block for w in range(words) for block in _selected([s.signs[w] for s in segments], rows))
    yield {"signs": (words, total)}, signs
    yield from _merge_postings(segments, rows)


def _selected(arrays: Sequence[NDArray[Any]], rows: Sequence[NDArray[np.bool_]]) -> Iterator[tuple[NDArray[Any]]]:
    for array, chosen in zip(arrays, rows, strict=True):
        for start in range(0, len(array), _BLOCK):
            yield (array[start : start + _BLOCK][chosen[start : start + _BLOCK]],)


def _merge_postings(segments: Sequence[Segment], rows: Sequence[NDArray[np.bool_]]) -> Iterator[Saving]:
    terms = np.unique(np.concatenate([s.terms for s in segments]))
    most = np.zeros(len(terms), dtype=np.int64)  # postings of each term, those of dropped rows included
    for segment in segments:
        most[np.searchsorted(terms, segment.terms)] += np.diff(segment.offsets)
    bases = np.cumsum([0, *(int(chosen.sum()) for chosen in rows)])
    numbers = [chosen.cumsum() - 1 + base for chosen, base in zip(rows, bases[:-1], strict=True)]  # of rows that stay
    sizes = np.zeros(len(terms), dtype=np.int64)

    def blocks() -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        for first, last in _blocks(most):
            found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]] = []
            for segment, chosen, number in zip(segments, rows, numbers, strict=True):
                low = np.searchsorted(segment.terms, terms[first])
                high = np.searchsorted(segment.terms, terms[last - 1], side="right")
                where = slice(int(segment.offsets[low]), int(segment.offsets[high]))
                of_term = np.searchsorted(terms, segment.terms[low:high])
                owners = np.repeat(of_term, np.diff(segment.offsets[low : high + 1]))
                stays = chosen[segment.ordinals[where]]
                kept = segment.ordinals[where][stays]
                found.append((owners[stays], number[kept], segment.counts[where][stays]))
            owner, ordinal, count = (np.concatenate(column) for column in zip(*found, strict=True))
            order = np.argsort(owner, kind="stable")  # segment by segment, so rows ascend within a term
            sizes[:] += np.bincount(owner, minlength=len(terms))
            yield ordinal[order], count[order]

    total = sum(
        int(np.count_nonzero(chosen[segment.ordinals[at : at + _POSTINGS_BLOCK]]))
        for segment, chosen in zip(segments, rows, strict=True)
        for at in range(0, len(segment.ordinals), _POSTINGS_BLOCK)
    )
    yield {"ordinals": (total,), "counts": (total,)}, blocks()
    offsets = np.concatenate([[0], sizes[sizes > 0].cumsum()])
    yield {"terms": (len(offsets) - 1,)}, [(terms[sizes > 0],)]
    yield {"offsets": offsets.shape}, [(offsets,)]


def _blocks(sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of terms with at most _POSTINGS_BLOCK postings together, or one term."""
    ends, first = sizes.cumsum(), 0
    while first < len(sizes):
        before = int(ends[first] - sizes[first])
        last = max(int(np.searchsorted(ends, before + _POSTINGS_BLOCK, side="right")), first + 1)
        yield first, last
        first = last
