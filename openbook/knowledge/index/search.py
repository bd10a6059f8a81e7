"""The search in rounds over shards, each of which holds a part of the rows.

1. Each shard counts its rows in scope, their words, and the rows of each term; above `vectors.EXACT_UP_TO` rows also those at each distance by
   signs, then by more signs. These whole numbers add up to those of the whole.
2. Each shard scores its best by words and by vectors, with weights from the sums, row by row. The best of all are among them.

Nothing else passes between shards, so scores are the same, bit for bit, for any number of shards. In one process, one `Shard` is the view;
`openbook.cluster.shards` has views of several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from openbook.core.errors import KnowledgeError
from openbook.knowledge.index import vectors
from openbook.knowledge.index.bm25 import Bm25, Statistics, Weights
from openbook.knowledge.index.segments import RowsInScope
from openbook.knowledge.index.vectors import SignSearch, VectorSearch
from openbook.knowledge.index.words import query_terms

if TYPE_CHECKING:
    from numpy.typing import NDArray

CANDIDATES = 100  # of each kind
WORDS_WEIGHT = 0.5  # in the score; chosen on training queries only (benchmarks/fusion.py), flat from 0.45 to 0.55


@dataclass(frozen=True, slots=True)
class RankedPassage:
    """A passage's row id, the contents with its text, and its rank (from 1) of each kind, or None."""

    passage: int
    contents: tuple[int, ...]
    score: float
    dense_rank: int | None
    bm25_rank: int | None
    similarity: float


class StaleView(KnowledgeError):
    """A purge deleted contents during their search."""


# --- what passes between the search and the shards --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A question. `terms`: counts in the query. `vector`: float32 unit vector [D]. `by_signs`: signs choose the rows to compare."""

    terms: dict[int, int]
    vector: NDArray[np.float32]
    limit: int
    by_signs: bool


@dataclass(frozen=True, slots=True)
class Counts:
    """The first round. `signs`: rows at each distance, int64 [D + 1], if asked for."""

    statistics: Statistics
    signs: NDArray[np.int64] | None

    @classmethod
    def total(cls, parts: Sequence[Counts]) -> Counts:
        signs = [part.signs for part in parts if part.signs is not None]
        return cls(Statistics.total([part.statistics for part in parts]), np.sum(signs, axis=0) if signs else None)


@dataclass(frozen=True, slots=True)
class Scoring:
    """The decisions from all counts. `cuts`: the greatest distances to compare, by the first pass and by both."""

    weights: Weights
    cuts: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Candidates:
    """Columns with one entry a passage: at least the best of each kind, scored by both."""

    passages: NDArray[np.int64]
    keys: NDArray[np.uint64]  # of their texts; no two are equal
    contents: list[tuple[int, ...]]
    similarity: NDArray[np.float64]
    bm25: NDArray[np.float64]
    is_near: NDArray[np.bool_]  # among the nearest by vector
    has_words: NDArray[np.bool_]  # among the best by words

    @classmethod
    def joined(cls, parts: Sequence[Candidates]) -> Candidates:
        contents = [each for part in parts for each in part.contents]
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("passages", "keys", "similarity", "bm25", "is_near", "has_words")
        }
        return cls(contents=contents, **columns)

    def nearest(self, limit: int) -> NDArray[np.intp]:
        among = np.flatnonzero(self.is_near)
        return among[best(self.similarity[among], self.keys[among], limit)]

    def best_by_words(self, limit: int) -> NDArray[np.intp]:
        among = np.flatnonzero(self.has_words)
        return among[best(self.bm25[among], self.keys[among], limit)]


def best(scores: NDArray[np.float64], keys: NDArray[np.uint64], limit: int) -> NDArray[np.intp]:
    """Indexes of the `limit` highest scores, highest first; ties go by the keys of their texts."""
    return np.lexsort((keys, -scores))[: max(limit, 0)]


class Rounds(Protocol):
    """One question. Each round replies for all shards together."""

    def counts(self) -> Counts: ...
    def rotated_counts(self, cut: int) -> NDArray[np.int64]: ...
    def candidates(self, scoring: Scoring) -> Candidates: ...


class IndexView(Protocol):
    """A searchable set of contents. Thread-safe."""

    @property
    def rows(self) -> int:
        """The number of searched passages."""

    def ask(self, question: SearchQuery) -> Rounds: ...


class Searcher(Protocol):
    def view(self, base_id: str, newest: int, in_scope: NDArray[np.int64]) -> IndexView:
        """A search over the ascending contents `in_scope`; `newest` is the newest version."""


# --- one shard --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Rows of all segments whose text is indexed more than once, ascending by key. A view has the first row in scope of each key."""

    rows: NDArray[np.intp]
    keys: NDArray[np.uint64]
    contents: NDArray[np.int64]

    def among(self, in_scope: NDArray[np.int64]) -> Duplicates:
        chosen = np.isin(self.contents, in_scope)
        return Duplicates(self.rows[chosen], self.keys[chosen], self.contents[chosen])

    def holding(self, keys: NDArray[np.uint64]) -> dict[int, tuple[int, ...]]:
        """The contents of each of `keys`, by its index; duplicates only."""
        low, high = (np.searchsorted(self.keys, keys, side=side) for side in ("left", "right"))
        several = np.flatnonzero(low < high)
        return {int(at): tuple(np.unique(self.contents[low[at] : high[at]]).tolist()) for at in several}


class Shard:
    """An `IndexView` of one shard's rows. Thread-safe."""

    def __init__(self, rows: Sequence[RowsInScope], dimensions: int, duplicates: Duplicates) -> None:
        """Each text is searched in one row of one shard; `duplicates` are those of all shards."""
        self._rows, self._duplicates = rows, duplicates
        self.bm25, self.vectors = Bm25(rows), VectorSearch(rows, dimensions)
        self.rows = self.bm25.rows

    def ask(self, question: SearchQuery) -> ShardRounds:
        return ShardRounds(self, question)

    def best(self, rows: NDArray[np.int64], scores: NDArray[np.float64], limit: int) -> NDArray[np.int64]:
        if len(rows) <= limit:
            return rows
        return np.sort(rows[best(scores, self._column("keys", rows), limit)])

    def candidates(
        self,
        rows: NDArray[np.int64],
        similarity: NDArray[np.float64],
        bm25: NDArray[np.float64],
        *kinds: NDArray[np.int64],
    ) -> Candidates:
        keys = self._column("keys", rows)
        contents = np.empty(len(rows), dtype=np.int64)
        for each in self._rows:
            where, local = each.local(rows)
            contents[where] = each.segment.contents_of_rows(local)
        held: list[tuple[int, ...]] = [(content,) for content in contents.tolist()]
        for at, several in self._duplicates.holding(keys).items():
            held[at] = several
        near, words = (np.isin(rows, kind) for kind in kinds)
        return Candidates(self._column("passages", rows), keys, held, similarity, bm25, near, words)

    def _column(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        found = [getattr(each.segment, name)[each.local(rows)[1]] for each in self._rows]
        return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


class ShardRounds:
    """One question in one shard. Rounds reuse earlier results."""

    def __init__(self, shard: Shard, question: SearchQuery) -> None:
        self._shard, self._question = shard, question

    @cached_property
    def _signs(self) -> SignSearch:
        return self._shard.vectors.signs(self._question.vector)

    def counts(self) -> Counts:
        statistics = self._shard.bm25.statistics(self._question.terms)
        return Counts(statistics, self._signs.counts() if self._question.by_signs else None)

    def rotated_counts(self, cut: int) -> NDArray[np.int64]:
        return self._signs.rotated_counts(cut)

    def candidates(self, scoring: Scoring) -> Candidates:
        asked, shard = self._question, self._shard
        among = self._signs.chosen(*scoring.cuts) if scoring.cuts else None
        near = shard.best(*shard.vectors.search(asked.vector, asked.limit, among), asked.limit)
        words = shard.best(*shard.bm25.search(scoring.weights, asked.limit), asked.limit)
        rows = np.union1d(near, words)
        similarity = shard.vectors.cosines(asked.vector, rows)
        return shard.candidates(rows, similarity, shard.bm25.scores(scoring.weights, rows), near, words)


# --- the search -------------------------------------------------------------------------------------------------------


def best_passages(view: IndexView, query: str, vector: NDArray[np.float32], limit: int) -> list[RankedPassage]:
    """The best passages, best first: the `CANDIDATES` nearest by vector and best by words, scored exactly by both, and fused."""
    if limit < 1:
        return []
    count = max(CANDIDATES, limit)
    found, ceiling = best_candidates(view, query, vector, count)
    dense, words = found.nearest(count), found.best_by_words(count)
    chosen = np.union1d(dense, words)
    scores = fuse(found.similarity[chosen], found.bm25[chosen], ceiling)
    order = best(scores, found.keys[chosen], limit)
    dense_ranks, word_ranks = ({at: n for n, at in enumerate(each.tolist(), start=1)} for each in (dense, words))
    return [
        RankedPassage(
            int(found.passages[at]), found.contents[at], score, dense_ranks.get(at), word_ranks.get(at), float(found.similarity[at])
        )
        for at, score in zip(chosen[order].tolist(), scores[order].tolist(), strict=True)
    ]  # fmt: skip


def best_candidates(view: IndexView, query: str, vector: NDArray[np.float32], limit: int) -> tuple[Candidates, float]:
    """(the `limit` best of each kind, the bound of BM25 scores)."""
    question = SearchQuery(query_terms(query), vector, limit, by_signs=view.rows > vectors.EXACT_UP_TO)
    rounds = view.ask(question)
    counts = rounds.counts()
    weights = counts.statistics.weights(question.terms)
    cuts = None
    if counts.signs is not None:
        cut = vectors.cut_at(counts.signs, max(vectors.NEAR, 8 * limit))
        cuts = cut, vectors.cut_at(rounds.rotated_counts(cut), max(vectors.NEARER, 4 * limit))
    return rounds.candidates(Scoring(weights, cuts)), weights.ceiling


def fuse(similarity: NDArray[np.float64], bm25: NDArray[np.float64], ceiling: float) -> NDArray[np.float64]:
    """The score of each candidate [n], from its exact cosine and BM25 score: higher is better, at most 1.

    `ceiling` bounds every BM25 score, so both parts are shares of the possible (Bruch, Gai and Ingber, 2023: theoretical bounds). No other
    candidate changes a score.
    """
    words = bm25 / ceiling if ceiling > 0.0 else np.zeros_like(bm25)
    return (1.0 - WORDS_WEIGHT) * similarity + WORDS_WEIGHT * words
