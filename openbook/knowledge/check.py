"""Verification: the database against its digests, then the indexes against the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from openbook.core.errors import KnowledgeBaseBusy, StorageError
from openbook.knowledge.base import KnowledgeBase
from openbook.knowledge.index import segment_builder, segment_files
from openbook.knowledge.index.cache import kept_contents
from openbook.knowledge.index.segment_builder import IndexSource
from openbook.knowledge.index.segments import contents_of
from openbook.knowledge.store import integrity, schema
from openbook.knowledge.store.interface import Connection, Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_FINDINGS = 20
_SHOWN_CHARS = 60  # of a text that no document names


@dataclass(frozen=True, slots=True)
class CheckResult:
    """`index_problems` come with the reason unless `repaired`. `unreferenced`: the beginning of each text without a version."""

    contents: int
    passages: int
    damaged: tuple[str, ...]
    index_problems: tuple[str, ...]
    repaired: bool
    unreferenced: tuple[str, ...] = ()


def check(base: KnowledgeBase) -> CheckResult:
    """Check every row and every byte of the indexes; rebuild wrong indexes. Takes seconds for each 100,000 passages."""
    connection = base.connection
    with base.store.errors(), base.store.snapshot(connection):  # also of a damaged knowledge base
        damaged = _first(_damage(base, connection))
        if damaged:  # the indexes have nothing to be compared with
            return CheckResult(0, 0, tuple(damaged), (), repaired=False)
        contents = kept_contents(connection)
        sql = "SELECT count(*) FROM passages WHERE content_id IN (SELECT content_id FROM documents)"
        (passages,) = connection.execute(sql).fetchone()
        unreferenced = _first(integrity.content(connection, each).text[:_SHOWN_CHARS] for each in base.unreferenced())
        problems = _first(index_problems(base.indexes.folder, base.indexes.source(connection), contents))
    repaired = False
    if problems:
        try:
            with base.writing() as connection:
                base.indexes.refresh(connection, replace_all=True)
            repaired = True
        except (KnowledgeBaseBusy, StorageError) as error:
            problems.append(str(error))
    return CheckResult(len(contents), passages, (), tuple(problems), repaired, tuple(unreferenced))


def _first(findings: Iterable[str]) -> list[str]:
    found = list(islice(findings, _MAX_FINDINGS + 1))
    if len(found) > _MAX_FINDINGS:
        found[_MAX_FINDINGS] = "and more"
    return found


def index_problems(folder: Path, source: IndexSource, wanted: NDArray[np.int64]) -> Iterator[str]:
    """Damaged, missing or stale parts of the saved index. Reads every byte."""
    saved, problems = segment_files.read(folder, source, every_byte=True)
    yield from problems
    for each in saved:
        for at, content in enumerate(each.segment.contents.tolist()):
            if each.segment.passage_identities(at) != segment_builder.passage_identities(source, content):
                yield f"{each.entry.name}: the passages of content {content} are not those of the database"
    if len(missing := np.setdiff1d(wanted, contents_of(each.segment for each in saved))):
        yield f"{len(missing)} of {len(wanted)} contents are not in the saved index"


def _damage(base: KnowledgeBase, connection: Connection) -> Iterator[str]:
    of_store = base.store.problems(connection, base.id)
    for part in (*of_store, _documents(connection), _texts(connection), _vectors(base.store, connection)):
        try:
            yield from part
        except sqlite3.DatabaseError as error:
            yield schema.error_message(error)


def _documents(connection: Connection) -> Iterator[str]:
    for number, path in connection.execute("SELECT id, path FROM documents ORDER BY id").fetchall():
        try:
            integrity.documents(connection, "d.id = ?", (number,))
        except sqlite3.DatabaseError as error:
            yield f"{schema.error_message(error)}: it is {path}"


def _texts(connection: Connection) -> Iterator[str]:
    for (content,) in connection.execute("SELECT id FROM contents ORDER BY id").fetchall():
        try:
            integrity.passages(connection, integrity.content(connection, content))
        except sqlite3.DatabaseError as error:
            sql = "SELECT DISTINCT path FROM documents WHERE content_id = ? ORDER BY path"
            paths = ", ".join(chain.from_iterable(connection.execute(sql, (content,))))
            yield f"{schema.error_message(error)}: it is the text of {paths or 'no document'}"


def _vectors(store: Store, connection: Connection) -> Iterator[str]:
    (missing,) = connection.execute(
        "SELECT count(*) FROM passages p LEFT JOIN embeddings e USING (embedding_key) "
        "WHERE e.vector IS NULL AND p.content_id IN (SELECT content_id FROM documents)"
    ).fetchone()
    if missing:
        yield f"{missing} passages have no vector"
    rows = store.scan(connection, "SELECT embedding_key, vector, digest FROM embeddings")
    if changed := sum(digest != integrity.row_digest(key, vector) for key, vector, digest in rows):
        yield f"{changed} vectors are not what was stored"
