"""Knowledge bases of older formats become ones of this format: in place, in one transaction, or not at all."""

from __future__ import annotations

import sqlite3

from openbook.knowledge import schema

# SQLite cannot change a primary key, so a table is made anew and its rows are copied.
_REMADE = ("contents", "passages", "documents", "verdicts")
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
_INDEXES_OF_1 = ("passages_by_content", "passages_by_passage_id", "live_documents", "documents_by_content")


def upgrade(connection: sqlite3.Connection) -> None:
    """Bring a knowledge base of format 1 to format 2. The caller holds the write lock."""
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("PRAGMA legacy_alter_table = ON")  # a renamed table stays what others refer to by its old name
    try:
        with schema.transaction(connection):
            if schema.format_of(connection) == 1:
                _from_1_to_2(connection)
    finally:
        connection.execute("PRAGMA legacy_alter_table = OFF")
        connection.execute("PRAGMA foreign_keys = ON")


def _from_1_to_2(connection: sqlite3.Connection) -> None:
    for index in _INDEXES_OF_1:
        connection.execute(f"DROP INDEX IF EXISTS {index}")
    for table in _REMADE:
        connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    for statement in (*schema.table_statements(), *schema.statements(_ROWS_1_TO_2)):
        connection.execute(statement)
    for table in _REMADE:
        connection.execute(f"DROP TABLE old_{table}")
    connection.execute("PRAGMA user_version = 2")
