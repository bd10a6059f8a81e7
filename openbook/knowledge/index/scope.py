"""The scope of a query: one version, matching documents, and the caller's labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from openbook.core.errors import QuestionError
from openbook.knowledge.index.filter_parser import parse_filter
from openbook.parsers.metadata import LABEL, not_a_label


@dataclass(frozen=True, slots=True)
class Scope:
    """The documents that a query may see.

    `as_of`: a kept version (default: the newest). `where`: a metadata filter, see `filter_parser`. `labels`: the caller must hold every label of
    a document: of the version asked, and of its current or last state under any name.
    """

    as_of: int | None = None
    where: str = ""
    labels: frozenset[str] = frozenset()


UNLABELLED = Scope()  # the newest version without a filter, for callers without labels: labeled documents are not in it


def checked_labels(labels: Iterable[str]) -> frozenset[str]:
    given = list(labels)
    for label in given:
        if not (isinstance(label, str) and LABEL.fullmatch(label)):
            raise QuestionError(f"{not_a_label(label)}.")
    return frozenset(given)


@dataclass(frozen=True, slots=True)
class Condition:
    sql: str
    values: dict[str, object]


def held_in(version: str) -> str:
    """SQL: true if a version, itself SQL, has the document `d`."""
    return f"d.added_in <= {version} AND (d.removed_in IS NULL OR d.removed_in > {version})"


def condition(scope: Scope | None, version: int) -> Condition:
    """The documents that `scope` sees in `version`; None sees all. Raises QuestionError for an invalid filter."""
    sql, values = held_in(":version"), dict[str, object](version=version)
    if scope is None:
        return Condition(sql, values)
    shown = visible_to(scope.labels, in_any_version=scope.as_of is not None)
    sql += f" AND {shown.sql}"
    values.update(shown.values)
    if scope.where:
        asked = parse_filter(scope.where)
        sql += f" AND ({asked.sql})"
        values.update(asked.values)
    return Condition(sql, values)


def visible_to(labels: frozenset[str], *, in_any_version: bool) -> Condition:
    """Documents without other labels. Without `in_any_version`, of the newest version alone."""
    names = [f"label{i}" for i in range(len(labels))]
    held = ", ".join(["''", *(f":{name}" for name in names)])  # no label is empty
    sql = f"(d.labels = '[]' OR NOT EXISTS (SELECT 1 FROM json_each(d.labels) WHERE value NOT IN ({held})))"
    if in_any_version:  # a later label restricts older versions too
        # Of that document alone, so that timing does not reveal its presence.
        sql += (
            " AND NOT EXISTS (SELECT 1 FROM identities i, json_each(i.labels) l "
            f"WHERE i.id = d.identity AND i.labels <> '[]' AND l.value NOT IN ({held}))"
        )
    return Condition(sql, dict(zip(names, sorted(labels), strict=True)))
