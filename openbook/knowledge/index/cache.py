"""The segments of one knowledge base in this process: opened on demand, saved after a change."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from openbook.core.errors import KnowledgeBaseBusy, StorageError
from openbook.core.files import replace_file
from openbook.core.records import EmbedderIdentity
from openbook.knowledge.index.scope import Condition, Scope
from openbook.knowledge.index.search import IndexView, Searcher, Shard
from openbook.knowledge.index.segment_builder import IndexSource
from openbook.knowledge.index.segment_set import SegmentSet
from openbook.knowledge.store import schema
from openbook.knowledge.store.interface import Connection, Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_VIEWS = 16  # scopes whose part of the indexes is cached
PURGED_NAME = ".purged"  # the last purge, by version, that this machine's indexes know
INDEX_LOCK_S = 60.0  # another process of this machine writes its indexes no longer than this

# The newest version, the version, filter, labels, and the searcher.
_ViewKey: TypeAlias = tuple[int, int, str, frozenset[str], Searcher | None]


def kept_contents(connection: Connection) -> NDArray[np.int64]:
    rows = connection.execute("SELECT DISTINCT content_id FROM documents ORDER BY content_id")
    return np.fromiter((content for (content,) in rows), dtype=np.int64)


class IndexCache:
    """The `SegmentSet` of the newest version and views of it; thread-safe. Each machine has its own."""

    def __init__(self, store: Store, base_id: str, embedder: EmbedderIdentity) -> None:
        self._store, self._base_id, self._embedder = store, base_id, embedder
        self._lock = threading.Lock()
        self._indexes: SegmentSet | None = None
        self._views: dict[_ViewKey, IndexView] = {}
        self._trusts_times = True  # of index files; False when one changed under its old time

    def source(self, connection: Connection) -> IndexSource:
        return IndexSource(connection, self._base_id, self._embedder.digest, self._embedder.dimensions)

    @property
    def folder(self) -> Path:
        """Derived data on this machine, which can be rebuilt."""
        return self._store.folder / "derived"

    def refresh(self, connection: Connection, *, replace_all: bool = False) -> None:
        """Save the contents of all kept versions; `replace_all` deletes them first. Needs the write lock. Raises StorageError."""
        try:
            with self._store.index_lock(INDEX_LOCK_S):
                indexes = self._save(connection, replace_all=replace_all)
        except OSError as error:
            cannot = f"The indexes cannot be written to {error.filename or self._store}: {error.strerror or error}."
            so = "What was deleted may still be in them, so nothing is proved."
            if not replace_all:
                so = "The new version stands, and is searched without them."
            raise StorageError(f"{cannot} {so} Once they can be written, run openbook verify.") from error
        with self._lock:
            self._indexes, self._views = indexes, {}

    def view(
        self, connection: Connection, newest: int, scope: Scope, version: int, seen: Condition, shards: Searcher | None
    ) -> IndexView:
        """The part of the indexes that `scope` sees; missing contents are indexed in memory. `shards` searches the segments; None: this process."""
        key = (newest, version, scope.where, scope.labels, shards)
        with self._lock:
            if key in self._views:
                return self._views[key]
        rows = connection.execute(f"SELECT DISTINCT d.content_id FROM documents d WHERE {seen.sql}", seen.values)
        in_scope = np.sort(np.fromiter((content for (content,) in rows), dtype=np.int64))
        view: IndexView | None = None if shards is None else shards.view(self._base_id, newest, in_scope)
        with self._lock:
            if view is None:
                view = self._covering(connection, in_scope).shard(in_scope)
            kept = {k: v for k, v in self._views.items() if k[0] == newest}  # a purge is a new version too
            self._views = {**dict(list(kept.items())[1 - MAX_VIEWS :]), key: view}
            return view

    def shard(self, connection: Connection, in_scope: NDArray[np.int64], number: int, shards: int) -> Shard:
        with self._lock:
            return self._covering(connection, in_scope).shard(in_scope, number, shards)

    def distrust(self) -> None:
        """Close the indexes. The next opening compares every byte with its digest."""
        with self._lock:
            self._indexes, self._views, self._trusts_times = None, {}, False

    def close(self) -> None:
        self._indexes, self._views = None, {}

    def _covering(self, connection: Connection, in_scope: NDArray[np.int64]) -> SegmentSet:
        is_whole = self._indexes is not None and np.isin(in_scope, self._indexes.contents()).all()
        if self._indexes is None or not is_whole or self._missed_purge(connection):
            self._indexes, self._views = self._open(connection, in_scope), {}
        return self._indexes

    def _open(self, connection: Connection, in_scope: NDArray[np.int64]) -> SegmentSet:
        """Open the indexes; save those of a shared knowledge base, which no run on another machine writes here."""
        if self._store.is_shared and self._trusts_times:
            with suppress(KnowledgeBaseBusy, StorageError, OSError), self._store.index_lock(0.0):
                # A state from before a purge must not be saved again.
                if int(schema.meta(connection).get("purged_in", 0)) >= int(self._known_purge() or 0):
                    return self._save(connection)
        return SegmentSet.open(self.folder, self.source(connection), in_scope, every_byte=not self._trusts_times)

    def _save(self, connection: Connection, *, replace_all: bool = False) -> SegmentSet:
        missed_purge, contents = self._missed_purge(connection), kept_contents(connection)
        forget = replace_all or missed_purge
        indexes = SegmentSet.refresh(self.folder, self.source(connection), contents, forget=forget)
        if missed_purge:
            replace_file(self._store.folder / PURGED_NAME, schema.meta(connection)["purged_in"].encode())
        return indexes

    def _missed_purge(self, connection: Connection) -> bool:
        """True if these indexes may still hold what another machine purged."""
        purged = schema.meta(connection).get("purged_in", "") if self._store.is_shared else ""
        return bool(purged) and purged != self._known_purge()

    def _known_purge(self) -> str:
        note = self._store.folder / PURGED_NAME
        return note.read_text() if note.is_file() else ""
