"""The rows of versions, on a connection that writes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from openbook.knowledge.store import schema
from openbook.knowledge.store.identities import Change, drop_returned_names, drop_unused_identities, write_identity
from openbook.knowledge.store.interface import Connection, Writer


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def version_ranges(versions: Sequence[int]) -> str:
    """Sorted versions in words: `0 to 4, 7`."""
    groups: list[list[int]] = []
    for version in versions:
        if groups and version == groups[-1][-1] + 1:
            groups[-1].append(version)
        else:
            groups.append([version])
    return ", ".join(f"{g[0]} to {g[-1]}" if len(g) > 1 else str(g[0]) for g in groups)


@dataclass(frozen=True, slots=True)
class PruneResult:
    versions: int
    contents: int
    kept: tuple[int, ...]


def add_version(connection: Connection, version: int, summary: str) -> None:
    """Add a version. Times never go back, even when the clock does: `--as-of TIME` needs an order."""
    before = connection.execute("SELECT max(created_at) FROM versions").fetchone()[0] or ""
    connection.execute("INSERT INTO versions VALUES (?, ?, ?)", (version, max(now(), before), summary))


@contextmanager
def version_transaction(connection: Writer, paths: Collection[str]) -> Iterator[None]:
    """A durable transaction that may make a version and changes documents at `paths`."""
    # Losing power must not lose a version that was reported. The facts before it may be lost: they are made again.
    connection.durable(True)
    with schema.transaction(connection), connection.changing(paths):
        yield


def write_version(connection: Writer, changes: Sequence[Change], removed: Collection[str], *, summary: str = "") -> int:
    """Make a version with `changes` and without the paths `removed`, in the caller's transaction.

    Returns the newest version; without a change no version is made. `summary` counts the changes by default.
    """
    version = schema.newest_version(connection)
    if changes or removed:
        version += 1
        outcomes = Counter(change.outcome for change in changes)
        counts = ((outcomes["added"], "added"), (outcomes["updated"], "updated"), (len(removed), "removed"))
        counted = ", ".join(f"{count} {outcome}" for count, outcome in counts if count)
        add_version(connection, version, summary or counted)
    for path in (*removed, *(change.path for change in changes)):
        connection.execute("UPDATE documents SET removed_in = ? WHERE path = ? AND removed_in IS NULL", (version, path))
    for change in changes:
        identity = write_identity(connection, change.identity, change.path, change.labels, change.given_labels)
        connection.execute(
            "INSERT INTO documents (path, content_id, bytes, stat, metadata, labels, given_labels, added_in, identity) VALUES "
            "(:path, :content_id, :bytes, :stat, :metadata, :labels, :given_labels, :added_in, :identity)",
            {**asdict(change), "added_in": version, "identity": identity},
        )
        if change.split_from is not None:
            connection.execute(
                "UPDATE documents SET identity = ? WHERE path = ? AND identity = ?",
                (identity, change.path, change.split_from),
            )
    drop_returned_names(connection)
    return version


def retention(connection: Connection) -> int | None:
    """The number of newest versions to keep; None keeps all."""
    saved: dict[str, int] = json.loads(schema.meta(connection).get("retention", "{}"))
    return saved.get("versions")


def apply_retention(connection: Writer) -> None:
    """Prune by the remembered policy, if any. Needs the write lock."""
    if keep := retention(connection):
        keep_newest(connection, keep)


def keep_newest(connection: Writer, keep: int) -> PruneResult:
    rows = connection.execute("SELECT DISTINCT path FROM documents WHERE removed_in IS NOT NULL").fetchall()
    with schema.transaction(connection), connection.changing([path for (path,) in rows]):
        under_way = set(schema.unused_contents(connection))  # of runs whose version is still to come
        versions = [version for (version,) in connection.execute("SELECT version FROM versions ORDER BY version")]
        tagged = {version for (version,) in connection.execute("SELECT version FROM tags")}
        kept = sorted({*versions[-keep:], *tagged})
        gone = [version for version in versions if version not in kept]
        connection.executemany("DELETE FROM versions WHERE version = ?", [(version,) for version in gone])
        connection.execute(
            "DELETE FROM documents WHERE removed_in IS NOT NULL AND NOT EXISTS "
            "(SELECT 1 FROM versions v WHERE v.version >= added_in AND v.version < removed_in)"
        )
        drop_unused_identities(connection)
        dropped = [content for content in schema.unused_contents(connection) if content not in under_way]
        schema.drop_contents(connection, dropped)
        return PruneResult(len(gone), len(dropped), tuple(kept))
