"""Passages as they are stored, compared with their digests, with the documents that hold them and a query may see."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from openbook.knowledge import integrity, schema
from openbook.knowledge.indexes import Ranked
from openbook.knowledge.scope import Condition
from openbook.records import Passage

PASSAGE = (
    f"{integrity.PASSAGE_COLUMNS}, c.title, substr(c.text, p.start_char + 1, p.end_char - p.start_char) AS passage_text"
)


def fewest(labels: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    return len(labels), labels


def passage_of(row: Sequence[Any], title: str, text: str, documents: Mapping[str, tuple[str, ...]]) -> Passage:
    """From a row that begins with `integrity.PASSAGE_COLUMNS`.

    `documents`: those that hold it, the first of which it is shown in, with the labels that it takes to see each.
    """
    _, _, passage_id, start, end, page, headings = row[:7]
    path, *also = documents
    labels = min(documents.values(), key=fewest)
    title = title or Path(path).stem
    return Passage(passage_id, path, title, start, end, page, schema.headings(headings), text, tuple(also), labels)


def read_passages(connection: sqlite3.Connection, ranked: Sequence[Ranked], seen: Condition) -> list[Passage]:
    """What was found, each with the documents in scope that hold it: the first path, then the others.

    Raises sqlite3.DatabaseError when something of it is not there, or not what was stored.
    """
    marks = ", ".join(str(each.passage) for each in ranked)
    sql = f"SELECT {PASSAGE} FROM passages p JOIN contents c ON c.id = p.content_id WHERE p.id IN ({marks})"
    rows = {row[0]: row for row in connection.execute(sql)}
    # By what the passage says and not by its content: the same text may have been read from other bytes.
    documents = documents_holding(connection, {content for each in ranked for content in each.contents}, seen)
    found: list[Passage] = []
    for each in ranked:
        row = rows.get(each.passage)
        held_by = dict(sorted(held for content in each.contents for held in documents.get(content, {}).items()))
        if row is None or row[1] not in each.contents or not held_by:
            raise sqlite3.DatabaseError(f"the passage {each.passage}, or its document, is not there")
        integrity.check_passage(row, *row[-2:])
        found.append(passage_of(row, row[-2], row[-1], held_by))
    return found


def documents_holding(
    connection: sqlite3.Connection, contents: Collection[int], seen: Condition
) -> dict[int, dict[str, tuple[str, ...]]]:
    """The documents that are `seen`, by the content that they hold, with the labels that it takes to see each.

    Those are what it carries in this version, and what it carries now, or carried last.
    """
    cursor = connection.execute(
        f"SELECT d.* FROM documents d WHERE d.content_id IN (SELECT value FROM json_each(:contents)) AND {seen.sql}",
        {"contents": json.dumps(sorted(contents)), **seen.values},
    )
    rows = [integrity.check_document(cursor, row) for row in cursor]
    ids = json.dumps([row["identity"] for row in rows])
    sql = "SELECT id, labels FROM identities WHERE id IN (SELECT value FROM json_each(?))"
    now = dict(connection.execute(sql, (ids,)).fetchall())
    documents: dict[int, dict[str, tuple[str, ...]]] = {}
    for row in rows:
        labels = {*json.loads(row["labels"]), *json.loads(now[row["identity"]])}
        documents.setdefault(row["content_id"], {})[row["path"]] = tuple(sorted(labels))
    return documents
