"""The versions of a knowledge base: making one, listing and comparing them, restoring one, and letting old ones go."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from openbook.errors import KnowledgeError, QuestionError, did_you_mean
from openbook.knowledge import integrity, schema
from openbook.knowledge.base import KnowledgeBase, now, spans
from openbook.knowledge.identities import drop_unused_identities, write_identity
from openbook.knowledge.scope import Condition, Scope, condition
from openbook.records import Outcome

_TAG = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_MOST_DAYS = 365_000
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?")


@dataclass(frozen=True, slots=True)
class Version:
    """`created_at` is ISO 8601 in UTC."""

    version: int
    created_at: str
    summary: str
    documents: int
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PassageChange:
    document: str
    text: str


@dataclass(frozen=True, slots=True)
class Difference:
    """From version `before` to version `after`: paths of documents, and passages by what they say.

    `described`: documents of the same text with other metadata or access labels.
    """

    before: int
    after: int
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    described: tuple[str, ...]
    passages_added: tuple[PassageChange, ...]
    passages_removed: tuple[PassageChange, ...]


@dataclass(frozen=True, slots=True)
class Retention:
    """Which versions are kept besides the newest and the tagged ones: the last `versions`, and those of the last `days`.

    None sets no limit; with both None all are kept. Raises QuestionError for less than one version, or days that are no
    number from 0 to 365,000.
    """

    versions: int | None = None
    days: float | None = None

    def __post_init__(self) -> None:
        if self.versions is not None and self.versions < 1:
            raise QuestionError(f"At least 1 version is kept, not {self.versions}.")
        if self.days is not None and not 0 <= self.days <= _MOST_DAYS:
            raise QuestionError(f"Versions are kept for 0 to {_MOST_DAYS:,} days, not {self.days}.")


@dataclass(frozen=True, slots=True)
class PruneResult:
    versions: int
    contents: int
    kept: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A document whose row in the newest version must be another one. Its content is stored.

    `identity`: the document that is at its path, or was there last; None: a new one. Metadata and labels are JSON.
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


# --- making one -------------------------------------------------------------------------------------------------------


def newest(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT max(version) FROM versions").fetchone()[0])


def add_version(connection: sqlite3.Connection, version: int, summary: str) -> None:
    """Times of versions never go back, even when the clock does: `--as-of TIME` needs an order."""
    before = connection.execute("SELECT max(created_at) FROM versions").fetchone()[0] or ""
    connection.execute("INSERT INTO versions VALUES (?, ?, ?)", (version, max(now(), before), summary))


def commit(
    connection: sqlite3.Connection,
    changes: Sequence[Change],
    removed: Collection[str],
    *,
    beside: Callable[[], None] = lambda: None,
) -> int:
    """Commit a version with `changes`, without the documents at the paths `removed`; the newest version's number.

    Without a change no version is made. `beside` runs inside the transaction.
    """
    # Losing power must not lose a version that was reported. The facts before it may be lost: they are made again.
    connection.execute("PRAGMA synchronous = FULL")
    with schema.transaction(connection):
        version = newest(connection)
        if changes or removed:
            version += 1
            outcomes = Counter(change.outcome for change in changes)
            counts = ((outcomes["added"], "added"), (outcomes["updated"], "updated"), (len(removed), "removed"))
            add_version(connection, version, ", ".join(f"{count} {outcome}" for count, outcome in counts if count))
        for path in (*removed, *(change.path for change in changes)):
            connection.execute(
                "UPDATE documents SET removed_in = ? WHERE path = ? AND removed_in IS NULL", (version, path)
            )
        for change in changes:
            identity = write_identity(connection, change.identity, change.path, change.labels, change.given_labels)
            connection.execute(
                "INSERT INTO documents (path, content_id, bytes, stat, metadata, labels, given_labels, added_in, identity) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*astuple(change)[:-2], version, identity),
            )
        beside()
    return version


# --- looking at them --------------------------------------------------------------------------------------------------


def history(base: KnowledgeBase) -> list[Version]:
    """The kept versions, newest first."""
    with schema.storage_errors(base.folder):
        base.kept_version()  # compares the tables with their digests
        connection = base.connection
        tags: dict[int, list[str]] = {}
        for name, version in connection.execute("SELECT name, version FROM tags ORDER BY name"):
            tags.setdefault(version, []).append(name)
        rows = connection.execute(
            "SELECT v.version, v.created_at, v.summary, (SELECT count(*) FROM documents d WHERE d.added_in <= v.version "
            "AND (d.removed_in IS NULL OR d.removed_in > v.version)) FROM versions v ORDER BY v.version DESC"
        ).fetchall()
        return [Version(v, at, summary, count, tuple(tags.get(v, ()))) for v, at, summary, count in rows]


def resolve_version(base: KnowledgeBase, text: str) -> int:
    """The version that `text` means: a number, a tag, or a time (`2026-01-31`, `2026-01-31T12:00`, UTC unless it says).

    A time means the version that was the newest then; a date alone means the end of that day. Raises KnowledgeError.
    """
    with schema.storage_errors(base.folder):
        if text.isascii() and text.isdigit() and len(text) < 19:
            return base.kept_version(int(text))
        if _TIME.fullmatch(text):
            return _version_at(base, text)
        names = dict(base.connection.execute("SELECT name, version FROM tags").fetchall())
        if text not in names:
            raise KnowledgeError(
                f"No version {text!r}: it is not a number, a tag or a time such as 2026-01-31T12:00.{did_you_mean(text, names)} See: openbook history"
            )
        return int(names[text])


def _version_at(base: KnowledgeBase, text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        if len(text) == len("2026-01-31"):
            moment += timedelta(days=1) - timedelta(microseconds=1)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise KnowledgeError(f"{text!r} is not a time: {error}. Write it like 2026-01-31T12:00.") from error
    until = moment.isoformat(timespec="seconds")
    row = base.connection.execute("SELECT max(version) FROM versions WHERE created_at <= ?", (until,)).fetchone()
    oldest, created = base.connection.execute("SELECT version, created_at FROM versions ORDER BY version").fetchone()
    if row[0] is None:
        raise KnowledgeError(f"No version is as old as {text}; the oldest kept, {oldest}, is from {created}.")
    after = base.connection.execute("SELECT min(version) FROM versions WHERE version > ?", (row[0],)).fetchone()[0]
    if after is not None and after > row[0] + 1:
        raise KnowledgeError(
            f"The version of {text} may be one of {spans(range(row[0] + 1, after))}, which are not kept any more. Kept is "
            f"{row[0]}, the last before them: --as-of {row[0]}"
        )
    return int(row[0])


def tag(base: KnowledgeBase, name: str, version: int | None = None, *, lock_timeout_s: float = 30.0) -> int:
    """Name a version (default: the newest). A tagged version is never pruned. Raises KnowledgeError when the name is taken."""
    if not _TAG.fullmatch(name):
        raise QuestionError(
            f"{name!r} is not a tag. A tag is 1 to 64 letters, digits, '_', '.' and '-', and begins with a letter."
        )
    with base.writing(lock_timeout_s) as connection, schema.transaction(connection):
        version = base.kept_version(version)
        row = connection.execute("SELECT version FROM tags WHERE name = ?", (name,)).fetchone()
        if row is not None and row[0] != version:
            raise KnowledgeError(
                f"The tag {name!r} already names version {row[0]}. Drop it first: openbook tag --drop {name}"
            )
        connection.execute("INSERT OR IGNORE INTO tags VALUES (?, ?, ?)", (name, version, now()))
        return version


def drop_tag(base: KnowledgeBase, name: str, *, lock_timeout_s: float = 30.0) -> None:
    """Forget a name; the version stays until it is pruned. Raises KnowledgeError when there is none."""
    with base.writing(lock_timeout_s) as connection, schema.transaction(connection):
        names = [each for (each,) in connection.execute("SELECT name FROM tags")]
        connection.execute("DELETE FROM tags WHERE name = ?", (name if name in names else "",))
        if name not in names:
            raise KnowledgeError(f"No tag {name!r}.{did_you_mean(name, names)}")


def diff(
    base: KnowledgeBase,
    before: int,
    after: int,
    scope: Scope | None = None,
    check: Callable[[], None] = lambda: None,
) -> Difference:
    """What changed from one kept version to another in what `scope` sees of both (default: all). Raises KnowledgeError.

    `check` is called before each document's passages are read or compared; what it raises ends the work.
    """
    texts: dict[int, list[str]] = {}

    def rows(version: int) -> dict[str, tuple[int, str, str]]:
        """(content, metadata, labels) by path."""
        version = base.kept_version(version)
        live = Condition(schema.LIVE, {"version": version})
        seen = condition(replace(scope, as_of=version), version) if scope else live
        sql = f"SELECT d.path, d.content_id, d.metadata, d.labels FROM documents d WHERE {seen.sql} ORDER BY d.path"
        return {path: tuple(row) for path, *row in base.connection.execute(sql, seen.values)}

    def passages(documents: dict[str, tuple[int, str, str]]) -> dict[str, PassageChange]:
        """Each text once, whatever white space is around it, with the first document that holds it."""
        found: dict[str, PassageChange] = {}
        for path, (content, *_) in documents.items():
            check()
            if content not in texts:
                stored = integrity.content(base.connection, content)
                spans = integrity.passages(base.connection, stored)
                texts[content] = [stored.text[row[3] : row[4]] for row in spans]
            for text in texts[content]:
                if name := text.strip():
                    found.setdefault(name, PassageChange(path, text))
        return found

    with schema.storage_errors(base.folder):
        old, new = rows(before), rows(after)
        was, is_now = passages(old), passages(new)
    both = [path for path in old if path in new]
    return Difference(
        before,
        after,
        added=tuple(path for path in new if path not in old),
        changed=tuple(path for path in both if old[path][0] != new[path][0]),
        removed=tuple(path for path in old if path not in new),
        described=tuple(path for path in both if old[path][0] == new[path][0] and old[path] != new[path]),
        passages_added=tuple(each for name, each in is_now.items() if name not in was),
        passages_removed=tuple(each for name, each in was.items() if name not in is_now),
    )


def restore(base: KnowledgeBase, version: int, *, lock_timeout_s: float = 30.0) -> int:
    """Make a new version that holds exactly the documents of a kept one; its number (the newest's, if nothing differs).

    Access labels that a document has been given since stay: going back opens nothing.
    """
    with base.writing(lock_timeout_s) as connection:
        base.kept_version(version)
        with schema.transaction(connection):
            number = newest(connection)
            columns = "path, content_id, bytes, stat, metadata, labels, given_labels, identity"
            old = _with_labels_of_now(
                connection,
                connection.execute(f"SELECT {columns} FROM documents d WHERE {schema.LIVE}", {"version": version}),
            )
            live = connection.execute(f"SELECT {columns} FROM documents WHERE removed_in IS NULL").fetchall()
            was, is_now = _without_stat(old), _without_stat(live)
            if was.keys() == is_now.keys():
                return number
            number += 1
            add_version(connection, number, f"restored version {version}")
            connection.executemany(
                "UPDATE documents SET removed_in = ? WHERE path = ? AND removed_in IS NULL",
                [(number, path) for path, *_ in is_now.keys() - was.keys()],
            )
            for row in (was[key] for key in sorted(was.keys() - is_now.keys())):
                path, *_, labels, given, identity = row
                write_identity(connection, identity, path, labels, given)
                connection.execute(
                    f"INSERT INTO documents ({columns}, added_in) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, number)
                )
        apply_retention(connection)
        base.refresh_indexes(connection)
        return number


def _with_labels_of_now(connection: sqlite3.Connection, rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    current = {
        i: (labels, given) for i, labels, given in connection.execute("SELECT id, labels, given FROM identities")
    }

    def both(one: str, other: str) -> str:
        return json.dumps(sorted({*json.loads(one), *json.loads(other)}))

    return [
        (*rest, *(both(a, b) for a, b in zip((labels, given), current[identity], strict=True)), identity)
        for *rest, labels, given, identity in rows
    ]


def _without_stat(rows: Iterable[tuple[Any, ...]]) -> dict[tuple[str, ...], tuple[Any, ...]]:
    """Rows by all but their `stat`, which is of the disk and not of the document."""
    return {tuple(str(value) for at, value in enumerate(row) if at != 3): row for row in rows}


# --- letting go -------------------------------------------------------------------------------------------------------


def retention(connection: sqlite3.Connection) -> Retention:
    row = connection.execute("SELECT value FROM meta WHERE key = 'retention'").fetchone()
    return Retention(**json.loads(row[0])) if row else Retention()


def set_retention(base: KnowledgeBase, policy: Retention, *, lock_timeout_s: float = 30.0) -> None:
    """Remember a policy; it is applied after every commit."""
    with base.writing(lock_timeout_s) as connection, schema.transaction(connection):
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('retention', ?)", (json.dumps(asdict(policy)),))


def prune(base: KnowledgeBase, policy: Retention, *, lock_timeout_s: float = 30.0) -> PruneResult:
    """Let go of the versions that `policy` does not keep, and of every text and vector that only they had."""
    with base.writing(lock_timeout_s) as connection:
        pruned = _prune(connection, policy)
        base.forget(connection, lock_timeout_s)
        return pruned


def apply_retention(connection: sqlite3.Connection) -> None:
    """Prune by the remembered policy, if there is one. The caller holds the write lock."""
    policy = retention(connection)
    if policy != Retention():
        _prune(connection, policy)


def _prune(connection: sqlite3.Connection, policy: Retention) -> PruneResult:
    with schema.transaction(connection):
        # The finished work of a run that was interrupted belongs to no version yet, and stays.
        committed = [c for (c,) in connection.execute("SELECT DISTINCT content_id FROM documents")]
        versions = [v for (v,) in connection.execute("SELECT version FROM versions ORDER BY version")]
        kept = sorted(_kept(connection, versions, policy))
        gone = sorted(set(versions) - set(kept))
        connection.executemany("DELETE FROM versions WHERE version = ?", [(version,) for version in gone])
        drop_unseen_documents(connection)
        return PruneResult(len(gone), drop_unused_contents(connection, committed), tuple(kept))


def _kept(connection: sqlite3.Connection, versions: list[int], policy: Retention) -> set[int]:
    kept = {versions[-1], *(v for (v,) in connection.execute("SELECT version FROM tags"))}
    if policy == Retention():
        return set(versions)
    if policy.versions is not None:
        kept.update(versions[-max(policy.versions, 1) :])
    if policy.days is not None:
        since = (datetime.now(UTC) - timedelta(days=policy.days)).isoformat(timespec="seconds")
        kept.update(v for (v,) in connection.execute("SELECT version FROM versions WHERE created_at >= ?", (since,)))
        # The version that was the newest at the beginning of that time was what readers saw then.
        kept.update(
            v
            for (v,) in connection.execute("SELECT max(version) FROM versions WHERE created_at < ?", (since,))
            if v is not None
        )
    return kept


def drop_unseen_documents(connection: sqlite3.Connection) -> None:
    """Delete the rows of documents that no kept version sees."""
    unseen = (
        "removed_in IS NOT NULL AND NOT EXISTS "
        "(SELECT 1 FROM versions v WHERE v.version >= added_in AND v.version < removed_in)"
    )
    connection.execute(f"DELETE FROM documents WHERE {unseen}")
    drop_unused_identities(connection)


def drop_unused_contents(connection: sqlite3.Connection, among: Iterable[int] | None = None) -> int:
    """Delete contents (of `among`; default: all) that no document has, with their passages and vectors; how many."""
    unused = {c for (c,) in connection.execute("SELECT id FROM contents EXCEPT SELECT content_id FROM documents")}
    rows = [(content,) for content in sorted(unused if among is None else unused & set(among))]
    connection.executemany("DELETE FROM passages WHERE content_id = ?", rows)
    connection.executemany("DELETE FROM contents WHERE id = ?", rows)
    count = len(rows)
    if count:
        connection.execute("DELETE FROM embeddings WHERE embedding_key NOT IN (SELECT embedding_key FROM passages)")
    return count
