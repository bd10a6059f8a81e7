"""`KnowledgeBase`: a folder with the truth in SQLite and two derived indexes beside it."""

from __future__ import annotations

import json
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from openbook.errors import KnowledgeBaseBusy, KnowledgeBaseInvalid, KnowledgeBaseMissing, StorageError
from openbook.knowledge import schema
from openbook.knowledge.fusion import fuse
from openbook.knowledge.indexes import Indexes
from openbook.records import Embedder, EmbedderIdentity, Hit, Passage, Verdict

if TYPE_CHECKING:
    import filelock

CANDIDATES = 50  # taken from each retriever before fusion


@dataclass(frozen=True, slots=True)
class Status:
    id: str
    version: int
    embedder: EmbedderIdentity
    documents: int
    passages: int
    characters: int
    bytes_on_disk: int
    not_in: tuple[Verdict, ...]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class KnowledgeBase:
    """Read by any number of threads and processes, written by one at a time. Each commit is a new version."""

    def __init__(self, folder: Path, meta: dict[str, str]) -> None:
        self.folder = folder
        self.id = meta["id"]
        self.embedder = _embedder_identity(meta["embedder"], folder)
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._indexes: Indexes | None = None
        self._refresh = threading.Lock()

    @classmethod
    def ensure(
        cls, folder: Path, embedder: EmbedderIdentity, *, base_id: str = "", lock_timeout_s: float = 30.0
    ) -> KnowledgeBase:
        """Open the knowledge base in `folder`, or make an empty one if the folder is empty or new.

        `base_id` (default: random) names it in receipts.

        Raises StorageError, or KnowledgeBaseInvalid when other files are there or it was made with another embedder.
        """
        folder = folder.absolute()
        if (folder / schema.FILE_NAME).exists():
            return cls.open(folder, embedder)
        if folder.exists() and not folder.is_dir():
            raise KnowledgeBaseInvalid(f"{folder} is a file, not a folder. Choose another place with --kb.")
        strangers = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.exists() else []
        if strangers:
            raise KnowledgeBaseInvalid(
                f"{folder} holds other files ({', '.join(strangers[:3])}) and no knowledge base. Choose an empty or new folder with --kb."
            )
        identity = json.dumps({"name": embedder.name, "digest": embedder.digest, "dimensions": embedder.dimensions})
        meta = {"id": base_id or uuid.uuid4().hex, "embedder": identity, "created_at": now()}
        with schema.storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with _file_lock(folder, lock_timeout_s):
                if not (folder / schema.FILE_NAME).exists():
                    schema.create(folder, meta)
        return cls.open(folder, embedder)

    @classmethod
    def open(cls, folder: Path, embedder: EmbedderIdentity | None = None) -> KnowledgeBase:
        """Open an existing one; with `embedder`, only if it was made with exactly that one."""
        folder = folder.absolute()
        if folder.exists() and not folder.is_dir():
            raise KnowledgeBaseInvalid(f"{folder} is a file, not a knowledge base. Choose another place with --kb.")
        if not (folder / schema.FILE_NAME).exists():
            raise KnowledgeBaseMissing(
                f"No knowledge base in {folder}. Make one with: openbook add FILES --kb {folder}"
            )
        with schema.storage_errors(folder):
            connection = schema.connect(folder, writable=False)
            try:
                schema.check_format(connection, folder)
                meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
            finally:
                connection.close()
        if missing := {"id", "embedder"} - set(meta):
            raise KnowledgeBaseInvalid(f"The knowledge base in {folder} is damaged: no {sorted(missing)[0]} recorded.")
        base = cls(folder, meta)
        if embedder is not None:
            base.check_embedder(embedder)
        return base

    def check_embedder(self, embedder: EmbedderIdentity) -> None:
        """Vectors of two embedders must never meet. Raises KnowledgeBaseInvalid."""
        if (embedder.digest, embedder.dimensions) != (self.embedder.digest, self.embedder.dimensions):
            raise KnowledgeBaseInvalid(
                f"The knowledge base in {self.folder} was made with the embedder {self.embedder.name!r} "
                f"({self.embedder.digest[:12]}, {self.embedder.dimensions} dimensions), not with {embedder.name!r} "
                f"({embedder.digest[:12]}, {embedder.dimensions} dimensions). Use that embedder (OPENBOOK_EMBEDDER), or "
                "add the documents to a new knowledge base."
            )

    # --- reading ------------------------------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """The newest committed version; 0 is the empty one."""
        with schema.storage_errors(self.folder):
            return int(self.connection.execute("SELECT max(version) FROM versions").fetchone()[0])

    def search(self, query: str, embedder: Embedder, limit: int = 10) -> tuple[int, list[Hit]]:
        """(version searched, hits best first): dense and BM25 rankings, fused by rank.

        A function of the version and the query: not of the order in which the documents came in.
        """
        self.check_embedder(embedder.identity)
        vector = embedder.embed_query(query)
        with schema.storage_errors(self.folder):
            indexes = self._current_indexes()
            wanted = 2 * max(CANDIDATES, limit)  # more than are kept, so that equal scores at the cut do not matter
            dense, words = indexes.vectors.search(vector, wanted), indexes.bm25.search(query, wanted)
            names = self._passage_ids([key for key, _ in (*dense, *words)])
            keys = {names[key]: key for key in sorted(names, reverse=True)}
            rankings = [_ranking(found, names)[: max(CANDIDATES, limit)] for found in (dense, words)]
            dense_rank, bm25_rank = ({p: rank for rank, p in enumerate(r, start=1)} for r in rankings)
            hits: list[Hit] = []
            for name, score in fuse(rankings):
                passage = self.passage(name, indexes.version)
                if passage is None or not passage.text.strip():
                    continue
                cosine = indexes.vectors.similarity(keys[name], vector)
                hits.append(Hit(passage, score, dense_rank.get(name), bm25_rank.get(name), cosine))
                if len(hits) == limit:
                    break
            return indexes.version, hits

    def passage(self, passage_id: str, version: int | None = None) -> Passage | None:
        """The passage of that id in `version` (default: the newest), or None; of several documents, the first path's."""
        version = self.version if version is None else version
        with schema.storage_errors(self.folder):
            rows = self._passages("p.passage_id = :value", passage_id, version)
            return rows[0] if rows else None

    def passages(self, document: str) -> list[Passage]:
        """All passages of a document (its path) in the newest version, in text order."""
        version = self.version
        with schema.storage_errors(self.folder):
            return self._passages("d.path = :value", document, version)

    def text(self, document: str, version: int | None = None) -> str | None:
        """The whole text that the spans of a document's passages count in, or None."""
        with schema.storage_errors(self.folder):
            row = self.connection.execute(
                f"SELECT c.text FROM contents c JOIN documents d ON d.content_id = c.id WHERE d.path = :path AND {schema.LIVE}",
                {"path": document, "version": self.version if version is None else version},
            ).fetchone()
            return None if row is None else str(row[0])

    def documents(self) -> list[str]:
        """Paths of the newest version's documents, sorted."""
        with schema.storage_errors(self.folder):
            rows = self.connection.execute(
                f"SELECT d.path FROM documents d WHERE {schema.LIVE} ORDER BY d.path", {"version": self.version}
            )
            return [path for (path,) in rows.fetchall()]

    def status(self) -> Status:
        with schema.storage_errors(self.folder):
            version = self.version
            live = {"version": version}
            documents = self.connection.execute(
                f"SELECT count(*) FROM documents d WHERE {schema.LIVE}", live
            ).fetchone()[0]
            passages, characters = self.connection.execute(
                "SELECT count(*), coalesce(sum(end_char - start_char), 0) FROM passages WHERE content_id IN "
                f"(SELECT d.content_id FROM documents d WHERE {schema.LIVE})",
                live,
            ).fetchone()
            rows = self.connection.execute("SELECT path, outcome, reason FROM verdicts ORDER BY path").fetchall()
            size = sum(p.stat().st_size for p in self.folder.rglob("*") if p.is_file())
        verdicts = tuple(Verdict(path, outcome, reason) for path, outcome, reason in rows)
        return Status(self.id, version, self.embedder, documents, passages, characters, size, verdicts)

    def _passages(self, condition: str, value: str, version: int) -> list[Passage]:
        """Passages of documents of `version`, ordered by path and place."""
        rows = self.connection.execute(
            "SELECT p.passage_id, d.path, c.title, p.start_char, p.end_char, p.page, p.headings, "
            "substr(c.text, p.start_char + 1, p.end_char - p.start_char) "
            "FROM passages p JOIN contents c ON c.id = p.content_id JOIN documents d ON d.content_id = c.id "
            f"WHERE {condition} AND {schema.LIVE} ORDER BY d.path, p.start_char",
            {"value": value, "version": version},
        )
        return [
            Passage(passage_id, path, title or Path(path).stem, start, end, page, schema.headings(headings), text)
            for passage_id, path, title, start, end, page, headings, text in rows.fetchall()
        ]

    def _passage_ids(self, keys: Sequence[int]) -> dict[int, str]:
        marks = ", ".join("?" * len(set(keys)))
        rows = self.connection.execute(f"SELECT id, passage_id FROM passages WHERE id IN ({marks})", list(set(keys)))
        return dict(rows.fetchall())

    # --- connections, locks, indexes ----------------------------------------------------------------------------------

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's own read-only connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = schema.connect(self.folder, writable=False)
            self._connections.append(connection)
        return connection

    @contextmanager
    def writing(self, timeout_s: float) -> Iterator[sqlite3.Connection]:
        """The one writer's connection. Raises KnowledgeBaseBusy when another process writes for longer than `timeout_s`."""
        with schema.storage_errors(self.folder), _file_lock(self.folder, timeout_s):
            connection = schema.connect(self.folder, writable=True)
            try:
                yield connection
            finally:
                connection.close()

    def refresh_indexes(self) -> None:
        """Bring the derived indexes to the newest version. The caller holds the write lock."""
        with self._refresh:
            self._indexes = Indexes.refresh(
                self.folder, self.id, self.connection, self.version, self.embedder.dimensions
            )

    def _current_indexes(self) -> Indexes:
        """Indexes of the newest version; of an older one while another process is bringing them up to date."""
        version = self.version
        with self._refresh:
            if self._indexes is not None and self._indexes.version == version:
                return self._indexes
            self._indexes = Indexes.open(self.folder, self.id, version, self.embedder.dimensions)
            if self._indexes is None:
                self._indexes = self._catch_up(version)
            return self._indexes

    def _catch_up(self, version: int) -> Indexes:
        dimensions = self.embedder.dimensions
        try:
            with _file_lock(self.folder, 0.0):
                return Indexes.refresh(self.folder, self.id, self.connection, version, dimensions)
        except (KnowledgeBaseBusy, StorageError, OSError):
            # A writer is at work, or the disk cannot be written: an older whole index, or one in memory.
            older = Indexes.open_newest(self.folder, self.id, version, dimensions)
            return older or Indexes.in_memory(self.connection, version, dimensions)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        self._local = threading.local()
        self._indexes = None


def _embedder_identity(text: str, folder: Path) -> EmbedderIdentity:
    try:
        value = json.loads(text)
        return EmbedderIdentity(str(value["name"]), str(value["digest"]), int(value["dimensions"]))
    except (ValueError, KeyError, TypeError) as error:
        raise KnowledgeBaseInvalid(
            f"The knowledge base in {folder} is damaged: its embedder is not recorded."
        ) from error


def _ranking(found: Sequence[tuple[int, float]], names: Mapping[int, str]) -> list[str]:
    """Passage ids, best first, each once; equal scores in the order of the ids."""
    ordered = sorted((-score, names[key]) for key, score in found if key in names)
    return list(dict.fromkeys(name for _, name in ordered))


@contextmanager
def _file_lock(folder: Path, timeout_s: float) -> Iterator[None]:
    import filelock

    lock: filelock.BaseFileLock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=timeout_s)
    except filelock.Timeout as error:
        raise KnowledgeBaseBusy(
            f"Another process is writing to the knowledge base in {folder}. Wait for it, then run this again."
        ) from error
    except OSError as error:
        raise StorageError(f"Cannot write to {folder}: {error.strerror or error}.") from error
    try:
        yield
    finally:
        lock.release()
