"""Facts in a PostgreSQL database (16 or later), one knowledge base per database, in the schema `openbook`.

The URL takes libpq's parameters. The numbered files in `migrations/` create and update the tables. How the laws of
`openbook.knowledge.store.interface` are kept:

* A snapshot is a transaction REPEATABLE READ, READ ONLY.
* The write lock is an advisory lock of the writing connection and ends with it; its writes are committed as a whole or
  not at all. Runs that only add facts share it.
* Waiting lockers queue at the server for a tenth of a second at a time; a shared lock does not overtake them.
* Contents, passages and vectors have digests (`knowledge/store/integrity.py`), computed in Python before storage;
  documents and small tables have none. The server verifies page checksums (default since PostgreSQL 18; `initdb
  --data-checksums` before) and keeps references and committed versions intact.
* Purged data is gone from the tables, TOAST included, after VACUUM FULL. No statistics are collected of texts and
  paths.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from openbook.cluster.postgres_connection import DEFAULTS, SCHEMA, PostgresConnection
from openbook.core.config import DatabaseUrl, home_dir
from openbook.core.errors import (
    ConfigError,
    KnowledgeBaseBusy,
    KnowledgeBaseDamaged,
    KnowledgeBaseInvalid,
    KnowledgeBaseMissing,
    StorageError,
    first_line,
)
from openbook.core.files import make_folder
from openbook.core.records import BeyondReach
from openbook.knowledge.store import schema
from openbook.knowledge.store.interface import Connection, Damage, Writer
from openbook.knowledge.store.write_lock import file_lock

_LOCK = 0x4F424B42, 1  # "OBKB": advisory locks belong to one database
_RUNS = 0x4F424B43  # first number of the locks of running runs
_OLDEST = 160_000  # server version
_LOOK_MS = 100  # a waiting writer's time in the queue between calls of `check_cancelled`


class PostgresStore:
    """See `openbook.knowledge.store.interface.Store`. Raises ConfigError for an invalid URL."""

    index_hints = ("",)
    is_shared = True
    beyond_reach = ("database files", "replicas", "other machines", "write-ahead log")

    def __init__(self, place: DatabaseUrl) -> None:
        self.place = place
        url, _, query = place.url.partition("?")
        parameters = dict(parse_qsl(query, keep_blank_values=True))
        if "blobs" in parameters:
            raise ConfigError(f"{place}: each machine builds its own index now. Leave `blobs` out of the URL.")
        try:
            given = conninfo_to_dict(url, **parameters)
            self._conninfo = make_conninfo("", **{**DEFAULTS, **given})
        except psycopg.Error as error:
            said = first_line(error).partition('"')[0].strip(" :")  # the rest may quote part of the password
            raise ConfigError(
                f"{place} is not a URL of a database: {said}. Write it like postgresql://user@host/name."
            ) from None
        of = (given.get("host") or "local", given.get("port") or "5432", given.get("dbname") or given.get("user") or "")
        self._key = re.sub(r"[^\w.-]+", "_", "-".join(map(str, of)))
        self.folder = home_dir(os.environ) / "postgresql" / self._key

    def __str__(self) -> str:
        return str(self.place)

    def exists(self) -> bool:
        with closing(self.connect()) as connection:
            return self._format(connection) > 0

    def _format(self, connection: PostgresConnection) -> int:
        """The last migration's number; 0: none. Raises KnowledgeBaseInvalid for foreign tables."""
        tables = connection.tables()
        if not tables:
            return 0
        if not connection.execute("SELECT has_schema_privilege(?, 'USAGE')", (SCHEMA,)).fetchone()[0]:
            raise StorageError(f"The user of {self} may not use the schema {SCHEMA!r}. Ask its owner for the right.")
        if "migrations" not in tables or "meta" not in tables:
            raise KnowledgeBaseInvalid(
                f"{self} has a schema {SCHEMA!r} that is not of OpenBook. Choose another database."
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
                # This user may only have the right to write to an existing schema.
                if not connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = ?", (SCHEMA,)).fetchone():
                    connection.execute(f"CREATE SCHEMA {SCHEMA}")
                self._migrate(connection, 0)
                schema.remember(connection, **meta)
                connection.execute("INSERT INTO versions VALUES (0, ?, 'created')", (meta["created_at"],))

    def open(self) -> dict[str, str]:
        with closing(self.connect()) as connection:
            found = self._format(connection)
            if not found:
                raise KnowledgeBaseMissing(
                    f"No knowledge base in {self}. Make one with: openbook add FILES --kb '{self}'"
                )
            if found < len(_migrations()):
                with self.writer(30.0) as writing, schema.transaction(writing):
                    self._migrate(writing, self._format(writing))  # another process may have been faster
            elif found > len(_migrations()):
                raise KnowledgeBaseInvalid(
                    f"The knowledge base in {self} has format {found}, but this OpenBook reads format {len(_migrations())}. "
                    "Use a matching version of OpenBook."
                )
            meta = schema.meta(connection)
        if "id" in meta:
            self.folder = self.folder.with_name(f"{self._key}-{re.sub('[^0-9a-z]', '', meta['id'])[:32]}")
            with suppress(OSError):  # a read-only home still serves readers
                make_folder(self.folder)
        return meta

    def _migrate(self, connection: PostgresConnection, found: int) -> None:
        """Apply later migrations, in the open transaction."""
        for number, script in enumerate(_migrations()[found:], start=found + 1):
            connection.run_script(script)
            connection.execute("INSERT INTO migrations (number) VALUES (?)", (number,))

    @contextmanager
    def errors(self) -> Iterator[None]:
        try:
            yield
        except Damage as error:
            raise KnowledgeBaseDamaged(
                f"The knowledge base in {self} is damaged: {error}. Restore it from a backup. What else is damaged: "
                "openbook verify."
            ) from error
        except OSError as error:
            raise StorageError(
                f"Cannot read or write {error.filename or self.folder}: {error.strerror or error}. What was committed is safe."
            ) from error

    # --- connections and locks

    def connect(self, *, all_rows: bool = False) -> PostgresConnection:
        return PostgresConnection(self._conninfo, str(self), writes=False, all_rows=all_rows)

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
        with closing(self.connect_to_write()) as connection, self.write_lock(connection, timeout_s, lambda: None):
            yield connection

    @contextmanager
    def write_lock(
        self, connection: Connection, timeout_s: float, check_cancelled: Callable[[], None], *, facts_only: bool = False
    ) -> Iterator[None]:
        assert isinstance(connection, PostgresConnection)
        until, mode = time.monotonic() + timeout_s, "_shared" if facts_only else ""
        if not connection.execute(f"SELECT pg_try_advisory_lock{mode}(?, ?)", _LOCK).fetchone()[0]:
            with connection.lock_timeout(_LOOK_MS / 1000):
                while not connection.wait_for_lock(_LOCK, mode):
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
    def run_lock(self, connection: Connection, newest: int) -> Iterator[None]:
        assert isinstance(connection, PostgresConnection)
        lock = (_RUNS, newest)
        connection.execute("SELECT pg_advisory_lock_shared(?, ?)", lock)
        try:
            yield
        finally:
            if not connection.is_lost:
                connection.execute("SELECT pg_advisory_unlock_shared(?, ?)", lock)

    def oldest_run(self, connection: Connection) -> int | None:
        sql = (
            "SELECT CAST(min(CAST(objid AS BIGINT)) AS BIGINT) FROM pg_locks WHERE locktype = 'advisory' AND granted "
            "AND classid = ? AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        (oldest,) = connection.execute(sql, (_RUNS,)).fetchone()
        return None if oldest is None else int(oldest)

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
        """Deleted rows stay in a table while an older transaction may see them."""
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

    def vacuum(self, connection: Writer, timeout_s: float) -> Sequence[BeyondReach]:
        assert isinstance(connection, PostgresConnection)
        self.wait_for_readers(connection, timeout_s)
        with connection.lock_timeout(max(timeout_s, 0.1)):
            connection.execute(f"VACUUM (FULL, ANALYZE) {', '.join(sorted(connection.tables()))}")
        found = [BeyondReach("write-ahead log")]
        try:
            (told,) = connection.execute(
                "SELECT concat('Here these are segments up to ', pg_walfile_name(pg_current_wal_insert_lsn()), "
                "string_agg(concat('; ', name, ' = ', current_setting(name)), '' ORDER BY name), '.') FROM pg_settings "
                "WHERE name IN ('max_wal_size', 'wal_keep_size', 'archive_mode', 'max_slot_wal_keep_size')"
            ).fetchone()
            found = [BeyondReach("write-ahead log", told)]
            connection.execute("SELECT pg_switch_wal()")
            connection.execute("CHECKPOINT")  # after it, the server overwrites older segments in turn
        except (StorageError, KnowledgeBaseInvalid):  # the user lacks the right, or the server cannot
            if connection.is_lost:
                raise
            found.append(BeyondReach("log in use"))
        return found

    def bytes_on_disk(self, connection: Connection) -> int:
        (size,) = connection.execute(
            "SELECT CAST(coalesce(sum(pg_total_relation_size(c.oid)), 0) AS BIGINT) FROM pg_catalog.pg_class c "
            "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = ? AND c.relkind = 'r'",
            (SCHEMA,),
        ).fetchone()
        return int(size) + sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


@lru_cache(maxsize=1)
def _migrations() -> tuple[str, ...]:
    """Ordered by number, from 1."""
    files = resources.files("openbook.cluster").joinpath("migrations").iterdir()
    scripts = sorted((file.name, file.read_text(encoding="utf-8")) for file in files if file.name.endswith(".sql"))
    return tuple(script for _, script in scripts)
