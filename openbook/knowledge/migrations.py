"""Knowledge bases of older formats become ones of this format: in place, in one transaction, or not at all."""

from __future__ import annotations

import json
import sqlite3

from openbook.knowledge import integrity, schema
from openbook.knowledge.identities import write_identity
from openbook.knowledge.passages import passage_id
from openbook.knowledge.schema import NEXT_TABLE
from openbook.records import sha256_hex

# SQLite cannot change a primary key, so a table is made anew and its rows are copied.
_REMADE = ("contents", "passages", "documents", "verdicts")
_TABLES_2 = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS versions (version INTEGER PRIMARY KEY, created_at TEXT NOT NULL, summary TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tags (
  name TEXT PRIMARY KEY, version INTEGER NOT NULL REFERENCES versions (version), created_at TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sources (folder TEXT PRIMARY KEY, rules TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS contents (
  id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, code TEXT NOT NULL, text TEXT NOT NULL,
  title TEXT NOT NULL, media_type TEXT NOT NULL, source_chars INTEGER, metadata TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS passages (
  id INTEGER PRIMARY KEY AUTOINCREMENT, content_id INTEGER NOT NULL REFERENCES contents (id), passage_id TEXT NOT NULL,
  start_char INTEGER NOT NULL, end_char INTEGER NOT NULL, page INTEGER, headings TEXT NOT NULL,
  embedding_key BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS passages_by_content ON passages (content_id);
CREATE INDEX IF NOT EXISTS passages_by_passage_id ON passages (passage_id);
CREATE TABLE IF NOT EXISTS embeddings (embedding_key BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS documents (
  id INTEGER PRIMARY KEY, path TEXT NOT NULL, content_id INTEGER NOT NULL REFERENCES contents (id),
  bytes INTEGER NOT NULL, stat TEXT NOT NULL, metadata TEXT NOT NULL, labels TEXT NOT NULL,
  given_labels TEXT NOT NULL, added_in INTEGER NOT NULL, removed_in INTEGER);
CREATE UNIQUE INDEX IF NOT EXISTS live_documents ON documents (path) WHERE removed_in IS NULL;
CREATE INDEX IF NOT EXISTS documents_by_content ON documents (content_id);
CREATE TABLE IF NOT EXISTS verdicts (
  path TEXT PRIMARY KEY, outcome TEXT NOT NULL, reason TEXT NOT NULL, tried_at TEXT NOT NULL, stat TEXT NOT NULL)
  WITHOUT ROWID;
"""
_ROWS_1_TO_2 = """
INSERT INTO contents (id, key, code, text, title, media_type, source_chars, metadata)
  SELECT id, key, code, text, title, media_type, NULL, '{}' FROM old_contents;
INSERT INTO passages (id, content_id, passage_id, start_char, end_char, page, headings, embedding_key)
  SELECT id, content_id, passage_id, start_char, end_char, page, headings, embedding_key FROM old_passages;
-- An empty stat fits no file, so each is looked at once more and keeps its content if that is the same.
INSERT INTO documents (id, path, content_id, bytes, stat, metadata, labels, given_labels, added_in, removed_in)
  SELECT id, path, content_id, bytes, '', '{}', '[]', '[]', added_in, removed_in FROM old_documents;
INSERT INTO verdicts (path, outcome, reason, tried_at, stat)
  SELECT path, outcome, reason, tried_at, '' FROM old_verdicts;
"""
_NEW_TABLES = {2: "tags", 3: "sums"}  # a table that the format did not have before
_INDEXES_OF_1 = ("passages_by_content", "passages_by_passage_id", "live_documents", "documents_by_content")


def upgrade(connection: sqlite3.Connection) -> None:
    """Bring a knowledge base of an older format to this one. The caller holds the write lock.

    Raises sqlite3.DatabaseError when it has tables of a later format: then the number of its format is damaged.
    """
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("PRAGMA legacy_alter_table = ON")  # a renamed table stays what others refer to by its old name
    try:
        with schema.transaction(connection):
            found = schema.format_of(connection)
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if tables & {name for later, name in _NEW_TABLES.items() if later > found}:
                raise sqlite3.DatabaseError(f"it says format {found}, but has tables of a later one")
            if found == 1:
                _from_1_to_2(connection)
            if schema.format_of(connection) == 2:
                _from_2_to_3(connection)
    finally:
        connection.execute("PRAGMA legacy_alter_table = OFF")
        connection.execute("PRAGMA foreign_keys = ON")


def _from_1_to_2(connection: sqlite3.Connection) -> None:
    for index in _INDEXES_OF_1:
        connection.execute(f"DROP INDEX IF EXISTS {index}")
    for table in _REMADE:
        connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    for statement in (*schema.statements(_TABLES_2), *schema.statements(_ROWS_1_TO_2)):
        connection.execute(statement)
    for table in _REMADE:
        connection.execute(f"DROP TABLE old_{table}")
    connection.execute("PRAGMA user_version = 2")


def _from_2_to_3(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE documents ADD COLUMN identity INTEGER REFERENCES identities (id)")
    for table in ("contents", "passages", "embeddings", "documents"):
        connection.execute(f"ALTER TABLE {table} ADD COLUMN digest INTEGER")
    for statement in schema.table_statements():
        connection.execute(statement)
    _identify(connection)
    _add_digests(connection)
    connection.execute("PRAGMA user_version = 3")


def _identify(connection: sqlite3.Connection) -> None:
    """Give each row the identity of its document: the one that was at its path, or the one that was renamed to it then."""
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
    last = {path: set(json.loads(labels)) for _, path, _, labels, *_ in rows}  # closed the path's past, whosever it was
    for row, path, _, labels, _, _, removed_in in rows:
        if removed_in is not None and not last[path] <= (held := set(json.loads(labels))):
            connection.execute(
                "UPDATE documents SET labels = ? WHERE id = ?", (json.dumps(sorted(held | last[path])), row)
            )
    gone = connection.execute("SELECT value FROM meta WHERE key = 'labels_of_gone'").fetchone()
    for path, given_labels in (json.loads(gone[0]) if gone else {}).items():  # of which no version was kept
        if path not in at:
            write_identity(connection, None, path, json.dumps(given_labels), json.dumps(given_labels))
    connection.execute("DELETE FROM meta WHERE key = 'labels_of_gone'")


def _add_digests(connection: sqlite3.Connection) -> None:
    """Of every row as it is now. A text that is not what its passages are named after gets none, so that it counts as damaged."""
    connection.execute(f"DROP TABLE IF EXISTS {NEXT_TABLE}")  # of an interrupted run, which will begin anew
    connection.execute("DELETE FROM meta WHERE key = 'reembedding'")
    for (content_id,) in connection.execute("SELECT id FROM contents").fetchall():
        try:
            row = connection.execute(
                "SELECT id, key, code, text, title, media_type, source_chars, metadata FROM contents WHERE id = ?",
                (content_id,),
            ).fetchone()
            sql = f"SELECT {integrity.PASSAGE_COLUMNS} FROM passages p WHERE content_id = ?"
            passages = connection.execute(sql, (content_id,)).fetchall()
        except sqlite3.OperationalError:  # not UTF-8
            continue
        title, text = row[4], row[3]
        digest = sha256_hex(text.encode())
        if all(each[2] == passage_id(digest, each[3], each[4]) for each in passages):
            connection.execute("UPDATE contents SET digest = ? WHERE id = ?", (integrity.row_digest(*row), content_id))
            connection.executemany(
                "UPDATE passages SET digest = ? WHERE id = ?",
                [(integrity.row_digest(*p[:8], title, text[p[3] : p[4]]), p[0]) for p in passages],
            )
    connection.create_function("row_digest", -1, integrity.row_digest, deterministic=True)
    connection.execute("UPDATE embeddings SET digest = row_digest(embedding_key, vector)")
    integrity.seal(connection)
