"""Documents that come to another name: which one a text that moved belongs to, and the labels that go with it."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from openbook.knowledge.identities import Identity, identities
from openbook.knowledge.intake import Change


def follow_renames(
    connection: sqlite3.Connection,
    changes: Sequence[Change],
    removed: Collection[str],
    synced: tuple[str, ...],
    unlabel: frozenset[str],
) -> Iterator[Change]:
    """The changes of a run, in which a text that left one path and came to another is the same document under a new name.

    It left in this run when its path is `removed`, has another text now, or is of a `synced` folder and its file is gone.
    Otherwise it may have left a path in a `synced` folder in an earlier run. Labels given by name go with the text, so that
    neither its old path nor the text opens. What carries fewer labels than a document did is not that document: it would open
    the past.
    """
    texts = {change.path: change.content_id for change in changes}
    wanted = set(texts.values())
    live: dict[str, Identity] = {}
    left, left_before = dict[int | None, list[Identity]](), dict[int | None, list[Identity]]()
    for each in identities(connection):
        if each.is_live:
            live[each.path] = each
            is_gone = each.path in removed or texts.get(each.path, each.content_id) != each.content_id
            if is_gone or (
                each.content_id in wanted and each.path.startswith(synced) and not os.path.lexists(each.path)
            ):
                left.setdefault(each.content_id, []).append(each)
        elif each.path.startswith(synced) and each.path not in texts:
            left_before.setdefault(each.content_id, []).append(each)
    renamed: set[int] = set()
    for change in changes:
        before = live.get(change.path)
        if before is None or before.content_id != change.content_id:
            came = left.get(change.content_id) or left_before.get(change.content_id, [])
            given = frozenset(json.loads(change.given_labels)).union(*(each.given for each in came)) - unlabel
            labels = given.union(json.loads(change.labels))
            change = replace(change, labels=json.dumps(sorted(labels)), given_labels=json.dumps(sorted(given)))
            for each in came:
                is_renamed = each.path in removed if each.is_live else change.identity is None
                if is_renamed and each.id not in renamed and each.labels - unlabel <= labels:
                    renamed.add(each.id)
                    change = replace(change, identity=each.id)
                    break
        yield change
