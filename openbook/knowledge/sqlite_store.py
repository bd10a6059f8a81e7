"""The truth as a SQLite file in a folder, beside which everything else lies."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from openbook.errors import KnowledgeBaseDamaged, KnowledgeBaseInvalid, KnowledgeBaseMissing
from openbook.files import make_folder
from openbook.knowledge import integrity, schema
from openbook.knowledge.migrations import upgrade
from openbook.knowledge.schema import FILE_NAME, SqliteConnection
from openbook.knowledge.store import Connection, Writer
from openbook.knowledge.write_lock import file_lock, write_lock


class SqliteStore:
    """A folder with one SQLite file. See `openbook.knowledge.store.Store`."""

    is_shared = False
    blobs = ""
    lookups = ("INDEXED BY passages_by_passage_id", "NOT INDEXED")
    beyond_reach = (
        "What OpenBook cannot reach: models trained on it, answers and receipts saved elsewhere, backups and copies of the "
        "folder, and blocks that the file system or the disk has not overwritten yet."
    )

    def __init__(self, folder: Path) -> None:
        self.folder = self.place = folder.absolute()

    def __str__(self) -> str:
        return str(self.folder)

    def exists(self) -> bool:
        return (self.folder / FILE_NAME).exists()

    def create(self, meta: Mapping[str, str], timeout_s: float) -> None:
        folder = self.folder
        if folder.exists() and not folder.is_dir():
            raise KnowledgeBaseInvalid(f"{folder} is a file, not a folder. Choose another place with --kb.")
        strangers = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.exists() else []
        if strangers:
            raise KnowledgeBaseInvalid(
                f"{folder} holds other files ({', '.join(strangers[:3])}) and no knowledge base. Choose an empty or new folder with --kb."
            )
        with self.errors():
            make_folder(folder)
            with file_lock(folder, timeout_s):
                if not self.exists():
                    schema.create(folder, dict(meta))

    def open(self) -> dict[str, str]:
        folder = self.folder
        if folder.exists() and not folder.is_dir():
            raise KnowledgeBaseInvalid(f"{folder} is a file, not a knowledge base. Choose another place with --kb.")
        if not self.exists():
            raise KnowledgeBaseMissing(
                f"No knowledge base in {folder}. Make one with: openbook add FILES --kb {folder}"
            )
        with self.errors():
            self._upgrade()
            with closing(schema.connect(folder, writable=False)) as connection:
                schema.check_format(connection, folder)
                return schema.meta(connection)

    def _upgrade(self) -> None:
        """Bring an older format to this one. On a disk that cannot be written, the check of the format will say so."""
        folder = self.folder
        with closing(schema.connect(folder, writable=False)) as connection:
            old = schema.is_ours(connection) and 0 < schema.format_of(connection) < schema.FORMAT
        if old and os.access(folder, os.W_OK) and os.access(folder / FILE_NAME, os.W_OK):
            with file_lock(folder, timeout_s=30.0), closing(schema.connect(folder, writable=True)) as connection:
                upgrade(connection)

    def opened(self, meta: Mapping[str, str]) -> None:
        pass

    def errors(self) -> AbstractContextManager[None]:
        return schema.storage_errors(self.folder)

    # --- connections and locks

    def connect(self) -> SqliteConnection:
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
        self, connection: Connection, timeout_s: float, go_on: Callable[[], None], *, shared: bool = False
    ) -> AbstractContextManager[None]:
        return write_lock(self.folder, timeout_s, go_on)

    def index_lock(self, timeout_s: float) -> AbstractContextManager[None]:
        return nullcontext()  # the write lock is in the same folder

    # --- whether it is whole

    def check_tables(self, connection: Connection, base_id: str) -> None:
        integrity.check(connection)
        schema.check_newest(connection, self.folder, base_id)

    def problems(self, connection: Connection, base_id: str) -> list[Iterator[str]]:
        return [_file(connection), integrity.problems(connection), self._newest(connection, base_id)]

    def _newest(self, connection: Connection, base_id: str) -> Iterator[str]:
        try:
            schema.check_newest(connection, self.folder, base_id)
        except KnowledgeBaseDamaged as error:
            yield str(error)

    # --- deleting for good

    def put_away(self, connection: Connection) -> None:
        schema.put_away(connection, self.folder)

    def wait_for_readers(self, connection: Writer, timeout_s: float) -> None:
        schema.wait_for_readers(connection, self.folder, timeout_s)

    def vacuum(self, connection: Writer, timeout_s: float) -> None:
        connection.execute("VACUUM")  # writes the file anew without free pages
        schema.empty_log(connection, self.folder, timeout_s)

    def bytes_on_disk(self, connection: Connection) -> int:
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


def _file(connection: Connection) -> Iterator[str]:
    for (line,) in connection.execute("PRAGMA integrity_check"):
        if line != "ok":
            yield f"SQLite says: {line}"
    for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        yield f"row {row} of {table} refers to a row of {parent} that is not there"
