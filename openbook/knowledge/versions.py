"""Versions: list, compare, tag, restore, prune. `store.version_rows` writes their rows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from openbook.core.errors import KnowledgeBaseDamaged, KnowledgeError, QuestionError, UnknownVersion, did_you_mean
from openbook.knowledge.base import KnowledgeBase
from openbook.knowledge.index.scope import Scope, condition, held_in
from openbook.knowledge.store import integrity, schema, version_rows
from openbook.knowledge.store.identities import Change, identities, leave_names
from openbook.knowledge.store.interface import Connection
from openbook.knowledge.store.version_rows import apply_retention, now, version_transaction, write_version

_TAG = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?")


@dataclass(frozen=True, slots=True)
class Version:
    """A kept version. `created_at` is ISO 8601 in UTC."""

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
    """Documents by path, passages by text. `metadata_changed`: documents of the same text with other metadata or labels."""

    before: int
    after: int
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    metadata_changed: tuple[str, ...]
    passages_added: tuple[PassageChange, ...]
    passages_removed: tuple[PassageChange, ...]


def history(base: KnowledgeBase) -> list[Version]:
    with base.snapshot() as connection:
        tags: dict[int, list[str]] = {}
        for name, version in connection.execute("SELECT name, version FROM tags ORDER BY name"):
            tags.setdefault(version, []).append(name)
        rows = connection.execute(
            f"SELECT v.version, v.created_at, v.summary, (SELECT count(*) FROM documents d WHERE {held_in('v.version')}) "
            "FROM versions v ORDER BY v.version DESC"
        ).fetchall()
        return [Version(v, at, summary, count, tuple(tags.get(v, ()))) for v, at, summary, count in rows]


def times(base: KnowledgeBase) -> tuple[str, str]:
    """When the oldest kept version and the newest were made."""
    with base.snapshot() as connection:
        oldest, newest = connection.execute("SELECT min(created_at), max(created_at) FROM versions").fetchone()
        return oldest, newest


def resolve_version(base: KnowledgeBase, text: str) -> int:
    """The version that `text` means: a number, a tag, or a time (`2026-01-31`, `2026-01-31T12:00`, UTC by default).

    A time means the newest version at that time; a date alone means the end of that day. Raises UnknownVersion.
    """
    with base.snapshot() as connection:
        if text.isascii() and text.isdigit() and len(text) < 19:
            return base.kept_version(int(text))
        if _TIME.fullmatch(text):
            return _version_at(connection, text)
        names = dict(connection.execute("SELECT name, version FROM tags").fetchall())
        if text not in names:
            raise UnknownVersion(
                f"No version {text!r}: it is not a number, a tag or a time such as 2026-01-31T12:00.{did_you_mean(text, names)} See: openbook history"
            )
        return int(names[text])


def _version_at(connection: Connection, text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        if len(text) == len("2026-01-31"):
            moment += timedelta(days=1) - timedelta(microseconds=1)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UnknownVersion(f"{text!r} is not a time: {error}. Write it like 2026-01-31T12:00.") from error
    until = moment.isoformat(timespec="seconds")
    kept = connection.execute("SELECT version, created_at FROM versions ORDER BY version").fetchall()
    then = [version for version, created in kept if created <= until]
    if not then:
        raise UnknownVersion(f"No version is as old as {text}; the oldest kept, {kept[0][0]}, is from {kept[0][1]}.")
    found = max(then)
    after = next((version for version, _ in kept if version > found), found + 1)
    if after > found + 1:
        raise UnknownVersion(
            f"The version of {text} may be one of {version_rows.version_ranges(range(found + 1, after))}, which are not kept any more. "
            f"The last one before them is kept: version {found}."
        )
    return int(found)


def tag(base: KnowledgeBase, name: str, version: int | None = None) -> int:
    """Name a version (default: the newest), which is then never pruned. Raises KnowledgeError for a taken name."""
    if not _TAG.fullmatch(name):
        raise QuestionError(
            f"{name!r} is not a tag. A tag is 1 to 64 letters, digits, '_', '.' and '-', and begins with a letter."
        )
    with base.writing() as connection, schema.transaction(connection), connection.changing(()):
        version = base.kept_version(version)
        row = connection.execute("SELECT version FROM tags WHERE name = ?", (name,)).fetchone()
        if row is not None and row[0] != version:
            raise KnowledgeError(
                f"The tag {name!r} already names version {row[0]}. Drop it first: openbook tag --drop {name}"
            )
        connection.execute("INSERT INTO tags VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (name, version, now()))
        return version


def drop_tag(base: KnowledgeBase, name: str) -> None:
    """Forget a name; the version stays until it is pruned. Raises KnowledgeError for an unknown name."""
    with base.writing() as connection, schema.transaction(connection), connection.changing(()):
        names = [each for (each,) in connection.execute("SELECT name FROM tags")]
        if name not in names:
            raise KnowledgeError(f"No tag {name!r}.{did_you_mean(name, names)}")
        connection.execute("DELETE FROM tags WHERE name = ?", (name,))


def diff(
    base: KnowledgeBase,
    before: int,
    after: int,
    scope: Scope | None = None,
    check: Callable[[], None] = lambda: None,
    *,
    passages: bool = True,
) -> Difference:
    """Changes between two kept versions within `scope` (default: all).

    `check` is called before each document's passages; what it raises ends the work. Without `passages`, only documents are compared.
    """
    texts: dict[int, list[str]] = {}

    def documents(version: int) -> dict[str, tuple[int, str, str]]:
        seen = condition(scope and replace(scope, as_of=version), base.kept_version(version))
        sql = f"SELECT d.path, d.content_id, d.metadata, d.labels FROM documents d WHERE {seen.sql} ORDER BY d.path"
        return {path: tuple(row) for path, *row in connection.execute(sql, seen.values)}

    def passages_of(held: dict[str, tuple[int, str, str]]) -> dict[str, PassageChange]:
        """Distinct stripped texts, each with the first document that holds it."""
        found: dict[str, PassageChange] = {}
        for path, (content, *_) in held.items():
            check()
            if content not in texts:
                stored = integrity.content(connection, content)
                texts[content] = [stored.text[row.start : row.end] for row in integrity.passages(connection, stored)]
            for text in texts[content]:
                if stripped := text.strip():
                    found.setdefault(stripped, PassageChange(path, text))
        return found

    try:
        with base.store.errors():
            connection = base.connection
            old, new = documents(before), documents(after)
            was, is_now = (passages_of(old), passages_of(new)) if passages else ({}, {})
    except KnowledgeBaseDamaged:
        for version in (before, after):
            base.kept_version(version)  # raises UnknownVersion if it was pruned meanwhile
        raise
    both = [path for path in old if path in new]
    return Difference(
        before,
        after,
        added=tuple(path for path in new if path not in old),
        changed=tuple(path for path in both if old[path][0] != new[path][0]),
        removed=tuple(path for path in old if path not in new),
        metadata_changed=tuple(path for path in both if old[path][0] == new[path][0] and old[path] != new[path]),
        passages_added=tuple(each for text, each in is_now.items() if text not in was),
        passages_removed=tuple(each for text, each in was.items() if text not in is_now),
    )


def restore(base: KnowledgeBase, version: int) -> int:
    """Make a new version with exactly the documents of a kept one. Returns its number, or the newest's if nothing differs.

    Documents keep access labels that they were given since, so that restoring shows no one more than before.
    """
    with base.writing() as connection:
        before, current = (_documents(connection, base.kept_version(each)) for each in (version, None))
        is_now = {replace(each, stat="") for each in current.values()}  # a stat is of the disk and not of the document
        changes = [each for each in before.values() if replace(each, stat="") not in is_now]
        removed = [path for path in current if path not in before]
        with version_transaction(connection, {*removed, *(change.path for change in changes)}):
            known = identities(connection)
            number = write_version(connection, changes, removed, summary=f"restored version {version}")
            leave_names(connection, known, before.values())
        apply_retention(connection)
        base.indexes.refresh(connection)
        return number


def _documents(connection: Connection, version: int) -> dict[str, Change]:
    """The documents of a version by path, as changes that restore them, with the labels of then and of now.

    Those of now include those of the current or last document at its path.
    """
    of_version = condition(None, version)
    rows = connection.execute(
        "SELECT d.path, d.content_id, d.bytes, d.stat, d.metadata, d.identity, d.labels, i.labels, d.given_labels, i.given "
        f"FROM documents d JOIN identities i ON i.id = d.identity WHERE {of_version.sql} ORDER BY d.path",
        of_version.values,
    )
    at_path: dict[str, list[tuple[str, str]]] = {}
    for path, labels, given in connection.execute("SELECT path, labels, given FROM identities WHERE labels <> '[]'"):
        at_path.setdefault(path, []).append((labels, given))
    found: dict[str, Change] = {}
    for path, content, size, stat, about, identity, labels, labels_now, given, given_now in rows:
        labels, given = map(_union, zip((labels, given), (labels_now, given_now), *at_path.get(path, ()), strict=True))
        found[path] = Change(path, content, size, stat, about, labels, given, identity, "updated")
    return found


def _union(lists: Iterable[str]) -> str:
    return json.dumps(sorted({each for text in lists for each in json.loads(text)}))


def set_retention(base: KnowledgeBase, keep: int) -> None:
    with base.writing() as connection, schema.transaction(connection):
        schema.remember(connection, retention=json.dumps({"versions": keep}))


def prune(base: KnowledgeBase, keep: int) -> version_rows.PruneResult:
    """Keep the `keep` newest versions and the tagged ones; delete the others, with their own texts and vectors."""
    if keep < 1:
        raise QuestionError(f"At least 1 version is kept, not {keep}.")
    with base.writing() as connection:
        pruned = version_rows.keep_newest(connection, keep)
        base.forget(connection)
        return pruned
