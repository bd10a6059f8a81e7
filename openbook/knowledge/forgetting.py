"""Purging: a document leaves every version, index and temporary file, and a scan of all bytes proves it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from openbook.errors import KnowledgeError
from openbook.knowledge import schema
from openbook.knowledge.adding import resolve
from openbook.knowledge.base import KnowledgeBase
from openbook.knowledge.committing import add_version, newest
from openbook.knowledge.embedding import NEXT_TABLE
from openbook.knowledge.scanning import Needles
from openbook.knowledge.versions import drop_unused_contents

BEYOND_REACH = (
    "What OpenBook cannot reach: models trained on it, answers and receipts saved elsewhere, backups and copies of the "
    "folder, and blocks that the file system or the disk has not overwritten yet."
)


_BETWEEN = bytes(16)  # no window of text spans it


@dataclass(frozen=True, slots=True)
class Purged:
    """`files` and `bytes` were scanned afterwards for the documents' text, names, vectors and keys; none was found.

    `on_disk`: files of that path that are still there, so that the next run over them takes them in again.
    """

    version: int
    documents: tuple[str, ...]
    passages: int
    files: int
    bytes: int
    on_disk: tuple[str, ...]


def purge(
    base: KnowledgeBase, documents: Sequence[str], *, copies: bool = False, lock_timeout_s: float = 30.0
) -> Purged:
    """Delete documents (paths, or folders for all below) from all versions, then look at every byte that is left.

    With `copies`, also documents elsewhere that have the same content. Safe to run again after an interruption.

    Raises KnowledgeError when one of them is in no version, when a copy would keep the text (without `copies`), or when
    the scan finds something; KnowledgeBaseBusy when a reader holds on to old pages.
    """
    with base.writing(lock_timeout_s) as connection:
        known = [p for (p,) in connection.execute("SELECT DISTINCT path FROM documents ORDER BY path")]
        paths = {path for each in documents for path in resolve(known, each)}
        contents = _contents_of(connection, paths)
        others = _paths_of(connection, contents) - paths
        if others and not copies:
            raise KnowledgeError(
                f"The same text is also in {', '.join(sorted(others)[:3])}. To purge every copy of it: --copies"
            )
        paths |= others
        traces = _traces(connection, paths, contents)
        passages = _count_passages(connection, contents)
        version = _delete(connection, paths)
        base.forget(connection, lock_timeout_s)
        _drop_what_stays(connection, traces)
        files, scanned = _scan(base.folder, traces)
    return Purged(
        version, tuple(sorted(paths)), passages, files, scanned, tuple(p for p in sorted(paths) if Path(p).exists())
    )


def _contents_of(connection: sqlite3.Connection, paths: Iterable[str]) -> set[int]:
    found: set[int] = set()
    for path in paths:
        found.update(c for (c,) in connection.execute("SELECT content_id FROM documents WHERE path = ?", (path,)))
    return found


def _paths_of(connection: sqlite3.Connection, contents: Iterable[int]) -> set[str]:
    found: set[str] = set()
    for content in contents:
        found.update(p for (p,) in connection.execute("SELECT path FROM documents WHERE content_id = ?", (content,)))
    return found


def _count_passages(connection: sqlite3.Connection, contents: Iterable[int]) -> int:
    counts = (
        connection.execute("SELECT count(*) FROM passages WHERE content_id = ?", (c,)).fetchone()[0] for c in contents
    )
    return sum(counts)


def _delete(connection: sqlite3.Connection, paths: Iterable[str]) -> int:
    connection.execute("PRAGMA synchronous = FULL")
    with schema.transaction(connection):
        version = newest(connection) + 1
        count = 0
        for path in sorted(paths):
            connection.execute("DELETE FROM documents WHERE path = ?", (path,))
            connection.execute("DELETE FROM verdicts WHERE path = ?", (path,))
            count += 1
        connection.execute(f"DROP TABLE IF EXISTS {NEXT_TABLE}")
        drop_unused_contents(connection)
        # Whoever writes next finishes the work, should this process be killed before it is done.
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('purging', '')")
        add_version(connection, version, f"{count} purged")
    return version


# --- the proof --------------------------------------------------------------------------------------------------------


def _traces(connection: sqlite3.Connection, paths: Iterable[str], contents: Iterable[int]) -> Needles:
    """What would give the documents away: text, names, keys, vectors."""
    needles = Needles()
    for path in paths:
        needles.add_end(path.encode())
    for content in contents:
        key, text = connection.execute("SELECT key, text FROM contents WHERE id = ?", (content,)).fetchone()
        needles.add_end(key.encode())
        needles.add(text.encode())
        needles.add(text.encode("utf-16-le"))
        rows = connection.execute(
            "SELECT p.passage_id, p.embedding_key, e.vector FROM passages p LEFT JOIN embeddings e USING (embedding_key) "
            "WHERE p.content_id = ?",
            (content,),
        )
        for passage_id, embedding_key, vector in rows:
            needles.add_end(passage_id.encode())
            needles.add_end(embedding_key)
            needles.add(vector or b"")
    return needles


def _drop_what_stays(connection: sqlite3.Connection, needles: Needles) -> None:
    """What other documents hold too is theirs: a sentence that two files share, the folder of a path, a vector."""
    for sql in (
        "SELECT CAST(text AS BLOB) FROM contents",
        "SELECT passage_id FROM passages",
        "SELECT path || metadata FROM documents",
        "SELECT path || reason FROM verdicts",
        "SELECT folder FROM sources",
        "SELECT embedding_key FROM embeddings",
        "SELECT vector FROM embeddings",
    ):
        cursor = connection.execute(sql)
        while rows := cursor.fetchmany(1024):
            values = [v if isinstance(v, bytes) else str(v).encode() for (v,) in rows]
            needles.drop_found_in(_BETWEEN.join(values))
    for (text,) in connection.execute("SELECT text FROM contents"):
        needles.drop_found_in(text.encode("utf-16-le"))


def _scan(folder: Path, needles: Needles) -> tuple[int, int]:
    files = scanned = 0
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        at, size = needles.find_in(path)
        if at is not None:
            raise KnowledgeError(
                f"The documents are purged, but bytes of them are still in {path} at {at}. If no other program uses the file, run the same purge again."
            )
        files, scanned = files + 1, scanned + size
    return files, scanned
