"""Knowledge bases of older formats become ones of this format: in place, in one transaction, or not at all."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable

from openbook.knowledge import schema
from openbook.knowledge.identities import write_identity

# SQLite cannot change a primary key, so a table is made anew and its rows are copied.
_REMADE = ("contents", "passages", "documents", "verdicts")
_ROWS_1_TO_2 = """
INSERT INTO contents (id, key, code, text, title, media_type, source_chars, metadata)
  SELECT id, key, code, text, title, media_type, NULL, '{}' FROM old_contents;
INSERT INTO passages (id, content_id, passage_id, start_char, end_char, page, headings, embedding_key)
  SELECT id, content_id, passage_id, start_char, end_char, page, headings, embedding_key FROM old_passages;
-- An empty stat fits no file, so each is looked at once more and keeps its content if that is the same.
INSERT INTO documents (id, path, content_id, bytes, stat, metadata, labels, given_labels, added_in, removed_in, identity)
  SELECT id, path, content_id, bytes, '', '{}', '[]', '[]', added_in, removed_in, 0 FROM old_documents;
INSERT INTO verdicts (path, outcome, reason, tried_at, stat)
  SELECT path, outcome, reason, tried_at, '' FROM old_verdicts;
"""
_ROWS_2_TO_3 = """
INSERT INTO documents (id, path, content_id, bytes, stat, metadata, labels, given_labels, added_in, removed_in, identity)
  SELECT id, path, content_id, bytes, stat, metadata, labels, given_labels, added_in, removed_in, 0 FROM old_documents;
"""
_INDEXES_OF_1 = ("passages_by_content", "passages_by_passage_id", "live_documents", "documents_by_content")


def upgrade(connection: sqlite3.Connection) -> None:
    """Bring a knowledge base of an older format to this one. The caller holds the write lock."""
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("PRAGMA legacy_alter_table = ON")  # a renamed table stays what others refer to by its old name
    try:
        with schema.transaction(connection):
            found = schema.format_of(connection)
            if found == 1:
                _make_anew(connection, _REMADE, _INDEXES_OF_1, _ROWS_1_TO_2)
            elif found == 2:
                _make_anew(connection, ("documents",), ("live_documents", "documents_by_content"), _ROWS_2_TO_3)
            if found < schema.FORMAT:
                _identify(connection)
                connection.execute(f"PRAGMA user_version = {schema.FORMAT}")
    finally:
        connection.execute("PRAGMA legacy_alter_table = OFF")
        connection.execute("PRAGMA foreign_keys = ON")


def _make_anew(connection: sqlite3.Connection, tables: Iterable[str], indexes: Iterable[str], rows: str) -> None:
    """Make `tables` as they are in this format, and copy their rows by the script `rows`."""
    for index in indexes:
        connection.execute(f"DROP INDEX IF EXISTS {index}")
    for table in tables:
        connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    for statement in (*schema.table_statements(), *schema.statements(rows)):
        connection.execute(statement)
    for table in tables:
        connection.execute(f"DROP TABLE old_{table}")


def _identify(connection: sqlite3.Connection) -> None:
    """Say of each row which document it is of: the one that was at its path, or the one that was renamed to it then."""
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
    gone = connection.execute("SELECT value FROM meta WHERE key = 'labels_of_gone'").fetchone()
    for path, given_labels in (json.loads(gone[0]) if gone else {}).items():  # of which no version was kept
        if path not in at:
            write_identity(connection, None, path, json.dumps(given_labels), json.dumps(given_labels))
    connection.execute("DELETE FROM meta WHERE key = 'labels_of_gone'")
