"""Giving a knowledge base another embedder: all vectors are made beside the old ones, then one transaction switches."""

from __future__ import annotations

import json
import sqlite3

from openbook.knowledge import schema
from openbook.knowledge.base import KnowledgeBase, kept_contents
from openbook.knowledge.committing import add_version, newest
from openbook.knowledge.embedding import embed_missing
from openbook.knowledge.intake import Progress
from openbook.knowledge.schema import NEXT_TABLE
from openbook.knowledge.slices import TABLE, SlicedRun, in_slices
from openbook.records import Embedder, EmbedderIdentity


def reembed(
    base: KnowledgeBase,
    embedder: Embedder,
    *,
    lock_timeout_s: float = 30.0,
    progress: Progress = lambda stage, done, total: None,
) -> tuple[int, int]:
    """(new version, texts embedded now). Until the switch, readers use the old embedder and see nothing of it.

    Others write meanwhile. Interrupted, the next call with the same embedder goes on. `base` must be opened again afterwards.
    Raises KnowledgeBaseBusy, StorageError.
    """
    identity = identity_json(embedder.identity)

    def is_ours(connection: sqlite3.Connection) -> bool:
        return _is_for(connection, identity)

    def work(run: SlicedRun) -> tuple[int, int]:
        with run.slice() as connection, schema.transaction(connection):
            if not is_ours(connection):  # vectors that a run with another embedder left
                connection.execute(f"DROP TABLE IF EXISTS {NEXT_TABLE}")
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {NEXT_TABLE} (embedding_key BLOB PRIMARY KEY, vector BLOB NOT NULL, digest INTEGER) "
                "WITHOUT ROWID"
            )
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('reembedding', ?)", (identity,))
        contents = kept_contents(run.connection).tolist()
        embedded = embed_missing(run, contents, embedder, progress, table=NEXT_TABLE, is_ours=is_ours)
        with run.commit(contents, NEXT_TABLE, is_ours) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            with schema.transaction(connection):
                version = newest(connection) + 1
                connection.execute(f"DROP TABLE {TABLE}")
                connection.execute(f"ALTER TABLE {NEXT_TABLE} RENAME TO {TABLE}")
                connection.execute("UPDATE meta SET value = ? WHERE key = 'embedder'", (identity,))
                connection.execute("DELETE FROM meta WHERE key = 'reembedding'")
                add_version(connection, version, f"embedded anew by {embedder.identity.name}")
        return version, embedded

    version, embedded = in_slices(base, work, lock_timeout_s)
    changed = KnowledgeBase.open(base.folder, embedder.identity)
    with changed.writing(lock_timeout_s) as connection:
        changed.refresh_indexes(connection)
    changed.close()
    return version, embedded


def _is_for(connection: sqlite3.Connection, identity: str) -> bool:
    """Whether the table beside is there, for that embedder: a purge drops it, and so does a run with another embedder."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'reembedding'").fetchone()
    table = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (NEXT_TABLE,)).fetchone()
    return row is not None and row[0] == identity and table is not None


def identity_json(identity: EmbedderIdentity) -> str:
    return json.dumps({"name": identity.name, "digest": identity.digest, "dimensions": identity.dimensions})
