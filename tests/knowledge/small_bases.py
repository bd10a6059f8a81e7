"""Tiny knowledge bases, written straight into the tables, and what a search in them must find, computed plainly."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openbook.core.records import PassageSpan, sha256_hex
from openbook.knowledge.index.bm25 import K1, B
from openbook.knowledge.index.boilerplate import with_content
from openbook.knowledge.index.search import IndexView, RankedPassage, best_candidates, best_passages
from openbook.knowledge.index.segment_builder import IndexSource
from openbook.knowledge.index.segment_set import SegmentSet
from openbook.knowledge.index.words import Vocabulary, query_terms
from openbook.knowledge.store import schema
from openbook.knowledge.store.integrity import CONTENT_COLUMNS, PASSAGE_COLUMNS, row_digest
from openbook.knowledge.store.interface import Connection
from openbook.testing import HashEmbedder

DIMENSIONS = 24
EMBEDDER = HashEmbedder(DIMENSIONS)


@dataclass(frozen=True, slots=True)
class Text:
    """One content: its title and, for each passage, (headings, text)."""

    title: str
    passages: tuple[tuple[tuple[str, ...], str], ...]


def reseal(connection: Connection, content: int | None = None) -> None:
    """Compute the digests of contents, passages and vectors again, as if the current rows had been stored.

    With `content` only those of that one, and of vectors that have none.
    """
    only = {"content": content}
    contents = f"SELECT {CONTENT_COLUMNS} FROM contents WHERE :content IS NULL OR id = :content"
    for row in connection.execute(contents, only).fetchall():
        connection.execute("UPDATE contents SET digest = ? WHERE id = ?", (row_digest(*row), row[0]))
        passages = f"SELECT {PASSAGE_COLUMNS} FROM passages p WHERE content_id = ?"
        for passage in connection.execute(passages, (row[0],)).fetchall():
            digest = row_digest(*passage[:8], row[4], row[3][passage[3] : passage[4]])
            connection.execute("UPDATE passages SET digest = ? WHERE id = ?", (digest, passage[0]))
    vectors = "SELECT embedding_key, vector FROM embeddings WHERE :content IS NULL OR digest IS NULL"
    for key, vector in connection.execute(vectors, only).fetchall():
        connection.execute("UPDATE embeddings SET digest = ? WHERE embedding_key = ?", (row_digest(key, vector), key))


def timetable(number: int) -> Text:
    times = (("Times",), f"The ferry number{number} leaves at {number}. ")
    return Text(f"Part {number}", (times, ((), "The bridge is open.")))


QUERY = "When does the harbour ferry leave?"


class Base:
    """A SQLite file with contents only, as the index reads it."""

    def __init__(self, folder: Path | None = None) -> None:
        path = ":memory:" if folder is None else folder / schema.FILE_NAME
        self.connection = schema.SqliteConnection(path)
        schema.make_tables(self.connection)

    def source(self, base_id: str = "0" * 32, embedder: str = EMBEDDER.identity.digest) -> IndexSource:
        return IndexSource(self.connection, base_id, embedder, DIMENSIONS)

    def add(self, text: Text) -> int:
        whole = "".join(passage for _, passage in text.passages)
        cursor = self.connection.execute(
            "INSERT INTO contents (key, code, text, title, media_type, metadata) VALUES (hex(randomblob(16)), '', ?, ?, '', '{}')",
            (whole, text.title),
        )
        content, at = int(cursor.lastrowid or 0), 0
        for headings, passage in text.passages:
            name = passage_name(whole, at, at + len(passage))
            embedded = " ".join([text.title, *headings, passage])
            key = hashlib.sha256(embedded.encode()).digest()
            vector = stored(embedded).tobytes()
            self.connection.execute("INSERT OR IGNORE INTO embeddings VALUES (?, ?, NULL)", (key, vector))
            self.connection.execute(
                "INSERT INTO passages (content_id, passage_id, start_char, end_char, headings, embedding_key) VALUES (?, ?, ?, ?, ?, ?)",
                (content, name, at, at + len(passage), json.dumps(headings), key),
            )
            at += len(passage)
        reseal(self.connection, content)
        return content

    def remove(self, content: int) -> None:
        self.connection.execute("DELETE FROM passages WHERE content_id = ?", (content,))
        self.connection.execute("DELETE FROM contents WHERE id = ?", (content,))

    def name(self, passage: int) -> str:
        row = self.connection.execute("SELECT passage_id FROM passages WHERE id = ?", (passage,)).fetchone()
        return str(row[0])


def ids(*contents: int) -> NDArray[np.int64]:
    return np.array(sorted(contents), dtype=np.int64)


def passage_name(whole: str, start: int, end: int) -> str:
    return "p" + sha256_hex(f"{sha256_hex(whole.encode())} {start} {end}".encode())[:20]


def stored(text: str) -> NDArray[np.float16]:
    return EMBEDDER.embed_query(text).astype("<f2")


def dense(view: IndexView, query: str, limit: int) -> list[tuple[int, float]]:
    """(passage row id, cosine), nearest first."""
    found, _ = best_candidates(view, query, EMBEDDER.embed_query(query), limit)
    order = found.nearest(limit)
    return list(zip(found.passages[order].tolist(), found.similarity[order].tolist(), strict=True))


def bm25(view: IndexView, query: str, limit: int) -> list[tuple[int, float]]:
    """(passage row id, BM25 score), best first, of passages that hold a word of `query`."""
    found, _ = best_candidates(view, query, EMBEDDER.embed_query(query), limit)
    order = found.best_by_words(limit)
    return list(zip(found.passages[order].tolist(), found.bm25[order].tolist(), strict=True))


def search(
    base: Base, indexes: SegmentSet, in_scope: Iterable[int], query: str, limit: int = 10
) -> list[tuple[object, ...]]:
    """All that a search says, with passages by name: what must not depend on history."""
    view = indexes.shard(ids(*in_scope))
    ranked: Sequence[RankedPassage] = best_passages(view, query, EMBEDDER.embed_query(query), limit)
    return [
        ("passages", view.rows),
        *((base.name(r.passage), r.score, r.dense_rank, r.bm25_rank, r.similarity) for r in ranked),
        *(("dense", base.name(p), s) for p, s in dense(view, query, limit)),
        *(("words", base.name(p), s) for p, s in bm25(view, query, limit)),
    ]


def expected(base: Base, contents: list[int], query: str = QUERY) -> list[tuple[object, ...]]:
    """The same, where nothing was saved."""
    return search(base, SegmentSet.open(Path("absent"), base.source(), ids(*contents)), contents, query)


def plain_passages(texts: Iterable[Text]) -> dict[str, tuple[tuple[str, ...], str]]:
    """Name -> (title and headings, passage) of what is searched; of one text under several headings, the one that comes first."""
    found: dict[str, list[tuple[int, tuple[str, ...], str]]] = {}
    for text in texts:
        whole, ends = "".join(p for _, p in text.passages), list(accumulate(len(p) for _, p in text.passages))
        spans = [PassageSpan(end - len(p), end, None, h) for end, (h, p) in zip(ends, text.passages, strict=True)]
        searched = with_content(whole, text.title, spans)
        for span, (headings, passage), has_content in zip(spans, text.passages, searched, strict=True):
            name = passage_name(whole, span.start, span.end)
            if has_content:
                data = f"{text.title}\0{json.dumps(headings)}".encode()
                variant = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
                found.setdefault(name, []).append((variant, (text.title, *headings), passage))
    return {name: (min(each)[1], min(each)[2]) for name, each in found.items()}


def plain_bm25(texts: Iterable[Text], query: str, limit: int) -> list[tuple[str, float]]:
    counted: dict[str, Counter[int]] = {}
    for name, (place, passage) in plain_passages(texts).items():
        vocabulary = Vocabulary()
        numbers = [n for part in (*dict.fromkeys(place), passage) for n in vocabulary.numbers(part)]
        terms = vocabulary.terms()
        counted[name] = Counter(int(terms[n]) for n in numbers)
    total = len(counted)
    average = sum(sum(c.values()) for c in counted.values()) / total if total else 1.0
    scores: dict[str, float] = {}
    for term, times in query_terms(query).items():
        holders = [name for name, c in counted.items() if term in c]
        idf = math.log(1 + (total - len(holders) + 0.5) / (len(holders) + 0.5))
        for name in holders:
            count, length = counted[name][term], sum(counted[name].values())
            norm = K1 * (1 - B + B * length / average)
            scores[name] = scores.get(name, 0.0) + times * idf * count / (count + norm)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:limit]


def plain_dense(texts: Iterable[Text], query: str, limit: int) -> list[tuple[str, float]]:
    vector = EMBEDDER.embed_query(query).astype(np.float64)
    scores = {
        name: float((stored(" ".join([*place, passage])).astype(np.float64) * vector).sum())
        for name, (place, passage) in plain_passages(texts).items()
    }
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:limit]
