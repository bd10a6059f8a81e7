"""Where the rows of a knowledge base are: a SQLite file in a folder, or a database of a server.

Everything that differs between the two is here or behind `Store`; all other modules of `knowledge` speak SQL that both
understand. `openbook.testing.StoreSuite` says what a store must do.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from openbook.config import Place
from openbook.records import BeyondReach


class Damage(sqlite3.DatabaseError):
    """What is read is not what was stored."""


class Rows(Protocol):
    """What a statement gives. `description` begins each column with its name."""

    @property
    def description(self) -> Any: ...
    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """Reads. Placeholders are `?` or `:name`. Outside of a transaction each statement is one of its own.

    Both databases have as functions: `json_each`, `json_extract`, `json_type` of a text, `glob`, and `min` and `max` of two
    numbers. Texts compare by code points. `IN` needs at least one value.
    """

    @property
    def in_transaction(self) -> bool: ...
    def execute(self, sql: str, parameters: Any = (), /) -> Rows: ...
    def close(self) -> None: ...


class Reader(Connection, Protocol):
    """Reads all that there is."""

    def tables(self) -> list[str]:
        """The names of all tables of the knowledge base."""


class Writer(Reader, Protocol):
    """Writes too."""

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Rows: ...

    def begin(self) -> None:
        """Begin a transaction that will write."""

    def durable(self, durable: bool, /) -> None:
        """Whether what is committed from here on must outlast a loss of power. If not, it may be lost, and is never damaged."""

    def forbid_writes(self, forbidden: bool, /) -> None:
        """Whether statements that write are refused from here on."""

    def next_ids(self, table: str, count: int, /) -> Sequence[int]:
        """Ids for new rows of `contents` or `passages`, ascending. None is ever given twice, to any writer."""

    def insert_rows(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], /) -> None:
        """Insert rows with ids of their own. Ids that are given later are higher."""

    def changing(self, paths: Collection[str] | None, /) -> AbstractContextManager[None]:
        """Within a transaction, around what changes versions, tags, labels, or documents at `paths` (None: at any).

        It keeps the digests of documents, and of these tables as a whole, where the store has some.
        """

    def make_embeddings(self, table: str, /) -> None:
        """Make a table like `embeddings`, unless it is there."""


class Store(Protocol):
    """One knowledge base's truth. `str` of it is what a user is shown, without a password.

    `folder`: where this machine keeps what is derived from it; valid after `open`. `is_shared`: other machines, with folders of
    their own, write to it too. `blobs`: the URL, as it was given, of the storage in which they share segments, or empty.
    `index_hints`: clauses of SQL that look passages up by name, tried one after the other, because an index may be damaged.
    `beyond_reach`: where purged text may stay, by the names in `records.BEYOND_REACH`.
    """

    @property
    def place(self) -> Place: ...
    @property
    def folder(self) -> Path: ...
    @property
    def is_shared(self) -> bool: ...
    @property
    def blobs(self) -> str: ...
    @property
    def index_hints(self) -> Sequence[str]: ...
    @property
    def beyond_reach(self) -> Sequence[str]: ...

    def exists(self) -> bool:
        """Raises KnowledgeBaseInvalid, StorageError."""

    def create(self, meta: Mapping[str, str], timeout_s: float) -> None:
        """Make an empty knowledge base, whole or not at all, unless there is one. `meta`: see `schema.meta`.

        Raises KnowledgeBaseInvalid where something else is in its place, KnowledgeBaseBusy, StorageError.
        """

    def open(self) -> dict[str, str]:
        """Bring it to this format, and read its `meta`. Raises KnowledgeBaseMissing, KnowledgeBaseInvalid, StorageError."""

    def errors(self) -> AbstractContextManager[None]:
        """Turn what the database and the disk say into sentences. Raises StorageError, KnowledgeBaseBusy, KnowledgeBaseInvalid."""

    # --- connections and locks

    def connect(self, *, all_rows: bool = False) -> Reader:
        """A connection that only reads. With `all_rows`, a query that would leave out rows that are hidden from this user is refused."""

    def connect_to_write(self) -> Writer: ...

    def snapshot(self, connection: Connection) -> AbstractContextManager[None]:
        """A transaction that reads one state, whatever is committed meanwhile."""

    def scan(self, connection: Connection, sql: str) -> Iterator[Any]:
        """The rows of a query that gives many, few at a time in memory. Nothing else is asked of `connection` meanwhile."""

    def writer(self, timeout_s: float) -> AbstractContextManager[Writer]:
        """A connection that holds the write lock. Raises KnowledgeBaseBusy after `timeout_s`."""

    def write_lock(
        self, connection: Connection, timeout_s: float, check_cancelled: Callable[[], None], *, facts_only: bool = False
    ) -> AbstractContextManager[None]:
        """Hold the write lock, through `connection`. Whoever waits for it gets its turn. Raises KnowledgeBaseBusy after `timeout_s`.

        `facts_only`: together with others that only add facts that nobody sees yet, where the store allows that. `check_cancelled` is
        called now and then while it waits; what it raises ends the waiting.
        """

    def run_lock(self, connection: Connection, newest: int) -> AbstractContextManager[None]:
        """Show that a run lives, until it ends in any way. All contents that it stores have ids above `newest`.

        The caller holds the write lock when this begins.
        """

    def oldest_run(self, connection: Connection) -> int | None:
        """The least `newest` of all runs that live; None without any. The caller holds the write lock."""

    def index_lock(self, timeout_s: float) -> AbstractContextManager[None]:
        """Needed to write to `folder`, besides the write lock. Raises KnowledgeBaseBusy after `timeout_s`."""

    # --- whether it is whole

    def check_tables(self, connection: Connection, base_id: str) -> None:
        """Compare versions, documents and labels with what was written. Raises KnowledgeBaseDamaged, Damage."""

    def problems(self, connection: Connection, base_id: str) -> Sequence[Iterator[str]]:
        """What is wrong with the database itself, a phrase each, in parts that can be read one by one."""

    # --- deleting for good

    def finish_writing(self, connection: Connection) -> None:
        """What a writer does last."""

    def wait_for_readers(self, connection: Writer, timeout_s: float) -> None:
        """Until nobody reads an older state. Raises KnowledgeBaseBusy."""

    def vacuum(self, connection: Writer, timeout_s: float) -> Sequence[BeyondReach]:
        """Leave no byte of deleted rows in the database, and say what is known of where else they may stay. Raises KnowledgeBaseBusy."""

    def bytes_on_disk(self, connection: Connection) -> int: ...
