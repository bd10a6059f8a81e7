"""`KnowledgeBase`: documents in versions, in a store, with derived indexes."""

from __future__ import annotations

import gc
import json
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from openbook.core.codec import convert, decode, parse_json
from openbook.core.config import Place
from openbook.core.errors import KnowledgeBaseDamaged, KnowledgeBaseInvalid, UnknownVersion
from openbook.core.records import BeyondReach, Embedder, EmbedderIdentity, Hit, Passage, PassageSpan, Vectors, Verdict
from openbook.knowledge.cite.documents import info_of
from openbook.knowledge.cite.editions import DocumentInfo
from openbook.knowledge.cite.passages import as_passages, documents_holding, hits_of, passage_of_id, windows_around
from openbook.knowledge.index.cache import IndexCache
from openbook.knowledge.index.scope import UNLABELLED, Scope, condition
from openbook.knowledge.index.search import Searcher, Shard, StaleView, best_passages
from openbook.knowledge.ingest.splitter import Sizing
from openbook.knowledge.store import integrity, schema
from openbook.knowledge.store.integrity import StoredContent
from openbook.knowledge.store.interface import Connection, Store, Writer
from openbook.knowledge.store.sqlite import store_of
from openbook.knowledge.store.version_rows import now, version_ranges
from openbook.knowledge.store.write_lock import LOCK_TIMEOUT_S

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEARCHED = 40  # passages from which windows are made


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a knowledge base.

    `texts` counts distinct contents. `characters` of the `source_characters` in the files were read. `unreferenced` texts belong to no version:
    their runs are active or were interrupted.
    """

    id: str
    version: int
    versions_kept: int
    embedder: EmbedderIdentity
    documents: int
    texts: int
    passages: int
    characters: int
    source_characters: int
    bytes_on_disk: int
    sources: tuple[str, ...]
    not_indexed: tuple[Verdict, ...]
    unreferenced: int


class KnowledgeBase:
    """Documents in versions, read by any number of threads and processes, written by one at a time.

    Any call may raise StorageError, KnowledgeError (such as KnowledgeBaseDamaged) or, when it writes, KnowledgeBaseBusy.
    """

    def __init__(self, store: Store, meta: dict[str, str]) -> None:
        self.store, self.folder = store, store.folder
        self.id = meta["id"]
        self._embedder_json = meta["embedder"]
        self.embedder = _embedder_identity(self._embedder_json, store)
        self.sizing = _sizing(meta["sizing"], store) if "sizing" in meta else Sizing()
        self.shards: Searcher | None = None  # searches the segments in other processes: `openbook.cluster.shards`
        self.indexes = IndexCache(store, self.id, self.embedder)
        self._local = threading.local()
        self._whole_at = -1  # the newest version at which the tables were compared with their sum
        self._comparing = threading.Lock()

    @classmethod
    def ensure(
        cls,
        place: Place,
        embedder: EmbedderIdentity,
        *,
        base_id: str = "",
        sizing: Sizing = Sizing(),
        lock_timeout_s: float = LOCK_TIMEOUT_S,
    ) -> KnowledgeBase:
        """Open the knowledge base in `place`, a folder or a database, or create it in an empty or new place.

        `sizing` and `base_id` (its name in receipts, default: random) are for a new one. Raises KnowledgeBaseInvalid when the place holds other
        things or another embedder's knowledge base.
        """
        store = store_of(place)
        if not store.exists():
            meta = {
                "id": base_id or uuid.uuid4().hex,
                "embedder": embedder_json(embedder),
                "sizing": sizing.to_json(),
                "created_at": now(),
            }
            store.create(meta, lock_timeout_s)
        return cls.open(place, embedder)

    @classmethod
    def open(cls, place: Place, embedder: EmbedderIdentity | None = None, *, damaged: bool = False) -> KnowledgeBase:
        """Open one, with `damaged` even if its tables are. Raises KnowledgeBaseMissing, or KnowledgeBaseInvalid for another embedder."""
        store = store_of(place)
        meta = store.open()
        if missing := {"id", "embedder"} - set(meta):
            raise KnowledgeBaseDamaged(f"The knowledge base in {store} is damaged: no {sorted(missing)[0]} recorded.")
        base = cls(store, meta)
        if not damaged:
            with base.snapshot():
                pass
        if embedder is not None:
            base.check_embedder(embedder)
        return base

    def check_embedder(self, embedder: EmbedderIdentity) -> None:
        """Raise KnowledgeBaseInvalid for another embedder: vectors of two embedders must never meet."""
        if (embedder.digest, embedder.dimensions) != (self.embedder.digest, self.embedder.dimensions):
            raise KnowledgeBaseInvalid(
                f"The knowledge base in {self.store} was made with the embedder {self.embedder.name!r} "
                f"({self.embedder.digest[:12]}, {self.embedder.dimensions} dimensions), not with {embedder.name!r} "
                f"({embedder.digest[:12]}, {embedder.dimensions} dimensions). To change its embedder: openbook reembed "
                f"{embedder.name}"
            )

    # --- reading ------------------------------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """The newest committed version; 0 is the empty one."""
        return self.kept_version()

    def search(
        self, query: str, embedder: Embedder, limit: int = 10, scope: Scope = UNLABELLED, *, windows: bool = False
    ) -> tuple[int, list[Hit]]:
        """Return (version searched, hits best first), by fused dense and BM25 scores.

        With `windows`, hits are windows around the passages found. The result depends on the query and the documents in scope alone. Raises
        QuestionError for an invalid filter, UnknownVersion.
        """
        self.check_embedder(embedder.identity)
        vector = embedder.embed_query(query)
        try:
            return self._search(query, vector, limit, scope, windows=windows)
        except StaleView:
            return self._search(query, vector, limit, scope, windows=windows)

    def _search(self, query: str, vector: Vectors, limit: int, scope: Scope, *, windows: bool) -> tuple[int, list[Hit]]:
        passages = SEARCHED if windows else limit
        with self.snapshot() as connection:
            newest = schema.newest_version(connection)
            version = newest if scope.as_of is None else self.kept_version(scope.as_of)
            self._check_embedder_is_still(schema.meta(connection))
            seen = condition(scope, version)
            view = partial(self.indexes.view, connection, newest, scope, version, seen, self.shards)
            try:
                ranked = best_passages(view(), query, vector, passages)
            except (IndexError, ValueError, OverflowError):  # bytes of an index file changed, but its time did not
                self.indexes.distrust()
                ranked = best_passages(view(), query, vector, passages)
            if windows:
                return version, windows_around(connection, ranked, seen, limit)
            return version, hits_of(connection, ranked, seen)

    def kept_version(self, version: int | None = None) -> int:
        """Return `version` (default: the newest) if it is kept. Raises UnknownVersion."""
        with self.snapshot() as connection:
            if version is None:
                return schema.newest_version(connection)
            if connection.execute("SELECT 1 FROM versions WHERE version = ?", (version,)).fetchone() is None:
                kept = [v for (v,) in connection.execute("SELECT version FROM versions ORDER BY version")]
                raise UnknownVersion(
                    f"Version {version} is not kept in {self.store}; there are {version_ranges(kept)}. See: openbook history"
                )
            return version

    def passage(self, passage_id: str, scope: Scope, prefer: str = "") -> Passage | None:
        """The passage as held by the document `prefer`, or else the first in `scope`; None without one. Others add nothing, not even their names."""
        with self.snapshot() as connection:
            seen = condition(scope, self.kept_version(scope.as_of))
            return passage_of_id(connection, self.store.index_hints, passage_id, seen, prefer)

    def passages(self, document: str, version: int | None = None) -> list[Passage]:
        with self.snapshot() as connection:
            stored = self.content(document, version)
            if stored is None:
                return []
            of_version = condition(None, self.kept_version(version))
            labels = documents_holding(connection, {stored.id}, of_version)[stored.id][document]
            return as_passages(stored, integrity.passages(connection, stored), {document: labels})

    def text(self, document: str, version: int | None = None) -> str | None:
        """The whole text of a document, in which spans count, or None."""
        stored = self.content(document, version)
        return None if stored is None else stored.text

    def content(self, document: str, version: int | None = None) -> StoredContent | None:
        with self.snapshot() as connection:
            of_version = condition(None, self.kept_version(version))
            values = {"path": document, **of_version.values}
            rows = integrity.documents(connection, f"d.path = :path AND {of_version.sql}", values)
            return integrity.content(connection, rows[0].content_id) if rows else None

    def spans(self, of: StoredContent) -> list[PassageSpan]:
        with self.snapshot() as connection:
            return [row.span for row in integrity.passages(connection, of)]

    def content_keys(self, media_type: str) -> list[str]:
        with self.snapshot() as connection:
            sql = "SELECT key FROM contents WHERE media_type = :media_type"
            return [key for (key,) in connection.execute(sql, {"media_type": media_type})]

    def documents(
        self, scope: Scope | None = None, *, newest_first: bool = False, after: str = "", limit: int | None = None
    ) -> list[str]:
        """Sorted paths in `scope` (default: the newest version, all labels), or the last changed ones first; only those that sort after `after`."""
        with self.snapshot() as connection:
            seen = condition(scope, self.kept_version(scope.as_of if scope else None))
            order = "d.added_in DESC, d.path" if newest_first else "d.path"
            sql = f"SELECT d.path FROM documents d WHERE d.path > :after AND {seen.sql} ORDER BY {order}"
            if limit is not None:
                sql += f" LIMIT {limit}"
            return [path for (path,) in connection.execute(sql, {"after": after, **seen.values})]

    def is_empty(self, version: int | None = None) -> bool:
        with self.snapshot() as connection:
            seen = condition(None, self.kept_version(version))
            sql = f"SELECT 1 FROM documents d WHERE {seen.sql} LIMIT 1"
            return connection.execute(sql, seen.values).fetchone() is None

    def holds(self, document: str, scope: Scope) -> bool:
        with self.snapshot() as connection:
            seen = condition(scope, self.kept_version(scope.as_of))
            path = document.encode(errors="replace").decode()  # lone surrogates cannot be looked for
            values = {"path": path, **seen.values}
            return bool(integrity.documents(connection, f"d.path = :path AND {seen.sql}", values))

    def count(self, scope: Scope) -> int:
        with self.snapshot() as connection:
            seen = condition(scope, self.kept_version(scope.as_of))
            (count,) = connection.execute(f"SELECT count(*) FROM documents d WHERE {seen.sql}", seen.values).fetchone()
            return int(count)

    def document_info(
        self, documents: Iterable[str] | None, scope: Scope, *, after: str = "", limit: int | None = None
    ) -> dict[str, DocumentInfo]:
        """Those of `documents` (None: all) that are in `scope`, by path and sorted; `after` and `limit` as for `documents`."""
        with self.snapshot() as connection:
            version = self.kept_version(scope.as_of)
            seen = condition(scope, version)
            sql, values = f"d.path > :after AND {seen.sql}", {"after": after, **seen.values}
            if documents is not None:
                sql += " AND d.path IN (SELECT value FROM json_each(:paths))"
                values["paths"] = json.dumps(sorted(set(documents)))
            sql += " ORDER BY d.path" + ("" if limit is None else f" LIMIT {limit}")
            return info_of(connection, integrity.documents(connection, sql, values), version, scope.labels)

    def labels(self) -> dict[str, list[str]]:
        with self.snapshot() as connection:
            sql = "SELECT path, labels FROM documents WHERE removed_in IS NULL AND labels <> '[]' ORDER BY path"
            return {path: json.loads(labels) for path, labels in connection.execute(sql)}

    def shows_all_to(self, labels: frozenset[str]) -> bool:
        with self.snapshot() as connection:
            sql = "SELECT DISTINCT value FROM identities, json_each(labels) WHERE labels <> '[]'"
            return {label for (label,) in connection.execute(sql)} <= labels

    def metadata_keys(self, scope: Scope) -> set[str]:
        """All metadata keys in `scope`, regardless of its filter."""
        with self.snapshot() as connection:
            seen = condition(replace(scope, where=""), self.kept_version(scope.as_of))
            sql = f"SELECT DISTINCT j.key FROM documents d, json_each(d.metadata) j WHERE {seen.sql}"
            return {key for (key,) in connection.execute(sql, seen.values)}

    def status(self) -> Status:
        with self.snapshot() as connection:
            of_version = condition(None, self.version)
            documents, texts, read, source = connection.execute(
                "SELECT count(*), count(DISTINCT d.content_id), coalesce(sum(length(c.text)), 0), "
                "CAST(coalesce(sum(coalesce(c.source_chars, length(c.text))), 0) AS BIGINT) "
                f"FROM documents d JOIN contents c ON c.id = d.content_id WHERE {of_version.sql}",
                of_version.values,
            ).fetchone()
            (passages,) = connection.execute(
                "SELECT count(*) FROM passages WHERE content_id IN "
                f"(SELECT d.content_id FROM documents d WHERE {of_version.sql})",
                of_version.values,
            ).fetchone()
            rows = connection.execute("SELECT path, outcome, reason FROM verdicts ORDER BY path").fetchall()
            newest, versions = connection.execute("SELECT max(version), count(*) FROM versions").fetchone()
            size = self.store.bytes_on_disk(connection)
            unreferenced = len(schema.unused_contents(connection))
            sources = [folder for (folder,) in connection.execute("SELECT folder FROM sources ORDER BY folder")]
        return Status(
            id=self.id,
            version=newest,
            versions_kept=versions,
            embedder=self.embedder,
            documents=documents,
            texts=texts,
            passages=passages,
            characters=read,
            source_characters=source,
            bytes_on_disk=size,
            sources=tuple(sources),
            not_indexed=tuple(Verdict(path, outcome, reason) for path, outcome, reason in rows),
            unreferenced=unreferenced,
        )

    # --- connections, locks, indexes ----------------------------------------------------------------------------------

    @property
    def connection(self) -> Connection:
        """This thread's own read-only connection."""
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self.store.connect()
        return connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """One state for several statements, whatever is committed meanwhile, checked by `check_whole`."""
        with self.store.errors():
            connection = self.connection
            if connection.in_transaction:  # already inside a snapshot: use its state
                yield connection
                return
            with self.store.snapshot(connection):
                self.check_whole(connection)
                yield connection

    def check_whole(self, connection: Connection) -> None:
        """Check versions, documents and labels against their digests, once per newest version."""
        newest = schema.newest_version(connection)
        with self._comparing:  # one thread for all that wait
            if newest != self._whole_at:
                self.store.check_tables(connection, self.id)
                self._whole_at = newest

    @contextmanager
    def writing(self, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[Writer]:
        """The one writer's connection. Raises KnowledgeBaseBusy after `timeout_s`."""
        with self.store.errors(), self.store.writer(timeout_s) as connection:
            self.check_whole(connection)
            self.begin_writing(connection, schema.meta(connection), timeout_s)
            self._clear(connection, timeout_s)
            yield connection
            self.store.finish_writing(connection)

    def unreferenced(self) -> list[int]:
        """Contents without a version: their runs are active or were interrupted."""
        with self.store.errors():
            return schema.unused_contents(self.connection)

    def clear(self, timeout_s: float = LOCK_TIMEOUT_S) -> int:
        """Delete the `unreferenced` contents of ended runs, as every writer does first. Returns how many."""
        before = self.unreferenced()
        if not before:
            return 0
        with self.writing(timeout_s):
            return len({*before} - {*self.unreferenced()})

    def begin_writing(self, connection: Writer, meta: Mapping[str, str], timeout_s: float) -> None:
        """Start writing, with `meta` as read under the write lock."""
        self._check_embedder_is_still(meta)  # may have changed while this writer waited
        if "purging" in meta:
            self.forget(connection, timeout_s)  # finish a purge that was interrupted
            schema.remember(connection, purging=None)

    def _clear(self, connection: Writer, timeout_s: float) -> None:
        """Delete texts that no version or living run has; indexes do not hold them. If interrupted, the next writer finishes."""
        unused = schema.unused_contents(connection, self.store.oldest_run(connection))
        if unused:
            with schema.transaction(connection):
                schema.drop_contents(connection, unused)
                schema.remember(connection, purging="")
            self.store.vacuum(connection, timeout_s)
            schema.remember(connection, purging=None)

    def forget(self, connection: Writer, timeout_s: float = LOCK_TIMEOUT_S) -> Sequence[BeyondReach]:
        """Rebuild the indexes and erase deleted rows from free pages and logs. Returns known places where bytes may remain.

        Needs the write lock. Raises KnowledgeBaseBusy when a reader keeps older pages.
        """
        self.indexes.refresh(connection, replace_all=True)
        return self.store.vacuum(connection, timeout_s)

    def shard(self, in_scope: NDArray[np.int64], number: int, shards: int) -> Shard:
        """The rows of shard `number` of `shards`: see `SegmentSet.shard`. Raises StaleView when a content was deleted meanwhile."""
        with self.snapshot() as connection:
            self._check_embedder_is_still(schema.meta(connection))
            known = connection.execute("SELECT id FROM contents")
            if len(np.setdiff1d(in_scope, np.fromiter((content for (content,) in known), dtype=np.int64))):
                raise StaleView(f"The knowledge base in {self.store} changed while it was searched. Ask again.")
            return self.indexes.shard(connection, in_scope, number, shards)

    def _check_embedder_is_still(self, meta: Mapping[str, str]) -> None:
        if meta["embedder"] == self._embedder_json:
            return
        if _embedder_identity(meta["embedder"], self.store) != self.embedder:
            raise KnowledgeBaseInvalid(
                f"The knowledge base in {self.store} was given another embedder meanwhile. Open it again, with the new one."
            )

    def close(self) -> None:
        # Closing a connection under a thread that still reads would end the process. An unused connection is closed when it is collected.
        self._local = threading.local()
        gc.collect()
        self.indexes.close()


def embedder_json(identity: EmbedderIdentity) -> str:
    return json.dumps(asdict(identity))


def _sizing(text: str, store: Store) -> Sizing:
    where = f"The knowledge base in {store} is damaged: its passage size"
    value = parse_json(text, where, KnowledgeBaseInvalid)
    if isinstance(value, dict) and (value.pop("overlap", 0), value.pop("unit", "characters")) != (0, "characters"):
        raise KnowledgeBaseInvalid(schema.DEVELOPMENT.format(store))
    return convert(value, Sizing, where, KnowledgeBaseInvalid)


def _embedder_identity(text: str, store: Store) -> EmbedderIdentity:
    where = f"The knowledge base in {store} is damaged: its embedder"
    return decode(text, EmbedderIdentity, where, KnowledgeBaseInvalid)
