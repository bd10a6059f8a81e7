"""Embeds passages, batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from openbook.core.parallel import StagedProgress
from openbook.core.records import BatchEmbedder, Embedder
from openbook.knowledge.index.table_headers import table_header
from openbook.knowledge.ingest.long_run import LongRun, WriteConflict
from openbook.knowledge.store import schema
from openbook.knowledge.store.integrity import PASSAGE_COLUMNS, PassageRow, row_digest
from openbook.knowledge.store.interface import Connection

BATCH = 64  # passages embedded between two slices


def embedding_text(title: str, headings: Sequence[str], text: str, start: int, end: int) -> str:
    """The text to embed for `text[start:end]`: title and headings, the header of the table that the passage begins in, and the passage."""
    path = " > ".join(dict.fromkeys(part for part in (title, *headings) if part))
    above = [each for each in (path, table_header(text, start)) if each]
    return "\n".join([*above, text[start:end].strip()])


def embedding_key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def embed_missing(
    run: LongRun, contents: Iterable[int], embedder: Embedder, progress: StagedProgress, reusable: Iterable[int] | None
) -> int:
    """Embed what has no vector in the run's table. Returns the number of distinct texts.

    Only vectors of the contents `reusable` (None: all) or of this run save work; other texts are embedded even if they have a vector, which stays.
    Raises WriteConflict when the table is not the run's any more, or a purge deleted a passage.
    """
    if not (wanted := _missing(run, contents, reusable)):
        return 0
    run.begin_long_work()
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
            if not run.is_ours(connection) or connection.execute(sql).fetchone()[0] != len(batch):
                raise WriteConflict
            # Another run may have embedded the same text meanwhile. In one order, so that two runs never wait for each other.
            sql = f"INSERT INTO {run.table} VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
            connection.executemany(sql, sorted(made))
        if reusable is not None:
            run.embedded.update(key for key, _ in batch)
    progress("embed", len(wanted), len(wanted))
    return len(wanted)


def _missing(run: LongRun, contents: Iterable[int], reusable: Iterable[int] | None) -> list[tuple[bytes, int]]:
    """The keys to embed, each with the first passage that has it, so that those of one content are adjacent."""
    missing: dict[bytes, int] = {}
    with run.slice() as connection:
        if not run.is_ours(connection):
            raise WriteConflict
        for content in reusable or ():
            rows = connection.execute("SELECT embedding_key FROM passages WHERE content_id = ?", (content,))
            run.embedded.update(key for (key,) in rows)
        for content in sorted(set(contents)):
            rows = connection.execute(
                f"SELECT p.embedding_key, p.id, e.embedding_key IS NULL FROM passages p LEFT JOIN {run.table} e USING (embedding_key) "
                "WHERE p.content_id = ? AND (e.embedding_key IS NULL OR ?)",
                (content, reusable is not None),
            )
            for key, passage, has_none in rows.fetchall():
                if has_none or key not in run.embedded:
                    missing.setdefault(key, passage)
    return list(missing.items())


def _texts_of(connection: Connection, passages: Iterable[int]) -> Iterator[str]:
    """The text of each passage's key. Passages of one content are adjacent, so its text is read once."""
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
        yield embedding_text(title, stored.headings, text, stored.start, stored.end)
