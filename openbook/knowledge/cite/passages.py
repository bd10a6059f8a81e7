"""Found passages, and the windows around them, with the documents that hold them and that a query may see."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from openbook.core.records import Hit, Passage
from openbook.knowledge.cite.windows import joined, partition, window_id
from openbook.knowledge.index.scope import Condition
from openbook.knowledge.index.search import RankedPassage
from openbook.knowledge.index.table_headers import table_header
from openbook.knowledge.store import integrity
from openbook.knowledge.store.integrity import PASSAGE_COLUMNS, PassageRow, StoredContent
from openbook.knowledge.store.interface import Connection, Damage
from openbook.knowledge.store.schema import IDS

# Each further found passage adds this share of its score above the lowest score found to its window's score.
MORE = 0.3

_ID = re.compile(r"(?P<first>.+?)(?:\+(?P<more>[1-9][0-9]{0,3}))?")

# The documents that hold a content: by path, the labels that it takes to see each.
Holders: TypeAlias = Mapping[str, tuple[str, ...]]


class StoredPassage(NamedTuple):
    row: PassageRow
    title: str
    text: str


class LocatedPassage(NamedTuple):
    """A found passage and its documents in scope, sorted. `content`: that of the first."""

    ranked: RankedPassage
    content: int
    holders: Holders


def _fewest(labels: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    return len(labels), labels


def _stored(connection: Connection, where: str, parameters: Any = ()) -> list[StoredPassage]:
    sql = f"SELECT {PASSAGE_COLUMNS} FROM passages p {where} ORDER BY p.content_id, p.start_char"
    rows = [PassageRow(*row) for row in connection.execute(sql, parameters)]
    found: list[StoredPassage] = []
    for content, group in groupby(rows, attrgetter("content_id")):
        of_content = list(group)
        first, last = of_content[0].start, of_content[-1].end
        title = text = ""
        if isinstance(first, int) and isinstance(last, int):  # else the rows are damaged
            # One part for all of them: SQLite reads the whole text for any part of it.
            part = "SELECT title, substr(text, ?, ?) FROM contents WHERE id = ?"
            title, text = connection.execute(part, (first + 1, last - first, content)).fetchone() or ("", "")
        found += [StoredPassage(row, title, row.text_in(title, text, first)) for row in of_content]
    return found


def _passage(stored: StoredPassage, holders: Holders) -> Passage:
    row, title, text = stored
    path, *also = holders
    labels = min(holders.values(), key=_fewest)
    title = title or Path(path).stem
    return Passage(row.passage_id, path, title, row.start, row.end, row.page, row.headings, text, tuple(also), labels)


def _located(connection: Connection, ranked: Sequence[RankedPassage], seen: Condition) -> list[LocatedPassage]:
    # Every content with the passage's text counts: the same text may have been read from other bytes.
    holders = documents_holding(connection, {content for each in ranked for content in each.contents}, seen)
    found: list[LocatedPassage] = []
    for each in ranked:
        contents = [content for content in each.contents if content in holders]
        if not contents:
            raise Damage(f"the passage {each.passage}, or its document, is not there")
        # They may differ in their headings.
        first = min(contents, key=lambda content: min(holders[content]))
        documents = dict(sorted(item for content in contents for item in holders[content].items()))
        found.append(LocatedPassage(each, first, documents))
    return found


def hits_of(connection: Connection, ranked: Sequence[RankedPassage], seen: Condition) -> list[Hit]:
    ids = ", ".join(str(each.passage) for each in ranked) or "NULL"
    passages = _stored(connection, f"WHERE p.id IN ({ids})")
    by_id = {each.row.id: each for each in passages}
    hits: list[Hit] = []
    for each, _, holders in _located(connection, ranked, seen):
        stored = by_id.get(each.passage)
        if stored is None or stored.row.content_id not in each.contents:
            raise Damage(f"the passage {each.passage}, or its document, is not there")
        hits.append(Hit(_passage(stored, holders), each.score, each.dense_rank, each.bm25_rank, each.similarity))
    return hits


def passage_of_id(
    connection: Connection, index_hints: Sequence[str], name: str, seen: Condition, prefer: str
) -> Passage | None:
    """The passage or window of that id in the `seen` document `prefer`, or in the first path; no other adds anything. `index_hints`: see `Store`."""
    found: list[Passage] = []
    for hint in index_hints:
        found += _passages_of_id(connection, hint, name, seen)
        if any(prefer in ("", each.document) for each in found):
            break
    if not found:
        return None
    labels = min((each.labels for each in found), key=_fewest)
    return replace(next((each for each in found if each.document == prefer), found[0]), labels=labels)


def _passages_of_id(connection: Connection, hint: str, name: str, seen: Condition) -> list[Passage]:
    """One for each `seen` document, by path."""
    match = _ID.fullmatch(name)
    first, more = (match["first"], int(match["more"] or 0)) if match else (name, 0)
    first = first.encode(errors="replace").decode()  # lone surrogates cannot be looked for
    passages = _stored(connection, f"{hint} WHERE p.passage_id = ?", (first,))
    documents = documents_holding(connection, {each.row.content_id for each in passages}, seen)
    found: list[Passage] = []
    for each in passages:
        if not (holders := documents.get(each.row.content_id)):
            continue
        stored, rows = integrity.content(connection, each.row.content_id), [each.row]
        if more:
            rows = integrity.passages(connection, stored)
            at = rows.index(each.row)
            rows = rows[at : at + 1 + more]
        if len(rows) == 1 + more:
            found += [_window(stored, rows, {path: labels}) for path, labels in holders.items()]
    return sorted(found, key=lambda each: each.document)


def first_headings(connection: Connection, content: int, most: int) -> tuple[str, tuple[str, ...]]:
    """(the text's own title, the headings of its first `most` passages, each once)."""
    first = "WHERE p.id IN (SELECT id FROM passages WHERE content_id = ? ORDER BY id LIMIT ?)"
    stored = _stored(connection, first, (content, most))
    headings = dict.fromkeys(heading for each in stored for heading in each.row.headings)
    return (stored[0].title if stored else ""), tuple(headings)


def documents_holding(connection: Connection, contents: Collection[int], seen: Condition) -> Mapping[int, Holders]:
    """The `seen` documents by content, with the labels of this version and of their current or last state."""
    values = {"ids": json.dumps(sorted(contents)), **seen.values}
    rows = integrity.documents(connection, f"d.content_id IN {IDS} AND {seen.sql}", values)
    ids = {"ids": json.dumps([row.identity for row in rows])}
    now = dict(connection.execute(f"SELECT id, labels FROM identities WHERE id IN {IDS}", ids).fetchall())
    found: dict[int, dict[str, tuple[str, ...]]] = {}
    parsed = cache(json.loads)  # most rows have equal labels
    for row in rows:
        if row.identity not in now:
            raise Damage(f"the document {row.path} has no labels of now")
        labels = {*parsed(row.labels), *parsed(now[row.identity])}
        found.setdefault(row.content_id, {})[row.path] = tuple(sorted(labels))
    return found


def as_passages(stored: StoredContent, rows: Iterable[PassageRow], holders: Holders) -> list[Passage]:
    return [_passage(StoredPassage(row, stored.title, stored.text[row.start : row.end]), holders) for row in rows]


def _window(stored: StoredContent, rows: Sequence[PassageRow], holders: Holders) -> Passage:
    return replace(joined(as_passages(stored, rows, holders)), header=table_header(stored.text, rows[0].start))


def windows_around(connection: Connection, ranked: Sequence[RankedPassage], seen: Condition, limit: int) -> list[Hit]:
    """The `limit` best windows around found passages, each once."""
    ids = ", ".join(str(each.passage) for each in ranked) or "NULL"
    names = dict(iter(connection.execute(f"SELECT id, passage_id FROM passages WHERE id IN ({ids})")))
    by_content: dict[int, list[LocatedPassage]] = {}
    for each in _located(connection, ranked, seen):
        by_content.setdefault(each.content, []).append(each)
    floor = min((each.score for each in ranked), default=0.0)
    found: list[tuple[float, str, StoredContent, Sequence[PassageRow], Holders, list[RankedPassage]]] = []
    contents = integrity.contents(connection, by_content)
    passages = integrity.passages_of(connection, contents.values())
    for content, located in by_content.items():
        stored, rows = contents[content], passages[content]
        numbers = {row.passage_id: number for number, row in enumerate(rows)}
        inside: dict[int, RankedPassage] = {}
        for each in located:
            if (first := names.get(each.ranked.passage)) not in numbers:
                raise Damage(f"a passage of content {content} is not there")
            inside[numbers[first]] = each.ranked
        for run in partition([row.span for row in rows]):
            if of_run := [each for number, each in inside.items() if number in run]:
                # The score of its best passage, and a little more for each further found one.
                score = of_run[0].score + MORE * sum(each.score - floor for each in of_run[1:])
                parts = rows[run.start : run.stop]
                name = window_id(parts[0].passage_id, len(parts))
                found.append((score, name, stored, parts, located[0].holders, of_run))
    found.sort(key=lambda each: (-each[0], each[1]))
    return [_hit(_window(stored, parts, holders), score, of) for score, _, stored, parts, holders, of in found[:limit]]


def _hit(window: Passage, score: float, inside: Sequence[RankedPassage]) -> Hit:
    dense = min((each.dense_rank for each in inside if each.dense_rank), default=None)
    words = min((each.bm25_rank for each in inside if each.bm25_rank), default=None)
    similar = max((each.similarity for each in inside if each.similarity is not None), default=None)
    return Hit(window, score, dense, words, similar)
