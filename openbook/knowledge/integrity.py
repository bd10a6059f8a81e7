"""Digests of rows: what is read from SQLite is what was stored.

Every row of contents, passages, embeddings and documents has a digest over all that is read of it, which is compared when
it is read. The tables in `TABLES` are small and decide together what an answer may see, so that a row that is missing
is as bad as one that is wrong. So each is compared as a whole: `sums` holds the exclusive or of its rows' digests.

This notices accidents of disks, memory and copies. Somebody who changes a file on purpose can change its digests too.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from openbook.knowledge.store import Connection, Damage, Rows

TABLES = ("documents", "identities", "meta", "sources", "tags", "verdicts", "versions")

# What the digest of a passage is taken over, before the title of its content and its own text; then the digest.
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
    id: int
    key: str
    code: str
    text: str
    title: str
    media_type: str
    source_chars: int | None
    metadata: str


def content(connection: Connection, content_id: int) -> StoredContent:
    """Raises Damage when it is not there, or not what was stored."""
    row = connection.execute(f"SELECT {CONTENT_COLUMNS}, digest FROM contents WHERE id = ?", (content_id,)).fetchone()
    if row is None:
        raise Damage(f"the content {content_id} is not there")
    if row[-1] != row_digest(*row[:-1]):
        raise Damage(f"the content {content_id} is not what was stored")
    return StoredContent(*row[:-1])


def check_passage(row: Sequence[Any], title: str, text: str) -> None:
    """`row` begins with `PASSAGE_COLUMNS`. Raises Damage when it is not what was stored."""
    if row[8] != row_digest(*row[:8], title, text):
        raise Damage(f"the passage {row[0]} of content {row[1]} is not what was stored")


def passages(connection: Connection, of: StoredContent) -> list[Sequence[Any]]:
    """The rows of all passages of a content, in text order, as `check_passage` takes them.

    Raises Damage when one is not what was stored, or is missing: they cover the text.
    """
    sql = f"SELECT {PASSAGE_COLUMNS} FROM passages p WHERE p.content_id = ? ORDER BY p.start_char, p.end_char"
    rows = connection.execute(sql, (of.id,)).fetchall()
    at = 0
    for row in rows:
        start, end = row[3], row[4]
        if not (isinstance(start, int) and isinstance(end, int) and 0 <= start <= at < end):
            raise Damage(f"the passages of content {of.id} do not cover its text")
        check_passage(row, of.title, of.text[start:end])
        at = end
    if at != len(of.text):
        raise Damage(f"the passages of content {of.id} do not cover its text")
    return rows


def check_document(cursor: Rows, row: Sequence[Any]) -> dict[str, Any]:
    """A row of `SELECT d.*`, by column. Raises Damage when it is not what was stored, where such rows have digests."""
    values = dict(zip((column[0] for column in cursor.description), row, strict=True))
    if "digest" in values and values.pop("digest") != row_digest(*values.values()):
        raise Damage(f"the document {values['id']} is not what was stored")
    return values


# --- the small tables as a whole --------------------------------------------------------------------------------------


def check(connection: Connection) -> None:
    """Raises Damage when one of `TABLES` is not what was written. The caller reads one state."""
    for problem in problems(connection):
        raise Damage(problem)


def problems(connection: Connection) -> Iterator[str]:
    """What is wrong with `TABLES`, a phrase each."""
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
