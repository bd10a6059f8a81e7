"""Segments from the database: passages with their words and vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np

from openbook.knowledge.index.boilerplate import with_content
from openbook.knowledge.index.segments import PassageIdentity, Segment
from openbook.knowledge.index.table_headers import table_header
from openbook.knowledge.index.vectors import sign_words, widened
from openbook.knowledge.index.words import Vocabulary
from openbook.knowledge.store import integrity
from openbook.knowledge.store.integrity import PassageRow, StoredContent, row_digest
from openbook.knowledge.store.interface import Connection, Damage

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS = 32_768  # passages in memory at a time
_WORDS = 8_000_000  # words, likewise
_VECTORS = (
    "SELECT e.embedding_key, e.vector, e.digest FROM passages p JOIN embeddings e ON e.embedding_key = p.embedding_key "
    "WHERE p.content_id = ?"
)


@dataclass(frozen=True, slots=True)
class IndexSource:
    """The database of an index; indexes of another `base_id` or embedder are ignored."""

    connection: Connection
    base_id: str
    embedder_digest: str
    dimensions: int


def build(source: IndexSource, contents: Iterable[int]) -> Iterator[Segment]:
    """Segments of bounded size, of whole contents, without boilerplate. Raises Damage for a missing content or vector."""
    builder = SegmentBuilder(source.dimensions)
    for content in contents:
        stored = integrity.content(source.connection, content)
        vectors = {key: rest for key, *rest in source.connection.execute(_VECTORS, (content,))}
        builder.begin(content)
        for row in _searched(source, stored):
            vector, digest = vectors.get(row.embedding_key, (None, None))
            if vector is None or len(vector) != 2 * source.dimensions:
                raise Damage(f"passage {row.id} has no vector of {source.dimensions} numbers")
            if digest != row_digest(row.embedding_key, vector):
                raise Damage(f"the vector of passage {row.id} is not what was stored")
            builder.add(_identity(row.id, row.passage_id, row.headings_json, stored.title), _text(row, stored), vector)
        if len(builder) >= ROWS or builder.word_count >= _WORDS:
            yield builder.segment()
            builder = SegmentBuilder(source.dimensions)
    if builder.contents:
        yield builder.segment()


def passage_identities(source: IndexSource, content: int) -> list[PassageIdentity] | None:
    """The identities that a segment must hold of `content`; None if it does not exist. Raises Damage when it was changed."""
    if source.connection.execute("SELECT 1 FROM contents WHERE id = ?", (content,)).fetchone() is None:
        return None
    stored = integrity.content(source.connection, content)
    rows = _searched(source, stored)
    return [_identity(row.id, row.passage_id, row.headings_json, stored.title) for row in rows]


def stored_identities(source: IndexSource, content: int) -> set[PassageIdentity]:
    """The identities of all passages of `content`, without its text: ids are hashes of it. Raises Damage for an invalid id."""
    of_content = "SELECT title FROM contents WHERE id = ?"
    (title,) = source.connection.execute(of_content, (content,)).fetchone() or ("",)
    rows = source.connection.execute("SELECT id, passage_id, headings FROM passages WHERE content_id = ?", (content,))
    return {_identity(row, name, headings, title) for row, name, headings in rows}


def _searched(source: IndexSource, of: StoredContent) -> list[PassageRow]:
    rows = integrity.passages(source.connection, of)
    return list(compress(rows, with_content(of.text, of.title, [row.span for row in rows])))


def _identity(row: int, passage_id: str, headings_json: str, title: str) -> PassageIdentity:
    try:
        key = int(passage_id[1:17], 16)
    except (ValueError, TypeError) as error:
        raise Damage(f"a passage's id is {str(passage_id)[:40]!r}") from error
    data = f"{title}\0{headings_json}".encode("utf-8", "surrogatepass")
    return PassageIdentity(row, key, int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little"))


def _text(row: PassageRow, of: StoredContent) -> str:
    """The text searched by words: title and headings, the header of the table, the passage."""
    path = " \n".join(dict.fromkeys(part for part in (of.title, *row.headings) if part))
    return f"{path}\n{table_header(of.text, row.start)}\n{of.text[row.start : row.end]}"


class SegmentBuilder:
    def __init__(self, dimensions: int) -> None:
        self._dimensions, self._vocabulary = dimensions, Vocabulary()
        self.contents: list[int] = []
        self._starts: list[int] = []
        self._rows: list[PassageIdentity] = []
        self._words: list[NDArray[np.uint32]] = []
        self._vectors: list[bytes] = []
        self.word_count = 0

    def __len__(self) -> int:
        return len(self._rows)

    def begin(self, content: int) -> None:
        self.contents.append(content)
        self._starts.append(len(self._rows))

    def add(self, passage: PassageIdentity, text: str, vector: bytes) -> None:
        words = np.array(self._vocabulary.numbers(text), dtype=np.uint32)
        self._rows.append(passage)
        self._words.append(words)
        self._vectors.append(vector)
        self.word_count += len(words)

    def segment(self) -> Segment:
        passages, keys, variants = np.array(self._rows, dtype=np.uint64).reshape(-1, 3).T.copy()
        vectors = np.frombuffer(b"".join(self._vectors), dtype="<f2").reshape(len(self), self._dimensions)
        if not (finite := np.isfinite(vectors).all(axis=1)).all():
            bad = passages[int(np.argmin(finite))]
            raise Damage(f"passage {bad} has a vector with numbers that are not finite")
        signs, rotated = sign_words(widened(vectors))
        terms, offsets, ordinals, counts = self._inverted()
        return Segment(
            contents=np.array(self.contents, dtype=np.int64),
            starts=np.array([*self._starts, len(self)], dtype=np.int64),
            passages=passages.astype(np.int64),
            keys=keys,
            variants=variants,
            lengths=np.array([min(len(words), 0xFFFF) for words in self._words], dtype=np.uint16),
            terms=terms,
            offsets=offsets,
            ordinals=ordinals,
            counts=counts,
            vectors=vectors,
            signs=np.ascontiguousarray(signs.T),
            rotated=rotated,
        )

    def _inverted(self) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint32], NDArray[np.uint8]]:
        terms, of_word = np.unique(self._vocabulary.terms(), return_inverse=True)
        flat = np.concatenate([np.empty(0, np.uint32), *self._words])
        owner = np.repeat(np.arange(len(self._words), dtype=np.uint64), [len(words) for words in self._words])
        pairs = (of_word.astype(np.uint64)[flat] << np.uint64(32)) | owner
        pairs, counts = np.unique(pairs, return_counts=True)
        sizes = np.bincount((pairs >> np.uint64(32)).astype(np.int64), minlength=len(terms))
        offsets = np.concatenate([np.zeros(1, np.int64), sizes.cumsum()])
        ordinals = (pairs & np.uint64(0xFFFF_FFFF)).astype(np.uint32)
        return terms, offsets, ordinals, np.minimum(counts, 255).astype(np.uint8)
