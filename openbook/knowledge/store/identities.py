"""Documents followed through renames, with their identity and access labels.

A row of `identities` says where a document is, or was last, and who may see it.

1. `labels` are all access labels of its current or last state. They restrict every version of it.
2. `given` are labels given directly, by `add --require-label`: not from a synced folder, its text or its sidecar.
3. When a rename would lose a label of its text or sidecar, that label becomes a given one.
4. Given labels survive syncs, pruning, and the document's return to its path.
5. Restoring an older name moves no file. A separate row keeps the labels at the newer name until a file comes there again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from openbook.core.records import Outcome
from openbook.knowledge.store.interface import Connection
from openbook.knowledge.store.names import path_displayed
from openbook.sources.registry import is_address

_UNUSED = "SELECT id FROM identities EXCEPT SELECT identity FROM documents"


class Identity(NamedTuple):
    """A document. `content_id`: its current or last text; None when no kept version has it."""

    id: int
    path: str
    labels: frozenset[str]
    given_labels: frozenset[str]
    content_id: int | None
    is_live: bool


@dataclass(frozen=True, slots=True)
class Change:
    """A document's row in the next version. Its content is stored; metadata and labels are JSON.

    `identity`: the current or last document at its path; None for a new one. `split_from`: a document now elsewhere whose rows at this path
    become this one's. `taken_over`: labels of lost documents, of which this may be one.
    """

    path: str
    content_id: int
    bytes: int
    stat: str
    metadata: str
    labels: str
    given_labels: str
    identity: int | None
    outcome: Outcome
    split_from: int | None = None
    taken_over: tuple[str, ...] = ()


def identities(connection: Connection) -> list[Identity]:
    """All documents by their last change: at one path, the live one is last."""
    rows = connection.execute(
        "SELECT i.id, i.path, i.labels, i.given, d.content_id, d.id IS NOT NULL AND d.removed_in IS NULL FROM identities i "
        "LEFT JOIN documents d ON d.id = (SELECT max(n.id) FROM documents n WHERE n.identity = i.id) "
        "ORDER BY coalesce(d.id, 0), i.id"
    )
    return [
        Identity(number, path, stored_labels(labels), stored_labels(given), content, bool(live))
        for number, path, labels, given, content, live in rows
    ]


@lru_cache(1_024)  # many documents carry the same labels
def stored_labels(stored: str) -> frozenset[str]:
    return frozenset(json.loads(stored))


def write_identity(connection: Connection, identity: int | None, path: str, labels: str, given: str) -> int:
    """Write a document's path and labels (JSON). Returns its id; None makes a new one."""
    values = (path, labels, given)
    if identity is None:
        sql = "INSERT INTO identities (path, labels, given) VALUES (?, ?, ?) RETURNING id"
        return int(connection.execute(sql, values).fetchone()[0])
    connection.execute("UPDATE identities SET path = ?, labels = ?, given = ? WHERE id = ?", (*values, identity))
    return identity


def waiting_names(connection: Connection) -> dict[str, int]:
    """The last document at each path that a restore left."""
    rows = connection.execute(
        "SELECT d.path, d.identity FROM documents d JOIN identities i ON i.id = d.identity WHERE i.path <> d.path AND d.path IN "
        f"(SELECT path FROM identities WHERE id IN ({_UNUSED})) ORDER BY d.id"
    )
    return dict(rows.fetchall())


def leave_names(connection: Connection, known: Iterable[Identity], restored: Collection[Change]) -> None:
    """Keep the labels of documents at their current paths before `restored` moves them to older ones."""
    moved = {change.identity: change.path for change in restored}
    there = {change.path for change in restored}
    for each in known:
        if moved.get(each.id, each.path) != each.path and each.path not in there:
            labels, given = (json.dumps(sorted(which)) for which in (each.labels, each.given_labels))
            write_identity(connection, None, each.path, labels, given)


def drop_returned_names(connection: Connection) -> None:
    """Forget waiting labels at paths where a document has taken them over."""
    live = "SELECT path FROM documents WHERE removed_in IS NULL"
    connection.execute(f"DELETE FROM identities WHERE id IN ({_UNUSED}) AND path IN ({live})")


def drop_unused_identities(connection: Connection) -> None:
    """Forget documents without a kept version, unless their given labels wait for their return."""
    unused = f"given = '[]' AND id IN ({_UNUSED}) AND path NOT IN (SELECT path FROM documents)"
    connection.execute(f"DELETE FROM identities WHERE {unused}")


def purge_identities(connection: Connection, paths: Iterable[str]) -> None:
    """Forget documents at `paths`, whose rows are deleted. What remains under an older name keeps its labels."""
    for path in paths:
        connection.execute(f"DELETE FROM identities WHERE path = ? AND id IN ({_UNUSED})", (path,))
        connection.execute(
            "UPDATE identities SET path = (SELECT path FROM documents d WHERE d.identity = identities.id ORDER BY d.id DESC LIMIT 1) "
            "WHERE path = ?",
            (path,),
        )
    drop_unused_identities(connection)


@dataclass(frozen=True, slots=True)
class RunChanges:
    """A run's changes by path.

    `removed`: paths of removed documents; `synced`: path prefixes of synced folders; `unlabel`: labels to take away; `folder_labels`: the labels
    that synced folders give to a path.
    """

    changes: Mapping[str, Change]
    removed: Collection[str]
    synced: tuple[str, ...]
    unlabel: frozenset[str]
    folder_labels: Callable[[str], frozenset[str]]

    @property
    def texts(self) -> set[int | None]:
        return {change.content_id for change in self.changes.values()}

    def ends(self, document: Identity) -> bool:
        """True if a live document's text leaves its path."""
        change = self.changes.get(document.path)
        is_replaced = change is not None and change.content_id != document.content_id
        return document.is_live and (document.path in self.removed or is_replaced)

    def own_labels(self, document: Identity) -> frozenset[str]:
        """The labels that it would lose with its path, unlike those of the folders around it."""
        return document.labels - self.folder_labels(document.path) - self.unlabel


def follow_renames(known: Sequence[Identity], waiting: Mapping[str, int], run: RunChanges) -> Iterator[Change]:
    """The changes of a run. A text that left one path and came to another is the same document, renamed.

    1. A text leaves when its path is removed or has another text, or when its file in a synced folder is gone, now or in an earlier run. From a
       synced folder it is followed only to synced folders.
    2. Its labels go with it, so that a rename opens nothing: given ones and others, such as those of a sidecar left behind. Labels of the
       folders around its old path stay there.
    3. A text with fewer labels than the document had is another document. Otherwise older versions would show to more people.
    4. What comes to a path of `waiting` is the last document there. If that is now elsewhere, it is another document, and takes all rows at
       this path.
    5. Where a labeled file of a synced folder is gone and its text came nowhere, each new text in that folder takes over the labels: it may
       be that document, renamed and edited.
    """
    live = {each.path: each for each in known if each.is_live}
    left, lost = _left(known, run), _lost_labels(known, run)
    renamed: set[int] = set()
    others: list[Change] = []
    for change in run.changes.values():
        before = live.get(change.path)
        if before is not None and before.content_id == change.content_id:
            yield change
            continue
        came = left.get(change.content_id, [])
        if not change.path.startswith(run.synced):
            came = [each for each in came if run.ends(each)]
        stated = stored_labels(change.labels)
        for each in came:
            change = _labelled(change, (run.own_labels(each) - stated) | (each.given_labels - run.unlabel))
        for each in came:
            is_renamed = each.path in run.removed if each.is_live else change.identity is None
            if is_renamed and each.id not in renamed and each.labels - run.unlabel <= stored_labels(change.labels):
                renamed.add(each.id)
                yield replace(change, identity=each.id)
                break
        else:
            if not came and change.outcome == "added":
                taken = frozenset[str]().union(*(lost[folder] for folder in lost if change.path.startswith(folder)))
                change = replace(_labelled(change, taken), taken_over=tuple(sorted(taken - stated)))
            others.append(change)
    last_at = {each.id: each for each in known}
    for change in others:
        if change.path in waiting and change.path not in live:
            last = last_at[waiting[change.path]]
            change = _labelled(change, last.given_labels - run.unlabel)
            is_elsewhere = last.id in renamed or (last.is_live and last.path not in run.removed)
            change = replace(change, split_from=last.id) if is_elsewhere else replace(change, identity=last.id)
        yield change


def _left(known: Iterable[Identity], run: RunChanges) -> dict[int | None, list[Identity]]:
    wanted = run.texts
    now, before = dict[int | None, list[Identity]](), dict[int | None, list[Identity]]()
    for each in known:
        is_synced = each.content_id in wanted and each.path.startswith(run.synced)
        if run.ends(each) or (each.is_live and is_synced and _is_gone(each.path)):
            now.setdefault(each.content_id, []).append(each)
        elif not each.is_live and is_synced and each.path not in run.changes:
            before.setdefault(each.content_id, []).append(each)
    return before | now


def _lost_labels(known: Iterable[Identity], run: RunChanges) -> dict[str, frozenset[str]]:
    """For each synced folder with a new document: the labels of documents whose file is gone and whose text came nowhere."""
    wanted = run.texts
    came = [change.path for change in run.changes.values() if change.outcome == "added"]
    lost = {folder: frozenset[str]() for folder in run.synced if any(path.startswith(folder) for path in came)}
    for each in known if lost else ():
        own, is_elsewhere = run.own_labels(each), each.content_id in wanted or each.path in run.changes
        if each.is_live and own and not is_elsewhere and _is_gone(each.path):
            lost |= {folder: lost[folder] | own for folder in lost if each.path.startswith(folder)}
    return lost


def _labelled(change: Change, given: frozenset[str]) -> Change:
    labels, already = (json.dumps(sorted(stored_labels(each) | given)) for each in (change.labels, change.given_labels))
    return replace(change, labels=labels, given_labels=already)


def _is_gone(path: str) -> bool:
    """Only a sync can tell whether an item is still at its source."""
    return not is_address(path) and not os.path.lexists(path_displayed(path))
