"""Long runs that change a knowledge base in slices.

A run holds the write lock while it stores facts and commits, but not while it reads or embeds: others can write, and a purge need not wait. At
the commit it checks under the lock that the state it compared files with is unchanged and that all it refers to is there. If not, it repeats its
work, which costs only what was lost. After MAX_TRIES it keeps the lock to compare and commit, and gives up if it would have to read or embed.

Its own lock shows that it is alive and its contents are no leftovers. At its end it deletes contents without a version, also of killed runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Protocol, TypeVar

from openbook.core.errors import KnowledgeBaseBusy, OpenBookError
from openbook.core.parallel import silent
from openbook.knowledge.store import schema
from openbook.knowledge.store.interface import Connection, Store, Writer
from openbook.knowledge.store.write_lock import LOCK_TIMEOUT_S

MAX_TRIES = 5  # without keeping the lock
TABLE = "embeddings"

_T = TypeVar("_T")


class WriteConflict(Exception):
    """Another writer changed what a run compared with or refers to."""


class WritableBase(Protocol):
    store: Store

    def begin_writing(self, connection: Writer, meta: Mapping[str, str], timeout_s: float) -> None: ...
    def check_whole(self, connection: Connection) -> None: ...
    def clear(self, timeout_s: float = LOCK_TIMEOUT_S) -> int: ...


class LongRun:
    """One run. `connection` reads at any time, and writes only within a slice. `stored`: ids of the contents that this run stored.

    `embedded`: the keys of vectors that it made or may reuse, if it may not reuse all. Its vectors are in `table`, while that `is_ours`.
    """

    def __init__(
        self, base: WritableBase, connection: Writer, timeout_s: float, check_cancelled: Callable[[], None]
    ) -> None:
        self.connection = connection
        self.stored: list[int] = []
        self.embedded: set[bytes] = set()
        self.table = TABLE
        self.is_ours: Callable[[Writer], bool] = lambda _: True
        self.check_cancelled = check_cancelled  # call it between two pieces of work: it raises when the run should end
        self._base, self._timeout_s = base, timeout_s
        self._alive, self._is_locked = ExitStack(), False
        self._keeps_lock = False
        self._compared: object = None
        self._purged: object = None  # the last purge when this try began

    def begin_long_work(self) -> None:
        """Announce reading or embedding. Raises KnowledgeBaseBusy if the lock is kept."""
        if self._keeps_lock:
            raise KnowledgeBaseBusy(
                f"Other processes changed the knowledge base {MAX_TRIES} times while this run worked. Run it again when they are done."
            )

    @contextmanager
    def slice(self, *, facts_only: bool = False) -> Iterator[Writer]:
        """Hold the write lock for a short write. The first slice may raise KnowledgeBaseBusy; later ones wait.

        `facts_only`: adds only contents and vectors, as other runs may at the same time. Raises WriteConflict after a purge: earlier reads may be
        what was purged.
        """
        with self._locked(facts_only=facts_only) as meta:
            if meta.get("purged_in") != self._purged:
                raise WriteConflict
            yield self.connection

    @contextmanager
    def _locked(self, *, facts_only: bool = False) -> Iterator[Mapping[str, str]]:
        """`schema.meta` under the lock."""
        self.check_cancelled()
        if self._keeps_lock:
            yield schema.meta(self.connection)
            return
        with self._base.store.write_lock(self.connection, self._timeout_s, self.check_cancelled, facts_only=facts_only):
            self.connection.forbid_writes(False)
            try:
                meta = schema.meta(self.connection)
                if facts_only and "purging" in meta:
                    raise WriteConflict  # finishing a purge takes the whole lock
                self._base.begin_writing(self.connection, meta, schema.BUSY_MS / 1000)
                self._timeout_s = math.inf
                yield meta
            finally:
                self.connection.forbid_writes(True)

    @contextmanager
    def commit(self, contents: Iterable[int]) -> Iterator[Writer]:
        """The slice that makes the version of `contents` and their vectors. Raises WriteConflict."""
        with self.slice() as connection:
            as_before = _compared(connection) == self._compared and self.is_ours(connection)
            if not as_before or not _all_there(connection, contents, self.table):
                raise WriteConflict
            yield connection
            self._base.store.finish_writing(connection)

    def begin(self) -> None:
        with self._locked() as meta:
            self._base.check_whole(self.connection)
            self._remember_state(meta)
            if not self._is_locked:
                newest = self.connection.execute("SELECT coalesce(max(id), 0) FROM contents").fetchone()[0]
                self._alive.enter_context(self._base.store.run_lock(self.connection, newest))
                self._is_locked = True

    def end(self, timeout_s: float) -> None:
        """Delete contents without a version. If this raises, the next writer does it."""
        self._alive.close()
        self._base.clear(timeout_s)

    @contextmanager
    def keeping_the_lock(self) -> Iterator[None]:
        with self._locked() as meta:
            self._remember_state(meta)
            self._keeps_lock = True
            try:
                yield
            finally:
                self._keeps_lock = False

    def _remember_state(self, meta: Mapping[str, str]) -> None:
        self._compared, self._purged = _compared(self.connection), meta.get("purged_in")


def in_slices(
    base: WritableBase, work: Callable[[LongRun], _T], timeout_s: float, check_cancelled: Callable[[], None] = silent
) -> _T:
    """The result of `work`, which is repeated after a WriteConflict.

    When `check_cancelled` raises, the run ends with that and without a version. Raises KnowledgeBaseBusy when another writes for `timeout_s`
    before the first slice, or MAX_TRIES times deletes what the run needs.
    """
    with base.store.errors(), closing(base.store.connect_to_write()) as connection:
        connection.forbid_writes(True)
        run = LongRun(base, connection, timeout_s, check_cancelled)
        try:
            for _ in range(MAX_TRIES):
                with suppress(WriteConflict):
                    run.begin()
                    return work(run)
            with run.keeping_the_lock():
                return work(run)
        finally:
            with suppress(OpenBookError), base.store.errors():
                run.end(timeout_s)


def _compared(connection: Connection) -> tuple[object, ...]:
    """The state a run compares files with. Every change of a document's row makes a version."""
    newest = schema.newest_version(connection)
    known = connection.execute("SELECT count(*), sum(id) FROM identities").fetchone()  # pruning makes no version
    return newest, known, connection.execute("SELECT folder, rules FROM sources ORDER BY folder").fetchall()


def _all_there(connection: Connection, contents: Iterable[int], table: str) -> bool:
    lacks_vector = (
        f"SELECT 1 FROM passages p LEFT JOIN {table} e USING (embedding_key) "
        "WHERE p.content_id = ? AND e.embedding_key IS NULL LIMIT 1"
    )
    return all(
        connection.execute("SELECT 1 FROM contents WHERE id = ?", (content,)).fetchone() is not None
        and connection.execute(lacks_vector, (content,)).fetchone() is None
        for content in set(contents)
    )
