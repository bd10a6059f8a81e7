"""Files as stored contents. Files of unchanged size and times are not read. Files of known bytes are not parsed, if the caller may see a document
that has them. Worker processes parse the others.

Stored contents are invisible until a version refers to them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Self

from openbook.core.errors import NotReadNow, UnreadableFile
from openbook.core.parallel import StagedProgress
from openbook.core.records import Content, Digest, Outcome, PassageSpan, Verdict, sha256_hex
from openbook.knowledge.index.scope import visible_to
from openbook.knowledge.ingest.discovery import FoundFile, SyncedFolder
from openbook.knowledge.ingest.embeddings import embedding_key, embedding_text
from openbook.knowledge.ingest.long_run import LongRun, WriteConflict
from openbook.knowledge.ingest.splitter import SPLITTER_VERSION, Sizing, split
from openbook.knowledge.store import integrity, schema
from openbook.knowledge.store.identities import Change, Identity
from openbook.knowledge.store.integrity import PassageRow
from openbook.knowledge.store.interface import Connection
from openbook.knowledge.store.names import content_key, passage_id
from openbook.knowledge.store.write_lock import LOCK_TIMEOUT_S
from openbook.parsers import PARSER_VERSION, SUFFIXES
from openbook.parsers.characters import title_from_name
from openbook.parsers.files import NO_TEXT_IN_IMAGE, NOT_TEXT, opened
from openbook.parsers.metadata import LABEL_KEY, from_json, labels_of, merged, read_sidecar, system_metadata, to_json
from openbook.parsers.ocr import ocr_engine
from openbook.parsers.sandbox.pool import OpenParsers, ParserPool
from openbook.parsers.sandbox.protocol import Limits

_STAYS = "; the text read before stays"
_WITH_OCR = " ocr"
_OF_OCR = frozenset({"pages_read_by_ocr", "pages_needing_ocr", "ocr_confidence"})  # metadata of texts that depend on it
_RACY_NS = 2_000_000_000  # a file changed this shortly before it was read may change again without a new time


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of a run.

    `labels`: for its documents; `unlabel`: those that `add` takes away. `held_labels`: the caller's (None: all). Files may state no others, and
    stored data saves work only if a document shows it to the caller: timing must not reveal what others have. `retry`: parse failed files again,
    though unchanged. `ocr`: as in `ocr_engine`. `progress`: its stages "digest" (comparing bytes) and "read"
    (parsing) count files, "embed" counts passages. `check_cancelled` is called often; when it raises, the run ends with that and without a
    version.
    """

    limits: Limits = field(default_factory=Limits)
    labels: frozenset[str] = frozenset()
    unlabel: frozenset[str] = frozenset()
    held_labels: frozenset[str] | None = None
    retry: bool = False
    ocr: str = ""
    parsers: OpenParsers = ParserPool
    lock_timeout_s: float = LOCK_TIMEOUT_S
    progress: StagedProgress = lambda stage, done, total: None
    check_cancelled: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class FileBatch:
    found: Sequence[FoundFile | Verdict]
    # Of every document, besides its own; given directly unless there is a `synced_folder` (see `identities`).
    labels: frozenset[str] = frozenset()
    ocr: str = ""
    synced_folder: SyncedFolder | None = None  # the folder, if it is to be synced
    inner: tuple[str, ...] = ()  # prefixes of folders inside it that have a batch of their own
    relabel: bool = False  # also update the labels of unchanged files
    around: frozenset[str] = frozenset()  # labels of synced folders that the files lie in; not given directly
    names: frozenset[str] = frozenset()  # of a source: its documents and items before this run

    def below(self, paths: Iterable[str]) -> list[str]:
        if self.synced_folder is None:
            return []
        if self.synced_folder.address:
            return [path for path in paths if path in self.names]
        outer = self.synced_folder.prefix
        return [path for path in paths if path.startswith(outer) and not path.startswith(self.inner)]


def by_source(address: str) -> str:
    """Stands for the stat of an item that was not fetched, so that the next run of its source finds its verdict."""
    return f"of {address}"


class LiveDocument(NamedTuple):
    """A document of the newest version. Metadata and labels are JSON. `parsed_by`: versions of parser and splitter."""

    path: str
    content_id: int
    bytes: int
    stat: str
    metadata: str
    labels: str
    given_labels: str
    identity: int
    parsed_by: str


def live_documents(connection: Connection) -> dict[str, LiveDocument]:
    rows = connection.execute(
        "SELECT d.path, d.content_id, d.bytes, d.stat, d.metadata, d.labels, d.given_labels, d.identity, "
        "coalesce(c.code, '') FROM documents d LEFT JOIN contents c ON c.id = d.content_id WHERE d.removed_in IS NULL ORDER BY d.path"
    )
    return {row[0]: LiveDocument._make(row) for row in rows}


def parsed_by(sizing: Sizing) -> str:
    # Every knowledge base holds the word "reader". Another word there would have all files parsed again.
    return f"reader {PARSER_VERSION} splitter {SPLITTER_VERSION} {sizing.size}"


class Ingest:
    """Stores the contents of a run's new and changed files.

    `verdicts`: by path, of all found files. `restat`: (stat, path) of unchanged files. `tried`: the stat of a verdict's row, by path.
    """

    def __init__(
        self, run: LongRun, sizing: Sizing, options: RunOptions, live: dict[str, LiveDocument], known: list[Identity]
    ) -> None:
        self.changes: list[Change] = []
        self.verdicts: dict[str, Verdict] = {}
        self.restat: list[tuple[str, str]] = []
        self.tried: dict[str, str] = {}
        self._run, self._sizing, self._options, self._live = run, sizing, options, live
        self._versions = parsed_by(sizing)
        self._connection = run.connection
        self._all_known = known
        self._known: dict[str, list[Identity]] = {}  # by path, of the due files of the batch
        rows = self._connection.execute("SELECT path, stat, outcome, reason FROM verdicts WHERE stat <> ''")
        self._before = {path: (stat, Verdict(path, outcome, reason)) for path, stat, outcome, reason in rows}
        self._batch = FileBatch(())
        self._engine = ""  # of OCR
        self._seen: set[int] | None = None  # contents that some version shows to the caller; None: all contents
        if options.held_labels is not None:
            shown = visible_to(options.held_labels, in_any_version=True)
            rows = self._connection.execute(f"SELECT d.content_id FROM documents d WHERE {shown.sql}", shown.values)
            self._seen = {content for (content,) in rows}

    def add(self, batch: FileBatch) -> Self:
        self._batch, self._engine = batch, ocr_engine(batch.ocr)
        limits = self._options.limits
        tried_by = f"{self._versions} {limits.timeout_s:g} {limits.memory_mb} {limits.max_file_bytes} {self._engine}"
        due: list[FoundFile] = []
        for item in batch.found:
            if isinstance(item, Verdict):
                self._set_verdict(item)
                if batch.synced_folder is not None and batch.synced_folder.address:
                    self.tried[item.path] = by_source(batch.synced_folder.name)
                continue
            path, tried = item.displayed, f"{item.stat} {tried_by}"
            self.tried[path] = tried
            self.verdicts[path] = Verdict(path, "unchanged")  # until more is known
            if not self._is_unchanged(path, item):
                before = self._before.get(path)
                if before is not None and before[0] == tried and not self._options.retry:
                    self._set_verdict(before[1])
                else:
                    due.append(item)
        self._parse(due)
        return self

    def _is_unchanged(self, path: str, found: FoundFile) -> bool:
        live = self._live.get(path)
        if self._batch.relabel or live is None or not live.stat or live.stat != found.stat:
            return False
        by, with_ocr = live.parsed_by, self._versions + _WITH_OCR
        if by != self._versions and not by.startswith(with_ocr):
            return False  # text from OCR stays good, whatever reads it now
        if self._engine and by != f"{with_ocr} {self._engine}" and "pages_needing_ocr" in json.loads(live.metadata):
            return False
        labels = set(json.loads(live.labels))
        held = set(json.loads(live.given_labels)) if self._batch.synced_folder is None else labels
        away = self._unlabel
        return self._batch.labels <= held and self._batch.around - away <= labels and not away & labels

    @property
    def _unlabel(self) -> frozenset[str]:
        return self._options.unlabel if self._batch.synced_folder is None else frozenset()

    def _set_verdict(self, verdict: Verdict) -> None:
        reason = verdict.reason.removesuffix(_STAYS)
        if verdict.outcome == "failed" and verdict.path in self._live:
            reason += _STAYS
        self.verdicts[verdict.path] = replace(verdict, reason=reason)

    def _fail(self, found: FoundFile, error: UnreadableFile) -> None:
        path, reason = found.displayed, str(error)
        if isinstance(error, NotReadNow):
            self.tried.pop(path, None)  # the next run must try it, though it is unchanged
        unknown = found.path.suffix.lower() not in SUFFIXES and reason in (NOT_TEXT, NO_TEXT_IN_IMAGE)
        self._set_verdict(Verdict(path, "skipped" if unknown and path not in self._live else "failed", reason))

    # --- parsing ------------------------------------------------------------------------------------------------------

    def _parse(self, due: Sequence[FoundFile]) -> None:
        progress, started_ns = self._options.progress, time.time_ns()
        paths = {item.displayed for item in due}
        self._known = {}
        for each in self._all_known:
            if each.path in paths:
                self._known.setdefault(each.path, []).append(each)
        unknown: dict[Path, FoundFile] = {}
        for done, item in enumerate(due):
            progress("digest", done, len(due))
            self._run.check_cancelled()
            try:
                content_id = self._known_content(item)
            except UnreadableFile as error:
                self._fail(item, error)
                continue
            if content_id is None:
                unknown[item.path] = item
            else:
                self._settle(item, content_id, started_ns)
        if not unknown:
            return
        self._run.begin_long_work()
        with self._options.parsers(self._options.limits, self._batch.ocr) as pool:
            for done, (path, parsed) in enumerate(pool.parse_all(list(unknown))):
                progress("read", done, len(unknown))
                item = unknown[path]
                if isinstance(parsed, UnreadableFile):
                    self._fail(item, parsed)
                    continue
                content, digest = parsed
                if content.title == title_from_name(item.path.name):
                    content = replace(content, title="")  # the same text under another name is the same content
                self._settle(item, self._store(item.path, content, digest), started_ns)
        progress("read", len(unknown), len(unknown))

    def _known_content(self, found: FoundFile) -> int | None:
        """The stored content of exactly these bytes and versions, if any."""
        if found.bytes > self._options.limits.max_file_bytes:
            return None  # the parser refuses it with a reason
        with opened(found.path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # a buffered file
        by, connection = self._versions, self._connection
        if self._engine:
            key = content_key(found.path, digest, f"{by}{_WITH_OCR} {self._engine}")
            if (known := self._content_of(connection, key)) is not None:
                return known
        known = self._content_of(connection, content_key(found.path, digest, by))
        if known is None or not self._engine:
            return known
        of_ocr = _OF_OCR & json.loads(integrity.content(connection, known).metadata).keys()
        return None if of_ocr else known  # OCR may read more of it

    def _content_of(self, connection: Connection, key: Digest) -> int | None:
        """The owner's content of that key. For a caller with labels: if it may see it or this run stored it."""
        sql, seen = "SELECT id FROM contents WHERE key >= ? AND key <= ? ORDER BY id", self._seen
        last = key if seen is None else f"{key}g"  # after all that have an id after the key
        found = [int(content) for (content,) in connection.execute(sql, (key, last))]
        return next((each for each in found if seen is None or each in seen or each in self._run.stored), None)

    def reusable(self, changes: Iterable[Change]) -> set[int] | None:
        """The contents whose vectors may save work: new ones and those they replace. None: all contents."""
        if self._seen is None:
            return None
        replaced = {self._live[change.path].content_id for change in changes if change.path in self._live}
        return self._seen & replaced.union(change.content_id for change in changes)

    def _store(self, path: Path, content: Content, digest: Digest) -> int:
        """Store a text with its passages, unless it is stored. Returns the id of its row."""
        is_of_ocr = bool(self._engine) and not _OF_OCR.isdisjoint(dict(content.metadata))
        by = f"{self._versions}{_WITH_OCR} {self._engine}" if is_of_ocr else self._versions
        key = content_key(path, digest, by)
        if (known := self._content_of(self._connection, key)) is not None:
            return known
        text_digest = sha256_hex(content.text.encode())
        spans = split(content, passage_chars=self._sizing.size)
        with self._run.slice(facts_only=True) as connection, schema.transaction(connection):
            (content_id,), ids = connection.next_ids("contents", 1), connection.next_ids("passages", len(spans))
            if self._seen is not None:
                key += f"{content_id:x}"  # so that it differs from what others may have
            of_file = (content.text, content.title, content.media_type, content.source_chars)
            row = (content_id, key, by, *of_file, to_json(content.metadata))
            stored = connection.execute(
                "INSERT INTO contents (id, key, code, text, title, media_type, source_chars, metadata, digest) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
                (*row, integrity.row_digest(*row)),
            )
            if not stored.rowcount and (known := self._content_of(connection, key)) is not None:
                return known  # another run stored it meanwhile
            connection.executemany(
                "INSERT INTO passages (id, content_id, passage_id, start_char, end_char, page, headings, embedding_key, digest) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (_passage_row(row, content_id, text_digest, content, at) for row, at in zip(ids, spans, strict=True)),
            )
        self._run.stored.append(content_id)
        return content_id

    def _settle(self, found: FoundFile, content_id: int, read_at_ns: int) -> None:
        path = found.displayed
        live, known = self._live.get(path), self._known.get(path)
        try:
            metadata, labels, given = self._metadata(found, content_id)
        except UnreadableFile as error:
            self._fail(found, error)
            return
        stat = "" if not found.name and found.modified_ns > read_at_ns - _RACY_NS else found.stat
        row = (content_id, metadata, labels, given)
        if live is not None and (live.content_id, live.metadata, live.labels, live.given_labels) == row:
            self.restat.append((stat, path))
            return
        outcome: Outcome = "added" if live is None else "updated"
        said = json.loads(metadata)
        read = f"pages read by OCR: {said['pages_read_by_ocr']}" if "pages_read_by_ocr" in said else "read by OCR"
        told = [f"{read}, confidence {said['ocr_confidence']}"] if "ocr_confidence" in said else []
        if "pages_needing_ocr" in said:
            told.append(f"pages with images only, not read: {said['pages_needing_ocr']}")
        self.verdicts[path] = Verdict(path, outcome, "; ".join(told))
        identity = known[-1].id if known else None
        self.changes.append(Change(path, content_id, found.bytes, stat, metadata, labels, given, identity, outcome))

    def _metadata(self, found: FoundFile, content_id: int) -> tuple[str, str, str]:
        """(metadata, labels, labels given directly) as JSON.

        Metadata comes from the file system, the file and its sidecar, in this order of precedence.
        """
        if self._connection.execute("SELECT 1 FROM contents WHERE id = ?", (content_id,)).fetchone() is None:
            raise WriteConflict  # a purge deleted it meanwhile
        stored = integrity.content(self._connection, content_id)
        path = found.displayed
        live, known = self._live.get(path), self._known.get(path, [])
        of_file = dict(system_metadata(path, found.bytes, found.modified_ns))
        if found.name and self._batch.synced_folder is not None:
            of_file |= {"source": self._batch.synced_folder.name, "type": found.path.suffix[1:]}
        if live is not None and live.content_id == content_id:  # touched only: its text is as old as before
            of_file["modified"] = json.loads(live.metadata).get("modified", of_file.get("modified", ""))
        of_text = (("title", stored.title or PurePosixPath(path).stem), *from_json(stored.metadata))
        of_sidecar = read_sidecar(found.sidecar) if found.sidecar else ()
        whole = dict(merged(tuple(of_file.items()), of_text, of_sidecar))
        whole.pop(LABEL_KEY, None)
        stated, held = labels_of(of_text, of_sidecar), self._options.held_labels
        if held is not None and (others := stated - held):
            raise UnreadableFile(f"it states access labels that you do not hold: {', '.join(sorted(others))}")
        labels = stated | self._batch.labels
        given = set[str]().union(*(each.given_labels for each in known if live is None or each.is_live))
        if self._batch.synced_folder is None:
            given |= self._batch.labels
            labels |= (self._batch.around.union(json.loads(live.labels) if live else ())) - self._unlabel
        given -= self._unlabel
        return to_json(tuple(whole.items())), json.dumps(sorted(labels | given)), json.dumps(sorted(given))


def _passage_row(row_id: int, content_id: int, text_digest: str, content: Content, span: PassageSpan) -> PassageRow:
    key = embedding_key(embedding_text(content.title, span.headings, content.text, span.start, span.end))
    name, headings = passage_id(text_digest, span.start, span.end), json.dumps(span.headings)
    row = PassageRow(row_id, content_id, name, span.start, span.end, span.page, headings, key, None)
    return row._replace(digest=row.digest_of(content.title, content.text[span.start : span.end]))
