"""The one way a version is made: a transaction that writes its row and changes the rows of documents."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple

from openbook.knowledge import schema
from openbook.knowledge.base import now
from openbook.knowledge.identities import write_identity
from openbook.knowledge.intake import Change
from openbook.records import Verdict


def newest(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT max(version) FROM versions").fetchone()[0])


def commit(
    connection: sqlite3.Connection,
    changes: Sequence[Change],
    removed: Iterable[str],
    *,
    summary: str = "",
    beside: Callable[[int], None] = lambda version: None,
) -> int:
    """Commit a version with `changes`, without the documents at the paths `removed`; the newest version's number.

    Without a change no version is made. `beside` runs inside the transaction.
    """
    gone = list(removed)
    # Losing power must not lose a version that was reported. The facts before it may be lost: they are made again.
    connection.execute("PRAGMA synchronous = FULL")
    with schema.transaction(connection):
        version = newest(connection)
        if changes or gone or summary:
            version += 1
            add_version(connection, version, summary or _summary(changes, len(gone)))
        for path in gone:
            _end(connection, path, version)
        for change in changes:
            _end(connection, change.path, version)
            identity = write_identity(connection, change.identity, change.path, change.labels, change.given_labels)
            connection.execute(
                "INSERT INTO documents (path, content_id, bytes, stat, metadata, labels, given_labels, added_in, identity) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*astuple(change)[:-2], version, identity),
            )
        beside(version)
    return version


def add_version(connection: sqlite3.Connection, version: int, summary: str) -> None:
    """Times of versions never go back, even when the clock does: `--as-of TIME` needs an order."""
    before = connection.execute("SELECT max(created_at) FROM versions").fetchone()[0] or ""
    connection.execute("INSERT INTO versions VALUES (?, ?, ?)", (version, max(now(), before), summary))


def _end(connection: sqlite3.Connection, path: str, version: int) -> None:
    connection.execute("UPDATE documents SET removed_in = ? WHERE path = ? AND removed_in IS NULL", (version, path))


def _summary(changes: Sequence[Change], removed: int) -> str:
    counts = [(sum(c.outcome == o for c in changes), o) for o in ("added", "updated")] + [(removed, "removed")]
    return ", ".join(f"{count} {outcome}" for count, outcome in counts if count)


def write_verdicts(connection: sqlite3.Connection, verdicts: Iterable[Verdict], tried: dict[str, str]) -> None:
    """Remember what did not go in and why, with what the file system said of it (`tried`, by path); forget the rest."""
    for verdict in verdicts:
        if verdict.outcome in ("skipped", "failed"):
            row = (verdict.path, verdict.outcome, verdict.reason, now(), tried.get(verdict.path, ""))
            connection.execute("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?)", row)
        else:
            connection.execute("DELETE FROM verdicts WHERE path = ?", (verdict.path,))
