"""A PostgreSQL connection for the knowledge base's SQL; every error becomes a sentence.

On both sides, TCP notices a vanished machine within a minute, and its locks become free. A server that hangs while its machine lives is waited for.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from decimal import Decimal
from functools import lru_cache
from typing import Any, TypeAlias, cast

import psycopg
from psycopg import errors, pq

from openbook.core.errors import KnowledgeBaseBusy, KnowledgeBaseInvalid, OpenBookError, StorageError, first_line
from openbook.knowledge.store.interface import Damage, Rows

_Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

SCHEMA = "openbook"
_ROWS = 1000  # of a long result in memory at a time
DEFAULTS = {  # unless the URL says otherwise
    "application_name": "openbook",
    "client_encoding": "utf-8",
    "connect_timeout": "10",
    # Notice a vanished peer within a minute.
    "keepalives_idle": "20",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
# Server-side session settings: the write lock of a vanished machine ends with its session, also within a minute.
_SETTINGS = {
    "search_path": SCHEMA,
    "jit": "off",
    "tcp_keepalives_idle": "20",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
logging.getLogger("psycopg").setLevel(logging.ERROR)  # it warns about consequences of errors that it raises
_TOKEN = re.compile(r"'(?:[^']|'')*'|::|:\w+|\?|%")


class PostgresConnection:
    """Errors become sentences about `shown`, or `Damage`. Outside a transaction, each statement commits on its own.

    A reading connection reconnects if the server ended it between two transactions.
    """

    def __init__(self, conninfo: str, shown: str, *, writes: bool, all_rows: bool = False) -> None:
        self._conninfo, self._shown, self._writes = conninfo, shown, writes
        hides, only_reads = ("off" if each else "on" for each in (all_rows, writes))
        self._settings = {**_SETTINGS, "default_transaction_read_only": only_reads, "row_security": hides}
        self._connection = self._connected()

    def _connected(self) -> _Connection:
        try:
            connection = psycopg.connect(self._conninfo, autocommit=True)
            connection.execute(
                "SELECT count(set_config(name, value, false)) FROM unnest(%s::text[], %s::text[]) AS given (name, value)",
                (list(self._settings), list(self._settings.values())),
            )
        except psycopg.Error as error:
            raise _connect_error(error, self._shown) from error
        return connection

    @property
    def is_lost(self) -> bool:
        return self._connection.closed

    @property
    def server_version(self) -> int:
        """160003 means 16.3."""
        return self._connection.info.server_version

    @property
    def in_transaction(self) -> bool:
        status = self._connection.info.transaction_status
        return status in (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR, pq.TransactionStatus.ACTIVE)

    def execute(self, sql: str, parameters: Any = (), /) -> Rows:
        again = not self._writes and not self.in_transaction
        with self._errors():
            try:
                return self._run(sql, parameters)
            except psycopg.Error as error:
                if not (again and self._is_lost_by(error)):
                    raise
            self._connection = self._connected()
            return self._run(sql, parameters)

    def _run(self, sql: str, parameters: Any) -> Rows:
        cursor = self._connection.cursor(binary=True)
        return cast(Rows, cursor.execute(_translated(sql), _dumped(parameters, writes=self._writes)))

    def scan(self, sql: str) -> Iterator[Any]:
        """Rows, `_ROWS` at a time in memory."""
        own = not self.in_transaction
        if own:
            self.begin()
        try:
            with self._errors(), self._connection.cursor("scan", binary=True) as cursor:
                cursor.itersize = _ROWS
                cursor.execute(_translated(sql))
                yield from cursor
        finally:
            if own and self.in_transaction:
                self.execute("ROLLBACK")

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Rows:
        with self._errors():
            cursor = self._connection.cursor(binary=True)
            cursor.executemany(_translated(sql), (_dumped(each, writes=True) for each in parameters))
        return cast(Rows, cursor)

    def close(self) -> None:
        self._connection.close()

    def __del__(self) -> None:
        if hasattr(self, "_connection"):  # set once open; psycopg warns of connections left open
            self._connection.close()

    def begin(self) -> None:
        self.execute("BEGIN")

    def changing(self, paths: Collection[str] | None, /) -> AbstractContextManager[None]:
        return nullcontext()  # the server checks its pages

    def durable(self, durable: bool, /) -> None:
        self.execute(f"SET synchronous_commit = {'on' if durable else 'off'}")

    def forbid_writes(self, forbidden: bool, /) -> None:
        if not self.is_lost:
            self.execute(f"SET default_transaction_read_only = {'on' if forbidden else 'off'}")

    def next_ids(self, table: str, count: int, /) -> Sequence[int]:
        sql = f"SELECT nextval('{table}_ids') FROM generate_series(1, ?)"
        return sorted(number for (number,) in self.execute(sql, (count,)))

    def insert_rows(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], /) -> None:
        marks = ", ".join("?" * len(columns))
        sql = f"INSERT INTO {table} ({', '.join(columns)}) OVERRIDING SYSTEM VALUE VALUES ({marks})"
        self.executemany(sql, rows)
        if "id" in columns:
            own = f"'{table}_ids'" if table in ("contents", "passages") else f"pg_get_serial_sequence('{table}', 'id')"
            self.execute(f"SELECT setval({own}, max(id)) FROM {table} HAVING max(id) > 0")

    def tables(self) -> list[str]:
        sql = "SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = ?"
        return [name for (name,) in self.execute(sql, (SCHEMA,))]

    def make_embeddings(self, table: str, /) -> None:
        self.execute(f"CREATE TABLE IF NOT EXISTS {table} (LIKE embeddings INCLUDING ALL)")

    def run_script(self, script: str) -> None:
        """PostgreSQL's own SQL, without parameters."""
        with self._errors():
            self._connection.execute(script.encode())

    @contextmanager
    def lock_timeout(self, seconds: float) -> Iterator[None]:
        """Limit the wait for table locks and advisory locks."""
        milliseconds = min(int(seconds * 1000), 2**31 - 1)
        self.execute(f"SET lock_timeout = {milliseconds}")
        try:
            yield
        finally:
            if not self.is_lost and not self.in_transaction:
                self.execute("SET lock_timeout = 0")

    def wait_for_lock(self, key: tuple[int, int], mode: str) -> bool:
        """True if the advisory lock was taken within `lock_timeout`. `mode`: "" or "_shared".

        A lock granted just as the time runs out counts: the server reports a time-out, but the connection holds it.
        """
        with self._errors(), suppress(errors.LockNotAvailable):
            self._run(f"SELECT pg_advisory_lock{mode}(?, ?)", key)
            return True
        holds = "locktype = 'advisory' AND (classid, objid) = (?, ?) AND granted AND pid = pg_backend_pid()"
        return self.execute(f"SELECT 1 FROM pg_locks WHERE {holds}", key).fetchone() is not None

    def _is_lost_by(self, error: psycopg.Error) -> bool:
        """True if the connection ended; it is then closed on this side too."""
        state = error.sqlstate or ""
        if self._connection.closed or state.startswith("08") or state in ("57P01", "57P02", "57P03", "57P05"):
            self._connection.close()
            return True
        return False

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            if self._is_lost_by(error):
                raise StorageError(
                    f"The connection to {self._shown} was lost: {first_line(error)}. What was committed stands, and nothing else "
                    "was changed. Run it again."
                ) from error
            raise _sentence(error, self._shown) from error


@lru_cache(maxsize=1024)
def _translated(sql: str) -> bytes:
    """Placeholders `?` and `:name` in psycopg's form."""

    def replaced(match: re.Match[str]) -> str:
        found: str = match[0]
        if found == "?":
            return "%s"
        if found.startswith(":") and found != "::":
            return f"%({found[1:]})s"
        return found.replace("%", "%%")  # a string, a cast or a percent sign

    return _TOKEN.sub(replaced, sql).encode()


_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def _dumped(parameters: Any, *, writes: bool) -> Any:
    """Convert numbers exactly.

    No row holds text that PostgreSQL cannot store (NUL, half surrogate pairs); searches replace it by other text that
    no row holds.
    """

    def dumped(value: object) -> object:
        if isinstance(value, float):
            return Decimal(repr(value))
        if isinstance(value, str) and not writes and _UNSTORABLE.search(value):
            return _UNSTORABLE.sub("\uffff", value)  # no stored text holds it
        return value

    if isinstance(parameters, Mapping):
        return {key: dumped(value) for key, value in parameters.items()}
    return [dumped(value) for value in parameters]


# --- errors as sentences ------------------------------------------------------------------------------------------------


# On failed connections, libpq gives only words, no codes. None holds a password.
_ADVICE = {
    "password authentication failed|no password supplied": "Give the right one in PGPASSWORD or in ~/.pgpass, for the user in the URL",
    'database ".* does not exist': "Make the database first, with createdb, or correct the URL",
    "role .* does not exist": "Name a user of the database in the URL: postgresql://user@host/name",
    r"pg_hba\.conf": "The server lets nobody in from here with this user; ask who runs it",
    "too many clients|remaining connection slots": "The server has no connection left; try again later, or raise its max_connections",
    "starting up|shutting down|in recovery": "The server is just starting or stopping; try again in a moment",
}


def _connect_error(error: psycopg.Error, shown: str) -> OpenBookError | Damage:
    text = " ".join(str(error).split())
    said = text.rpartition("FATAL: ")[2].strip().rstrip(".") if "FATAL" in text else first_line(error)
    advice = next((advice for words, advice in _ADVICE.items() if re.search(words, text)), "")
    if not advice and error.sqlstate is not None:
        return _sentence(error, shown)
    advice = advice or "Check that the server runs there and can be reached from here"
    return StorageError(f"Cannot open {shown}: {said}. {advice}.")


# By the beginning of an error's SQLSTATE. `{0}`: the place, `{1}`: what the server said.
_SENTENCES: tuple[tuple[tuple[str, ...], type[OpenBookError], str], ...] = (
    (
        ("55P03", "40P01", "40001"),
        KnowledgeBaseBusy,
        "Another process holds the knowledge base in {0}. Try again when it is done.",
    ),
    (("42501",), StorageError, "The user of {0} lacks a right: {1}. Ask its owner for it, or name another user."),
    (
        ("25006",),
        StorageError,
        "Cannot write to {0}: {1}. It is a replica, or was opened to read; name the primary server.",
    ),
    (("53",), StorageError, "The server of {0} has run out of room: {1}. Free some and run it again; nothing is lost."),
    (
        ("42P01", "42703", "42883", "3F000"),
        KnowledgeBaseInvalid,
        "The knowledge base in {0} lacks a part: {1}. It was made by another program, or changed by hand; restore it from a backup.",
    ),
    (("58",), StorageError, "The server of {0} cannot read or write its files: {1}. What was committed is safe."),
)


def _sentence(error: psycopg.Error, shown: str) -> OpenBookError | Damage:
    said, state = first_line(error), error.sqlstate or ""
    if state in ("XX001", "XX002"):  # data or index corrupted
        return Damage(said)
    for states, kind, sentence in _SENTENCES:
        if state.startswith(states):
            return kind(sentence.format(shown, said))
    return StorageError(f"PostgreSQL refused a statement in {shown}: {said}.")
