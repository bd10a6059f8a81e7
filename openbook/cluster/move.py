"""Copies a knowledge base between a folder and a database. Ids, versions, labels and vectors stay, so receipts replay.

Texts, passages and vectors go first, invisible (docs/decisions/0002-facts-first-then-the-version.md). One transaction
makes them visible, and rolls back unless all rows are equal on both sides. An interrupted move leaves an empty
knowledge base and resumes when run again. Leftovers of interrupted runs are not copied.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any, TypeAlias

from openbook.cluster.status import unfinished
from openbook.core.config import Place
from openbook.core.errors import KnowledgeBaseDamaged, KnowledgeBaseInvalid
from openbook.core.parallel import StagedProgress
from openbook.core.records import canonical_json
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.store import schema
from openbook.knowledge.store.interface import Connection, Store, Writer
from openbook.knowledge.store.sqlite import store_of

Row: TypeAlias = tuple[Any, ...]

MOVING = "moving"  # key in `meta` of an incomplete target: the state of its source
BATCH = 500  # rows; a text may have megabytes
WRITER_S = 30.0

_REFERRED = "EXISTS (SELECT 1 FROM documents d WHERE d.content_id = {})"
_OF_PASSAGES = _REFERRED.format("passages.content_id")
_FACTS = {  # only rows that a document refers to are copied
    "contents": _REFERRED.format("contents.id"),
    "passages": _OF_PASSAGES,
    "embeddings": f"embedding_key IN (SELECT embedding_key FROM passages WHERE {_OF_PASSAGES})",
}
_VISIBLE = ("identities", "versions", "documents", "tags", "sources", "verdicts")  # each after those it refers to
_KEYS = {"embeddings": "embedding_key", "versions": "version", "tags": "name", "sources": "folder", "verdicts": "path"}
_OF_THE_PLACE = {"blobs", MOVING}  # keys of `meta` that are not copied


@dataclass(frozen=True, slots=True)
class MoveResult:
    """`digest`: SHA-256 over all copied rows."""

    id: str
    version: int
    versions: int
    documents: int
    texts: int
    passages: int
    digest: str


def move(source: Place, target: Place, progress: StagedProgress = lambda *_: None) -> MoveResult:
    """Copy the knowledge base in `source` to the empty `target`.

    Raises KnowledgeError for a source that is damaged or has unfinished work, and for a target that is not empty.
    """
    store = store_of(target)
    with closing(KnowledgeBase.open(source)) as base, base.snapshot() as reading:
        meta = schema.meta(reading)
        if interrupted := unfinished(meta):
            raise KnowledgeBaseInvalid(f"A {interrupted[0]} of {base.store} was interrupted. Run it again first.")
        state = _state(reading)
        with store.errors():
            _prepare(store, meta, state)
            with store.writer(WRITER_S) as writing:
                if schema.meta(writing).get(MOVING) != state:  # an interrupted run copied another state of the source
                    with schema.transaction(writing):
                        for table in reversed(_FACTS):
                            writing.execute(f"DELETE FROM {table}")
                    store.vacuum(writing, WRITER_S)  # the source may have purged what was copied
                    schema.remember(writing, **{MOVING: state})
                _copy_facts(base.store, reading, writing, progress)
                with schema.transaction(writing), writing.changing(None):
                    _copy_visible(base.store, reading, writing, meta)
                    moved = _compared(base.store, reading, store, writing, progress)
                store.finish_writing(writing)
    with closing(KnowledgeBase.open(target)) as copy, copy.writing(WRITER_S) as connection:
        copy.indexes.refresh(connection)
    return moved


def _state(reading: Connection) -> str:
    """A digest of the rows to copy and their order."""
    versions = [version for (version,) in reading.execute("SELECT version FROM versions ORDER BY version")]
    rows = tuple(reading.execute("SELECT count(*), max(id) FROM documents").fetchone())
    return hashlib.sha256(canonical_json([2, versions, *rows])).hexdigest()


def _prepare(store: Store, meta: dict[str, str], state: str) -> None:
    """Create the target, or accept an earlier run's. Raises KnowledgeBaseInvalid for any other."""
    if store.exists():
        found = store.open()
        if MOVING not in found or found["id"] != meta["id"]:
            raise KnowledgeBaseInvalid(f"{store} holds a knowledge base already. Choose an empty folder or database.")
    else:
        store.create({**_copied(meta), MOVING: state}, WRITER_S)


# --- copying ----------------------------------------------------------------------------------------------------------


def _copy_facts(source: Store, reading: Connection, writing: Writer, progress: StagedProgress) -> None:
    total, done = sum(_count(reading, table) for table in _FACTS), 0
    for table in _FACTS:
        columns = _columns(reading, writing, table)
        (before,) = writing.execute(f"SELECT count(*) FROM {table}").fetchone()
        done += before
        for rows in _batches(source, reading, table, columns, before):
            with schema.transaction(writing):
                writing.insert_rows(table, columns, rows)
            done += len(rows)
            progress("copy", done, total)


def _copy_visible(source: Store, reading: Connection, writing: Writer, meta: dict[str, str]) -> None:
    writing.execute("DELETE FROM versions")  # every new knowledge base has one
    for table in _VISIBLE:
        columns = _columns(reading, writing, table)
        for rows in _batches(source, reading, table, columns):
            writing.insert_rows(table, columns, rows)
    schema.remember(writing, **_copied(meta), **{MOVING: None})


def _columns(reading: Connection, writing: Connection, table: str) -> list[str]:
    """Shared columns, except digests of documents: each side computes its own."""
    here, there = (
        [column[0] for column in each.execute(f"SELECT * FROM {table} LIMIT 0").description]
        for each in (reading, writing)
    )
    return [name for name in here if name in there and (table, name) != ("documents", "digest")]


def _count(connection: Connection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table} WHERE {_FACTS[table]}").fetchone()[0])


def _batches(
    store: Store, connection: Connection, table: str, columns: Sequence[str], start: int = 0
) -> Iterator[list[Row]]:
    """Rows to copy, ascending by key, skipping the first `start`."""
    sql = (
        f"SELECT {', '.join(columns)} FROM {table} WHERE {_FACTS.get(table, 'true')} ORDER BY {_KEYS.get(table, 'id')}"
    )
    rows = islice(store.scan(connection, sql), start, None)
    while batch := [tuple(row) for row in islice(rows, BATCH)]:
        yield batch


# --- comparing --------------------------------------------------------------------------------------------------------


def _compared(
    source: Store, reading: Connection, target: Store, writing: Writer, progress: StagedProgress
) -> MoveResult:
    """Raises KnowledgeBaseDamaged unless all rows are the same in both."""
    digest = hashlib.sha256()
    counts: Counter[str] = Counter()

    def same(table: str, here: Sequence[Row], there: Sequence[Row]) -> None:
        if here != there:
            raise KnowledgeBaseDamaged(
                f"Rows of {table} in {target} are not what was copied, so nothing of it is shown. Run this again."
            )
        counts[table] += len(here)
        for row in here:
            digest.update(canonical_json([table, *(each.hex() if isinstance(each, bytes) else each for each in row)]))

    total, done = sum(_count(reading, table) for table in _FACTS), 0
    for table in (*_FACTS, *_VISIBLE):
        columns = _columns(reading, writing, table)
        here, there = _batches(source, reading, table, columns), _batches(target, writing, table, columns)
        for rows, others in zip_longest(here, there, fillvalue=()):
            same(table, rows, others)
            if table in _FACTS:
                done += len(rows)
                progress("compare", done, total)
    same("meta", *(sorted(_copied(schema.meta(each)).items()) for each in (reading, writing)))
    newest = schema.newest_version(writing)
    documents = int(writing.execute("SELECT count(*) FROM documents WHERE removed_in IS NULL").fetchone()[0])
    of = schema.meta(writing)["id"]
    return MoveResult(
        of, newest, counts["versions"], documents, counts["contents"], counts["passages"], digest.hexdigest()
    )


def _copied(meta: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in meta.items() if key not in _OF_THE_PLACE}
