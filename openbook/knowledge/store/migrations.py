"""Upgrade of older formats: in place, in one transaction, or not at all.

0.1.0 wrote format 2. Format 3 had sums of other tables, kept by triggers.
"""

from __future__ import annotations

import json
import sqlite3
from functools import reduce
from operator import xor

from openbook.core.records import sha256_hex
from openbook.knowledge.store import integrity, schema
from openbook.knowledge.store.identities import write_identity
from openbook.knowledge.store.integrity import PassageRow, StoredContent, row_digest
from openbook.knowledge.store.interface import Damage
from openbook.knowledge.store.names import passage_id
from openbook.knowledge.store.schema import NEXT_TABLE, SqliteConnection


def upgrade(connection: SqliteConnection) -> None:
    """Upgrade under the caller's write lock. Raises sqlite3.DatabaseError for damage or tables of another format."""
    with schema.transaction(connection):
        found = schema.format_of(connection)
        if found == schema.FORMAT:  # another process was quicker
            return
        if found == 3:
            _check_sums_of_format_3(connection)
            connection.execute("DELETE FROM sums")
            schema.make_tables(connection)
            integrity.seal(connection)
            connection.execute(f"PRAGMA user_version = {schema.FORMAT}")
            return
        if "sums" in connection.tables():
            raise sqlite3.DatabaseError(f"it says format {found}, but has tables of a later one")
        connection.execute("ALTER TABLE documents ADD COLUMN identity INTEGER REFERENCES identities (id)")
        for table in ("contents", "passages", "embeddings", "documents"):
            connection.execute(f"ALTER TABLE {table} ADD COLUMN digest INTEGER")
        schema.make_tables(connection)
        _identify(connection)
        _add_digests(connection)
        connection.execute(f"PRAGMA user_version = {schema.FORMAT}")


def _check_sums_of_format_3(connection: sqlite3.Connection) -> None:
    sums = dict(connection.execute("SELECT name, value FROM sums"))
    for table in integrity.TABLES:
        columns = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})") if name != "digest"]
        rows = connection.execute(f"SELECT {', '.join(columns)} FROM {table}")
        if sums.get(table) != reduce(xor, (row_digest(*row) for row in rows), 0):
            raise Damage(f"the table {table} is not what was written")


def _identify(connection: sqlite3.Connection) -> None:
    """Identify the document of each row: the one at its path, or the one renamed to it then."""
    columns = "id, path, content_id, labels, given_labels, added_in, removed_in"
    rows = connection.execute(f"SELECT {columns} FROM documents ORDER BY id").fetchall()
    came = {(path, added_in) for _, path, *_, added_in, _ in rows}
    ended = {(path, removed_in) for _, path, *_, removed_in in rows}
    left: dict[tuple[int, int], list[str]] = {}  # paths that were given up, by the content and the version
    for _, path, content, _, _, _, removed_in in rows:
        if (path, removed_in) not in came:
            left.setdefault((content, removed_in), []).append(path)
    at: dict[str, int] = {}  # documents by their last path so far
    for row, path, content, labels, given, added_in, _ in rows:
        renamed = left.get((content, added_in), []) if (path, added_in) not in ended else []
        identity = at.pop(renamed.pop(0)) if renamed else at.get(path)
        at[path] = write_identity(connection, identity, path, labels, given)
        connection.execute("UPDATE documents SET identity = ? WHERE id = ?", (at[path], row))
    last = {path: set(json.loads(labels)) for _, path, _, labels, *_ in rows}  # also restricts the path's older rows
    for row, path, _, labels, _, _, removed_in in rows:
        if removed_in is not None and not last[path] <= (held := set(json.loads(labels))):
            connection.execute(
                "UPDATE documents SET labels = ? WHERE id = ?", (json.dumps(sorted(held | last[path])), row)
            )
    gone = json.loads(schema.meta(connection).get("labels_of_gone", "{}"))
    for path, given_labels in gone.items():  # documents without a kept version
        if path not in at:
            write_identity(connection, None, path, json.dumps(given_labels), json.dumps(given_labels))
    schema.remember(connection, labels_of_gone=None)


def _add_digests(connection: sqlite3.Connection) -> None:
    """A text that does not match its passages' names gets no digest, so that it counts as damaged."""
    connection.execute(f"DROP TABLE IF EXISTS {NEXT_TABLE}")  # of an interrupted run, which will start over
    schema.remember(connection, reembedding=None)
    for (content_id,) in connection.execute("SELECT id FROM contents").fetchall():
        try:
            sql = f"SELECT {integrity.CONTENT_COLUMNS} FROM contents WHERE id = ?"
            content = StoredContent(*connection.execute(sql, (content_id,)).fetchone())
            sql = f"SELECT {integrity.PASSAGE_COLUMNS} FROM passages p WHERE content_id = ?"
            passages = [PassageRow(*row) for row in connection.execute(sql, (content_id,))]
        except sqlite3.OperationalError:  # not UTF-8
            continue
        digest = sha256_hex(content.text.encode())
        if all(each.passage_id == passage_id(digest, each.start, each.end) for each in passages):
            connection.execute("UPDATE contents SET digest = ? WHERE id = ?", (row_digest(*content), content_id))
            connection.executemany(
                "UPDATE passages SET digest = ? WHERE id = ?",
                [(each.digest_of(content.title, content.text[each.start : each.end]), each.id) for each in passages],
            )
    integrity.digest_documents(connection)
    integrity.seal(connection)
    connection.execute("UPDATE embeddings SET digest = row_digest(embedding_key, vector)")
