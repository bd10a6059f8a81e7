"""Vector search over the rows in scope of some segments.

Up to `EXACT_UP_TO` rows, every row is compared: exact. Above, two passes over signs choose the rows: signs of the vector (D bits a row, all
rows), then also of its rotation by a fixed matrix (D more bits), as in SimHash. Rows at the cut come all or none; cuts follow from the number of
rows at each distance, summed over shards. So the result is a function of the rows in scope, however they are divided. A similarity is that of the
stored float16 row, in float64, row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from openbook.knowledge.index.segments import RowsInScope

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Shape legend: N rows, D dimensions, W words of 64 signs.

EXACT_UP_TO = 32_768  # rows in scope; benchmarks/search_latency.py
NEAR, NEARER = 32_768, 8_192  # rows that the first and the second pass leave
_ROWS = 512  # float32 rows at a time: they stay in the cache
_SCAN = 32_768  # words of signs at a time
_OUT_OF_SCOPE = np.iinfo(np.uint16).max

Chosen: TypeAlias = "tuple[RowsInScope, NDArray[np.intp]]"  # rows of one segment


class VectorSearch:
    def __init__(self, parts: Sequence[RowsInScope], dimensions: int) -> None:
        self._parts, self._dimensions = parts, dimensions

    def signs(self, vector: NDArray[np.float32]) -> SignSearch:
        return SignSearch(self._parts, self._checked(vector))

    def search(
        self, vector: NDArray[np.float32], limit: int, among: Sequence[Chosen] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(rows, cosines) of at least the `limit` nearest `among` these, or all; unordered. `vector` is a float32 unit vector [D]."""
        vector = self._checked(vector)
        if among is None:
            masks = ((each, each.mask) for each in self._parts)
            among = [(p, np.arange(len(p.segment)) if m is None else np.flatnonzero(m)) for p, m in masks]
        if not among or limit < 1:
            return np.empty(0, np.int64), np.empty(0, np.float64)
        rough = np.concatenate([_rough(part, local, vector) for part, local in among])
        rows = np.concatenate([part.base + local.astype(np.int64) for part, local in among])
        if len(rows) > limit:
            last = np.partition(rough, len(rough) - limit)[len(rough) - limit]
            margin = np.float32(4.0 * np.finfo(np.float32).eps * (self._dimensions + 8))
            rows = rows[rough >= last - margin]
        rows = np.sort(rows)
        return rows, self.cosines(vector, rows)

    def cosines(self, vector: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The cosine of each of `rows`, which ascend: float64 [len(rows)]."""
        query = self._checked(vector).astype(np.float64)
        found = np.empty(len(rows), dtype=np.float64)
        for part in self._parts:
            where, local = part.local(rows)
            # Summed row by row: a matrix product may round a row differently among other rows.
            found[where] = (part.segment.vectors[local].astype(np.float64) * query).sum(axis=1)
        return found

    def _checked(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        vector = np.asarray(vector, dtype=np.float32)
        if vector.shape != (self._dimensions,) or not np.isfinite(vector).all():
            raise ValueError(f"a query vector must hold {self._dimensions} finite numbers, not {vector.shape}")
        return vector


class SignSearch:
    """Two passes over signs for one vector; `cut_at` decides the cuts."""

    def __init__(self, parts: Sequence[RowsInScope], vector: NDArray[np.float32]) -> None:
        self._parts, self._dimensions = parts, len(vector)
        signs, self._rotated = (s[0] for s in sign_words(vector[np.newaxis]))
        self._distances = [_distances(part, signs) for part in parts]
        self._near: tuple[int, list[tuple[RowsInScope, NDArray[np.intp], NDArray[np.uint16]]]] | None = None

    def counts(self) -> NDArray[np.int64]:
        """The number of rows that differ in 0, 1 ... D signs."""
        return _counted(self._distances, self._dimensions)

    def rotated_counts(self, cut: int) -> NDArray[np.int64]:
        """The number of rows within `cut` that differ in 0, 1 ... 2D signs, including those of the rotated vectors."""
        return _counted([both for _, _, both in self._within(cut)], 2 * self._dimensions)

    def chosen(self, cut: int, rotated_cut: int) -> list[Chosen]:
        """The rows within `cut` by signs and within `rotated_cut` by both."""
        return [(part, rows[both <= rotated_cut]) for part, rows, both in self._within(cut)]

    def _within(self, cut: int) -> list[tuple[RowsInScope, NDArray[np.intp], NDArray[np.uint16]]]:
        if self._near is None or self._near[0] != cut:
            found = []
            for part, distances in zip(self._parts, self._distances, strict=True):
                rows = np.flatnonzero(distances <= cut)
                rotated = np.bitwise_count(part.segment.rotated[rows] ^ self._rotated).sum(axis=1, dtype=np.uint16)
                found.append((part, rows, distances[rows] + rotated))
            self._near = cut, found
        return self._near[1]


def cut_at(counts: NDArray[np.int64], wanted: int) -> int:
    """The smallest distance within which `wanted` rows lie, or the greatest if there are fewer."""
    return min(int(np.searchsorted(counts.cumsum(), wanted)), len(counts) - 1)


def _counted(distances: Sequence[NDArray[np.uint16]], most: int) -> NDArray[np.int64]:
    counts = (np.bincount(d, minlength=_OUT_OF_SCOPE + 1)[: most + 1] for d in distances)
    return sum(counts, np.zeros(most + 1, np.int64))


def _distances(part: RowsInScope, signs: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Differing signs of each row: uint16 [N]; rows out of scope are farther than any."""
    rows = len(part.segment)
    found = np.zeros(rows, dtype=np.uint16)
    different, counts = np.empty(_SCAN, dtype=np.uint64), np.empty(_SCAN, dtype=np.uint8)
    for start in range(0, rows, _SCAN):
        end = min(start + _SCAN, rows)
        size = end - start
        for column, sign in zip(part.segment.signs, signs, strict=True):
            np.bitwise_xor(column[start:end], sign, out=different[:size])
            np.bitwise_count(different[:size], out=counts[:size])
            found[start:end] += counts[:size]
    if part.mask is not None:
        found[~part.mask] = _OUT_OF_SCOPE
    return found


def _rough(part: RowsInScope, rows: NDArray[np.intp], vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosines in float32: fast, and off by less than the margin of `VectorSearch.search`."""
    found = np.empty(len(rows), dtype=np.float32)
    whole = len(rows) == len(part.segment)
    for start in range(0, len(rows), _ROWS):
        chosen = slice(start, start + _ROWS) if whole else rows[start : start + _ROWS]
        found[start : start + _ROWS] = widened(part.segment.vectors[chosen]) @ vector
    return found


def widened(half: NDArray[np.float16]) -> NDArray[np.float32]:
    """float16 to float32 for finite numbers, bit by bit: several times as fast as NumPy's own conversion."""
    wide = half.view(np.int16).astype(np.int32)
    wide <<= 13
    wide &= np.int32(-0x7000_2000)  # the sign, and exponent and fraction where float32 has them: 0x8fffe000
    single: NDArray[np.float32] = wide.view(np.float32)
    single *= np.float32(2.0**112)  # the difference of the exponents' biases
    return single


def sign_words(vectors: NDArray[np.float32]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Signs of vectors [N, D] and of their rotations: uint64 [N, W] each.

    Rotation multiplies by a fixed matrix of +1 and -1, in whole numbers below 2**24, which float32 sums without rounding: signs do not depend on
    other rows.
    """
    limit = np.float32((2**24 - 1) // max(vectors.shape[1], 1))
    whole = np.clip(np.rint(vectors * np.float32(2.0**14)), -limit, limit)
    return _packed(vectors > 0), _packed(whole @ _turn(vectors.shape[1]) > 0)


@lru_cache(maxsize=4)
def _turn(dimensions: int) -> NDArray[np.float32]:
    """A matrix [D, D] of +1 and -1 from SHAKE-256, the same everywhere and forever."""
    import hashlib

    size = dimensions * dimensions
    stream = hashlib.shake_256(b"openbook signs 1").digest(-(-size // 8))
    flips = np.unpackbits(np.frombuffer(stream, dtype=np.uint8), count=size)
    matrix: NDArray[np.float32] = (flips.astype(np.float32) * 2 - 1).reshape(dimensions, dimensions)
    matrix.setflags(write=False)
    return matrix


def _packed(signs: NDArray[np.bool_]) -> NDArray[np.uint64]:
    padded = np.pad(signs, ((0, 0), (0, -signs.shape[1] % 64)))
    return np.packbits(padded, axis=1).view("<u8").reshape(len(signs), padded.shape[1] // 64)
