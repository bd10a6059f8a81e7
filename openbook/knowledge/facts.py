"""From the truth in SQLite to segments: the passages of contents with their words and vectors."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from openbook.knowledge import integrity, schema
from openbook.knowledge.boilerplate import with_content
from openbook.knowledge.integrity import StoredContent, row_digest
from openbook.knowledge.segments import Segment
from openbook.knowledge.tables import table_header
from openbook.knowledge.vectors import sign_words, widened
from openbook.knowledge.words import Vocabulary
from openbook.records import PassageSpan

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS = 32_768  # passages in memory at a time
_WORDS = 8_000_000  # words, likewise
_PASSAGES = (
    f"SELECT {integrity.PASSAGE_COLUMNS}, e.vector, e.digest FROM passages p "
    "LEFT JOIN embeddings e ON e.embedding_key = p.embedding_key WHERE p.content_id = ? ORDER BY p.id"
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the truth is. `base_id` names the knowledge base; indexes made with another embedder are ignored."""

    connection: sqlite3.Connection
    base_id: str
    embedder_digest: str
    dimensions: int


@dataclass(slots=True)
class _Rows:
    """Passages read so far."""

    contents: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    passages: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    variants: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    words: list[NDArray[np.uint32]] = field(default_factory=list)
    word_count: int = 0
    vectors: list[bytes] = field(default_factory=list)


def segments(source: Source, contents: Iterable[int]) -> Iterator[Segment]:
    """The facts about `contents`, in segments of bounded size; each content is whole in one of them.

    Passages of white space and boilerplate alone are left out. Raises sqlite3.DatabaseError for a content that is not there and a
    passage without a valid vector.
    """
    rows, vocabulary = _Rows(), Vocabulary()
    for content in contents:
        _read(source, content, rows, vocabulary)
        if len(rows.passages) >= ROWS or rows.word_count >= _WORDS:
            yield _segment(rows, vocabulary, source.dimensions)
            rows, vocabulary = _Rows(), Vocabulary()
    if rows.contents:
        yield _segment(rows, vocabulary, source.dimensions)


def identities(source: Source, content: int) -> list[tuple[int, int, int]] | None:
    """(passage row, key, variant) of the rows that a segment must hold for `content`; None without such a content.

    Raises sqlite3.DatabaseError when it is not what was stored.
    """
    if source.connection.execute("SELECT 1 FROM contents WHERE id = ?", (content,)).fetchone() is None:
        return None
    stored = integrity.content(source.connection, content)
    return [
        (passage, _key(name), _variant(stored.title, headings))
        for passage, _, name, _, _, _, headings, *_ in _searched(source, stored)
    ]


def _searched(source: Source, of: StoredContent) -> Iterator[Sequence[Any]]:
    rows = list(integrity.whole(source.connection.execute(_PASSAGES, (of.id,)), of))
    spans = [PassageSpan(start, end, page, schema.headings(path)) for _, _, _, start, end, page, path, *_ in rows]
    return (row for row, wanted in zip(rows, with_content(of.text, of.title, spans), strict=True) if wanted)


def _read(source: Source, content: int, rows: _Rows, vocabulary: Vocabulary) -> None:
    stored = integrity.content(source.connection, content)
    title = stored.title
    places = dict[str, tuple[int, list[int]]]()  # headings -> variant, words
    before = len(rows.passages)
    for passage, _, name, start, end, _, headings, key, _, vector, digest in _searched(source, stored):
        if vector is None or len(vector) != 2 * source.dimensions:
            raise sqlite3.DatabaseError(f"passage {passage} has no vector of {source.dimensions} numbers")
        if digest != row_digest(key, vector):
            raise sqlite3.DatabaseError(f"the vector of passage {passage} is not what was stored")
        if headings not in places:
            path = " \n".join(dict.fromkeys(part for part in (title, *schema.headings(headings)) if part))
            places[headings] = _variant(title, headings), vocabulary.numbers(path)
        variant, place = places[headings]
        words = f"{table_header(stored.text, start)}\n{stored.text[start:end]}"
        numbers = np.array([*place, *vocabulary.numbers(words)], dtype=np.uint32)
        rows.passages.append(passage)
        rows.keys.append(_key(name))
        rows.variants.append(variant)
        rows.lengths.append(min(len(numbers), 0xFFFF))
        rows.words.append(numbers)
        rows.word_count += len(numbers)
        rows.vectors.append(vector)
    rows.contents.append(content)
    rows.sizes.append(len(rows.passages) - before)


def _key(passage_id: str) -> int:
    try:
        return int(passage_id[1:17], 16)
    except (ValueError, TypeError) as error:
        raise sqlite3.DatabaseError(f"a passage's id is {str(passage_id)[:40]!r}") from error


def _variant(title: str, headings: str) -> int:
    data = f"{title}\0{headings}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _segment(rows: _Rows, vocabulary: Vocabulary, dimensions: int) -> Segment:
    vectors = np.frombuffer(b"".join(rows.vectors), dtype="<f2").reshape(len(rows.vectors), dimensions)
    if not np.isfinite(vectors).all():
        bad = rows.passages[int(np.argmin(np.isfinite(vectors).all(axis=1)))]
        raise sqlite3.DatabaseError(f"passage {bad} has a vector with numbers that are none")
    signs, turned = sign_words(widened(vectors))
    terms, offsets, ordinals, counts = _inverted(rows.words, vocabulary.terms())
    return Segment(
        contents=np.array(rows.contents, dtype=np.int64),
        starts=np.array([0, *rows.sizes], dtype=np.int64).cumsum(),
        passages=np.array(rows.passages, dtype=np.int64),
        keys=np.array(rows.keys, dtype=np.uint64),
        variants=np.array(rows.variants, dtype=np.uint64),
        lengths=np.array(rows.lengths, dtype=np.uint16),
        terms=terms,
        offsets=offsets,
        ordinals=ordinals,
        counts=counts,
        vectors=vectors,
        signs=np.ascontiguousarray(signs.T),
        turned=turned,
    )


def _inverted(
    words: Sequence[NDArray[np.uint32]], terms: NDArray[np.uint64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint32], NDArray[np.uint8]]:
    """(terms, offsets, ordinals, counts) from the word numbers of each row and the term of each number."""
    unique, of_word = np.unique(terms, return_inverse=True)
    flat = np.concatenate(words) if words else np.empty(0, np.uint32)
    owner = np.repeat(np.arange(len(words), dtype=np.uint64), [len(w) for w in words])
    pairs = (of_word.astype(np.uint64)[flat] << np.uint64(32)) | owner
    pairs, counts = np.unique(pairs, return_counts=True)
    sizes = np.bincount((pairs >> np.uint64(32)).astype(np.int64), minlength=len(unique))
    offsets = np.concatenate([np.zeros(1, np.int64), sizes.cumsum()])
    return unique, offsets, (pairs & np.uint64(0xFFFF_FFFF)).astype(np.uint32), np.minimum(counts, 255).astype(np.uint8)
