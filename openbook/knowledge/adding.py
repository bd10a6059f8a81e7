"""Adding files: find, read, split, embed, then commit one version. What an interrupted run finished is not done again."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from openbook.errors import UnreadableFile
from openbook.knowledge import schema
from openbook.knowledge.base import KnowledgeBase, now
from openbook.knowledge.discovery import Found, discover, display_path
from openbook.knowledge.reading import READER_VERSION, read_file
from openbook.knowledge.reading.cleaning import title_from_name
from openbook.knowledge.splitting import SPLITTER_VERSION, split
from openbook.records import Content, Embedder, Outcome, PassageSpan, Verdict, sha256_hex

PASSAGE_CHARS = 450  # about 110 tokens; a small reader answers better from little text (docs/log.md)
CODE = f"reader {READER_VERSION} splitter {SPLITTER_VERSION} {PASSAGE_CHARS}"  # what a content depends on besides bytes
EMBED_BATCH = 64  # passages embedded between two commits

# Told (stage, done, total): stage "read" counts files, stage "embed" counts passages.
Progress: TypeAlias = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class AddReport:
    """`version` is the committed version; the one before when nothing changed."""

    version: int
    verdicts: tuple[Verdict, ...]
    passages_embedded: int


@dataclass(frozen=True, slots=True)
class _Change:
    """A file that is new or differs, with its text already stored."""

    found: Found
    path: str
    content_id: int
    outcome: Outcome


def add(
    base: KnowledgeBase,
    paths: Sequence[Path],
    embedder: Embedder,
    *,
    max_file_bytes: int = 100_000_000,
    lock_timeout_s: float = 30.0,
    progress: Progress = lambda stage, done, total: None,
) -> AddReport:
    """Put files, and all files below folders, into the knowledge base as one new version.

    A file that cannot be read gets a verdict with the reason and the others go in. Nothing is committed when nothing
    changed. Raises KnowledgeError for a path that does not exist, KnowledgeBaseBusy, StorageError.
    """
    base.check_embedder(embedder.identity)
    with base.writing(lock_timeout_s) as connection:
        # Absolute: the same file is the same document, wherever the command is run from.
        found = list(discover([Path(os.path.abspath(path)) for path in paths]))
        verdicts: list[Verdict] = []
        changes: list[_Change] = []
        for done, item in enumerate(found):
            progress("read", done, len(found))
            result = item if isinstance(item, Verdict) else _take_in(connection, item, max_file_bytes)
            if isinstance(result, _Change):
                changes.append(result)
                verdicts.append(Verdict(result.path, result.outcome))
            else:
                verdicts.append(result)
        progress("read", len(found), len(found))
        embedded = _embed(connection, [c.content_id for c in changes], embedder, progress)
        version = _commit(connection, changes, verdicts)
        base.refresh_indexes()
        return AddReport(version, tuple(verdicts), embedded)


def _take_in(connection: sqlite3.Connection, found: Found, max_file_bytes: int) -> _Change | Verdict:
    """Read and split a file unless it is known. Its text and passages are stored; no version refers to them yet."""
    path = display_path(found.path)
    live = connection.execute(
        "SELECT d.content_id, d.bytes, d.modified_ns, c.code FROM documents d JOIN contents c ON c.id = d.content_id "
        "WHERE d.path = ? AND d.removed_in IS NULL",
        (path,),
    ).fetchone()
    if live is not None and live[1:] == (found.bytes, found.modified_ns, CODE):
        return Verdict(path, "unchanged")
    try:
        content, digest = read_file(found.path, max_bytes=max_file_bytes)
    except UnreadableFile as error:
        return _failed(path, str(error), known=live is not None)
    except Exception as error:  # noqa: BLE001  a bug in a format's library costs this file only
        return _failed(path, f"the reader failed ({type(error).__name__}: {error})", known=live is not None)
    if content.title == title_from_name(found.path.name):
        content = replace(content, title="")  # the same text under another name is the same content
    content_id = _store(connection, content, digest, suffix=found.path.suffix.lower())
    if live is not None and live[0] == content_id:
        return Verdict(path, "unchanged")
    return _Change(found, path, content_id, "added" if live is None else "updated")


def _failed(path: str, reason: str, *, known: bool) -> Verdict:
    return Verdict(path, "failed", reason + ("; the text read before stays" if known else ""))


def _store(connection: sqlite3.Connection, content: Content, digest: str, *, suffix: str) -> int:
    """Store a text with its passages once; the id of its row."""
    key = sha256_hex(f"{digest} {suffix} {CODE}".encode())
    row = connection.execute("SELECT id FROM contents WHERE key = ?", (key,)).fetchone()
    if row is not None:
        return int(row[0])
    text_digest = sha256_hex(content.text.encode())
    with schema.transaction(connection):
        cursor = connection.execute(
            "INSERT INTO contents (key, code, text, title, media_type) VALUES (?, ?, ?, ?, ?)",
            (key, CODE, content.text, content.title, content.media_type),
        )
        content_id = int(cursor.lastrowid or 0)
        connection.executemany(
            "INSERT INTO passages (content_id, passage_id, start_char, end_char, page, headings, embedding_key) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    content_id,
                    passage_id(text_digest, s),
                    s.start,
                    s.end,
                    s.page,
                    json.dumps(s.headings),
                    _embedding_key(content, s),
                )
                for s in split(content, passage_chars=PASSAGE_CHARS)
            ],
        )
    return content_id


def passage_id(text_digest: str, span: PassageSpan) -> str:
    """A function of the document's text and the span: the same on every machine and in every knowledge base."""
    return "p" + sha256_hex(f"{text_digest} {span.start} {span.end}".encode())[:20]


def embedding_text(title: str, headings: Sequence[str], text: str) -> str:
    """What is embedded for a passage: where it stands, then what it says."""
    place = " > ".join(dict.fromkeys(part for part in (title, *headings) if part))
    return f"{place}\n{text.strip()}" if place else text.strip()


def _embedding_key(content: Content, span: PassageSpan) -> bytes:
    text = embedding_text(content.title, span.headings, content.text[span.start : span.end])
    return hashlib.sha256(text.encode()).digest()


def _embed(connection: sqlite3.Connection, contents: Sequence[int], embedder: Embedder, progress: Progress) -> int:
    """Embed what has no vector yet, committing after each batch; the number of passages embedded."""
    missing: dict[bytes, int] = {}
    for content in sorted(set(contents)):
        rows = connection.execute(
            "SELECT p.embedding_key, p.id FROM passages p LEFT JOIN embeddings e USING (embedding_key) "
            "WHERE p.content_id = ? AND e.embedding_key IS NULL",
            (content,),
        )
        missing.update(rows.fetchall())
    keys = list(missing)
    for start in range(0, len(keys), EMBED_BATCH):
        progress("embed", start, len(keys))
        batch = keys[start : start + EMBED_BATCH]
        vectors = embedder.embed_passages([_text_of(connection, missing[key]) for key in batch])
        rows16 = vectors.astype("<f2")
        with schema.transaction(connection):
            connection.executemany(
                "INSERT INTO embeddings VALUES (?, ?)", [(k, r.tobytes()) for k, r in zip(batch, rows16, strict=True)]
            )
    progress("embed", len(keys), len(keys))
    return len(keys)


def _text_of(connection: sqlite3.Connection, passage: int) -> str:
    title, headings, text = connection.execute(
        "SELECT c.title, p.headings, substr(c.text, p.start_char + 1, p.end_char - p.start_char) "
        "FROM passages p JOIN contents c ON c.id = p.content_id WHERE p.id = ?",
        (passage,),
    ).fetchone()
    return embedding_text(title, schema.headings(headings), text)


def _commit(connection: sqlite3.Connection, changes: Sequence[_Change], verdicts: Sequence[Verdict]) -> int:
    """One transaction: the new version with its documents, and the verdicts. The newest version's number."""
    with schema.transaction(connection):
        version = int(connection.execute("SELECT max(version) FROM versions").fetchone()[0])
        if changes:
            version += 1
            tally = {o: sum(c.outcome == o for c in changes) for o in ("added", "updated")}
            summary = ", ".join(f"{count} {outcome}" for outcome, count in tally.items() if count)
            connection.execute("INSERT INTO versions VALUES (?, ?, ?)", (version, now(), summary))
        for change in changes:
            connection.execute(
                "UPDATE documents SET removed_in = ? WHERE path = ? AND removed_in IS NULL", (version, change.path)
            )
            connection.execute(
                "INSERT INTO documents (path, content_id, bytes, modified_ns, added_in) VALUES (?, ?, ?, ?, ?)",
                (change.path, change.content_id, change.found.bytes, change.found.modified_ns, version),
            )
        for verdict in verdicts:
            if verdict.outcome in ("skipped", "failed"):
                row = (verdict.path, verdict.outcome, verdict.reason, now())
                connection.execute("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?)", row)
            else:
                connection.execute("DELETE FROM verdicts WHERE path = ?", (verdict.path,))
        return version


def verdict_counts(verdicts: Sequence[Verdict]) -> Iterator[tuple[Outcome, int]]:
    """(outcome, how many), in a fixed order, without those that did not occur."""
    order: tuple[Outcome, ...] = ("added", "updated", "unchanged", "skipped", "failed")
    for outcome in order:
        if count := sum(v.outcome == outcome for v in verdicts):
            yield outcome, count
