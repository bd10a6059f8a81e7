"""The interface of a store: a SQLite file in a folder, or a database of a server.

All differences between them are behind `Store`; other modules use SQL that both understand. `tests/conformance/stores.py` tests a store. Its
methods raise StorageError, KnowledgeBaseBusy and KnowledgeBaseInvalid.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from openbook.core.config import Place
from openbook.core.records import BeyondReach


class Damage(sqlite3.DatabaseError):
    """A stored row fails its digest check."""


class Rows(Protocol):
    """The result of a statement. Each column in `description` begins with its name."""

    @property
    def description(self) -> Any: ...
    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """Reads. Placeholders are `?` or `:name`. Outside of a transaction, each statement is one.

    SQL functions of both: `json_each`, `json_extract`, `json_type` of a text, `glob`, `min` and `max` of two numbers. Texts compare by code
    points. `IN` needs at least one value.
    """

    @property
    def in_transaction(self) -> bool: ...
    def execute(self, sql: str, parameters: Any = (), /) -> Rows: ...
    def close(self) -> None: ...


class Reader(Connection, Protocol):
    """A connection that sees all rows."""

    def tables(self) -> list[str]:
        """All tables of the knowledge base."""


class Writer(Reader, Protocol):
    """A connection that writes."""

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Rows: ...

    def begin(self) -> None:
        """Begin a transaction that will write."""

    def durable(self, durable: bool, /) -> None:
        """If true, later commits survive a power loss; if false, they may be lost but never damaged."""

    def forbid_writes(self, forbidden: bool, /) -> None:
        """Refuse statements that write, or allow them again."""

    def next_ids(self, table: str, count: int, /) -> Sequence[int]:
        """New ids for `contents` or `passages`, ascending. None is ever given twice, to any writer."""

    def insert_rows(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], /) -> None:
        """Insert rows with their own ids. Later ids are higher."""

    def changing(self, paths: Collection[str] | None, /) -> AbstractContextManager[None]:
        """Enclose, within a transaction, changes to versions, tags, labels, or documents at `paths` (None: any), to keep digests up to date."""

    def make_embeddings(self, table: str, /) -> None:
        """Make a table like `embeddings`, unless it exists."""


class Store(Protocol):
    """The truth of one knowledge base. `str` of it is for users, without a password.

    `folder`: this machine's derived data; valid after `open`. `is_shared`: other machines, with their own folders, write to it too. `index_hints`: SQL clauses to
    look passages up, tried in order, since an index may be damaged. `beyond_reach`: where purged text may stay, by names in `records.BEYOND_REACH`.
    """

    @property
    def place(self) -> Place: ...
    @property
    def folder(self) -> Path: ...
    @property
    def is_shared(self) -> bool: ...
    @property
    def index_hints(self) -> Sequence[str]: ...
    @property
    def beyond_reach(self) -> Sequence[str]: ...

    def exists(self) -> bool:
        """True if there is a knowledge base."""

    def create(self, meta: Mapping[str, str], timeout_s: float) -> None:
        """Make an empty knowledge base, whole or not at all, unless it exists. Raises KnowledgeBaseInvalid where something else is."""

    def open(self) -> dict[str, str]:
        """Upgrade it to this format and read its `meta`. Raises KnowledgeBaseMissing."""

    def errors(self) -> AbstractContextManager[None]:
        """Turn errors of database and disk into OpenBook's."""

    def connect(self, *, all_rows: bool = False) -> Reader:
        """A connection that only reads. With `all_rows`, it refuses a query from which row security would hide rows."""

    def connect_to_write(self) -> Writer: ...

    def snapshot(self, connection: Connection) -> AbstractContextManager[None]:
        """A transaction that reads one state, whatever is committed meanwhile."""

    def scan(self, connection: Connection, sql: str) -> Iterator[Any]:
        """The rows of a large query, few at a time in memory. `connection` runs nothing else meanwhile."""

    def writer(self, timeout_s: float) -> AbstractContextManager[Writer]:
        """A connection that holds the write lock. Raises KnowledgeBaseBusy after `timeout_s`."""

    def write_lock(
        self, connection: Connection, timeout_s: float, check_cancelled: Callable[[], None], *, facts_only: bool = False
    ) -> AbstractContextManager[None]:
        """Hold the write lock, through `connection`. Every waiting writer gets its turn. Raises KnowledgeBaseBusy after `timeout_s`.

        `facts_only`: shared, if possible, with others that only add invisible facts. `check_cancelled` is called periodically; what it raises
        ends the waiting.
        """

    def run_lock(self, connection: Connection, newest: int) -> AbstractContextManager[None]:
        """Mark a run as alive until it ends in any way; its contents have ids above `newest`. Begins under the write lock."""

    def oldest_run(self, connection: Connection) -> int | None:
        """The least `newest` of living runs, if any. The caller holds the write lock."""

    def index_lock(self, timeout_s: float) -> AbstractContextManager[None]:
        """The lock for writing to `folder`, besides the write lock. Raises KnowledgeBaseBusy after `timeout_s`."""

    def check_tables(self, connection: Connection, base_id: str) -> None:
        """Compare versions, documents and labels with their digests."""

    def problems(self, connection: Connection, base_id: str) -> Sequence[Iterator[str]]:
        """Problems of the database, a phrase each, in separately readable parts."""

    def finish_writing(self, connection: Connection) -> None:
        """Finish as a writer must before it closes."""

    def wait_for_readers(self, connection: Writer, timeout_s: float) -> None:
        """Wait until no reader sees an older state."""

    def vacuum(self, connection: Writer, timeout_s: float) -> Sequence[BeyondReach]:
        """Erase all bytes of deleted rows. Returns known places where bytes may remain."""

    def bytes_on_disk(self, connection: Connection) -> int: ...
