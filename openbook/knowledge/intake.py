"""Files to stored contents: what is unchanged costs a look at the file system, what is known costs a digest, and only
the rest is read, in worker processes.

Nothing here makes a version. What is stored is seen by nobody until a version refers to it, and the next run finds it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeAlias

from openbook.errors import NotReadNow, UnreadableFile
from openbook.knowledge import integrity, schema
from openbook.knowledge.discovery import Found, display_path
from openbook.knowledge.identities import Identity, identities
from openbook.knowledge.locking import Overtaken
from openbook.knowledge.sizing import Sizing
from openbook.knowledge.splitting import TokenCounter
from openbook.knowledge.tables import table_header
from openbook.parsers import NOT_TEXT, PARSER_VERSION, SUFFIXES, may_need_ocr, opened
from openbook.parsers.characters import title_from_name
from openbook.parsers.metadata import LABEL_KEY, from_json, labels_of, merged, read_sidecar, system_metadata, to_json
from openbook.parsers.ocr import available
from openbook.parsers.sandbox import Limits, ParserPool
from openbook.records import Content, Digest, Outcome, PassageSpan, Verdict, sha256_hex

if TYPE_CHECKING:
    from openbook.knowledge.slices import SlicedRun

_STAYS = "; the text read before stays"
_WITH_OCR = " ocr"
_RACY_NS = 2_000_000_000  # a file changed this shortly before it was read may change again without a new time

# Told (stage, done, total): stages "read" and "digest" count files, stage "embed" counts passages.
Progress: TypeAlias = Callable[[str, int, int], None]


def code_of(sizing: Sizing) -> str:
    """What a content depends on besides the file's bytes."""
    return f"reader {PARSER_VERSION} {sizing.code}"


def content_key(path: Path, digest: Digest, code: str) -> Digest:
    """Names a file's bytes (by their SHA-256), how its name says to read them, and the code that reads and splits."""
    return sha256_hex(f"{digest} {path.suffix.lower()} {code}".encode("utf-8", "surrogateescape"))


@dataclass(frozen=True, slots=True)
class Change:
    """A file whose row in the newest version must be another one. Its content is stored.

    `identity`: the document that is at its path, or was there last; None: a new one.
    """

    path: str
    content_id: int
    bytes: int
    stat: str
    metadata: str
    labels: str
    given_labels: str
    identity: int | None
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Taken:
    """What a run found. `restat`: (path, stat) of files that did not change."""

    changes: tuple[Change, ...]
    verdicts: tuple[Verdict, ...]
    restat: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Live:
    content_id: int
    stat: str
    code: str
    metadata: str
    labels: str
    given_labels: str


@dataclass(slots=True)
class Intake:
    """One run's reading. `labels` are added to those that files state and those that were given to them by name.

    With `by_name`, the run itself gives them by name, and takes none away that a document has but `unlabel`. `relabel`: look at the labels of unchanged files too. `retry`: read files that failed again, though they are unchanged.
    """

    run: SlicedRun
    sizing: Sizing
    limits: Limits
    count: TokenCounter | None = None
    labels: frozenset[str] = frozenset()
    by_name: bool = True
    unlabel: frozenset[str] = frozenset()
    relabel: bool = False
    retry: bool = False
    ocr: str = ""
    progress: Progress = lambda stage, done, total: None
    _code: str = field(init=False)
    _ocr: str = field(init=False)
    _live: dict[str, _Live] = field(default_factory=dict)
    _known: dict[str, Identity] = field(default_factory=dict)  # by path
    _changes: list[Change] = field(default_factory=list)
    _verdicts: dict[str, Verdict] = field(default_factory=dict)
    _restat: list[tuple[str, str]] = field(default_factory=list)
    _again: set[str] = field(default_factory=set)  # paths that the next run must try, though they are unchanged

    def __post_init__(self) -> None:
        self._code, self._ocr = code_of(self.sizing), available(self.ocr)

    @property
    def connection(self) -> sqlite3.Connection:
        return self.run.connection

    def take(self, found: Sequence[Found | Verdict]) -> Taken:
        """A verdict for each of `found`, in their order. Contents of new and changed files are stored."""
        self._live = _live_documents(self.connection)
        self._known = {each.path: each for each in identities(self.connection)}
        tried = self._tried()
        due: list[Found] = []
        for item in found:
            if isinstance(item, Verdict):
                self._verdicts[item.path] = self._known_stays(item)
                continue
            path = display_path(item.path)
            if self._is_unchanged(path, item):
                self._verdicts[path] = Verdict(path, "unchanged")
            elif not self.retry and path in tried and tried[path][0] == self._tried_stat(item):
                self._verdicts[path] = self._known_stays(tried[path][1])
            else:
                self._verdicts[path] = Verdict(path, "unchanged")  # holds the place
                due.append(item)
        self._read(due)
        return Taken(tuple(self._changes), tuple(self._verdicts.values()), tuple(self._restat))

    def tried_stats(self, found: Iterable[Found | Verdict]) -> dict[str, str]:
        """What a verdict's row says about the file it was given for."""
        stats = {display_path(f.path): self._tried_stat(f) for f in found if isinstance(f, Found)}
        return {path: stat for path, stat in stats.items() if path not in self._again}

    def _is_unchanged(self, path: str, found: Found) -> bool:
        live = self._live.get(path)
        if self.relabel or live is None or not live.stat or live.stat != found.stat:
            return False
        if live.code not in (self._code_of(found.path), self._code_of(found.path) + _WITH_OCR):
            return False  # what was read with OCR is as good without asking for it
        held = set(json.loads(live.given_labels if self.by_name else live.labels))
        return self.labels <= held and not self.unlabel & set(json.loads(live.labels))

    def _tried(self) -> dict[str, tuple[str, Verdict]]:
        rows = self.connection.execute("SELECT path, stat, outcome, reason FROM verdicts WHERE stat <> ''")
        return {p: (stat, Verdict(p, outcome, reason.removesuffix(_STAYS))) for p, stat, outcome, reason in rows}

    def _tried_stat(self, found: Found) -> str:
        return f"{found.stat} {self._code} {self.limits.timeout_s:g} {self.limits.memory_mb} {self.limits.max_file_bytes} {self._ocr}"

    def _known_stays(self, verdict: Verdict) -> Verdict:
        if verdict.outcome == "failed" and verdict.path in self._live:
            return replace(verdict, reason=verdict.reason + _STAYS)
        return verdict

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read(self, due: Sequence[Found]) -> None:
        unknown: list[Found] = []
        started_ns = time.time_ns()
        for done, item in enumerate(due):
            self.progress("digest", done, len(due))
            self.run.go_on()
            try:
                content_id = self._known_content(item)
            except UnreadableFile as error:
                self._fail(item, error)
                continue
            if content_id is None:
                unknown.append(item)
            else:
                self._settle(item, content_id, started_ns)
        if not unknown:
            return
        self.run.begin_long_work()
        by_path = {item.path: item for item in unknown}
        with ParserPool(self.limits, ocr=self.ocr) as pool:
            for done, result in enumerate(pool.parse_all([item.path for item in unknown])):
                self.progress("read", done, len(unknown))
                item = by_path[result.path]
                if isinstance(result.outcome, UnreadableFile):
                    self._fail(item, result.outcome)
                    continue
                content, digest = result.outcome
                if content.title == title_from_name(item.path.name):
                    content = replace(content, title="")  # the same text under another name is the same content
                self._settle(item, self._store(item.path, content, digest), started_ns)
        self.progress("read", len(unknown), len(unknown))

    def _known_content(self, found: Found) -> int | None:
        """The stored content of exactly these bytes, read by this code, if there is one."""
        if found.bytes > self.limits.max_file_bytes:
            return None  # the reader will say so
        with opened(found.path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # a buffered file
        key = content_key(found.path, digest, self._code_of(found.path))
        row = self.connection.execute("SELECT id FROM contents WHERE key = ?", (key,)).fetchone()
        return None if row is None else int(row[0])

    def _code_of(self, path: Path) -> str:
        return self._code + _WITH_OCR if self.ocr and may_need_ocr(path) else self._code

    def _store(self, path: Path, content: Content, digest: Digest) -> int:
        """Store a text with its passages once; the id of its row."""
        key = content_key(path, digest, self._code_of(path))
        row = self.connection.execute("SELECT id FROM contents WHERE key = ?", (key,)).fetchone()
        if row is not None:
            return int(row[0])
        text_digest = sha256_hex(content.text.encode())
        spans = self.sizing.split(content, self.count)
        with self.run.slice() as connection, schema.transaction(connection):
            known = connection.execute("SELECT id FROM contents WHERE key = ?", (key,)).fetchone()
            if known is not None:  # another run stored it meanwhile
                return int(known[0])
            content_id, first = (_next_id(connection, table) for table in ("contents", "passages"))
            row = (
                content_id,
                key,
                self._code_of(path),
                content.text,
                content.title,
                content.media_type,
                content.source_chars,
                to_json(content.metadata),
            )
            connection.execute(
                "INSERT INTO contents (id, key, code, text, title, media_type, source_chars, metadata, digest) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, integrity.row_digest(*row)),
            )
            connection.executemany(
                "INSERT INTO passages (id, content_id, passage_id, start_char, end_char, page, headings, embedding_key, digest) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    _passage_row(row_id, content_id, text_digest, content, span)
                    for row_id, span in enumerate(spans, first)
                ],
            )
        self.run.stored.append(content_id)
        return content_id

    def _settle(self, found: Found, content_id: int, read_at_ns: int) -> None:
        """Compare with the row that the newest version has for this path."""
        path = display_path(found.path)
        live = self._live.get(path)
        try:
            metadata, labels, given = self._metadata(found, content_id, live)
        except UnreadableFile as error:
            self._fail(found, error)
            return
        stat = "" if found.modified_ns > read_at_ns - _RACY_NS else found.stat
        row = (content_id, metadata, labels, given)
        if live is not None and (live.content_id, live.metadata, live.labels, live.given_labels) == row:
            self._restat.append((path, stat))
            return
        outcome: Outcome = "added" if live is None else "updated"
        self._verdicts[path] = Verdict(path, outcome)
        identity = self._known[path].id if path in self._known else None
        self._changes.append(Change(path, content_id, found.bytes, stat, metadata, labels, given, identity, outcome))

    def _metadata(self, found: Found, content_id: int, live: _Live | None) -> tuple[str, str, str]:
        """(metadata, labels, labels given by name) as JSON.

        Metadata is what the file system, the file and its sidecar say, in this order of precedence.
        """
        if self.connection.execute("SELECT 1 FROM contents WHERE id = ?", (content_id,)).fetchone() is None:
            raise Overtaken  # a purge deleted it meanwhile
        stored = integrity.content(self.connection, content_id)
        title, stated = stored.title, stored.metadata
        of_file = dict(system_metadata(display_path(found.path), found.bytes, found.modified_ns))
        if live is not None and live.content_id == content_id:  # touched only: its text is as old as before
            of_file["modified"] = json.loads(live.metadata).get("modified", of_file.get("modified", ""))
        of_text = (("title", title or PurePosixPath(display_path(found.path)).stem), *from_json(stated))
        of_sidecar = read_sidecar(found.sidecar) if found.sidecar else ()
        whole = dict(merged(tuple(of_file.items()), of_text, of_sidecar))
        own = labels_of(of_text, of_sidecar)
        whole.pop(LABEL_KEY, None)
        known = self._known.get(display_path(found.path))
        given = (known.given if known else frozenset[str]()) | (self.labels if self.by_name else frozenset[str]())
        given -= self.unlabel
        before = set(json.loads(live.labels)) - self.unlabel if live and self.by_name else set()
        labels = own | before | given | self.labels
        return to_json(tuple(whole.items())), json.dumps(sorted(labels)), json.dumps(sorted(given))

    def _fail(self, found: Found, error: UnreadableFile) -> None:
        path, reason = display_path(found.path), str(error)
        if isinstance(error, NotReadNow):
            self._again.add(path)
        unknown = found.path.suffix.lower() not in SUFFIXES and reason == NOT_TEXT and path not in self._live
        outcome: Outcome = "skipped" if unknown else "failed"
        self._verdicts[path] = self._known_stays(Verdict(path, outcome, reason))


def _live_documents(connection: sqlite3.Connection) -> dict[str, _Live]:
    rows = connection.execute(
        "SELECT d.path, d.content_id, d.stat, c.code, d.metadata, d.labels, d.given_labels "
        "FROM documents d JOIN contents c ON c.id = d.content_id WHERE d.removed_in IS NULL"
    )
    return {path: _Live(*row) for path, *row in rows}


def _next_id(connection: sqlite3.Connection, table: str) -> int:
    """What AUTOINCREMENT would give: the digest of a row is over its id too."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return 1 + (row[0] if row else 0)


def _passage_row(
    row_id: int, content_id: int, text_digest: str, content: Content, span: PassageSpan
) -> tuple[object, ...]:
    text = content.text[span.start : span.end]
    key = embedding_key(embedding_texts(content.title, span.headings, content.text, span.start, span.end)[0])
    name, headings = passage_id(text_digest, span), json.dumps(span.headings)
    row = (row_id, content_id, name, span.start, span.end, span.page, headings, key)
    return *row, integrity.row_digest(*row, content.title, text)


def passage_id(text_digest: str, span: PassageSpan) -> str:
    """A function of the document's text and the span: the same on every machine and in every knowledge base."""
    return "p" + sha256_hex(f"{text_digest} {span.start} {span.end}".encode())[:20]


def embedding_texts(title: str, headings: Sequence[str], text: str, start: int, end: int) -> tuple[str, ...]:
    """What is embedded for `text[start:end]`: where it stands, the header if it goes on with a table, then what it says.

    After it what may have been embedded instead, by versions that knew no headers. Of `text` no more is looked at than
    `table_header` does.
    """
    place = " > ".join(dict.fromkeys(part for part in (title, *headings) if part))
    passage = text[start:end].strip()
    header = table_header(text, start)
    said = (f"{header}\n{passage}", passage) if header else (passage,)
    return tuple(f"{place}\n{each}" if place else each for each in said)


def embedding_key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
