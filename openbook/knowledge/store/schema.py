"""The SQLite file of a knowledge base: tables, connections, errors.

Contents and embeddings are content-addressed facts: runs may write them at any time, and they are invisible until a document row of a committed
version refers to them. So an interrupted run leaves no half version. Its leftovers are deleted by itself or the next writer.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from openbook.core.errors import KnowledgeBaseBusy, KnowledgeBaseDamaged, StorageError
from openbook.knowledge.store import integrity
from openbook.knowledge.store.interface import Connection, Damage, Writer

FORMAT = 4  # the first one published
DEVELOPMENT = "The knowledge base in {} was made by a development version of OpenBook: move it away and sync again."
FILE_NAME = "kb.sqlite3"
NEXT_TABLE = "embeddings_next"  # another embedder's vectors, until they are complete
IDS = integrity.IDS
UNUSED_VECTORS = "(SELECT embedding_key FROM embeddings EXCEPT SELECT embedding_key FROM passages)"
BUSY_MS = 30_000  # how long a statement waits for another process that writes

_EMBEDDINGS = "(embedding_key BLOB PRIMARY KEY, vector BLOB NOT NULL, digest INTEGER) WITHOUT ROWID"

_TABLES = f"""
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- One committed change of the knowledge base. The newest row is what readers see; pruned versions have none.
CREATE TABLE IF NOT EXISTS versions (version INTEGER PRIMARY KEY, created_at TEXT NOT NULL, summary TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tags (
  name TEXT PRIMARY KEY, version INTEGER NOT NULL REFERENCES versions (version), created_at TEXT NOT NULL) WITHOUT ROWID;

-- Folders that are kept equal to the disk, with their rules as JSON.
CREATE TABLE IF NOT EXISTS sources (folder TEXT PRIMARY KEY, rules TEXT NOT NULL) WITHOUT ROWID;

-- The text of one file as read. `key` names the file's bytes and the code that read and split them; `code` the code
-- alone. What a caller with labels stores has its id behind the key: the same bytes may be there for others. `title` is the text's
-- own, empty when it has none: a file's name belongs to the document. Ids are never used twice, because indexes name contents by them.
CREATE TABLE IF NOT EXISTS contents (
  id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, code TEXT NOT NULL, text TEXT NOT NULL,
  title TEXT NOT NULL, media_type TEXT NOT NULL, source_chars INTEGER, metadata TEXT NOT NULL, digest INTEGER);

-- text[start_char:end_char] of its content; the passages of one content cover its text exactly.
CREATE TABLE IF NOT EXISTS passages (
  id INTEGER PRIMARY KEY AUTOINCREMENT, content_id INTEGER NOT NULL REFERENCES contents (id), passage_id TEXT NOT NULL,
  start_char INTEGER NOT NULL, end_char INTEGER NOT NULL, page INTEGER, headings TEXT NOT NULL,
  embedding_key BLOB NOT NULL, digest INTEGER);
CREATE INDEX IF NOT EXISTS passages_by_content ON passages (content_id);
CREATE INDEX IF NOT EXISTS passages_by_passage_id ON passages (passage_id);

-- Vectors by the SHA-256 of the text that was embedded, float16 little-endian: each text has one.
CREATE TABLE IF NOT EXISTS embeddings {_EMBEDDINGS};

-- A document, whatever its names and texts were: where it is, or was last, and the access labels that it carries now, or
-- carried last. See openbook/knowledge/store/identities.py.
CREATE TABLE IF NOT EXISTS identities (
  id INTEGER PRIMARY KEY, path TEXT NOT NULL, labels TEXT NOT NULL, given TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS closed_documents ON identities (labels) WHERE labels <> '[]';

-- A path that held a content from version `added_in` up to, but not in, version `removed_in`. `stat` is what the file
-- system said when it was read; while it says the same, the file is not read again. `labels`: all access labels that it
-- carries; `given_labels`: those among them that were given to it directly, which stay when its folder is synced.
CREATE TABLE IF NOT EXISTS documents (
  id INTEGER PRIMARY KEY, path TEXT NOT NULL, content_id INTEGER NOT NULL REFERENCES contents (id),
  bytes INTEGER NOT NULL, stat TEXT NOT NULL, metadata TEXT NOT NULL, labels TEXT NOT NULL,
  given_labels TEXT NOT NULL, added_in INTEGER NOT NULL, removed_in INTEGER, identity INTEGER REFERENCES identities (id), digest INTEGER);
CREATE UNIQUE INDEX IF NOT EXISTS live_documents ON documents (path) WHERE removed_in IS NULL;
CREATE INDEX IF NOT EXISTS documents_by_path ON documents (path);
CREATE INDEX IF NOT EXISTS documents_by_content ON documents (content_id);
CREATE INDEX IF NOT EXISTS documents_by_identity ON documents (identity);

-- Files that are not in the knowledge base, and why, as of the last time each was tried; `stat` as for documents, with
-- the code and limits that tried.
CREATE TABLE IF NOT EXISTS verdicts (
  path TEXT PRIMARY KEY, outcome TEXT NOT NULL, reason TEXT NOT NULL, tried_at TEXT NOT NULL, stat TEXT NOT NULL)
  WITHOUT ROWID;

-- The sum of the digests of all rows that decide what an answer may see (`integrity.py`).
CREATE TABLE IF NOT EXISTS sums (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""

_TRIES = 3


class SqliteConnection(sqlite3.Connection):
    """The `Writer` of SQLite, for any thread. Closed when it is collected: Python 3.13 and later warn of an open one."""

    def __init__(self, database: str | Path, *, uri: bool = False) -> None:
        super().__init__(database, uri=uri, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False)

    def __del__(self) -> None:
        with suppress(sqlite3.ProgrammingError):  # the file could not be opened
            self.close()

    def begin(self) -> None:
        self.execute("BEGIN IMMEDIATE")

    def durable(self, durable: bool, /) -> None:
        self.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")

    def forbid_writes(self, forbidden: bool, /) -> None:
        self.execute(f"PRAGMA query_only = {'ON' if forbidden else 'OFF'}")

    def next_ids(self, table: str, count: int, /) -> Sequence[int]:
        row = self.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
        first = 1 + (row[0] if row else 0)
        return range(first, first + count)

    def insert_rows(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], /) -> None:
        marks = ", ".join("?" * len(columns))
        self.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)

    def tables(self) -> list[str]:
        return [name for (name,) in self.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]

    def changing(self, paths: Collection[str] | None, /) -> AbstractContextManager[None]:
        return integrity.changing(self, paths)

    def make_embeddings(self, table: str, /) -> None:
        self.execute(f"CREATE TABLE IF NOT EXISTS {table} {_EMBEDDINGS}")


def connect(folder: Path, *, writable: bool) -> SqliteConnection:
    """Open the SQLite file in `folder`. Readers also work on a read-only disk."""
    path = folder / FILE_NAME
    uri = path.absolute().as_uri()
    if writable or (os.access(folder, os.W_OK) and os.access(path, os.W_OK)):
        uri += "?mode=rw"  # write-ahead logging writes to the folder even to read
    else:
        uri += "?mode=ro" if (folder / (FILE_NAME + "-wal")).exists() else "?mode=ro&immutable=1"
    connection = SqliteConnection(uri, uri=True)
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # overwrites deleted rows
        if not writable:
            connection.execute("PRAGMA query_only = ON")
        else:
            connection.create_function("row_digest", -1, integrity.row_digest, deterministic=True)
        connection.execute("SELECT 1 FROM sqlite_master")
        _check_size(connection, path)
    except UnicodeDecodeError as error:  # SQLite quotes the statement that it cannot read
        connection.close()
        raise sqlite3.DatabaseError("the description of its tables is not UTF-8") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _check_size(connection: sqlite3.Connection, path: Path) -> None:
    """Raise KnowledgeBaseDamaged when the last page is incomplete. SQLite itself refuses missing whole pages.

    The file is not opened here: closing it would drop SQLite's locks on it in this process, and with them its log
    (https://www.sqlite.org/howtocorrupt.html, 2.2).
    """
    (page,) = connection.execute("PRAGMA page_size").fetchone()
    for _ in range(_TRIES):
        if path.stat().st_size % page == 0:
            return
        with suppress(sqlite3.OperationalError):  # a read-only disk
            # The log still has the page if a process was killed while it wrote the log back.
            connection.execute("PRAGMA wal_checkpoint").fetchall()
        time.sleep(0.05)
    raise KnowledgeBaseDamaged(f"{path} is damaged: it was cut off, its last page is not whole. {_REBUILD}")


def newest_version(connection: Connection) -> int:
    """The newest version. Raises Damage when there is none."""
    (newest,) = connection.execute("SELECT max(version) FROM versions").fetchone()
    if newest is None:
        raise Damage("there is no version")
    return int(newest)


def make_tables(connection: sqlite3.Connection) -> None:
    """Make missing tables and indexes, statement by statement, since `executescript` would commit."""
    lines = (line for line in _TABLES.splitlines() if not line.startswith("--"))
    for statement in "\n".join(lines).split(";"):
        connection.execute(statement)


def meta(connection: Connection) -> dict[str, str]:
    return dict(iter(connection.execute("SELECT key, value FROM meta")))


def remember(connection: Connection, **values: str | None) -> None:
    for key, value in values.items():
        if value is None:
            connection.execute("DELETE FROM meta WHERE key = ?", (key,))
        else:
            connection.execute(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
            )


def unused_contents(connection: Connection, until: int | None = None) -> list[int]:
    """Contents without a document, with ids up to `until` (default: all)."""
    found = connection.execute("SELECT id FROM contents EXCEPT SELECT content_id FROM documents ORDER BY id")
    return [content for (content,) in found if until is None or content <= until]


def drop_contents(connection: Writer, contents: Iterable[int]) -> None:
    """Delete contents without a document, their passages, and all vectors without a passage."""
    rows = [(content,) for content in contents]
    connection.executemany("DELETE FROM passages WHERE content_id = ?", rows)
    connection.executemany("DELETE FROM contents WHERE id = ?", rows)
    connection.execute(f"DELETE FROM embeddings WHERE embedding_key IN {UNUSED_VECTORS}")


@contextmanager
def transaction(connection: Writer) -> Iterator[None]:
    connection.begin()
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # a full disk may have rolled back already
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def error_message(error: sqlite3.DatabaseError) -> str:
    """The error without any stored text."""
    text = str(error)
    return "a stored text is not UTF-8" if text.startswith("Could not decode") else text


@contextmanager
def database_errors(folder: Path) -> Iterator[None]:
    """Turn errors of SQLite and the disk into OpenBook's."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        text = error_message(error)
        if isinstance(error, sqlite3.OperationalError):
            if "locked" in text or "busy" in text:
                raise KnowledgeBaseBusy(
                    f"Another process holds the knowledge base in {folder}. Try again when it is done."
                ) from error
            if "full" in text:
                raise StorageError(
                    f"No space left while writing to {folder}. Free some and run it again; nothing is lost."
                ) from error
            if "readonly" in text or "unable to open" in text or "disk I/O" in text:
                raise StorageError(
                    f"Cannot read or write the knowledge base in {folder}: {text}. Check that {FILE_NAME} is a file, and that "
                    "you may read and write it and its folder; or choose another."
                ) from error
        raise KnowledgeBaseDamaged(f"The knowledge base in {folder} is damaged: {text}. {_REBUILD}") from error
    except OSError as error:
        raise StorageError(
            f"Cannot read or write {error.filename or folder}: {error.strerror or error}. What was committed is safe."
        ) from error


_REBUILD = (
    "Restore it from a backup, or move it away and add the documents again. What else is damaged: openbook verify."
)
