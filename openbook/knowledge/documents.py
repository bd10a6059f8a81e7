"""Documents looked at one by one: their outline, their history, examples of what to ask about them, and files that are no documents."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Literal, TypeAlias

from openbook.core.errors import UnknownVersion
from openbook.core.records import HeadingMark, PassageSpan, Receipt
from openbook.knowledge.base import KnowledgeBase
from openbook.knowledge.cite.passages import first_headings
from openbook.knowledge.index.scope import Scope, condition, visible_to
from openbook.knowledge.store import integrity
from openbook.knowledge.store.schema import IDS
from openbook.knowledge.synced_folders import folder_labels

_LOOKED_AT = 4  # documents for each example
_PASSAGES = 64  # at the beginning of each
_HEADING_WORDS = range(2, 11)


def page_starts(spans: Sequence[PassageSpan]) -> list[tuple[int, int]]:
    """(page number, its offset in the text) for each page with text, in order."""
    begins: dict[int, int] = {}
    for span in spans:
        if span.page is not None:
            begins.setdefault(span.page, span.start)
    return list(begins.items())


def headings_between(text: str, spans: Sequence[PassageSpan], start: int, end: int) -> list[HeadingMark]:
    """The headings from `start` up to, but not in, `end`, as far as passages know them: they share small sections."""
    found: list[HeadingMark] = []
    for before, span in pairwise([PassageSpan(0, 0, None, ()), *spans]):
        if span.end <= start or before.start >= end:
            continue
        same = takewhile(lambda pair: pair[0] == pair[1], zip(before.headings, span.headings, strict=False))
        known = len(list(same))
        at = found[-1].start + 1 if found else before.start
        for level, title in enumerate(span.headings[known:], known + 1):
            # On a line of its own, perhaps after marks or a number, in this passage or at the end of the one before.
            words = r"\s+".join(map(re.escape, title.split()))
            line = re.compile(rf"^[^\n]{{0,20}}?{words}", re.MULTILINE)
            match = line.search(text, max(at, span.start), span.end) or line.search(text, at, span.end)
            begin = match.start() if match else max(at, span.start)
            found.append(HeadingMark(begin, level, title))
            at = match.end() if match else begin
    return [each for each in found if start <= each.start < end]


Change: TypeAlias = Literal["added", "changed", "removed", "metadata"]


@dataclass(frozen=True, slots=True)
class DocumentChange:
    """What a version did to a document. `characters`: of its text in that version. `metadata`: it has other metadata or labels."""

    version: int
    created_at: str
    change: Change
    characters: int


def document_history(base: KnowledgeBase, path: str, labels: frozenset[str]) -> list[DocumentChange]:
    """The changes of a document between kept versions that a caller with these labels may see, newest first."""
    with base.snapshot() as connection:
        shown = visible_to(labels, in_any_version=True)
        name = path.encode(errors="replace").decode()  # lone surrogates cannot be looked for
        values = {"path": name, **shown.values}
        rows = integrity.documents(connection, f"d.path = :path AND {shown.sql} ORDER BY d.added_in", values)
        sizes = connection.execute(
            f"SELECT content_id, max(end_char) FROM passages WHERE content_id IN {IDS} GROUP BY content_id",
            {"ids": json.dumps([row.content_id for row in rows])},
        )
        characters = dict(sizes.fetchall())
        kept = connection.execute("SELECT version, created_at FROM versions ORDER BY version").fetchall()
    added = [row.added_in for row in rows]
    found: list[DocumentChange] = []
    before = None
    for version, created_at in kept:
        place = bisect_right(added, version) - 1
        now = rows[place] if place >= 0 and (rows[place].removed_in or version + 1) > version else None
        if now is None and before is not None:
            found.append(DocumentChange(version, created_at, "removed", 0))
        elif now is not None and now is not before:
            is_changed = before is not None and before.content_id != now.content_id
            is_same = before is not None and before[3:5] == now[3:5]  # its metadata and labels
            change: Change = "added" if before is None else "changed" if is_changed else "metadata"
            if is_changed or not is_same:
                found.append(DocumentChange(version, created_at, change, characters.get(now.content_id, 0)))
        before = now
    return found[::-1]


def examples(base: KnowledgeBase, scope: Scope, limit: int) -> list[tuple[str, str]]:
    """Up to `limit` pairs (document, one of its headings), of documents from all over `scope`, the same for the same version.

    The heading is empty for documents without a heading of 2 to 10 words, which come last.
    """
    with base.snapshot() as connection:
        seen = condition(scope, base.kept_version(scope.as_of))
        in_order = (
            "SELECT d.path, d.content_id, row_number() OVER (ORDER BY d.path) AS place, count(*) OVER () AS total "
            f"FROM documents d WHERE {seen.sql}"
        )
        rows = connection.execute(
            f"SELECT path, content_id FROM ({in_order}) AS listed "
            "WHERE place * :most / total <> (place - 1) * :most / total ORDER BY place",
            {"most": _LOOKED_AT * limit, **seen.values},
        )
        first_at = {content: path for path, content in reversed(rows.fetchall())}
        headings: dict[str, list[str]] = {}
        for content, path in reversed(first_at.items()):
            title, several = first_headings(connection, content, _PASSAGES)
            known = {title.casefold(), Path(path).stem.casefold()}
            headings[path] = [h for h in several if len(h.split()) in _HEADING_WORDS and h.casefold() not in known]
    often = Counter(heading for several in headings.values() for heading in several)
    pairs = [(path, min(several, key=lambda each: often[each])) for path, several in headings.items() if several]
    without = [(path, "") for path, several in headings.items() if not several]
    return [*_spread(pairs, limit), *_spread(without, limit - min(len(pairs), limit))]


def _spread(pairs: Sequence[tuple[str, str]], most: int) -> list[tuple[str, str]]:
    return [pairs[number * len(pairs) // most] for number in range(most)] if len(pairs) > most else list(pairs)


@dataclass(frozen=True, slots=True)
class RefusedFile:
    """A file that is not in the knowledge base, or only with an older text."""

    path: str
    outcome: Literal["skipped", "failed"]
    reason: str
    tried_at: str


def refused_files(base: KnowledgeBase, labels: frozenset[str]) -> list[RefusedFile]:
    """By path; without files that are or were documents, or lie in synced folders, that these labels do not open."""
    with base.snapshot() as connection:
        shown = visible_to(labels, in_any_version=True)
        sql = f"SELECT d.path FROM documents d JOIN verdicts v ON v.path = d.path WHERE NOT ({shown.sql})"
        hidden = {path for (path,) in connection.execute(sql, shown.values)}
        closed = connection.execute("SELECT path, labels FROM identities WHERE labels <> '[]'")
        hidden.update(path for path, needed in closed if not labels.issuperset(json.loads(needed)))
        around = folder_labels(base)
        rows = connection.execute("SELECT path, outcome, reason, tried_at FROM verdicts ORDER BY path").fetchall()
    return [RefusedFile(*row) for row in rows if row[0] not in hidden and around(f"{row[0]}/") <= labels]


def may_see(base: KnowledgeBase | None, receipt: Receipt, labels: Collection[str]) -> bool:
    documents = {passage.document for passage in receipt.passages}
    return not documents or (base is not None and sees(base, documents, receipt.knowledge_base_version, labels))


def sees(base: KnowledgeBase, documents: Collection[str], version: int | None, labels: Collection[str]) -> bool:
    """True if these labels open all documents in `version`, or in the newest if it is not kept."""
    scope = Scope(labels=frozenset(labels))
    with suppress(UnknownVersion):
        scope = replace(scope, as_of=base.kept_version(version))
    return all(base.holds(each, scope) for each in documents)
