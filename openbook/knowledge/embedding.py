"""Passages to vectors: each text once, stored batch by batch, so that an interrupted run goes on where it was."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence

from openbook.knowledge import schema
from openbook.knowledge.intake import embedding_key, embedding_texts
from openbook.knowledge.integrity import PASSAGE_COLUMNS, check_passage, row_digest
from openbook.knowledge.locking import Overtaken
from openbook.knowledge.slices import TABLE, IsOurs, SlicedRun, always
from openbook.knowledge.tables import MOST_ROW_CHARS, MOST_TABLE_CHARS
from openbook.records import Embedder

BATCH = 64  # passages embedded between two slices


def embed_missing(
    run: SlicedRun,
    contents: Iterable[int],
    embedder: Embedder,
    progress: Callable[[str, int, int], None],
    *,
    table: str = TABLE,
    is_ours: IsOurs = always,
) -> int:
    """Embed what has no vector in `table` yet, as long as that `is_ours`; how many different texts that were.

    Nothing is stored for a passage that a purge deleted meanwhile. Raises Overtaken.
    """
    missing: dict[bytes, int] = {}
    with run.slice() as connection:
        _check(is_ours(connection))
        for content in sorted(set(contents)):
            rows = connection.execute(
                f"SELECT p.embedding_key, p.id FROM passages p LEFT JOIN {table} e USING (embedding_key) "
                "WHERE p.content_id = ? AND e.embedding_key IS NULL",
                (content,),
            )
            missing.update(rows.fetchall())
    keys = list(missing)
    if keys:
        run.begin_long_work()
    for start in range(0, len(keys), BATCH):
        progress("embed", start, len(keys))
        run.go_on()
        batch = keys[start : start + BATCH]
        passages = [missing[key] for key in batch]
        texts = [_text_of(run.connection, passage) for passage in passages]
        vectors = embedder.embed_passages(texts).astype("<f2")
        with run.slice() as connection, schema.transaction(connection):
            _check(is_ours(connection) and _are_there(connection, passages))
            connection.executemany(  # another run may have embedded the same text meanwhile
                f"INSERT OR IGNORE INTO {table} VALUES (?, ?, ?)",
                [(k, v.tobytes(), row_digest(k, v.tobytes())) for k, v in zip(batch, vectors, strict=True)],
            )
    if keys:
        progress("embed", len(keys), len(keys))
    return len(keys)


def _check(is_still_so: bool) -> None:
    if not is_still_so:
        raise Overtaken


def _are_there(connection: sqlite3.Connection, passages: Sequence[int]) -> bool:
    marks = ", ".join(map(str, passages))
    count = connection.execute(f"SELECT count(*) FROM passages WHERE id IN ({marks})").fetchone()[0]
    return bool(count == len(passages))


def _text_of(connection: sqlite3.Connection, passage: int) -> str:
    """The text that the passage's key names. Of a long document no more is read than that takes."""
    row = connection.execute(
        f"SELECT {PASSAGE_COLUMNS}, c.title, substr(c.text, max(p.start_char - :before, 0) + 1, "
        "p.end_char - max(p.start_char - :before, 0) + :after) FROM passages p JOIN contents c ON c.id = p.content_id "
        "WHERE p.id = :passage",
        {"before": MOST_TABLE_CHARS + 1, "after": MOST_ROW_CHARS, "passage": passage},
    ).fetchone()
    if row is None:
        raise Overtaken
    *_, title, text = row
    start = min(row[3], MOST_TABLE_CHARS + 1)
    end = start + row[4] - row[3]
    check_passage(row, title, text[start:end])
    texts = embedding_texts(title, schema.headings(row[6]), text, start, end)
    return next((each for each in texts if embedding_key(each) == row[7]), texts[0])
