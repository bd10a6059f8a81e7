"""Digests: what is read from the database is what was stored.

Each row of contents, passages, embeddings and documents has a digest, compared on each read. One sum covers what decides an answer's view:
documents, versions, tags, access labels and the identity of the knowledge base. It adds the digests of these rows, so a missing row counts as a
wrong one, and a commit updates it by changed rows alone. It is compared on opening and for each new version.

This notices accidents of disks, memory and copies, not an attacker, who can change the digests too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

from openbook.core.records import PassageSpan
from openbook.knowledge.store.interface import Connection, Damage

PASSAGE_COLUMNS = (
    "p.id, p.content_id, p.passage_id, p.start_char, p.end_char, p.page, p.headings, p.embedding_key, p.digest"
)
IDS = "(SELECT CAST(value AS BIGINT) FROM json_each(:ids))"  # any number of ids, bound as JSON
CONTENT_COLUMNS = "id, key, code, text, title, media_type, source_chars, metadata"


def row_digest(*values: object) -> int:
    """64 bits over the values, signed as SQLite's integers are. No stored text holds a NUL."""
    text = "\0".join([value.hex() if isinstance(value, bytes) else str(value) for value in values])
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)


class StoredContent(NamedTuple):
    id: int
    key: str
    code: str
    text: str
    title: str
    media_type: str
    source_chars: int | None
    metadata: str


@lru_cache(4_096)  # the passages of a section have the same
def _headings(stored: str) -> tuple[str, ...]:
    try:
        return tuple(map(str, json.loads(stored)))
    except (ValueError, TypeError) as error:
        raise Damage(f"a passage's headings are {stored[:40]!r}") from error


class PassageRow(NamedTuple):
    id: int
    content_id: int
    passage_id: str
    start: int
    end: int
    page: int | None
    headings_json: str
    embedding_key: bytes
    digest: int | None

    @property
    def headings(self) -> tuple[str, ...]:
        return _headings(self.headings_json)

    @property
    def span(self) -> PassageSpan:
        return PassageSpan(self.start, self.end, self.page, self.headings)

    def digest_of(self, title: str, text: str) -> int:
        return row_digest(*self[:-1], title, text)

    def text_in(self, title: str, text: str, at: int = 0) -> str:
        """Its part of the content's text, of which `text` begins at offset `at`. Raises Damage."""
        is_valid = isinstance(text, str) and isinstance(self.start, int) and isinstance(self.end, int)
        own = text[self.start - at : self.end - at] if is_valid else ""
        if self.digest != self.digest_of(title, own):
            raise Damage(f"the passage {self.id} of content {self.content_id} is not what was stored")
        return own


class DocumentRow(NamedTuple):
    path: str
    content_id: int
    bytes: int
    metadata: str
    labels: str
    added_in: int
    removed_in: int | None
    identity: int


def content(connection: Connection, content_id: int) -> StoredContent:
    """The row of a content. Raises Damage when it is missing or changed."""
    return contents(connection, [content_id])[content_id]


def contents(connection: Connection, ids: Collection[int]) -> dict[int, StoredContent]:
    """As `content`, for many in one statement: the database may be on another machine."""
    sql = f"SELECT {CONTENT_COLUMNS}, digest FROM contents WHERE id IN {IDS}"
    found: dict[int, StoredContent] = {}
    for row in connection.execute(sql, {"ids": json.dumps(list(ids))}):
        if row[-1] != row_digest(*row[:-1]):
            raise Damage(f"the content {row[0]} is not what was stored")
        found[row[0]] = StoredContent(*row[:-1])
    for each in ids:
        if each not in found:
            raise Damage(f"the content {each} is not there")
    return found


def passages(connection: Connection, of: StoredContent) -> list[PassageRow]:
    """All passages of a content, in text order. Raises Damage when one is missing or changed."""
    return passages_of(connection, [of])[of.id]


def passages_of(connection: Connection, contents: Collection[StoredContent]) -> dict[int, list[PassageRow]]:
    """As `passages`, for many in one statement."""
    sql = f"SELECT {PASSAGE_COLUMNS} FROM passages p WHERE p.content_id IN {IDS} ORDER BY p.start_char, p.end_char"
    found: dict[int, list[PassageRow]] = {of.id: [] for of in contents}
    for row in map(PassageRow._make, connection.execute(sql, {"ids": json.dumps(list(found))})):
        found[row.content_id].append(row)
    for of in contents:
        _check_cover(of, found[of.id])
    return found


def _check_cover(of: StoredContent, rows: Sequence[PassageRow]) -> None:
    at = 0
    for row in rows:
        if not (isinstance(row.start, int) and isinstance(row.end, int) and 0 <= row.start <= at < row.end):
            raise Damage(f"the passages of content {of.id} do not cover its text")
        row.text_in(of.title, of.text)
        at = row.end
    if at != len(of.text):
        raise Damage(f"the passages of content {of.id} do not cover its text")


def documents(connection: Connection, where: str, values: Any) -> list[DocumentRow]:
    """The rows of `documents d` that match. Raises Damage when one was changed. PostgreSQL checks its own pages and stores no digests of them."""
    cursor = connection.execute(f"SELECT d.* FROM documents d WHERE {where}", values)
    names = [column[0] for column in cursor.description]
    fields = itemgetter(*map(names.index, DocumentRow._fields))
    at = names.index("digest") if "digest" in names else None
    found: list[DocumentRow] = []
    for row in cursor:
        if at is not None and row[at] != row_digest(*row[:at], *row[at + 1 :]):
            raise Damage(f"the document {row[names.index('id')]} is not what was stored")
        found.append(DocumentRow(*fields(row)))
    return found


# Covered by one sum, except columns that decide nothing.
TABLES = ("documents", "identities", "sources", "tags", "versions")
_NAME = "tables"  # of the sum, in `sums`

_DOCUMENTS = (
    "SELECT CAST('d' || char(0) || id || char(0) || path || char(0) || content_id || char(0) || metadata || char(0) || labels || char(0) "
    "|| given_labels || char(0) || added_in || char(0) || coalesce(removed_in, '') || char(0) || identity AS BLOB) FROM documents"
)
_OTHERS = (
    "SELECT CAST('i' || char(0) || id || char(0) || path || char(0) || labels || char(0) || given AS BLOB) FROM identities "
    "WHERE labels <> '[]' UNION ALL "
    "SELECT CAST('v' || char(0) || version || char(0) || created_at || char(0) || summary AS BLOB) FROM versions UNION ALL "
    "SELECT CAST('s' || char(0) || folder || char(0) || rules AS BLOB) FROM sources UNION ALL "
    "SELECT CAST('t' || char(0) || name || char(0) || version || char(0) || created_at AS BLOB) FROM tags UNION ALL "
    "SELECT CAST('m' || char(0) || key || char(0) || value AS BLOB) FROM meta WHERE key IN ('id', 'embedder', 'sizing')"
)


def problems(connection: Connection) -> Iterator[str]:
    """Problems of `TABLES`, a phrase each. The caller reads one state."""
    (stored,) = connection.execute("SELECT sum(value) FROM sums WHERE name = ?", (_NAME,)).fetchone()
    if stored != _total(connection):
        yield "a row of documents, identities, sources, tags, versions or meta is not what was written, or is missing"
    for table in TABLES:
        for (line,) in connection.execute(f"PRAGMA integrity_check({table})"):
            if line != "ok":
                yield f"SQLite says: {line}"


def _total(connection: Connection, paths: Collection[str] | None = None) -> int:
    """The sum of all rows' digests; of documents only those at `paths` (None: all)."""
    at, values = _among(paths)
    rows = chain(connection.execute(_DOCUMENTS + at, values), connection.execute(_OTHERS))
    total = sum([int.from_bytes(hashlib.blake2b(row or b"", digest_size=8).digest()) for (row,) in rows])
    return _signed(total)


def _signed(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63


@contextmanager
def changing(connection: Connection, paths: Collection[str] | None) -> Iterator[None]:
    """See `interface.Writer`. Earlier damage stays in the sum, so changing a damaged row hides nothing."""
    before = _total(connection, paths)
    yield
    digest_documents(connection, paths)
    (stored,) = connection.execute("SELECT value FROM sums WHERE name = ?", (_NAME,)).fetchone() or (0,)
    _remember(connection, stored - before + _total(connection, paths))


def digest_documents(connection: Connection, paths: Collection[str] | None = None) -> None:
    names = [column[0] for column in connection.execute("SELECT * FROM documents LIMIT 0").description]
    at, values = _among(paths)
    columns = ", ".join(name for name in names if name != "digest")
    connection.execute(f"UPDATE documents SET digest = row_digest({columns}){at}", values)


def _among(paths: Collection[str] | None) -> tuple[str, tuple[str, ...]]:
    if paths is None:
        return "", ()
    return " WHERE path IN (SELECT value FROM json_each(?))", (json.dumps(sorted(paths)),)


def seal(connection: Connection) -> None:
    """Store the current sum of `TABLES`, for a new or upgraded knowledge base."""
    _remember(connection, _total(connection))


def _remember(connection: Connection, total: int) -> None:
    sql = "INSERT INTO sums VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    connection.execute(sql, (_NAME, _signed(total)))
