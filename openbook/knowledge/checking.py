"""Is a knowledge base what it says? The truth against its own digests, then the indexes against the truth."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from openbook.errors import KnowledgeBaseBusy, KnowledgeBaseDamaged, StorageError
from openbook.knowledge import indexes, integrity, schema
from openbook.knowledge.base import KnowledgeBase, kept_contents
from openbook.knowledge.intake import embedding_key, embedding_texts, passage_id
from openbook.records import PassageSpan, sha256_hex

_MOST_FINDINGS = 20


@dataclass(frozen=True, slots=True)
class Checked:
    """`damaged`: what is wrong with the truth; only a backup or the documents mend that.

    `index_problems`: what was wrong with the derived indexes; `repaired` when they were built anew from the truth.
    `recall_at_10`: the share of the true ten nearest passages that vector search finds, over stored vectors as queries;
    None without passages.
    """

    contents: int
    passages: int
    damaged: tuple[str, ...]
    index_problems: tuple[str, ...]
    repaired: bool
    recall_at_10: float | None
    exact: bool


def check(base: KnowledgeBase, *, lock_timeout_s: float = 30.0) -> Checked:
    """Look at every row and every byte of the indexes; build the indexes anew when something is wrong with them.

    Takes seconds for each 100,000 passages. Raises StorageError.
    """
    with schema.storage_errors(base.folder), base.snapshot() as connection:
        damaged = tuple(_first(_damage(base, connection)))
        if damaged:  # the indexes have nothing to be compared with
            return Checked(0, 0, damaged, (), False, None, True)
        contents = kept_contents(connection)
        passages = connection.execute(
            "SELECT count(*) FROM passages WHERE content_id IN (SELECT content_id FROM documents)"
        ).fetchone()[0]
        report = indexes.check(base.folder, base.source(connection), contents)
    repaired = bool(report.problems) and _rebuilt(base, lock_timeout_s)
    return Checked(len(contents), passages, (), report.problems, repaired, report.recall_at_10, report.exact)


def _rebuilt(base: KnowledgeBase, lock_timeout_s: float) -> bool:
    """Drop the indexes and make them anew; False when the folder cannot be written now (answers come from the truth)."""
    try:
        with base.writing(lock_timeout_s) as connection:
            shutil.rmtree(base.folder / "index", ignore_errors=True)
            base.refresh_indexes(connection)
    except (KnowledgeBaseBusy, StorageError):
        return False
    return True


def _first(findings: Iterator[str]) -> Iterator[str]:
    for number, finding in enumerate(findings):
        if number == _MOST_FINDINGS:
            yield "and more"
            return
        yield finding


def _damage(base: KnowledgeBase, connection: sqlite3.Connection) -> Iterator[str]:
    """What cannot be read is said, and the next part looked at."""
    parts = (
        _bad_file(connection),
        integrity.problems(connection),
        _bad_ranges(base, connection),
        _bad_texts(connection, base.sizing.overlap > 0),
        _bad_vectors(connection, base.embedder.dimensions),
    )
    for part in parts:
        try:
            yield from part
        except sqlite3.DatabaseError as error:
            yield schema.said_of(error)


def _bad_file(connection: sqlite3.Connection) -> Iterator[str]:
    for (line,) in connection.execute("PRAGMA integrity_check"):
        if line != "ok":
            yield f"SQLite says: {line}"
    for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        yield f"row {row} of {table} refers to a row of {parent} that is not there"


def _bad_texts(connection: sqlite3.Connection, overlap: bool) -> Iterator[str]:
    for (content,) in connection.execute("SELECT id FROM contents ORDER BY id").fetchall():
        try:
            stored = integrity.content(connection, content)
            sql = f"SELECT {integrity.PASSAGE_COLUMNS} FROM passages p WHERE p.content_id = ? ORDER BY p.start_char"
            for _ in integrity.whole(connection.execute(sql, (content,)), stored):
                pass
        except sqlite3.DatabaseError as error:
            yield f"{schema.said_of(error)}: it is the text of {_held_by(connection, content)}"
        else:
            yield from _bad_passages(connection, content, stored.title, stored.text, overlap)


def _held_by(connection: sqlite3.Connection, content: int) -> str:
    paths = connection.execute("SELECT DISTINCT path FROM documents WHERE content_id = ? ORDER BY path", (content,))
    return ", ".join(path for (path,) in paths) or "no document"


def _bad_ranges(base: KnowledgeBase, connection: sqlite3.Connection) -> Iterator[str]:
    newest = connection.execute("SELECT max(version) FROM versions").fetchone()[0]
    if newest is None:
        yield "there is no version"
        return
    try:
        schema.check_newest(base.folder, base.id, newest)
    except KnowledgeBaseDamaged as error:
        yield str(error)
    rows = connection.execute(
        "SELECT path FROM documents WHERE added_in > ? OR removed_in > ? OR removed_in <= added_in", (newest, newest)
    )
    for (path,) in rows:
        yield f"the document {path} has versions that make no sense"
    twice = (
        "SELECT DISTINCT a.path FROM documents a JOIN documents b ON a.path = b.path AND a.id < b.id "
        "AND a.added_in < coalesce(b.removed_in, 1e18) AND b.added_in < coalesce(a.removed_in, 1e18)"
    )
    for (path,) in connection.execute(twice):
        yield f"the document {path} is in one version twice"


def _bad_passages(connection: sqlite3.Connection, content: int, title: str, text: str, overlap: bool) -> Iterator[str]:
    """Passages must cover the text exactly, and their ids and keys must be the digests of what they name."""
    rows = connection.execute(
        "SELECT passage_id, start_char, end_char, page, headings, embedding_key FROM passages WHERE content_id = ? ORDER BY start_char, end_char",
        (content,),
    ).fetchall()
    digest, at = sha256_hex(text.encode()), 0
    for name, start, end, page, headings, key in rows:
        path = schema.headings(headings)
        if (start > at if overlap else start != at) or end <= max(start, at if overlap else 0):
            yield f"passages of text {content} do not cover it at character {at}"
            return
        if name != passage_id(digest, PassageSpan(start, end, page, path)):
            yield f"text {content} is not what its passage at {start} was made from"
            return
        if key not in map(embedding_key, embedding_texts(title, path, text, start, end)):
            yield f"the passage of text {content} at {start} is not what was embedded"
            return
        at = end
    if at != len(text):
        yield f"passages of text {content} end at character {at} of {len(text)}"


def _bad_vectors(connection: sqlite3.Connection, dimensions: int) -> Iterator[str]:
    missing = connection.execute(
        "SELECT count(*) FROM passages p LEFT JOIN embeddings e USING (embedding_key) "
        "WHERE e.vector IS NULL AND p.content_id IN (SELECT content_id FROM documents)"
    ).fetchone()[0]
    if missing:
        yield f"{missing} passages have no vector"
    bad = changed = 0
    for key, vector, digest in connection.execute("SELECT embedding_key, vector, digest FROM embeddings"):
        changed += digest != integrity.row_digest(key, vector)
        if len(vector) != 2 * dimensions:
            bad += 1
            continue
        length = float(np.linalg.norm(np.frombuffer(vector, dtype="<f2").astype(np.float32)))
        bad += not 0.99 < length < 1.01
    if changed:
        yield f"{changed} vectors are not what was stored"
    if bad:
        yield f"{bad} vectors are not unit vectors of {dimensions} numbers"
