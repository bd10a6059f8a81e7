"""Embeds passages, batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from openbook.knowledge import schema
from openbook.knowledge.base import KnowledgeBase, embedder_json
from openbook.knowledge.index_cache import kept_contents
from openbook.knowledge.integrity import PASSAGE_COLUMNS, PassageRow, row_digest
from openbook.knowledge.schema import NEXT_TABLE
from openbook.knowledge.sliced_run import TABLE, IsOurs, SlicedRun, WriteConflict, in_slices
from openbook.knowledge.store import Connection, Writer
from openbook.knowledge.tables import table_header
from openbook.knowledge.versions import add_version
from openbook.knowledge.write_lock import LOCK_TIMEOUT_S
from openbook.parallel import StagedProgress
from openbook.records import BatchEmbedder, Embedder

BATCH = 64  # passages embedded between two slices


def embedding_texts(title: str, headings: Sequence[str], text: str, start: int, end: int) -> tuple[str, ...]:
    """The text that is embedded for `text[start:end]`, then one that an older version may have embedded instead.

    It says where the passage stands, then the header of the table that the passage begins in, then what the passage says.
    Older versions left out the header.
    """
    path = " > ".join(dict.fromkeys(part for part in (title, *headings) if part))
    passage = text[start:end].strip()
    header = table_header(text, start)
    texts = (f"{header}\n{passage}", passage) if header else (passage,)
    return tuple(f"{path}\n{each}" if path else each for each in texts)


def embedding_key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def embed_missing(
    run: SlicedRun,
    contents: Iterable[int],
    embedder: Embedder,
    progress: StagedProgress,
    *,
    table: str = TABLE,
    is_ours: IsOurs = lambda _: True,
    reusable: Iterable[int] | None = None,
) -> int:
    """Embed what has no vector in `table` yet. Returns how many different texts that were.

    `reusable`: the contents whose vectors save work; None: all. What this run embedded before does, too. Other texts are embedded even if
    they have a vector, which stays.

    Raises WriteConflict when the table is not `is_ours` any more, or a purge deleted a passage meanwhile.
    """
    missing: dict[bytes, int] = {}
    with run.slice() as connection:
        if not is_ours(connection):
            raise WriteConflict
        for content in reusable or ():
            rows = connection.execute("SELECT embedding_key FROM passages WHERE content_id = ?", (content,))
            run.embedded.update(key for (key,) in rows)
        for content in sorted(set(contents)):
            rows = connection.execute(
                f"SELECT p.embedding_key, p.id, e.embedding_key IS NULL FROM passages p LEFT JOIN {table} e USING (embedding_key) "
                "WHERE p.content_id = ? AND (e.embedding_key IS NULL OR ?)",
                (content, reusable is not None),
            )
            # The first that has the text, so that those of one content stay together.
            for key, passage, has_none in rows.fetchall():
                if has_none or key not in run.embedded:
                    missing.setdefault(key, passage)
    if not missing:
        return 0
    run.begin_long_work()
    wanted = list(missing.items())
    starts = range(0, len(wanted), BATCH)
    batches = [wanted[start : start + BATCH] for start in starts]
    stream = _texts_of(run.connection, (passage for _, passage in wanted))
    texts = (list(islice(stream, len(batch))) for batch in batches)
    if isinstance(embedder, BatchEmbedder):
        embedded = embedder.embed_batches(texts)
    else:
        embedded = map(embedder.embed_passages, texts)
    for start, batch in zip(starts, batches, strict=True):
        progress("embed", start, len(wanted))
        run.check_cancelled()
        vectors = [vector.tobytes() for vector in next(embedded).astype("<f2")]
        made = [(key, vector, row_digest(key, vector)) for (key, _), vector in zip(batch, vectors, strict=True)]
        with run.slice(facts_only=True) as connection, schema.transaction(connection):
            ids = ", ".join(str(passage) for _, passage in batch)
            sql = f"SELECT count(*) FROM passages WHERE id IN ({ids})"
            if not is_ours(connection) or connection.execute(sql).fetchone()[0] != len(batch):
                raise WriteConflict
            # Another run may have embedded the same text meanwhile. In one order, so that two runs never wait for each other.
            sql = f"INSERT INTO {table} VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
            connection.executemany(sql, sorted(made))
        if reusable is not None:
            run.embedded.update(key for key, _ in batch)
    progress("embed", len(wanted), len(wanted))
    return len(wanted)


def _texts_of(connection: Connection, passages: Iterable[int]) -> Iterator[str]:
    """The text that each passage's key names. Passages of one content follow each other, so its text is read once."""
    content_id, title, text = -1, "", ""
    for passage in passages:
        row = connection.execute(f"SELECT {PASSAGE_COLUMNS} FROM passages p WHERE p.id = ?", (passage,)).fetchone()
        if row is None:
            raise WriteConflict
        stored = PassageRow(*row)
        if stored.content_id != content_id:
            content_id = stored.content_id
            found = connection.execute("SELECT title, text FROM contents WHERE id = ?", (content_id,)).fetchone()
            if found is None:
                raise WriteConflict
            title, text = found
        stored.text_in(title, text)
        texts = embedding_texts(title, stored.headings, text, stored.start, stored.end)
        yield next((each for each in texts if embedding_key(each) == stored.embedding_key), texts[0])


def reembed(
    base: KnowledgeBase,
    embedder: Embedder,
    *,
    progress: StagedProgress = lambda stage, done, total: None,
) -> tuple[int, int]:
    """Change the embedder. Returns (new version, texts embedded now).

    All vectors are made beside the old ones, then one transaction switches to them. Until then readers use the old embedder,
    and others may write. When a call is interrupted, the next one with the same embedder goes on where it was. `base` must be
    opened again afterwards. Raises KnowledgeBaseBusy, StorageError.
    """
    identity = embedder_json(embedder.identity)

    def is_ours(connection: Writer) -> bool:
        """Whether the table of new vectors is for this run: a purge drops it, and so does a run with another embedder."""
        return schema.meta(connection).get("reembedding") == identity and NEXT_TABLE in connection.tables()

    def work(run: SlicedRun) -> tuple[int, int]:
        with run.slice() as connection, schema.transaction(connection):
            if not is_ours(connection):
                connection.execute(f"DROP TABLE IF EXISTS {NEXT_TABLE}")
            connection.make_embeddings(NEXT_TABLE)
            schema.remember(connection, reembedding=identity)
        contents = kept_contents(run.connection).tolist()
        embedded = embed_missing(run, contents, embedder, progress, table=NEXT_TABLE, is_ours=is_ours)
        with run.commit(contents, NEXT_TABLE, is_ours) as connection:
            connection.durable(True)
            with schema.transaction(connection), connection.changing(()):
                version = schema.newest_version(connection) + 1
                # Row by row, so that whoever reads the state before sees the old ones.
                connection.execute(f"DELETE FROM {TABLE}")
                connection.execute(f"INSERT INTO {TABLE} SELECT * FROM {NEXT_TABLE}")
                connection.execute(f"DROP TABLE {NEXT_TABLE}")
                schema.remember(connection, embedder=identity, reembedding=None)
                add_version(connection, version, f"embedded anew by {embedder.identity.name}")
        return version, embedded

    version, embedded = in_slices(base, work, LOCK_TIMEOUT_S)
    changed = KnowledgeBase.open(base.store.place, embedder.identity)
    changed.indexes.blobs = base.indexes.blobs
    with changed.writing() as connection:
        changed.indexes.refresh(connection)
    changed.close()
    return version, embedded
