"""Digests of rows: what is read from the database is what was stored.

Every row of contents, passages, embeddings and documents has a digest over all that is read of it, which is compared when
it is read. The tables in `TABLES` are small and decide together what an answer may see, so that a row that is missing
is as bad as one that is wrong. So each is compared as a whole: `sums` holds the exclusive or of its rows' digests.

This notices accidents of disks, memory and copies. Somebody who changes a file on purpose can change its digests too.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from typing import Any, NamedTuple

from openbook.knowledge.store import Connection, Damage
from openbook.records import PassageSpan

TABLES = ("documents", "identities", "meta", "sources", "tags", "verdicts", "versions")

PASSAGE_COLUMNS = (
    "p.id, p.content_id, p.passage_id, p.start_char, p.end_char, p.page, p.headings, p.embedding_key, p.digest"
)
CONTENT_COLUMNS = "id, key, code, text, title, media_type, source_chars, metadata"


def row_digest(*values: object) -> int:
    """64 bits over the values, signed as SQLite's integers are. No stored text holds a NUL."""
    text = "\0".join([value.hex() if isinstance(value, bytes) else str(value) for value in values])
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)


class StoredContent(NamedTuple):
    """A row of `contents`."""

    id: int
    key: str
    code: str
    text: str
    title: str
    media_type: str
    source_chars: int | None
    metadata: str


class PassageRow(NamedTuple):
    """A row of `passages`, as `PASSAGE_COLUMNS` reads it."""

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
        try:
            return tuple(map(str, json.loads(self.headings_json)))
        except (ValueError, TypeError) as error:
            raise Damage(f"a passage's headings are {self.headings_json[:40]!r}") from error

    @property
    def span(self) -> PassageSpan:
        return PassageSpan(self.start, self.end, self.page, self.headings)

    def digest_of(self, title: str, text: str) -> int:
        """What its digest must be, with the title of its content and its own text."""
        return row_digest(*self[:-1], title, text)

    def text_in(self, title: str, text: str, at: int = 0) -> str:
        """Its part of its content's text, of which `text` is what begins at `at`.

        Raises Damage when that, the row or the title is not what was stored.
        """
        is_valid = isinstance(text, str) and isinstance(self.start, int) and isinstance(self.end, int)
        own = text[self.start - at : self.end - at] if is_valid else ""
        if self.digest != self.digest_of(title, own):
            raise Damage(f"the passage {self.id} of content {self.content_id} is not what was stored")
        return own


class DocumentRow(NamedTuple):
    """What is asked of a row of `documents`."""

    path: str
    content_id: int
    metadata: str
    labels: str
    identity: int


def content(connection: Connection, content_id: int) -> StoredContent:
    """Raises Damage when it is not there, or not what was stored."""
    row = connection.execute(f"SELECT {CONTENT_COLUMNS}, digest FROM contents WHERE id = ?", (content_id,)).fetchone()
    if row is None:
        raise Damage(f"the content {content_id} is not there")
    if row[-1] != row_digest(*row[:-1]):
        raise Damage(f"the content {content_id} is not what was stored")
    return StoredContent(*row[:-1])


def passages(connection: Connection, of: StoredContent) -> list[PassageRow]:
    """All passages of a content, in text order. Raises Damage when one is not what was stored, or is missing."""
    sql = f"SELECT {PASSAGE_COLUMNS} FROM passages p WHERE p.content_id = ? ORDER BY p.start_char, p.end_char"
    rows = [PassageRow(*row) for row in connection.execute(sql, (of.id,))]
    at = 0
    for row in rows:
        if not (isinstance(row.start, int) and isinstance(row.end, int) and 0 <= row.start <= at < row.end):
            raise Damage(f"the passages of content {of.id} do not cover its text")
        row.text_in(of.title, of.text)
        at = row.end
    if at != len(of.text):
        raise Damage(f"the passages of content {of.id} do not cover its text")
    return rows


def documents(connection: Connection, where: str, values: dict[str, object]) -> list[DocumentRow]:
    """The rows of `documents d` that fit a condition. Raises Damage when one is not what was stored.

    PostgreSQL stores no digests of these rows, because it checks its own pages.
    """
    cursor = connection.execute(f"SELECT d.* FROM documents d WHERE {where}", values)
    names = [column[0] for column in cursor.description]
    found: list[DocumentRow] = []
    for row in cursor:
        fields = dict(zip(names, row, strict=True))
        if "digest" in fields and fields.pop("digest") != row_digest(*fields.values()):
            raise Damage(f"the document {fields['id']} is not what was stored")
        found.append(DocumentRow(*(fields[name] for name in DocumentRow._fields)))
    return found


# --- the small tables as a whole --------------------------------------------------------------------------------------


def problems(connection: Connection) -> Iterator[str]:
    """What is wrong with `TABLES`, a phrase each. The caller reads one state."""
    sums = dict(iter(connection.execute("SELECT name, value FROM sums")))
    for table in TABLES:
        wrong, total = [], 0
        for values, digest in _rows(connection, table):
            found = row_digest(*values)
            total ^= found
            if table == "documents" and digest != found:
                wrong.append(f"the document {values[0]} ({values[1]}) is not what was stored")
        yield from wrong
        if total != sums.get(table) and not wrong:
            yield f"the table {table} is not what was written"
        for (line,) in connection.execute(f"PRAGMA integrity_check({table})"):
            if line != "ok":
                yield f"SQLite says: {line}"


def _rows(connection: Connection, table: str) -> Iterator[tuple[tuple[Any, ...], int | None]]:
    """(what the digest is taken over, the stored digest) of each row."""
    cursor = connection.execute(f"SELECT * FROM {table}")
    names = [column[0] for column in cursor.description]
    at = names.index("digest") if "digest" in names else len(names)
    return ((row[:at] + row[at + 1 :], row[at] if at < len(row) else None) for row in cursor)


def seal(connection: sqlite3.Connection) -> None:
    """Take the digests of `TABLES` as they are now: of a new knowledge base, or one that was upgraded."""
    columns = _columns(connection, "documents")
    connection.create_function("row_digest", -1, row_digest, deterministic=True)
    connection.execute(f"UPDATE documents SET digest = row_digest({', '.join(columns)})")
    for table in TABLES:
        total = 0
        for values, _ in _rows(connection, table):
            total ^= row_digest(*values)
        sql = "INSERT INTO sums VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        connection.execute(sql, (table, total))


def watch(connection: sqlite3.Connection) -> None:
    """Update the digests of `TABLES` with every change that is made through this connection.

    Changing a damaged row does not hide the damage: the old value stays in the sum.
    """
    connection.create_function("row_digest", -1, row_digest, deterministic=True)
    connection.create_function("exclusive_or", 2, lambda a, b: a ^ b, deterministic=True)
    connection.execute("PRAGMA recursive_triggers = ON")  # else INSERT OR REPLACE deletes unseen
    for table in TABLES:
        columns = _columns(connection, table)
        old, new = (f"row_digest({', '.join(f'{side}.{c}' for c in columns)})" for side in ("old", "new"))
        update = "UPDATE sums SET value = exclusive_or(value, {}) WHERE name = '" + table + "'; "
        own = f"UPDATE documents SET digest = {new} WHERE id = new.id; " if table == "documents" else ""
        for event, body in (
            ("INSERT", update.format(new) + own),
            ("DELETE", update.format(old)),
            (f"UPDATE OF {', '.join(columns)}", update.format(f"exclusive_or({old}, {new})") + own),
        ):
            name = f"{table}_{event.split()[0].lower()}"
            connection.execute(f"CREATE TEMP TRIGGER {name} AFTER {event} ON main.{table} BEGIN {body} END")


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] != "digest"]
