"""BM25 over the rows in scope of some segments: exact, and a function of those rows alone.

Scores follow Lucene: idf = log(1 + (N - df + 0.5) / (df + 0.5)), times tf / (tf + k1 * (1 - b + b * length / average)). N, df and the average
count rows in scope only, so a version scores as if alone: whole numbers, summed over all shards before scoring. MaxScore (Turtle and Flood, 1995)
skips rows of common words that cannot reach the best, in float32 with a margin. What it finds is scored again in float64, in a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from openbook.knowledge.index.segments import RowsInScope

if TYPE_CHECKING:
    from numpy.typing import NDArray

K1, B = 1.2, 0.75  # the usual values; others were within 0.004 nDCG on training queries (benchmarks/fusion.py)
_MARGIN = np.float32(1.0 - 1e-4)  # float32 sums of 256 terms err by less


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts over rows in scope: rows, words, and rows of each query term."""

    rows: int
    words: int
    frequencies: dict[int, int]

    @classmethod
    def total(cls, parts: Sequence[Statistics]) -> Statistics:
        frequencies = {term: sum(part.frequencies[term] for part in parts) for term in parts[0].frequencies}
        return cls(sum(part.rows for part in parts), sum(part.words for part in parts), frequencies)

    def weights(self, terms: dict[int, int]) -> Weights:
        """Weights of `terms`, a count in the query each. Terms of no row in scope have none."""
        found: dict[int, float] = {}
        for term, times in terms.items():
            if frequency := self.frequencies[term]:
                found[term] = times * math.log(1.0 + (self.rows - frequency + 0.5) / (frequency + 0.5))
        return Weights(self.words / self.rows if self.words else 1.0, found)


@dataclass(frozen=True, slots=True)
class Weights:
    """The average length in words, and for each term idf times its count in the query. Sums go in the order of `terms`."""

    average: float
    terms: dict[int, float]

    @property
    def ceiling(self) -> float:
        return math.fsum(self.terms.values())


@dataclass(frozen=True, slots=True)
class _PostingList:
    weight: float
    ordinals: NDArray[np.uint32]
    counts: NDArray[np.uint8]


class Bm25:
    """BM25 of some rows. Thread-safe: caches depend on the segments and the last average length alone."""

    def __init__(self, parts: Sequence[RowsInScope]) -> None:
        self._parts = parts
        self._frequencies: dict[int, int] = {}
        self.rows = sum(part.count for part in parts)
        lengths = (each.segment.lengths if each.mask is None else each.segment.lengths[each.mask] for each in parts)
        self.words = sum(int(each.sum(dtype=np.int64)) for each in lengths)
        self._norms: dict[int, tuple[float, NDArray[np.float32]]] = {}

    def statistics(self, terms: Iterable[int]) -> Statistics:
        return Statistics(self.rows, self.words, {term: self._frequency(term) for term in terms})

    def search(self, weights: Weights, limit: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(rows, scores) of at least the `limit` best with a score above 0, and of all that equal the last. Unordered."""
        if not weights.terms or limit < 1:
            return np.empty(0, np.int64), np.empty(0, np.float64)
        floor = np.float32(0.0)
        found: list[tuple[int, NDArray[np.uint32], NDArray[np.float32]]] = []
        for number in sorted(range(len(self._parts)), key=lambda i: -len(self._parts[i].segment)):
            lists = _posting_lists(self._parts[number], weights)
            rows, scores, floor = _best(lists, self._norm(number, weights.average), limit, floor)
            found.append((self._parts[number].base, rows, scores))
        kept = [base + rows[scores >= floor * _MARGIN].astype(np.int64) for base, rows, scores in found]
        chosen = np.sort(np.concatenate(kept)) if kept else np.empty(0, np.int64)
        return chosen, self.scores(weights, chosen)

    def scores(self, weights: Weights, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The exact score of each of `rows`, which ascend: float64 [len(rows)]."""
        total = np.zeros(len(rows), dtype=np.float64)
        for part in self._parts:
            where, local = part.local(rows)
            if not len(local):
                continue
            lengths = part.segment.lengths[local].astype(np.float64)
            norms = K1 * (1.0 - B + B * lengths / weights.average)
            for each in _posting_lists(part, weights):
                count = _counts_at(each, local).astype(np.float64)
                total[where] += each.weight * (count / (count + norms))
        return total

    def _frequency(self, term: int) -> int:
        found = self._frequencies.get(term)
        if found is None:
            found = sum(_postings_in_scope(part, term) for part in self._parts)
            if len(self._frequencies) < 100_000:
                self._frequencies[term] = found
        return found

    def _norm(self, number: int, average: float) -> NDArray[np.float32]:
        """k1 * (1 - b + b * length / average) of each row; infinite out of scope, for a score of 0."""
        known, norm = self._norms.get(number, (0.0, None))
        if norm is None or known != average:
            part = self._parts[number]
            norm = part.segment.lengths.astype(np.float32)
            norm *= np.float32(K1 * B / average)
            norm += np.float32(K1 * (1.0 - B))
            if part.mask is not None:
                norm[~part.mask] = np.inf
            self._norms[number] = average, norm
        return norm


def _postings_in_scope(part: RowsInScope, term: int) -> int:
    rows = part.segment.postings(term)[0]
    return len(rows) if part.mask is None else int(np.count_nonzero(part.mask[rows]))


def _posting_lists(part: RowsInScope, weights: Weights) -> list[_PostingList]:
    found: list[_PostingList] = []
    for term, weight in weights.terms.items():
        ordinals, counts = part.segment.postings(term)
        if len(ordinals):
            found.append(_PostingList(weight, ordinals, counts))
    return found


def _counts_at(each: _PostingList, rows: NDArray[np.uint32]) -> NDArray[np.uint8]:
    places = np.searchsorted(each.ordinals, rows)
    places[places == len(each.ordinals)] = 0
    return np.where(each.ordinals[places] == rows, each.counts[places], np.uint8(0))


def _best(
    lists: Sequence[_PostingList], norm: NDArray[np.float32], limit: int, floor: np.float32
) -> tuple[NDArray[np.uint32], NDArray[np.float32], np.float32]:
    """(rows, approximate scores, floor): all rows that may be among the `limit` best.

    `floor` is a score that `limit` rows are known to reach: on entry in the segments before, on return in this one too.
    """
    order = sorted(lists, key=lambda each: (-each.weight, len(each.ordinals)))
    # The most that the lists from each on can add.
    rest = np.cumsum([0.0, *(each.weight for each in reversed(order))])[::-1].astype(np.float32)
    sums = np.zeros(len(norm), dtype=np.float32)
    done = 0
    for each in order:
        if rest[done] < floor * _MARGIN:
            break  # a row with only the remaining terms cannot reach the best
        counts = each.counts.astype(np.float32)
        counts /= counts + norm[each.ordinals]
        counts *= np.float32(each.weight)
        counts += sums[each.ordinals]
        sums[each.ordinals] = counts
        done += 1
        floor = _raised(floor, counts, limit)
    rows = np.flatnonzero(sums > max(floor * _MARGIN - rest[done], 0.0)).astype(np.uint32)
    scores = sums[rows]
    for number in range(done, len(order)):
        count = _counts_at(order[number], rows).astype(np.float32)
        scores += np.float32(order[number].weight) * (count / (count + norm[rows]))
        floor = _raised(floor, scores, limit)
        stays = scores >= floor * _MARGIN - rest[number + 1]
        rows, scores = rows[stays], scores[stays]
    return rows, scores, floor


def _raised(floor: np.float32, scores: NDArray[np.float32], limit: int) -> np.float32:
    """The highest score that `limit` rows are known to reach."""
    above = scores[scores > floor]
    if len(above) < limit:
        return floor
    return max(floor, np.float32(np.partition(above, len(above) - limit)[len(above) - limit]))
