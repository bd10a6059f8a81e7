"""Segments: the facts about some contents that a search reads, as arrays that are written once and then only mapped.

A segment says nothing about versions. Two segments are joined by copying; contents that nobody keeps are left out then.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Shape legend: C contents, N passages (rows), T terms, P postings, D dimensions, W words of 64 bits for D signs.

FileFacts: TypeAlias = tuple[int, str]  # size in bytes, SHA-256
_MAPPED_FROM = 65_536  # bytes; smaller files are read, which is faster and holds no file open
_BLOCK = 1 << 16  # rows copied at a time
_POSTINGS_BLOCK = 1 << 22


@dataclass(frozen=True, slots=True)
class Segment:
    """Row r is one passage; the rows of `contents[c]` are `starts[c]:starts[c + 1]`."""

    contents: NDArray[np.int64]  # [C]
    starts: NDArray[np.int64]  # [C + 1]
    passages: NDArray[np.int64]  # [N] row ids in SQLite
    keys: NDArray[np.uint64]  # [N] the first 8 bytes of the passage's text identity
    variants: NDArray[np.uint64]  # [N] tells equal texts under different headings apart
    lengths: NDArray[np.uint16]  # [N] words
    terms: NDArray[np.uint64]  # [T] ascending
    offsets: NDArray[np.int64]  # [T + 1] postings of term t are offsets[t]:offsets[t + 1]
    ordinals: NDArray[np.uint32]  # [P] rows, ascending within a term
    counts: NDArray[np.uint8]  # [P] how often the row holds the term, 255 at most
    vectors: NDArray[np.float16]  # [N, D]
    signs: NDArray[np.uint64]  # [W, N] signs of the vectors, one word of all rows after the other
    turned: NDArray[np.uint64]  # [N, W] signs of the turned vectors

    def __len__(self) -> int:
        return len(self.passages)

    def rows_of(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """For each row, whether its content is `chosen` [C]: bool [N]."""
        return np.repeat(chosen, np.diff(self.starts))

    def contents_of(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """The content of each of `rows`."""
        return self.contents[np.searchsorted(self.starts, rows, side="right") - 1]

    def postings(self, term: int) -> slice:
        at = int(np.searchsorted(self.terms, np.uint64(term)))
        if at == len(self.terms) or int(self.terms[at]) != term:
            return slice(0, 0)
        return slice(int(self.offsets[at]), int(self.offsets[at + 1]))


@dataclass(frozen=True, slots=True)
class Live:
    """The rows of a segment that one view sees: `mask` [N], None for all. Row r is row `base + r` of the view."""

    segment: Segment
    mask: NDArray[np.bool_] | None
    base: int

    @property
    def count(self) -> int:
        return len(self.segment) if self.mask is None else int(np.count_nonzero(self.mask))

    def local(self, rows: NDArray[np.int64]) -> tuple[slice, NDArray[np.uint32]]:
        """Which of the view's ascending `rows` are of this segment, and their numbers in it."""
        low, high = np.searchsorted(rows, (self.base, self.base + len(self.segment)))
        return slice(int(low), int(high)), (rows[low:high] - self.base).astype(np.uint32)


_TYPES: dict[str, str] = {
    "contents": "<i8",
    "starts": "<i8",
    "passages": "<i8",
    "keys": "<u8",
    "variants": "<u8",
    "lengths": "<u2",
    "terms": "<u8",
    "offsets": "<i8",
    "ordinals": "<u4",
    "counts": "|u1",
    "vectors": "<f2",
    "signs": "<u8",
    "turned": "<u8",
}
NAMES = tuple(field.name for field in fields(Segment))


# --- reading ----------------------------------------------------------------------------------------------------------


def load(folder: Path, files: Mapping[str, FileFacts], dimensions: int) -> Segment:
    """Map a saved segment read-only. Raises ValueError or OSError when its files are not of the size they had."""
    arrays: dict[str, NDArray[Any]] = {}
    for name in NAMES:
        path = folder / f"{name}.npy"
        size, _ = files[name]
        if path.is_symlink() or not path.is_file() or path.stat().st_size != size:
            raise ValueError(f"{path} is not the file that was written")
        mode: Any = "r" if size >= _MAPPED_FROM else None
        arrays[name] = np.asarray(np.load(path, mmap_mode=mode, allow_pickle=False))
    segment = Segment(**arrays)
    _check_shapes(segment, dimensions)
    return segment


def _check_shapes(segment: Segment, dimensions: int) -> None:
    rows, words = len(segment.passages), -(-dimensions // 64)
    shapes: dict[str, tuple[int, ...]] = {
        "contents": (len(segment.starts) - 1,),
        "terms": (len(segment.offsets) - 1,),
        "counts": segment.ordinals.shape,
        "vectors": (rows, dimensions),
        "signs": (words, rows),
        "turned": (rows, words),
    } | dict.fromkeys(("passages", "keys", "variants", "lengths"), (rows,))
    for name in NAMES:
        array: NDArray[Any] = getattr(segment, name)
        if array.dtype != np.dtype(_TYPES[name]) or array.shape != shapes.get(name, array.shape):
            raise ValueError(f"{name} has the type {array.dtype} and the shape {array.shape}")
    if int(segment.starts[-1]) != rows or int(segment.offsets[-1]) != len(segment.ordinals):
        raise ValueError("the spans do not fit the rows")


def damaged_files(folder: Path, files: Mapping[str, FileFacts]) -> list[str]:
    """Names of the files in `folder` whose bytes are not those that were written."""
    return [name for name in NAMES if _digest(folder / f"{name}.npy") != files[name][1]]


def _digest(path: Path) -> str:
    if not path.is_file():  # a named pipe would wait for ever
        return ""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""


# --- writing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kept:
    """A segment and which of its contents [C] are wanted."""

    segment: Segment
    contents: NDArray[np.bool_]

    @property
    def rows(self) -> NDArray[np.bool_]:
        return self.segment.rows_of(self.contents)


def write(folder: Path, parts: Sequence[Kept]) -> dict[str, FileFacts]:
    """One new segment of the kept contents of `parts`, synced to disk in `folder`, which must not exist.

    What is dropped leaves nothing behind: no row, no posting, no term. Memory is bounded by blocks, not by the parts.
    """
    folder.mkdir(parents=True)
    facts: dict[str, FileFacts] = {}
    rows = [part.rows for part in parts]
    total, contents = sum(int(r.sum()) for r in rows), sum(int(part.contents.sum()) for part in parts)
    counted = [np.diff(part.segment.starts)[part.contents] for part in parts]
    starts = np.concatenate([np.zeros(1, np.int64), *counted]).cumsum()
    facts["contents"] = _save(folder, "contents", (contents,), (part.segment.contents[part.contents] for part in parts))
    facts["starts"] = _save(folder, "starts", starts.shape, [starts])
    for name in ("passages", "keys", "variants", "lengths", "vectors", "turned"):
        arrays: list[NDArray[Any]] = [getattr(part.segment, name) for part in parts]
        facts[name] = _save(folder, name, (total, *arrays[0].shape[1:]), _blocks(arrays, rows))
    words = parts[0].segment.signs.shape[0]
    signs = (block for w in range(words) for block in _blocks([part.segment.signs[w] for part in parts], rows))
    facts["signs"] = _save(folder, "signs", (words, total), signs)
    facts |= _save_postings(folder, [part.segment for part in parts], rows)
    _sync_folder(folder)
    return facts


def _blocks(arrays: Sequence[NDArray[Any]], rows: Sequence[NDArray[np.bool_]]) -> Iterator[NDArray[Any]]:
    for array, kept in zip(arrays, rows, strict=True):
        for start in range(0, len(array), _BLOCK):
            yield array[start : start + _BLOCK][kept[start : start + _BLOCK]]


def _save_postings(
    folder: Path, segments: Sequence[Segment], rows: Sequence[NDArray[np.bool_]]
) -> dict[str, FileFacts]:
    kept = [_kept_per_term(s, r) for s, r in zip(segments, rows, strict=True)]
    terms = np.unique(np.concatenate([s.terms[k > 0] for s, k in zip(segments, kept, strict=True)]))
    totals = np.zeros(len(terms), dtype=np.int64)
    for segment, counts in zip(segments, kept, strict=True):
        totals[np.searchsorted(terms, segment.terms[counts > 0])] += counts[counts > 0]
    offsets = np.concatenate([np.zeros(1, np.int64), totals.cumsum()])
    facts = {
        "terms": _save(folder, "terms", terms.shape, [terms]),
        "offsets": _save(folder, "offsets", offsets.shape, [offsets]),
    }
    shape = (int(offsets[-1]),)
    with _Array(folder, "ordinals", shape) as ordinals, _Array(folder, "counts", shape) as counts_file:
        for first, last in _term_blocks(offsets):
            block = _merge_terms(segments, rows, terms[first:last], offsets[first : last + 1])
            ordinals.append(block[0])
            counts_file.append(block[1])
    return facts | {"ordinals": ordinals.facts(), "counts": counts_file.facts()}


def _kept_per_term(segment: Segment, rows: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many postings of each term stay: int64 [T]."""
    if rows.all():
        return np.diff(segment.offsets)
    kept = np.zeros(len(segment.terms), dtype=np.int64)
    for first, last in _term_blocks(segment.offsets):
        start, end = int(segment.offsets[first]), int(segment.offsets[last])
        flags = rows[segment.ordinals[start:end]].astype(np.int64)
        kept[first:last] = np.add.reduceat(flags, segment.offsets[first:last] - start)  # no term is without postings
    return kept


def _term_blocks(offsets: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of terms with about _POSTINGS_BLOCK postings, or one term."""
    first, terms = 0, len(offsets) - 1
    while first < terms:
        last = int(np.searchsorted(offsets, offsets[first] + _POSTINGS_BLOCK, side="right")) - 1
        last = min(max(last, first + 1), terms)
        yield first, last
        first = last


def _merge_terms(
    segments: Sequence[Segment],
    rows: Sequence[NDArray[np.bool_]],
    terms: NDArray[np.uint64],
    offsets: NDArray[np.int64],
) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """(ordinals, counts) of all postings of `terms`, one after another; rows count on from segment to segment."""
    size = int(offsets[-1] - offsets[0])
    ordinals, counts = np.empty(size, dtype=np.uint32), np.empty(size, dtype=np.uint8)
    cursor, base = offsets[:-1] - offsets[0], 0
    for segment, kept in zip(segments, rows, strict=True):
        low, high = np.searchsorted(segment.terms, terms[0]), np.searchsorted(segment.terms, terms[-1], side="right")
        start, end = int(segment.offsets[low]), int(segment.offsets[high])
        found = segment.ordinals[start:end]
        stays = kept[found]
        owner = np.repeat(np.arange(low, high), np.diff(segment.offsets[low : high + 1]))[stays]
        owner = np.searchsorted(terms, segment.terms[low:high])[owner - low]
        lengths = np.bincount(owner, minlength=len(terms))
        places = np.arange(len(owner)) - np.repeat(lengths.cumsum() - lengths, lengths) + cursor[owner]
        ordinals[places] = (kept.cumsum() - 1)[found[stays]] + base
        counts[places] = segment.counts[start:end][stays]
        cursor += lengths
        base += int(kept.sum())
    return ordinals, counts


class _Array:
    """A .npy file written from start to end, with its digest taken on the way."""

    def __init__(self, folder: Path, name: str, shape: tuple[int, ...]) -> None:
        self._stream = (folder / f"{name}.npy").open("xb")
        self._sha256, self._size, self._dtype = hashlib.sha256(), 0, np.dtype(_TYPES[name])
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": _TYPES[name], "fortran_order": False, "shape": tuple(map(int, shape))}
        )
        self._put(header.getvalue())

    def append(self, block: NDArray[Any]) -> None:
        self._put(np.ascontiguousarray(block, dtype=self._dtype).tobytes())

    def _put(self, data: bytes) -> None:
        self._stream.write(data)
        self._sha256.update(data)
        self._size += len(data)

    def facts(self) -> FileFacts:
        return self._size, self._sha256.hexdigest()

    def __enter__(self) -> _Array:
        return self

    def __exit__(self, *error: object) -> None:
        with self._stream:
            self._stream.flush()
            os.fsync(self._stream.fileno())


def _save(folder: Path, name: str, shape: tuple[int, ...], blocks: Iterable[NDArray[Any]]) -> FileFacts:
    with _Array(folder, name, shape) as array:
        for block in blocks:
            array.append(block)
    return array.facts()


def _sync_folder(folder: Path) -> None:
    from openbook.files import sync_folder

    sync_folder(folder)
