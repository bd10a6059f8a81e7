"""Passages to vectors: each text once, committed batch by batch, so that an interrupted run goes on where it was."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable

from openbook.knowledge import schema
from openbook.knowledge.intake import embedding_text
from openbook.knowledge.integrity import PASSAGE_COLUMNS, check_passage, row_digest
from openbook.records import Embedder

BATCH = 64  # passages embedded between two commits
TABLE = "embeddings"
NEXT_TABLE = "embeddings_next"  # another embedder's vectors, until they are complete


def embed_missing(
    connection: sqlite3.Connection,
    contents: Iterable[int],
    embedder: Embedder,
    progress: Callable[[str, int, int], None],
    *,
    table: str = TABLE,
) -> int:
    """Embed what has no vector in `table` yet; how many different texts that were."""
    missing: dict[bytes, int] = {}
    for content in sorted(set(contents)):
        rows = connection.execute(
            f"SELECT p.embedding_key, p.id FROM passages p LEFT JOIN {table} e USING (embedding_key) "
            "WHERE p.content_id = ? AND e.embedding_key IS NULL",
            (content,),
        )
        missing.update(rows.fetchall())
    keys = list(missing)
    for start in range(0, len(keys), BATCH):
        progress("embed", start, len(keys))
        batch = keys[start : start + BATCH]
        vectors = embedder.embed_passages([_text_of(connection, missing[key]) for key in batch]).astype("<f2")
        with schema.transaction(connection):
            connection.executemany(
                f"INSERT INTO {table} VALUES (?, ?, ?)",
                [(k, v.tobytes(), row_digest(k, v.tobytes())) for k, v in zip(batch, vectors, strict=True)],
            )
    if keys:
        progress("embed", len(keys), len(keys))
    return len(keys)


def _text_of(connection: sqlite3.Connection, passage: int) -> str:
    row = connection.execute(
        f"SELECT {PASSAGE_COLUMNS}, c.title, substr(c.text, p.start_char + 1, p.end_char - p.start_char) "
        "FROM passages p JOIN contents c ON c.id = p.content_id WHERE p.id = ?",
        (passage,),
    ).fetchone()
    check_passage(row, *row[-2:])
    return embedding_text(row[-2], schema.headings(row[6]), row[-1])
