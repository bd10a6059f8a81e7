"""What is known of documents, in a fixed number of statements for any number of them."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

from openbook.knowledge.cite.editions import DocumentInfo
from openbook.knowledge.index.scope import visible_to
from openbook.knowledge.store.identities import stored_labels
from openbook.knowledge.store.integrity import DocumentRow
from openbook.knowledge.store.interface import Connection, Damage
from openbook.knowledge.store.schema import IDS
from openbook.parsers import metadata


def info_of(
    connection: Connection, rows: Sequence[DocumentRow], version: int, labels: frozenset[str]
) -> dict[str, DocumentInfo]:
    """The documents of these rows of `version`, by path, as a caller with these labels sees them."""
    contents = {"ids": json.dumps(sorted({row.content_id for row in rows}))}
    sizes = connection.execute(
        "SELECT content_id, count(*), max(end_char), max(page) FROM passages "
        f"WHERE content_id IN {IDS} GROUP BY content_id",
        contents,
    )
    size_of = {content: tuple(size) for content, *size in sizes}
    types = dict(connection.execute(f"SELECT id, media_type FROM contents WHERE id IN {IDS}", contents).fetchall())
    identities = {"ids": json.dumps(sorted({row.identity for row in rows}))}
    closed = f"SELECT id, labels FROM identities WHERE labels <> '[]' AND id IN {IDS}"
    labels_now = dict(connection.execute(closed, identities).fetchall())
    created = dict(connection.execute("SELECT version, created_at FROM versions ORDER BY version").fetchall())
    came = _came_in(connection, rows, version, labels, sorted(created))
    found: dict[str, DocumentInfo] = {}
    for row in rows:
        if not (row.content_id in size_of and row.content_id in types):
            raise Damage(f"the text of content {row.content_id} is not there")
        passages, characters, pages = size_of[row.content_id]
        about = metadata.from_json(row.metadata)
        found[row.path] = DocumentInfo(
            path=row.path,
            title=str(dict(about).get("title") or Path(row.path).stem),
            metadata=about,
            labels=tuple(sorted(stored_labels(row.labels) | stored_labels(labels_now.get(row.identity, "[]")))),
            media_type=types[row.content_id],
            bytes=row.bytes,
            characters=characters,
            pages=pages,
            passages=passages,
            version=came[row.path],
            created_at=created[came[row.path]],
        )
    return found


def _came_in(
    connection: Connection, rows: Sequence[DocumentRow], version: int, labels: frozenset[str], kept: Sequence[int]
) -> dict[str, int]:
    """The first kept version of each path from which on the caller sees its text without a break."""
    text, came = {row.path: row.content_id for row in rows}, {row.path: row.added_in for row in rows}
    shown = visible_to(labels, in_any_version=True)
    earlier = connection.execute(
        "SELECT d.path, d.content_id, d.added_in, d.removed_in FROM documents d "
        f"WHERE d.content_id IN {IDS} AND d.removed_in <= :version AND {shown.sql} ORDER BY d.added_in DESC",
        {"ids": json.dumps(sorted(set(text.values()))), "version": version, **shown.values},
    )
    for path, content, added_in, removed_in in earlier:
        if text.get(path) == content and bisect_left(kept, removed_in) == bisect_left(kept, came[path]):
            came[path] = added_in
    return {path: kept[bisect_left(kept, number)] for path, number in came.items()}
