"""Labels that were given to documents by name: they follow the path and the text, and outlive versions that are pruned.

They are on the rows of documents. When the last row of a path is let go, its labels stay in `meta` as `labels_of_gone`,
`{path: [labels]}`, until the path comes back or is purged.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field

_NEWEST = "id IN (SELECT max(id) FROM documents GROUP BY path)"


@dataclass(frozen=True, slots=True)
class GivenLabels:
    """By the newest row of each path, and by the contents that these rows have."""

    by_path: dict[str, set[str]] = field(default_factory=dict)
    by_content: dict[int, set[str]] = field(default_factory=dict)

    def to(self, path: str, content_id: int) -> set[str]:
        """What a document has that comes, or comes back, to `path` with this content."""
        return self.by_path.get(path, set()) | self.by_content.get(content_id, set())


def given_labels(connection: sqlite3.Connection) -> GivenLabels:
    given = GivenLabels()
    rows = f"SELECT path, content_id, given_labels FROM documents WHERE given_labels <> '[]' AND {_NEWEST}"
    for path, content_id, labels in connection.execute(rows):
        given.by_path[path] = set(json.loads(labels))
        given.by_content.setdefault(content_id, set()).update(given.by_path[path])
    for path, labels in _gone(connection).items():
        if not connection.execute("SELECT 1 FROM documents WHERE path = ?", (path,)).fetchone():
            given.by_path[path] = set(labels)  # it has not come back yet
    return given


def keep_labels_of(connection: sqlite3.Connection, ending: str) -> None:
    """Remember the labels of paths whose last rows are about to be deleted: those that the condition `ending` names."""
    newest = f"SELECT path, given_labels FROM documents WHERE given_labels <> '[]' AND {_NEWEST} AND {ending}"
    if left := {path: json.loads(labels) for path, labels in connection.execute(newest)}:
        _write(connection, _gone(connection) | left)


def gone_paths(connection: sqlite3.Connection) -> list[str]:
    """Paths whose labels are remembered, though perhaps no kept version has them."""
    return sorted(_gone(connection))


def forget_labels(connection: sqlite3.Connection, paths: Iterable[str]) -> None:
    gone = _gone(connection)
    if left := {path: labels for path, labels in gone.items() if path not in set(paths)}:
        _write(connection, left)
    elif gone:
        connection.execute("DELETE FROM meta WHERE key = 'labels_of_gone'")


def _gone(connection: sqlite3.Connection) -> dict[str, list[str]]:
    row = connection.execute("SELECT value FROM meta WHERE key = 'labels_of_gone'").fetchone()
    found: dict[str, list[str]] = json.loads(row[0]) if row else {}
    return found


def _write(connection: sqlite3.Connection, gone: dict[str, list[str]]) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('labels_of_gone', ?)", (json.dumps(gone),))
