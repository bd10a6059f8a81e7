"""What is known of documents, in a fixed number of statements for any number of them."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

from openbook.knowledge.cite.editions import DocumentInfo
from openbook.knowledge.index.scope import visible_to
from openbook.knowledge.store.integrity import PASSAGE_COLUMNS, DocumentRow, PassageRow
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
    titles = connection.execute(
        f"SELECT c.media_type, c.title, substr(c.text, 1, p.end_char), {PASSAGE_COLUMNS} FROM passages p "
        f"JOIN contents c ON c.id = p.content_id WHERE p.content_id IN {IDS} AND p.start_char = 0",
        contents,
    )
    title_of: dict[int, tuple[str, str]] = {}
    for media_type, title, text, *columns in titles:
        first = PassageRow(*columns)
        first.text_in(title, text)  # the digest of a text's first passage covers its title
        title_of[first.content_id] = (title, media_type)
    identities = {"ids": json.dumps(sorted({row.identity for row in rows}))}
    now = dict(
        connection.execute(
            f"SELECT id, labels FROM identities WHERE labels <> '[]' AND id IN {IDS}", identities
        ).fetchall()
    )
    created = dict(connection.execute("SELECT version, created_at FROM versions ORDER BY version").fetchall())
    came = _came_in(connection, rows, version, labels, sorted(created))
    found: dict[str, DocumentInfo] = {}
    for row in rows:
        if not (row.content_id in size_of and row.content_id in title_of):
            raise Damage(f"the text of content {row.content_id} is not there")
        title, media_type = title_of[row.content_id]
        passages, characters, pages = size_of[row.content_id]
        found[row.path] = DocumentInfo(
            path=row.path,
            title=title or Path(row.path).stem,
            metadata=metadata.from_json(row.metadata),
            labels=tuple(sorted({*json.loads(row.labels), *json.loads(now.get(row.identity, "[]"))})),
            media_type=media_type,
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
