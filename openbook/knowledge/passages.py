"""Passages as they are stored, with the documents that hold them and a query may see, and the windows that they make.

A passage is small, to be found; a window is whole, to be read. The passages of a document are joined to windows once and for
all, by its headings and pages alone. So a window is the same for every question, and what a model computed of it serves all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeAlias

from openbook.knowledge import integrity, schema
from openbook.knowledge.integrity import StoredContent
from openbook.knowledge.scope import Condition
from openbook.knowledge.search import RankedPassage
from openbook.knowledge.store import Connection, Damage
from openbook.knowledge.tables import table_header
from openbook.records import Hit, Passage, PassageSpan, sha256_hex

WINDOW_CHARS = 900  # about 220 tokens; chosen by measurement (docs/benchmarks.md)
# How much a further passage that was found adds to the score of its window: this share of what its own score is above
# the lowest score found.
MORE = 0.3

_ID = re.compile(r"(?P<first>.+?)(?:\+(?P<more>[1-9][0-9]{0,3}))?")
PASSAGE = (
    f"{integrity.PASSAGE_COLUMNS}, c.title, substr(c.text, p.start_char + 1, p.end_char - p.start_char) AS passage_text"
)


def passage_id(text_digest: str, start: int, end: int) -> str:
    """A function of the document's text and the span: the same on every machine and in every knowledge base."""
    return "p" + sha256_hex(f"{text_digest} {start} {end}".encode())[:20]


def fewest(labels: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    """A key by which `min` finds the fewest labels, and of as many the first."""
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


def hits_of(connection: Connection, ranked: Sequence[RankedPassage], seen: Condition) -> list[Hit]:
    """What was found, each with the documents in scope that hold it: the first path, then the others.

    Raises Damage when something of it is not there, or not what was stored.
    """
    marks = ", ".join(str(each.passage) for each in ranked) or "NULL"
    sql = f"SELECT {PASSAGE} FROM passages p JOIN contents c ON c.id = p.content_id WHERE p.id IN ({marks})"
    rows = {row[0]: row for row in connection.execute(sql)}
    # By what the passage says and not by its content: the same text may have been read from other bytes.
    documents = documents_holding(connection, {content for each in ranked for content in each.contents}, seen)
    found: list[Hit] = []
    for each in ranked:
        row = rows.get(each.passage)
        held_by = dict(sorted(held for content in each.contents for held in documents.get(content, {}).items()))
        if row is None or row[1] not in each.contents or not held_by:
            raise Damage(f"the passage {each.passage}, or its document, is not there")
        integrity.check_passage(row, *row[-2:])
        passage = passage_of(row, row[-2], row[-1], held_by)
        found.append(Hit(passage, each.score, each.dense_rank, each.bm25_rank, each.similarity))
    return found


def passage_of_id(
    connection: Connection, lookups: Sequence[str], name: str, seen: Condition, prefer: str = ""
) -> Passage | None:
    """The passage or window of that id as a document that is `seen` holds it: the document `prefer`, or the first path.

    No other document adds anything to it, not even its name. `lookups`: see `Store`.
    """
    found: list[Passage] = []
    for lookup in lookups:
        found += _passages_of_id(connection, lookup, name, seen)
        if any(prefer in ("", each.document) for each in found):
            break
    if not found:
        return None
    labels = min((each.labels for each in found), key=fewest)
    return replace(next((each for each in found if each.document == prefer), found[0]), labels=labels)


def _passages_of_id(connection: Connection, lookup: str, name: str, seen: Condition) -> list[Passage]:
    """One for each document that is `seen` and holds it, ordered by path."""
    match = _ID.fullmatch(name)
    first, more = (match["first"], int(match["more"] or 0)) if match else (name, 0)
    rows = connection.execute(
        f"SELECT {PASSAGE} FROM passages p {lookup} LEFT JOIN contents c ON c.id = p.content_id WHERE p.passage_id = ?",
        (first.encode(errors="replace").decode(),),  # half a character cannot be looked for
    ).fetchall()
    for row in rows:
        integrity.check_passage(row, *row[-2:])
    documents = documents_holding(connection, {row[1] for row in rows}, seen)
    found = []
    for row in rows:
        for path, labels in documents.get(row[1], {}).items():
            stored = integrity.content(connection, row[1])
            parts = [passage_of(row, row[-2], row[-1], {path: labels})]
            if more:
                all_of_it = passages_in(connection, stored, {path: labels})
                parts = all_of_it[(at := all_of_it.index(parts[0])) : at + 1 + more]
            if len(parts) == 1 + more:
                found.append(replace(joined(parts), header=table_header(stored.text, parts[0].start)))
    return sorted(found, key=lambda each: each.document)


def beginning_of(connection: Connection, content: int, chars: int) -> tuple[str, str]:
    """(title, text) of a content up to `chars` characters or a little more: as far as whole passages go."""
    title = text = ""
    for row in connection.execute(
        f"SELECT {PASSAGE} FROM passages p JOIN contents c ON c.id = p.content_id "
        "WHERE p.content_id = ? AND p.start_char < ? ORDER BY p.start_char",
        (content, chars),
    ):
        integrity.check_passage(row, *row[-2:])
        title, text = row[-2], text[: row[3]] + row[-1]  # they may overlap
    return title, text


def documents_holding(
    connection: Connection, contents: Collection[int], seen: Condition
) -> dict[int, dict[str, tuple[str, ...]]]:
    """The documents that are `seen`, by the content that they hold, with the labels that it takes to see each.

    Those are what it carries in this version, and what it carries now, or carried last.
    """
    cursor = connection.execute(
        f"SELECT d.* FROM documents d WHERE d.content_id IN (SELECT CAST(value AS BIGINT) FROM json_each(:contents)) AND {seen.sql}",
        {"contents": json.dumps(sorted(contents)), **seen.values},
    )
    rows = [integrity.check_document(cursor, row) for row in cursor]
    ids = json.dumps([row["identity"] for row in rows])
    sql = "SELECT id, labels FROM identities WHERE id IN (SELECT CAST(value AS BIGINT) FROM json_each(?))"
    now = dict(connection.execute(sql, (ids,)).fetchall())
    documents: dict[int, dict[str, tuple[str, ...]]] = {}
    for row in rows:
        labels = {*json.loads(row["labels"]), *json.loads(now[row["identity"]])}
        documents.setdefault(row["content_id"], {})[row["path"]] = tuple(sorted(labels))
    return documents


def passages_in(connection: Connection, stored: StoredContent, held_by: Mapping[str, tuple[str, ...]]) -> list[Passage]:
    """All passages of a content, in text order. Raises Damage when one is not what was stored."""
    rows = integrity.passages(connection, stored)
    return [passage_of(row, stored.title, stored.text[row[3] : row[4]], held_by) for row in rows]


# --- windows -------------------------------------------------------------------------------------------------------------


# What of a passage decides to which window it belongs: place, page and headings.
_Parts: TypeAlias = Sequence[Passage] | Sequence[PassageSpan]


def partition(passages: _Parts, limit: int = WINDOW_CHARS) -> list[range]:
    """Which passages of a document, given in text order, make each window: runs that cover all of them.

    A window has at most `limit` characters, or one passage. It lies on one page. A section that fits is not cut; one that does
    not is cut into windows of about one length. Small sections are joined with the siblings and subsections after them.
    """
    windows: list[range] = []
    first = 0
    for _, group in groupby(passages, key=attrgetter("page", "headings")):
        section = range(first, first + len(list(group)))
        first = section.stop
        if windows and _joins(passages, windows[-1], section, limit):
            windows[-1] = range(windows[-1].start, section.stop)
        else:
            windows += _cut(passages, section, limit)
    return windows


def _joins(passages: _Parts, window: range, section: range, limit: int) -> bool:
    before, after = passages[window.start], passages[section.start]
    above = before.headings[:-1]
    return (
        before.page == after.page
        and len(after.headings) >= len(before.headings)
        and above == after.headings[: len(above)]
        and passages[section.stop - 1].end - before.start <= limit
    )


def _cut(passages: _Parts, section: range, limit: int) -> list[range]:
    """A section in as few windows as will do, each about as long as the others."""
    size = passages[section.stop - 1].end - passages[section.start].start
    target = size / -(-size // limit)
    windows: list[range] = []
    start = section.start
    for at in section:
        begin = passages[start].start
        last = at + 1 == section.stop
        if last or passages[at].end - begin >= target or passages[at + 1].end - begin > limit:
            windows.append(range(start, at + 1))
            start = at + 1
    return windows


def _text(parts: Sequence[Passage]) -> str:
    """From the first to the last of passages that follow each other; they may overlap."""
    pieces, end = list[str](), parts[0].start
    for part in parts:
        pieces.append(part.text[max(end - part.start, 0) :])
        end = max(end, part.end)
    return "".join(pieces)


def joined(parts: Sequence[Passage]) -> Passage:
    """The window that passages of one document make, which follow each other."""
    first = parts[0]
    if len(parts) == 1:
        return first
    headings = first.headings
    while any(part.headings[: len(headings)] != headings for part in parts):
        headings = headings[:-1]
    return replace(
        first,
        id=f"{first.id}+{len(parts) - 1}",
        end=parts[-1].end,
        headings=headings,
        text=_text(parts),
        parts=tuple(part.digest for part in parts),
    )


def in_windows(passages: Sequence[Passage]) -> list[Passage]:
    """The windows that all passages of a document make."""
    return _windows(passages, partition(passages))


def _windows(passages: Sequence[Passage], runs: Iterable[range]) -> list[Passage]:
    """The windows of these runs, each with the header of the table that it begins in. `passages`: all of the document."""
    text = _text(passages) if passages else ""
    windows = [joined(passages[run.start : run.stop]) for run in runs]
    return [replace(window, header=table_header(text, window.start)) for window in windows]


def windows_around(connection: Connection, ranked: Sequence[RankedPassage], seen: Condition) -> list[Hit]:
    """The windows of the passages that were found, best first, each once, with the documents that are `seen` and hold it.

    Raises Damage when something is not there, or not what was stored.
    """
    holders = documents_holding(connection, {content for each in ranked for content in each.contents}, seen)
    marks = ", ".join(str(each.passage) for each in ranked) or "NULL"
    names = dict(iter(connection.execute(f"SELECT id, passage_id FROM passages WHERE id IN ({marks})")))
    found: dict[int, list[tuple[RankedPassage, dict[str, tuple[str, ...]]]]] = {}
    for each in ranked:
        # Contents of one text may differ in their headings: the one is taken whose document is the first by its path.
        holding = [content for content in each.contents if holders.get(content)]
        if not holding or each.passage not in names:
            raise Damage(f"the passage {each.passage}, or its document, is not there")
        chosen = min(holding, key=lambda content: min(holders[content]))
        held_by = dict(sorted(held for content in holding for held in holders[content].items()))
        found.setdefault(chosen, []).append((each, held_by))
    floor = min((each.score for each in ranked), default=0.0)
    hits = []
    for content, holding_it in found.items():
        passages = passages_in(connection, integrity.content(connection, content), holding_it[0][1])
        at = {passage.id: number for number, passage in enumerate(passages)}
        if any(names[each.passage] not in at for each, _ in holding_it):
            raise Damage(f"a passage of content {content} is not there")
        inside = [(run, [e for e, _ in holding_it if at[names[e.passage]] in run]) for run in partition(passages)]
        inside = [each for each in inside if each[1]]
        windows = _windows(passages, [run for run, _ in inside])
        hits += [_hit(window, members, floor) for window, (_, members) in zip(windows, inside, strict=True)]
    return sorted(hits, key=lambda hit: (-hit.score, hit.passage.id))


def _hit(window: Passage, inside: Sequence[RankedPassage], floor: float) -> Hit:
    """It counts as much as its best passage, and a little more for each further one that was found. `inside`: best first."""
    score = inside[0].score + MORE * sum(each.score - floor for each in inside[1:])
    dense = min((each.dense_rank for each in inside if each.dense_rank), default=None)
    words = min((each.bm25_rank for each in inside if each.bm25_rank), default=None)
    similar = max((each.similarity for each in inside if each.similarity is not None), default=None)
    return Hit(window, score, dense, words, similar)
