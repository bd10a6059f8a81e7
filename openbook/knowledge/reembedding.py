"""Giving a knowledge base another embedder: all vectors are made beside the old ones, then one transaction switches."""

from __future__ import annotations

import json

from openbook.knowledge import schema
from openbook.knowledge.base import KnowledgeBase, kept_contents
from openbook.knowledge.committing import add_version, newest
from openbook.knowledge.embedding import NEXT_TABLE, TABLE, embed_missing
from openbook.knowledge.intake import Progress
from openbook.records import Embedder, EmbedderIdentity


def reembed(
    base: KnowledgeBase,
    embedder: Embedder,
    *,
    lock_timeout_s: float = 30.0,
    progress: Progress = lambda stage, done, total: None,
) -> tuple[int, int]:
    """(new version, texts embedded now). Until the switch, readers use the old embedder and see nothing of it.

    Interrupted, the next call with the same embedder goes on. `base` must be opened again afterwards.
    Raises KnowledgeBaseBusy, StorageError.
    """
    identity = identity_json(embedder.identity)
    with base.writing(lock_timeout_s) as connection:
        with schema.transaction(connection):
            row = connection.execute("SELECT value FROM meta WHERE key = 'reembedding'").fetchone()
            if row is None or row[0] != identity:  # vectors that a run with another embedder left
                connection.execute(f"DROP TABLE IF EXISTS {NEXT_TABLE}")
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {NEXT_TABLE} (embedding_key BLOB PRIMARY KEY, vector BLOB NOT NULL, digest INTEGER) "
                "WITHOUT ROWID"
            )
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('reembedding', ?)", (identity,))
        contents = kept_contents(connection).tolist()
        embedded = embed_missing(connection, contents, embedder, progress, table=NEXT_TABLE)
        connection.execute("PRAGMA synchronous = FULL")
        with schema.transaction(connection):
            version = newest(connection) + 1
            connection.execute(f"DROP TABLE {TABLE}")
            connection.execute(f"ALTER TABLE {NEXT_TABLE} RENAME TO {TABLE}")
            connection.execute("UPDATE meta SET value = ? WHERE key = 'embedder'", (identity,))
            connection.execute("DELETE FROM meta WHERE key = 'reembedding'")
            add_version(connection, version, f"embedded anew by {embedder.identity.name}")
    changed = KnowledgeBase.open(base.folder, embedder.identity)
    with changed.writing(lock_timeout_s) as connection:
        changed.refresh_indexes(connection)
    changed.close()
    return version, embedded


def identity_json(identity: EmbedderIdentity) -> str:
    return json.dumps({"name": identity.name, "digest": identity.digest, "dimensions": identity.dimensions})
