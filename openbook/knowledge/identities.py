"""Follows documents through renames: a document keeps its identity and its access labels while its text and name change.

A row of `identities` says where a document is, or was last, and who may see it.

1. `labels` are all access labels that it carries now, or carried last. They restrict every version of it.
2. `given` are those labels that were given to it directly, by `add --label`. Labels from the rule of a synced folder, from its own
   text or from its sidecar are not among them.
3. When a rename would lose a label of its text or sidecar, that label becomes a given one.
4. Given labels stay when the folder is synced, when versions are pruned, and when the document comes back to its path.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from openbook.knowledge.discovery import path_displayed
from openbook.knowledge.store import Connection
from openbook.records import Outcome

_UNUSED = "SELECT id FROM identities EXCEPT SELECT identity FROM documents"


@dataclass(frozen=True, slots=True)
class Identity:
    """`content_id`: the text that it has, or had last; None when no kept version has it."""

    id: int
    path: str
    labels: frozenset[str]
    given_labels: frozenset[str]
    content_id: int | None
    is_live: bool


@dataclass(frozen=True, slots=True)
class DocumentState:
    """What a version says about a document. Metadata and labels are JSON.

    `identity`: the document that is at its path, or was there last; None for a new one.
    """

    path: str
    content_id: int
    bytes: int
    stat: str
    metadata: str
    labels: str
    given_labels: str
    identity: int | None


@dataclass(frozen=True, slots=True)
class Change(DocumentState):
    """What the next version is to say about a document, whose content is stored."""

    outcome: Outcome


def identities(connection: Connection) -> list[Identity]:
    """All documents, by when they last came or changed; so of those that were at one path the live one is last."""
    rows = connection.execute(
        "SELECT i.id, i.path, i.labels, i.given, d.content_id, d.id IS NOT NULL AND d.removed_in IS NULL FROM identities i "
        "LEFT JOIN documents d ON d.id = (SELECT max(n.id) FROM documents n WHERE n.identity = i.id) "
        "ORDER BY coalesce(d.id, 0), i.id"
    )
    return [
        Identity(number, path, _labels(labels), _labels(given), content, bool(live))
        for number, path, labels, given, content, live in rows
    ]


@lru_cache(1_024)  # many documents carry the same
def _labels(stored: str) -> frozenset[str]:
    return frozenset(json.loads(stored))


def write_identity(connection: Connection, identity: int | None, path: str, labels: str, given: str) -> int:
    """Say where a document is now and what restricts it (labels as JSON); None makes a new one. Returns its id."""
    values = (path, labels, given)
    if identity is None:
        sql = "INSERT INTO identities (path, labels, given) VALUES (?, ?, ?) RETURNING id"
        return int(connection.execute(sql, values).fetchone()[0])
    connection.execute("UPDATE identities SET path = ?, labels = ?, given = ? WHERE id = ?", (*values, identity))
    return identity


def drop_unused_identities(connection: Connection) -> None:
    """Forget documents of which no version is kept, but for those whose labels wait for them to come back."""
    connection.execute(f"DELETE FROM identities WHERE given = '[]' AND id IN ({_UNUSED})")


def purge_identities(connection: Connection, paths: Iterable[str]) -> None:
    """Forget documents that were at `paths`, whose rows are deleted. What is left under an older name keeps its labels."""
    for path in paths:
        connection.execute(f"DELETE FROM identities WHERE path = ? AND id IN ({_UNUSED})", (path,))
        connection.execute(
            "UPDATE identities SET path = (SELECT path FROM documents d WHERE d.identity = identities.id ORDER BY d.id DESC LIMIT 1) "
            "WHERE path = ?",
            (path,),
        )
    drop_unused_identities(connection)


def follow_renames(
    known: Iterable[Identity],
    changes: Sequence[Change],
    removed: Collection[str],
    synced: tuple[str, ...],
    unlabel: frozenset[str],
    folder_labels: Callable[[str], frozenset[str]],
) -> Iterator[Change]:
    """The changes of a run. A text that left one path and came to another is the same document under a new name.

    1. A text leaves in this run when its path is `removed`, when its path has another text now, or when its path is in a `synced`
       folder and its file is gone. It may also have left a `synced` folder in an earlier run.
    2. Its labels go with it, so that a rename opens nothing: those given directly and all others, such as those of a sidecar that
       stayed behind. Those that `folder_labels` gives to its old path stay there, and those of `unlabel` are taken away.
    3. A text that comes with fewer labels than the document had is another document. Otherwise older versions would show to more
       people.
    """
    texts = {change.path: change.content_id for change in changes}
    wanted = set(texts.values())
    live: dict[str, Identity] = {}
    left, left_before = dict[int | None, list[Identity]](), dict[int | None, list[Identity]]()
    for each in known:
        if each.is_live:
            live[each.path] = each
            is_gone = each.path in removed or texts.get(each.path, each.content_id) != each.content_id
            if is_gone or (
                each.content_id in wanted
                and each.path.startswith(synced)
                and not os.path.lexists(path_displayed(each.path))
            ):
                left.setdefault(each.content_id, []).append(each)
        elif each.path.startswith(synced) and each.path not in texts:
            left_before.setdefault(each.content_id, []).append(each)
    renamed: set[int] = set()
    for change in changes:
        before = live.get(change.path)
        if before is None or before.content_id != change.content_id:
            came = left.get(change.content_id) or left_before.get(change.content_id, [])
            stated = _labels(change.labels)
            own = [each.labels - folder_labels(each.path) - stated for each in came]
            given = _labels(change.given_labels).union(*own, *(each.given_labels for each in came)) - unlabel
            labels = given | stated
            change = replace(change, labels=json.dumps(sorted(labels)), given_labels=json.dumps(sorted(given)))
            for each in came:
                is_renamed = each.path in removed if each.is_live else change.identity is None
                if is_renamed and each.id not in renamed and each.labels - unlabel <= labels:
                    renamed.add(each.id)
                    change = replace(change, identity=each.id)
                    break
        yield change
