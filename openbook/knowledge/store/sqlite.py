"""The store as a SQLite file in a folder; and `store_of`, which chooses between this one and a database."""

from __future__ import annotations

import os
import pkgutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from openbook.core.config import Place
from openbook.core.errors import (
    ConfigError,
    KnowledgeBaseBusy,
    KnowledgeBaseDamaged,
    KnowledgeBaseInvalid,
    KnowledgeBaseMissing,
    did_you_mean,
    needs_extra,
)
from openbook.core.files import make_folder, replace_file
from openbook.core.locks import exclusive_lock, is_held
from openbook.knowledge.store import integrity, schema
from openbook.knowledge.store.interface import Connection, Damage, Store, Writer
from openbook.knowledge.store.schema import DEVELOPMENT, FILE_NAME, FORMAT, SqliteConnection
from openbook.knowledge.store.write_lock import LOCK_TIMEOUT_S, file_lock, write_lock

APPLICATION_ID = 0x4F424B42  # "OBKB": tells a knowledge base from any other SQLite file
RUN_LOCK = ".run-"  # prefix of the files that living runs lock
NEWEST_NAME = ".newest"  # names the knowledge base and its newest version


class SqliteStore:
    is_shared = False
    index_hints = ("INDEXED BY passages_by_passage_id", "NOT INDEXED")
    beyond_reach = ()

    def __init__(self, folder: Path) -> None:
        self.folder = self.place = folder.absolute()

    def __str__(self) -> str:
        return str(self.folder)

    def exists(self) -> bool:
        return (self.folder / FILE_NAME).exists()

    def create(self, meta: Mapping[str, str], timeout_s: float) -> None:
        folder = self.folder
        if folder.exists() and not folder.is_dir():
            raise KnowledgeBaseInvalid(f"{folder} is a file, not a folder. Choose another place.")
        here = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        strangers = [name for name in here if not name.startswith(".") and name not in ("derived", "sources.toml")]
        if strangers:
            raise KnowledgeBaseInvalid(
                f"{folder} holds other files ({', '.join(strangers[:3])}) and no knowledge base. Choose an empty or new folder."
            )
        with self.errors():
            make_folder(folder)
            with file_lock(folder, timeout_s):
                if not self.exists():
                    self._write_empty(meta)

    def _write_empty(self, meta: Mapping[str, str]) -> None:
        temporary = self.folder / f".{FILE_NAME}.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        with closing(SqliteConnection(temporary)) as connection:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            with schema.transaction(connection):
                schema.make_tables(connection)
            schema.remember(connection, **meta)
            connection.execute("INSERT INTO versions VALUES (0, ?, 'created')", (meta["created_at"],))
            integrity.seal(connection)
            self._write_newest(connection)
            connection.execute("PRAGMA journal_mode = WAL")
        temporary.replace(self.folder / FILE_NAME)

    def open(self) -> dict[str, str]:
        folder, path = self.folder, self.folder / FILE_NAME
        if folder.exists() and not folder.is_dir():
            raise KnowledgeBaseInvalid(f"{folder} is a file, not a knowledge base. Choose another place.")
        if not self.exists():
            raise KnowledgeBaseMissing(
                f"No knowledge base in {folder}. Make one with: openbook add FILES --kb {folder}"
            )
        with self.errors(), closing(self.connect()) as connection:
            if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                raise KnowledgeBaseInvalid(f"{path} is not an OpenBook knowledge base. Choose another folder.")
            (found,) = connection.execute("PRAGMA user_version").fetchone()
            if found < FORMAT:
                raise KnowledgeBaseInvalid(DEVELOPMENT.format(folder))
            if found > FORMAT:
                raise KnowledgeBaseInvalid(
                    f"The knowledge base in {folder} has format {found}, but this OpenBook reads format {FORMAT}. "
                    "Use a matching version of OpenBook, or add the documents to a new knowledge base."
                )
            return schema.meta(connection)

    def errors(self) -> AbstractContextManager[None]:
        return schema.database_errors(self.folder)

    def connect(self, *, all_rows: bool = False) -> SqliteConnection:
        return schema.connect(self.folder, writable=False)

    def connect_to_write(self) -> SqliteConnection:
        return schema.connect(self.folder, writable=True)

    @contextmanager
    def snapshot(self, connection: Connection) -> Iterator[None]:
        connection.execute("BEGIN")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")

    def scan(self, connection: Connection, sql: str) -> Iterator[Any]:
        return iter(connection.execute(sql))

    @contextmanager
    def writer(self, timeout_s: float) -> Iterator[SqliteConnection]:
        with write_lock(self.folder, timeout_s), closing(self.connect_to_write()) as connection:
            yield connection

    def write_lock(
        self, connection: Connection, timeout_s: float, check_cancelled: Callable[[], None], *, facts_only: bool = False
    ) -> AbstractContextManager[None]:
        return write_lock(self.folder, timeout_s, check_cancelled)

    @contextmanager
    def run_lock(self, connection: Connection, newest: int) -> Iterator[None]:
        path = self.folder / f"{RUN_LOCK}{newest}.{uuid.uuid4().hex[:8]}"
        with exclusive_lock(path, LOCK_TIMEOUT_S, 0o600):
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def oldest_run(self, connection: Connection) -> int | None:
        oldest: int | None = None
        for path in self.folder.glob(f"{RUN_LOCK}*"):
            if not is_held(path):
                path.unlink(missing_ok=True)  # its process was killed
            else:
                newest = int(path.name.removeprefix(RUN_LOCK).partition(".")[0])
                oldest = newest if oldest is None else min(oldest, newest)
        return oldest

    def index_lock(self, timeout_s: float) -> AbstractContextManager[None]:
        return nullcontext()  # the write lock is in the same folder

    def check_tables(self, connection: Connection, base_id: str) -> None:
        for problem in integrity.problems(connection):
            raise Damage(problem)
        for problem in self._lost_versions(connection, base_id):
            raise KnowledgeBaseDamaged(problem)

    def problems(self, connection: Connection, base_id: str) -> list[Iterator[str]]:
        return [_file_problems(connection), integrity.problems(connection), self._lost_versions(connection, base_id)]

    def _lost_versions(self, connection: Connection, base_id: str) -> Iterator[str]:
        """A sentence if a later version was committed than `connection` sees."""
        newest = schema.newest_version(connection)
        try:
            found = (self.folder / NEWEST_NAME).read_text(encoding="ascii").split()
            known = int(found[1]) if found[0] == base_id else newest
        except (OSError, ValueError, IndexError):
            return
        if known > newest:  # unless it was committed since
            with closing(self.connect()) as other:
                newest = schema.newest_version(other)
        if known > newest:
            yield (
                f"The knowledge base in {self.folder} is damaged: version {known} was committed, but its newest is {newest}; its log "
                f"({FILE_NAME}-wal) was lost or damaged. Restore it from a backup. If you have put back an older {FILE_NAME} "
                f"yourself, delete {self.folder / NEWEST_NAME}."
            )

    def _write_newest(self, connection: Connection) -> None:
        """Record the newest version in a separate file: a lost log takes versions with it."""
        line = f"{schema.meta(connection)['id']} {schema.newest_version(connection)}\n".encode()
        path = self.folder / NEWEST_NAME
        if not path.is_file() or path.read_bytes() != line:
            replace_file(path, line)

    def finish_writing(self, connection: Connection) -> None:
        """Write the log back, unless a reader needs it. An empty log cannot be damaged."""
        with suppress(OSError):  # the commit stands; the next writer tries again
            self._write_newest(connection)
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def wait_for_readers(self, connection: Writer, timeout_s: float) -> None:
        # After a change, a reader of the state before keeps the log from being emptied.
        with schema.transaction(connection):
            schema.remember(connection, touched="")
            schema.remember(connection, touched=None)
        self._empty_log(connection, timeout_s)

    def vacuum(self, connection: Writer, timeout_s: float) -> tuple[()]:
        connection.execute("VACUUM")  # rewrites the file without free pages
        self._empty_log(connection, timeout_s)
        return ()

    def _empty_log(self, connection: Connection, timeout_s: float) -> None:
        """Write the log back and empty it. Raises KnowledgeBaseBusy while a reader holds old pages."""
        deadline = time.monotonic() + timeout_s
        connection.execute("PRAGMA busy_timeout = 0")  # SQLite would wait for readers as long as for writers
        try:
            while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                if time.monotonic() > deadline:
                    raise KnowledgeBaseBusy(
                        f"A reader of {self.folder} holds on to older pages, in which deleted text may stand. Run it again when "
                        "that reader is done."
                    )
                time.sleep(0.05)
        finally:
            connection.execute(f"PRAGMA busy_timeout = {schema.BUSY_MS}")

    def bytes_on_disk(self, connection: Connection) -> int:
        found = 0
        for folder, _, names in os.walk(self.folder):
            for name in names:
                with suppress(FileNotFoundError):  # another process may have deleted it meanwhile
                    found += Path(folder, name).stat().st_size
        return found


def _file_problems(connection: Connection) -> Iterator[str]:
    for (line,) in connection.execute("PRAGMA integrity_check"):
        if line != "ok":
            yield f"SQLite says: {line}"
    for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        yield f"row {row} of {table} refers to a row of {parent} that is not there"


# Databases by the scheme of their URL. Their clients are in the extra `cluster`.
_DATABASES = dict.fromkeys(("postgresql", "postgres"), "openbook.cluster.postgres:PostgresStore")


def store_of(place: Place) -> Store:
    """The store of a folder or a URL, unopened. Raises ConfigError for an unknown URL or a missing client."""
    if isinstance(place, Path):
        return SqliteStore(place)
    if place.scheme not in _DATABASES:
        raise ConfigError(
            f"{place} is not a place for a knowledge base: {place.scheme!r} is not a database that OpenBook knows."
            f"{did_you_mean(place.scheme, _DATABASES)} Give a folder, or a URL such as postgresql://host/name."
        )
    with needs_extra(str(place), "cluster"):
        found: Store = pkgutil.resolve_name(_DATABASES[place.scheme])(place)
    return found
