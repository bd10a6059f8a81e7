"""The truth in a PostgreSQL database (16 or later): `postgresql://user@host/name`, with the parameters that libpq knows.

The tables stand in the schema `openbook` of the database: one knowledge base for each database. They are made, and brought to
this format, by the numbered files in `migrations/`. No extension is needed.

What keeps the laws of `openbook.knowledge.store`:

* A snapshot is a transaction REPEATABLE READ, READ ONLY.
* The write lock is an advisory lock of the connection that writes. So it ends with that connection, and what was written
  through it is committed as a whole or not at all. Runs that only add facts hold it together (shared).
* Waiting lockers stand in the server's queue, for a tenth of a second at a time, and a shared lock does not overtake them.
* What is read is what was stored: contents, passages and vectors have the digests of `knowledge/integrity.py`, taken in Python
  before they are stored, over all that happens on the way. Documents and the small tables have none. The server checks the
  checksums of its pages (a default since PostgreSQL 18; `initdb --data-checksums` before), keeps references whole, and does
  not lose a committed version with its log.
* What a purge deleted is gone from the tables, TOAST included, after VACUUM FULL. No statistics are taken of texts and paths.

Nobody waits for ever for a peer that is gone: TCP notices a machine that vanished, on both sides, so that its locks are free
within a minute; and `_Connection` a server that says nothing.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from decimal import Decimal
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any, NoReturn, cast
from urllib.parse import parse_qsl

import psycopg
from psycopg import errors, pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from openbook.config import DatabaseUrl, home_dir
from openbook.errors import (
    ConfigError,
    KnowledgeBaseBusy,
    KnowledgeBaseDamaged,
    KnowledgeBaseInvalid,
    KnowledgeBaseMissing,
    OpenBookError,
    StorageError,
    first_line,
)
from openbook.files import make_folder
from openbook.knowledge import schema
from openbook.knowledge.blobs import open_blobs
from openbook.knowledge.store import Connection, Damage, Rows, Writer
from openbook.knowledge.write_lock import file_lock

if TYPE_CHECKING:
    from psycopg.abc import RV, PQGen

SCHEMA = "openbook"
_LOCK = 0x4F424B42, 1  # "OBKB": advisory locks are of one database alone
_OLDEST = 160_000  # version of the server
_ROWS = 1000  # of a long result in memory at a time
_LOOK_MS = 100  # how long a waiting writer stands in the queue before it calls `check_cancelled`
_DEFAULTS = {
    "application_name": "openbook",
    "client_encoding": "utf-8",
    "connect_timeout": "10",
    # A peer that vanished is noticed within a minute.
    "keepalives_idle": "20",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
# Of a session, on the server. The write lock of a machine that vanished ends with its session, also within a minute.
_SETTINGS = {
    "search_path": SCHEMA,
    "jit": "off",
    "tcp_keepalives_idle": "20",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
_SILENT_S = 30.0  # before a server that says nothing is asked on another connection
logging.getLogger("psycopg").setLevel(logging.ERROR)  # it warns of what follows from an error that it raises
_TOKEN = re.compile(r"('(?:[^']|'')*')|(::)|:(\w+)|(\?)|(%)")


class PostgresStore:
    """See `openbook.knowledge.store.Store`. Raises ConfigError for a URL that is none."""

    lookups = ("",)
    is_shared = True
    beyond_reach = (
        "What OpenBook cannot reach: models trained on it, answers and receipts saved elsewhere, blocks that the file system or "
        "the disk has not overwritten yet, and the write-ahead log of PostgreSQL with its archive, replicas and backups, "
        "which hold deleted rows until they are recycled or expire."
    )

    def __init__(self, place: DatabaseUrl) -> None:
        self.place = place
        url, _, query = place.url.partition("?")
        pairs = parse_qsl(query, keep_blank_values=True)
        self.blobs = next((value for key, value in pairs if key == "blobs"), "")
        try:
            given = conninfo_to_dict(url, **{key: value for key, value in pairs if key != "blobs"})
            self._conninfo = make_conninfo("", **{**_DEFAULTS, **given})
        except psycopg.Error as error:
            said = first_line(error).partition(': "')[0]  # it may quote the URL, with its password
            raise ConfigError(
                f"{place} is not a URL of a database: {said}. Write it like postgresql://user@host/name."
            ) from None
        of = (given.get("host") or "local", given.get("port") or "5432", given.get("dbname") or given.get("user") or "")
        self._key = re.sub(r"[^\w.-]+", "_", "-".join(map(str, of)))
        self.folder = home_dir(os.environ) / "cache" / "postgresql" / self._key

    def __str__(self) -> str:
        return str(self.place)

    def exists(self) -> bool:
        with closing(self.connect()) as connection:
            return self._format(connection) > 0

    def _format(self, connection: PostgresConnection) -> int:
        """The number of the last migration, 0 without a knowledge base. Raises KnowledgeBaseInvalid for tables of others."""
        tables = connection.tables()
        if not tables:
            return 0
        if not connection.execute("SELECT has_schema_privilege(?, 'USAGE')", (SCHEMA,)).fetchone()[0]:
            raise StorageError(f"The user of {self} may not use the schema {SCHEMA!r}. Ask its owner for the right.")
        if "migrations" not in tables or "meta" not in tables:
            raise KnowledgeBaseInvalid(
                f"{self} has a schema {SCHEMA!r} that is not of OpenBook. Choose another database with --kb."
            )
        return int(connection.execute("SELECT coalesce(max(number), 0) FROM migrations").fetchone()[0])

    def create(self, meta: Mapping[str, str], timeout_s: float) -> None:
        with self.writer(timeout_s) as connection:
            if self._format(connection):
                return
            if connection.server_version < _OLDEST:
                raise StorageError(
                    f"The server of {self} is PostgreSQL {connection.server_version // 10_000}; OpenBook needs "
                    f"{_OLDEST // 10_000} or later. Upgrade the server, or name another."
                )
            with schema.transaction(connection):
                if not connection.has_schema():  # one that is there may be all that this user may write to
                    connection.execute(f"CREATE SCHEMA {SCHEMA}")
                connection.migrate(0)
                schema.remember(connection, **meta, **({"blobs": open_blobs(self.blobs).url} if self.blobs else {}))
                connection.execute("INSERT INTO versions VALUES (0, ?, 'created')", (meta["created_at"],))

    def open(self) -> dict[str, str]:
        with closing(self.connect()) as connection:
            found = self._format(connection)
            if not found:
                raise KnowledgeBaseMissing(
                    f"No knowledge base in {self}. Make one with: openbook add FILES --kb '{self}'"
                )
            if found < len(_migrations()):
                self._upgrade()
            elif found > len(_migrations()):
                raise KnowledgeBaseInvalid(
                    f"The knowledge base in {self} has format {found}, but this OpenBook reads format {len(_migrations())}. "
                    "Use a matching version of OpenBook."
                )
            return schema.meta(connection)

    def _upgrade(self) -> None:
        with self.writer(30.0) as connection, schema.transaction(connection):
            connection.migrate(self._format(connection))  # another process may have been quicker

    def opened(self, meta: Mapping[str, str]) -> None:
        self.folder = self.folder.with_name(f"{self._key}-{re.sub('[^0-9a-z]', '', meta['id'])[:32]}")
        with suppress(OSError):  # a home that cannot be written still reads
            make_folder(self.folder)

    @contextmanager
    def errors(self) -> Iterator[None]:
        try:
            yield
        except Damage as error:
            raise KnowledgeBaseDamaged(
                f"The knowledge base in {self} is damaged: {error}. Restore it from a backup. What else is damaged: "
                "openbook status --check."
            ) from error
        except OSError as error:
            raise StorageError(
                f"Cannot write to {error.filename or self.folder}: {error.strerror or error}. Nothing is lost."
            ) from error

    # --- connections and locks

    def connect(self) -> PostgresConnection:
        return PostgresConnection(self._conninfo, str(self), writes=False)

    def connect_to_write(self) -> PostgresConnection:
        return PostgresConnection(self._conninfo, str(self), writes=True)

    @contextmanager
    def snapshot(self, connection: Connection) -> Iterator[None]:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def scan(self, connection: Connection, sql: str) -> Iterator[Any]:
        assert isinstance(connection, PostgresConnection)
        return connection.scan(sql)

    @contextmanager
    def writer(self, timeout_s: float) -> Iterator[PostgresConnection]:
        with (
            closing(self.connect_to_write()) as connection,
            self.write_lock(connection, timeout_s, lambda: None),
        ):
            yield connection

    @contextmanager
    def write_lock(
        self, connection: Connection, timeout_s: float, check_cancelled: Callable[[], None], *, shared: bool = False
    ) -> Iterator[None]:
        assert isinstance(connection, PostgresConnection)
        until, mode = time.monotonic() + timeout_s, "_shared" if shared else ""
        if not connection.execute(f"SELECT pg_try_advisory_lock{mode}(?, ?)", _LOCK).fetchone()[0]:
            with connection.lock_timeout(_LOOK_MS / 1000):
                while not connection.wait_for_lock(mode):
                    check_cancelled()
                    if time.monotonic() >= until:
                        raise KnowledgeBaseBusy(
                            f"Another process is writing to the knowledge base in {self}. Wait for it, then run this again."
                        )
        try:
            yield
        finally:
            if not connection.is_lost:
                connection.execute(f"SELECT pg_advisory_unlock{mode}(?, ?)", _LOCK)

    @contextmanager
    def index_lock(self, timeout_s: float) -> Iterator[None]:
        make_folder(self.folder)
        with file_lock(self.folder, timeout_s):
            yield

    # --- whether it is whole

    def check_tables(self, connection: Connection, base_id: str) -> None:
        schema.newest_version(connection)

    def problems(self, connection: Connection, base_id: str) -> Sequence[Iterator[str]]:
        return ()

    # --- deleting for good

    def finish_writing(self, connection: Connection) -> None:
        pass

    def wait_for_readers(self, connection: Writer, timeout_s: float) -> None:
        """Rows stay in a table as long as a transaction that began before they were deleted may look at them."""
        (now,) = connection.execute("SELECT (pg_current_xact_id()::xid)::text").fetchone()
        until = time.monotonic() + timeout_s
        older = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND age(backend_xmin) >= age(CAST(? AS xid))"
        )
        while connection.execute(older, (now,)).fetchone()[0]:
            if time.monotonic() > until:
                raise KnowledgeBaseBusy(
                    f"A reader of {self} holds on to an older state, in which deleted text stands. Run it again when that "
                    "reader is done."
                )
            time.sleep(0.05)

    def vacuum(self, connection: Writer, timeout_s: float) -> None:
        assert isinstance(connection, PostgresConnection)
        self.wait_for_readers(connection, timeout_s)
        with connection.lock_timeout(max(timeout_s, 0.1)):
            connection.execute(f"VACUUM (FULL, ANALYZE) {', '.join(sorted(connection.tables()))}")

    def bytes_on_disk(self, connection: Connection) -> int:
        (size,) = connection.execute(
            "SELECT CAST(coalesce(sum(pg_total_relation_size(c.oid)), 0) AS BIGINT) FROM pg_catalog.pg_class c "
            "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = ? AND c.relkind = 'r'",
            (SCHEMA,),
        ).fetchone()
        return int(size) + sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


class _Connection(psycopg.Connection[tuple[Any, ...]]):
    """Gives up a server that says nothing, unless that tells another connection that it is at work for this one.

    TCP notices a machine that vanished, but neither a process that stands still nor a proxy that has lost its server.
    """

    conninfo = ""
    process = 0  # the server's, for this connection; 0: it is not known, so it cannot be asked about

    def wait(self, gen: PQGen[RV], *arguments: Any, **options: Any) -> RV:
        return super().wait(self._while_heard(gen), *arguments, **options)

    def _while_heard(self, waiting: PQGen[RV]) -> PQGen[RV]:
        ready: Any = None
        heard_at = time.monotonic()
        try:
            while True:
                wanted = waiting.send(ready)
                ready = yield wanted
                if not ready and time.monotonic() - heard_at > _SILENT_S:
                    if not self._is_served() and not (ready := (yield wanted)):  # it may have answered meanwhile
                        self.close()
                        raise psycopg.OperationalError(f"no answer for {_SILENT_S:g} s")
                    heard_at = time.monotonic()
                if ready:
                    heard_at = time.monotonic()
        except StopIteration as end:
            result: RV = end.value
            return result

    def _is_served(self) -> bool:
        if not self.process:
            return False
        at_work = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND state !~ '^idle'"
        try:
            with _Connection.connect(self.conninfo, autocommit=True) as other:
                return other.execute(at_work, (self.process,)).fetchone() is not None
        except psycopg.Error as error:
            return "FATAL" in str(error)  # a server that lets nobody else in is there


class PostgresConnection:
    """Every statement outside of a transaction is one of its own. Every error is a sentence about `shown`, or `Damage`.

    One that only reads (not `writes`) connects again when the server ended it between two transactions.
    """

    def __init__(self, conninfo: str, shown: str, *, writes: bool) -> None:
        self._conninfo, self._shown, self._writes = conninfo, shown, writes
        self._connection = self._connected()

    def _connected(self) -> _Connection:
        settings = {**_SETTINGS, "default_transaction_read_only": "off" if self._writes else "on"}
        try:
            connection = _Connection.connect(self._conninfo, autocommit=True)
            connection.conninfo = self._conninfo
            connection.process, _ = connection.execute(
                "SELECT pg_backend_pid(), count(set_config(name, value, false)) FROM unnest(%s::text[], %s::text[]) AS given (name, value)",
                (list(settings), list(settings.values())),
            ).fetchone() or (0, 0)
        except psycopg.Error as error:
            raise _connect_error(error, self._shown) from error
        return connection

    @property
    def is_lost(self) -> bool:
        return self._connection.closed

    @property
    def server_version(self) -> int:
        """160003 is 16.3."""
        return self._connection.info.server_version

    @property
    def in_transaction(self) -> bool:
        status = self._connection.info.transaction_status
        return status in (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR, pq.TransactionStatus.ACTIVE)

    def execute(self, sql: str, parameters: Any = (), /) -> Rows:
        again = not self._writes and not self.in_transaction
        try:
            try:
                return self._run(sql, parameters)
            except psycopg.Error as error:
                if not (again and self._is_lost_by(error)):
                    raise
            self._connection = self._connected()
            return self._run(sql, parameters)
        except psycopg.Error as error:
            self._fail(error)

    def _run(self, sql: str, parameters: Any) -> Rows:
        cursor = self._connection.cursor(binary=True)
        return cast(Rows, cursor.execute(_translated(sql), _dumped(parameters, writes=self._writes)))

    def scan(self, sql: str) -> Iterator[Any]:
        """The rows, `_ROWS` at a time in memory."""
        own = not self.in_transaction
        if own:
            self.begin()
        try:
            with self._connection.cursor("scan", binary=True) as cursor:
                cursor.itersize = _ROWS
                cursor.execute(_translated(sql))
                yield from cursor
        except psycopg.Error as error:
            self._fail(error)
        finally:
            if own and self.in_transaction:
                self.execute("ROLLBACK")

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Rows:
        cursor = self._connection.cursor(binary=True)
        try:
            cursor.executemany(_translated(sql), (_dumped(each, writes=True) for each in parameters))
        except psycopg.Error as error:
            self._fail(error)
        return cast(Rows, cursor)

    def close(self) -> None:
        self._connection.close()

    def __del__(self) -> None:
        if hasattr(self, "_connection"):  # it was opened; psycopg warns of one that is left open
            self._connection.close()

    def begin(self) -> None:
        self.execute("BEGIN")

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

    def has_schema(self) -> bool:
        sql = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = ?"
        return self.execute(sql, (SCHEMA,)).fetchone() is not None

    def tables(self) -> list[str]:
        sql = "SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = ?"
        return [name for (name,) in self.execute(sql, (SCHEMA,))]

    def make_embeddings(self, table: str, /) -> None:
        self.execute(f"CREATE TABLE IF NOT EXISTS {table} (LIKE embeddings INCLUDING ALL)")

    def migrate(self, found: int) -> None:
        """Apply the migrations after number `found`, in the transaction that is open."""
        try:
            for number, script in enumerate(_migrations()[found:], start=found + 1):
                self._connection.execute(script.encode())
                self._connection.execute("INSERT INTO migrations (number) VALUES (%s)", (number,))
        except psycopg.Error as error:
            self._fail(error)

    @contextmanager
    def lock_timeout(self, seconds: float) -> Iterator[None]:
        """Wait for locks of tables and advisory locks no longer than that."""
        milliseconds = min(int(seconds * 1000), 2**31 - 1)
        self.execute(f"SET lock_timeout = {milliseconds}")
        try:
            yield
        finally:
            if not self.is_lost and not self.in_transaction:
                self.execute("SET lock_timeout = 0")

    def wait_for_lock(self, mode: str) -> bool:
        """Whether the write lock was taken within `lock_timeout`, also where it was given just as the time ran out.

        The server then reports a time-out, and the connection holds the lock all the same.
        """
        try:
            self._run(f"SELECT pg_advisory_lock{mode}(?, ?)", _LOCK)
        except errors.LockNotAvailable:
            holds = "locktype = 'advisory' AND (classid, objid) = (?, ?) AND granted AND pid = pg_backend_pid()"
            return self.execute(f"SELECT 1 FROM pg_locks WHERE {holds}", _LOCK).fetchone() is not None
        except psycopg.Error as error:
            self._fail(error)
        return True

    def _is_lost_by(self, error: psycopg.Error) -> bool:
        """Whether the connection ended. Then it is closed on this side too."""
        state = error.sqlstate or ""
        if self._connection.closed or state.startswith("08") or state in ("57P01", "57P02", "57P03", "57P05"):
            self._connection.close()
            return True
        return False

    def _fail(self, error: psycopg.Error) -> NoReturn:
        if self._is_lost_by(error):
            raise StorageError(
                f"The connection to {self._shown} was lost: {first_line(error)}. What was committed stands, and nothing else "
                "was changed. Run it again."
            ) from error
        raise _sentence(error, self._shown) from error


@lru_cache(maxsize=1024)
def _translated(sql: str) -> bytes:
    """Placeholders `?` and `:name` as psycopg writes them."""

    def replaced(match: re.Match[str]) -> str:
        text, cast_mark, name, positional, percent = match.groups()
        if text is not None:
            return text.replace("%", "%%")
        if cast_mark:
            return cast_mark
        if name:
            return f"%({name})s"
        return "%s" if positional else "%%" * bool(percent)

    return _TOKEN.sub(replaced, sql).encode()


_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def _dumped(parameters: Any, *, writes: bool) -> Any:
    """Numbers exactly as they are written. What is looked for and cannot be stored is looked for as a text that is not there."""

    def dumped(value: object) -> object:
        if isinstance(value, float):
            return Decimal(repr(value))
        if isinstance(value, str) and not writes and _UNSTORABLE.search(value):
            return _UNSTORABLE.sub("\uffff", value)  # no text that was read holds it
        return value

    if isinstance(parameters, Mapping):
        return {key: dumped(value) for key, value in parameters.items()}
    return [dumped(value) for value in parameters]


@lru_cache(maxsize=1)
def _migrations() -> tuple[str, ...]:
    """Scripts by their number, from 1 on."""
    files = sorted(
        (file for file in resources.files("openbook.cluster").joinpath("migrations").iterdir()),
        key=lambda file: file.name,
    )
    return tuple(file.read_text(encoding="utf-8") for file in files if file.name.endswith(".sql"))


# --- errors as sentences ------------------------------------------------------------------------------------------------


def _connect_error(error: psycopg.Error, shown: str) -> OpenBookError | Damage:
    """Libpq gives no codes here, only words. None of them holds a password."""
    text = " ".join(str(error).split())
    said = text.rpartition("FATAL: ")[2].strip().rstrip(".") if "FATAL" in text else first_line(error)
    if "password authentication failed" in text or "no password supplied" in text:
        advice = "Give the right one in PGPASSWORD or in ~/.pgpass, for the user in the URL"
    elif 'database "' in text and "does not exist" in text:
        advice = "Make the database first, with createdb, or correct the URL"
    elif "role" in text and "does not exist" in text:
        advice = "Name a user of the database in the URL: postgresql://user@host/name"
    elif "pg_hba.conf" in text:
        advice = "The server lets nobody in from here with this user; ask who runs it"
    elif "too many clients" in text or "remaining connection slots" in text:
        advice = "The server has no connection left; try again later, or raise its max_connections"
    elif "starting up" in text or "shutting down" in text or "in recovery" in text:
        advice = "The server is just starting or stopping; try again in a moment"
    elif error.sqlstate is not None:
        return _sentence(error, shown)
    else:
        advice = "Check that the server runs there and can be reached from here"
    return StorageError(f"Cannot open {shown}: {said}. {advice}.")


def _sentence(error: psycopg.Error, shown: str) -> OpenBookError | Damage:
    said, state = first_line(error), error.sqlstate or ""
    if state in ("XX001", "XX002"):  # data or index corrupted
        return Damage(said)
    if state in ("55P03", "40P01", "40001"):
        return KnowledgeBaseBusy(f"Another process holds the knowledge base in {shown}. Try again when it is done.")
    if state == "42501":
        return StorageError(f"The user of {shown} lacks a right: {said}. Ask its owner for it, or name another user.")
    if state in ("25006", "57P04"):
        return StorageError(
            f"Cannot write to {shown}: {said}. It is a replica, or was opened to read; name the primary server."
        )
    if state.startswith("53"):
        return StorageError(
            f"The server of {shown} has run out of room: {said}. Free some and run it again; nothing is lost."
        )
    if state in ("42P01", "42703", "42883", "3F000"):
        return KnowledgeBaseInvalid(
            f"The knowledge base in {shown} lacks a part: {said}. It was made by another program, or changed by hand; restore "
            "it from a backup."
        )
    if state.startswith("58"):
        return StorageError(f"The server of {shown} cannot read or write its files: {said}. Nothing is lost.")
    return StorageError(f"PostgreSQL refused a statement in {shown}: {said}.")
