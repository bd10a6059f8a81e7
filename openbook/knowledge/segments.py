"""A segment: what a search reads of some contents, as arrays that are written once and then only mapped.

A segment knows nothing of versions. Segments are merged by copying; contents that nobody keeps are left out then.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from openbook.files import sync_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Shape legend: C contents, N passages (rows), T terms, P postings, D dimensions, W words of 64 bits for D signs.

FileRecord: TypeAlias = tuple[int, str, int]  # size in bytes, SHA-256, when it was written (nanoseconds)
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

    def identities(self, rows: slice) -> list[tuple[int, int, int]]:
        """(passage, key, variant) of each of `rows`."""
        columns = (self.passages[rows], self.keys[rows], self.variants[rows])
        return list(zip(*(column.tolist() for column in columns), strict=True))

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
NAMES = tuple(_TYPES)
ROW_ARRAYS = ("passages", "keys", "variants", "lengths", "vectors", "turned")  # one item for each row


# --- reading ----------------------------------------------------------------------------------------------------------


def load(folder: Path, files: Mapping[str, FileRecord], dimensions: int) -> Segment:
    """Map a saved segment read-only. Raises ValueError or OSError when its files are not of the size they had."""
    arrays: dict[str, NDArray[Any]] = {}
    for name in NAMES:
        path = folder / f"{name}.npy"
        size = files[name][0]
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


def damaged_files(folder: Path, files: Mapping[str, FileRecord]) -> list[str]:
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
class Selection:
    """A segment and which of its contents [C] are wanted."""

    segment: Segment
    contents: NDArray[np.bool_]

    @property
    def rows(self) -> NDArray[np.bool_]:
        return self.segment.rows_of(self.contents)


def merge(folder: Path, parts: Sequence[Selection]) -> dict[str, FileRecord]:
    """One new segment of the selected contents, synced to disk in `folder`, which must not exist. Its files, by array.

    What is dropped leaves nothing behind: no row, no posting, no term. Memory is bounded by blocks, not by the parts.
    """
    folder.mkdir(parents=True)
    segments, rows = [part.segment for part in parts], [part.rows for part in parts]
    total, words = sum(int(r.sum()) for r in rows), segments[0].signs.shape[0]
    contents = np.concatenate([part.segment.contents[part.contents] for part in parts])
    starts = np.concatenate([[0], *(np.diff(part.segment.starts)[part.contents] for part in parts)]).cumsum()
    saved = {"contents": _save(folder, "contents", contents.shape, [contents])}
    saved["starts"] = _save(folder, "starts", starts.shape, [starts])
    for name in ROW_ARRAYS:
        arrays: list[NDArray[Any]] = [getattr(segment, name) for segment in segments]
        saved[name] = _save(folder, name, (total, *arrays[0].shape[1:]), _selected(arrays, rows))
    signs = (block for w in range(words) for block in _selected([s.signs[w] for s in segments], rows))
    saved["signs"] = _save(folder, "signs", (words, total), signs)
    saved |= _merge_postings(folder, segments, rows)
    sync_folder(folder)
    return saved


def _selected(arrays: Sequence[NDArray[Any]], rows: Sequence[NDArray[np.bool_]]) -> Iterator[NDArray[Any]]:
    for array, chosen in zip(arrays, rows, strict=True):
        for start in range(0, len(array), _BLOCK):
            yield array[start : start + _BLOCK][chosen[start : start + _BLOCK]]


def _merge_postings(
    folder: Path, segments: Sequence[Segment], rows: Sequence[NDArray[np.bool_]]
) -> dict[str, FileRecord]:
    terms = np.unique(np.concatenate([s.terms for s in segments]))
    most = np.zeros(len(terms), dtype=np.int64)  # postings of each term, those of dropped rows included
    for segment in segments:
        most[np.searchsorted(terms, segment.terms)] += np.diff(segment.offsets)
    numbers = [chosen.cumsum() - 1 for chosen in rows]  # of each row among those that stay
    bases = np.cumsum([0, *(int(chosen.sum()) for chosen in rows)])
    sizes = np.zeros(len(terms), dtype=np.int64)
    total = sum(
        int(np.count_nonzero(chosen[segment.ordinals[at : at + _POSTINGS_BLOCK]]))
        for segment, chosen in zip(segments, rows, strict=True)
        for at in range(0, len(segment.ordinals), _POSTINGS_BLOCK)
    )
    with _ArrayFile(folder, "ordinals", (total,)) as ordinals, _ArrayFile(folder, "counts", (total,)) as counts:
        for first, last in _blocks(most):
            found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]] = []
            for segment, chosen, number, base in zip(segments, rows, numbers, bases[:-1], strict=True):
                low = np.searchsorted(segment.terms, terms[first])
                high = np.searchsorted(segment.terms, terms[last - 1], side="right")
                where = slice(int(segment.offsets[low]), int(segment.offsets[high]))
                owners = np.repeat(
                    np.searchsorted(terms, segment.terms[low:high]), np.diff(segment.offsets[low : high + 1])
                )
                stays = chosen[segment.ordinals[where]]
                kept = segment.ordinals[where][stays]
                found.append((owners[stays], number[kept] + base, segment.counts[where][stays]))
            owner, ordinal, count = (np.concatenate(column) for column in zip(*found, strict=True))
            order = np.argsort(owner, kind="stable")  # segment by segment, so rows ascend within a term
            ordinals.append(ordinal[order])
            counts.append(count[order])
            sizes += np.bincount(owner, minlength=len(terms))
    offsets = np.concatenate([[0], sizes[sizes > 0].cumsum()])
    return {
        "terms": _save(folder, "terms", (len(offsets) - 1,), [terms[sizes > 0]]),
        "offsets": _save(folder, "offsets", offsets.shape, [offsets]),
        "ordinals": ordinals.record(),
        "counts": counts.record(),
    }


def _blocks(sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of terms with at most _POSTINGS_BLOCK postings together, or one term."""
    ends, first = sizes.cumsum(), 0
    while first < len(sizes):
        before = int(ends[first] - sizes[first])
        last = max(int(np.searchsorted(ends, before + _POSTINGS_BLOCK, side="right")), first + 1)
        yield first, last
        first = last


class _ArrayFile:
    """A .npy file that is written from start to end; its digest is taken on the way."""

    def __init__(self, folder: Path, name: str, shape: tuple[int, ...]) -> None:
        self._path, self._dtype = folder / f"{name}.npy", np.dtype(_TYPES[name])
        self._sha256, self._stream = hashlib.sha256(), self._path.open("xb")
        shape = tuple(map(int, shape))
        np.lib.format.write_array_header_1_0(self, {"descr": _TYPES[name], "fortran_order": False, "shape": shape})

    def append(self, block: NDArray[Any]) -> None:
        self.write(np.ascontiguousarray(block, dtype=self._dtype).tobytes())

    def write(self, data: bytes) -> None:
        self._stream.write(data)
        self._sha256.update(data)

    def record(self) -> FileRecord:
        status = self._path.stat()
        return status.st_size, self._sha256.hexdigest(), status.st_mtime_ns

    def __enter__(self) -> _ArrayFile:
        return self

    def __exit__(self, *error: object) -> None:
        with self._stream:
            self._stream.flush()
            os.fsync(self._stream.fileno())


def _save(folder: Path, name: str, shape: tuple[int, ...], blocks: Iterable[NDArray[Any]]) -> FileRecord:
    with _ArrayFile(folder, name, shape) as array:
        for block in blocks:
            array.append(block)
    return array.record()
