"""Another embedder for a knowledge base. It makes one version, and the last one survives interruption."""

from __future__ import annotations

from openbook.core.parallel import StagedProgress
from openbook.core.records import Embedder
from openbook.knowledge.base import KnowledgeBase, embedder_json
from openbook.knowledge.index.cache import kept_contents
from openbook.knowledge.ingest.embeddings import embed_missing
from openbook.knowledge.ingest.long_run import TABLE, LongRun, in_slices
from openbook.knowledge.store import schema
from openbook.knowledge.store.interface import Writer
from openbook.knowledge.store.schema import NEXT_TABLE
from openbook.knowledge.store.version_rows import add_version
from openbook.knowledge.store.write_lock import LOCK_TIMEOUT_S


def reembed(
    base: KnowledgeBase, embedder: Embedder, *, progress: StagedProgress = lambda stage, done, total: None
) -> tuple[int, int]:
    """Change the embedder. Returns (new version, texts embedded now).

    Search uses the old vectors until one transaction switches to the complete new ones; others may write meanwhile. An interrupted call is
    resumed with the same embedder. Open `base` again afterwards.
    """
    identity = embedder_json(embedder.identity)

    def is_ours(connection: Writer) -> bool:
        """True if the table of new vectors is for this run: purges and other embedders' runs drop it."""
        return schema.meta(connection).get("reembedding") == identity and NEXT_TABLE in connection.tables()

    def work(run: LongRun) -> tuple[int, int]:
        with run.slice() as connection, schema.transaction(connection):
            if not is_ours(connection):
                connection.execute(f"DROP TABLE IF EXISTS {NEXT_TABLE}")
            connection.make_embeddings(NEXT_TABLE)
            schema.remember(connection, reembedding=identity)
        contents = kept_contents(run.connection).tolist()
        run.table, run.is_ours = NEXT_TABLE, is_ours
        embedded = embed_missing(run, contents, embedder, progress)
        with run.commit(contents) as connection:
            connection.durable(True)
            with schema.transaction(connection), connection.changing(()):
                version = schema.newest_version(connection) + 1
                # Row by row, so that readers of the state before see the old ones.
                connection.execute(f"DELETE FROM {TABLE}")
                connection.execute(f"INSERT INTO {TABLE} SELECT * FROM {NEXT_TABLE}")
                connection.execute(f"DROP TABLE {NEXT_TABLE}")
                schema.remember(connection, embedder=identity, reembedding=None)
                add_version(connection, version, f"embedded again by {embedder.identity.name}")
        return version, embedded

    version, embedded = in_slices(base, work, LOCK_TIMEOUT_S)
    changed = KnowledgeBase.open(base.store.place, embedder.identity)
    with changed.writing() as connection:
        changed.indexes.refresh(connection)
    changed.close()
    return version, embedded
