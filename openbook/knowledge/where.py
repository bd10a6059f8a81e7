"""A filter over documents' metadata: `date >= 2025-01-01 and type = 'pdf' and not status in ('draft', 'old')`.

    filter   any of `or`, `and`, `not`, ( ), in rising order of how strongly they bind
    term     key = value, with = != < <= > >=
             key in (value, value, ...)
             key contains 'text'     a part of a text, or a whole item of a list; capitals do not matter
             key matches 'docs/*.md' all of a text, or of an item of a list; * is any run of characters, ? is any one
             exists key, key exists
    value    'text' or "text" (the quote doubled inside), a number, true, false, a date such as 2025-01-31

A term is true only for a document that has the key with a value of the same kind: text against text, number against
number. For all others it is false, `!=` too, and its `not` is true. Nothing is converted: '8' is not 8. Text compares
by code points, capitals before small letters. Lists have no order and no equality: use `contains` or `matches`.

A date without quotes (2025-01, 2025-01-31, 2025-01-31T10:30, with Z or +01:00; 2025 too) compares with a text that is
an ISO 8601 date, to the precision that both have: `date = 2025-01` is true of 2025-01-31T10:00:00+00:00, and
`date >= 2025-01-31` of 2025. Times with a zone are compared in UTC, as they are stored.

A filter becomes SQL whose values and keys are bound parameters; nothing of the user's text is in the statement.
"""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from openbook.knowledge.where_syntax import Date, Exists, Group, Node, Not, Parser, Term, Value
from openbook.records import MetadataValue

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Where:
    """A filter that was read. Law: `sql` selects exactly the rows that `matches` is true of."""

    text: str
    tree: Node

    def keys(self) -> tuple[str, ...]:
        """The keys it asks for, sorted: what to warn of when no document has one."""
        return tuple(sorted(set(_keys(self.tree))))

    def sql(self) -> tuple[str, dict[str, object]]:
        """A condition on the column `d.metadata` (a JSON object as text) and its parameters, named `where_...`."""
        parameters: dict[str, object] = {}
        return _sql(self.tree, parameters), parameters

    def matches(self, metadata: Mapping[str, MetadataValue]) -> bool:
        """What the filter means."""
        return _matches(self.tree, metadata)


def parse(text: str) -> Where:
    """Raises QuestionError, which shows the place, for what is no filter."""
    return Where(text, Parser(text).filter())


def _keys(node: Node) -> list[str]:
    if isinstance(node, Not):
        return _keys(node.part)
    if isinstance(node, Group):
        return [key for part in node.parts for key in _keys(part)]
    return [node.key]


# --- what it means ----------------------------------------------------------------------------------------------------

_ISO_DATE = re.compile(r"[0-9]{4}(?:-[0-9]{2}(?:-[0-9]{2}(?:T.*)?)?)?", re.DOTALL)


def _matches(node: Node, metadata: Mapping[str, MetadataValue]) -> bool:
    if isinstance(node, Not):
        return not _matches(node.part, metadata)
    if isinstance(node, Group):
        return (all if node.kind == "all" else any)(_matches(part, metadata) for part in node.parts)
    if node.key not in metadata:
        return False
    return isinstance(node, Exists) or _holds(node, metadata[node.key])


def _holds(term: Term, found: MetadataValue) -> bool:
    if term.comparison in ("contains", "matches"):
        items = (found,) if isinstance(found, str) else found if isinstance(found, tuple | list) else ()
        part = term.comparison == "contains" and isinstance(found, str)
        return any(_looks(term, part=part).match(item) is not None for item in items)
    compare = _ORDER[term.comparison]
    if isinstance(found, str):
        day = _as_date(term.value)
        if day is not None and _ISO_DATE.fullmatch(found):
            both = min(len(found), len(day.text))
            return compare(found[:both], day.text[:both])
        return isinstance(term.value, str) and compare(found, term.value)
    if isinstance(found, bool) or isinstance(term.value, bool):
        return isinstance(found, bool) and isinstance(term.value, bool) and compare(found, term.value)
    return isinstance(found, int | float) and isinstance(term.value, int | float) and compare(found, term.value)


def _as_date(value: Value) -> Date | None:
    """A date, or a number that can be a year."""
    if isinstance(value, int) and not isinstance(value, bool) and 1000 <= value <= 9999:
        return Date(str(value))
    return value if isinstance(value, Date) else None


def _looks(term: Term, *, part: bool) -> re.Pattern[str]:
    text = cast(str, term.value)
    if term.comparison == "matches":
        return re.compile(fnmatch.translate(text.replace("[", "[[]")))
    body = "".join(f"[{''.join(map(re.escape, _cases(c)))}]" for c in text)
    return re.compile(f".*?{body}" if part else rf"{body}\Z", re.DOTALL)


def _cases(character: str) -> list[str]:
    """A character in capitals and small: those forms of it that are one character."""
    forms = {form for c in (character, character.lower(), character.upper()) for form in (c, c.lower(), c.upper())}
    return sorted(form for form in forms if len(form) == 1)


# --- the same in SQL --------------------------------------------------------------------------------------------------

_DATE_GLOBS = (
    "[0-9][0-9][0-9][0-9]",
    "[0-9][0-9][0-9][0-9]-[0-9][0-9]",
    "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]",
    "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T*",
)
_IS_DATE = " OR ".join(f"{{value}} GLOB '{glob}'" for glob in _DATE_GLOBS)


def _sql(node: Node, parameters: dict[str, object]) -> str:
    if isinstance(node, Not):
        return f"NOT {_sql(node.part, parameters)}"
    if isinstance(node, Group):
        return f"({(' AND ' if node.kind == 'all' else ' OR ').join(_sql(part, parameters) for part in node.parts)})"
    # A key is letters, digits and _ alone, so that in a path it is one member's name and nothing else.
    path = _bind(parameters, f'$."{node.key}"')
    kind, value = f"json_type(d.metadata, {path})", f"json_extract(d.metadata, {path})"
    if isinstance(node, Exists):
        return f"({kind} IS NOT NULL)"
    return f"(({_term_sql(node, path, kind, value, parameters)}) IS TRUE)"  # a missing key gives NULL


def _term_sql(term: Term, path: str, kind: str, value: str, parameters: dict[str, object]) -> str:
    sign = term.comparison
    if sign in ("contains", "matches"):
        inner, whole = (_bind(parameters, _glob(term, part=part)) for part in (True, False))
        item = f"SELECT 1 FROM json_each(d.metadata, {path}) i WHERE i.type = 'text' AND i.value GLOB {whole}"
        return f"CASE {kind} WHEN 'text' THEN {value} GLOB {inner} WHEN 'array' THEN EXISTS ({item}) END"
    if isinstance(term.value, bool):
        return f"{kind} IN ('true', 'false') AND {value} {sign} {_bind(parameters, int(term.value))}"
    found = []
    if (day := _as_date(term.value)) is not None:
        asked = _bind(parameters, day.text)
        both = f"min(length({value}), length({asked}))"
        found.append(
            f"{kind} = 'text' AND ({_IS_DATE.format(value=value)}) "
            f"AND substr({value}, 1, {both}) {sign} substr({asked}, 1, {both})"
        )
    if not isinstance(term.value, Date):
        kinds = "('text')" if isinstance(term.value, str) else "('integer', 'real')"
        found.append(f"{kind} IN {kinds} AND {value} {sign} {_bind(parameters, term.value)}")
    return " OR ".join(found)


def _glob(term: Term, *, part: bool) -> str:
    text = cast(str, term.value)
    if term.comparison == "matches":
        return text.replace("[", "[[]")
    forms = ((c, _cases(c)) for c in text)
    body = "".join(f"[{''.join(cases)}]" if len(cases) > 1 or c in "*?[" else c for c, cases in forms)
    return f"*{body}*" if part else body


def _bind(parameters: dict[str, object], value: object) -> str:
    name = f"where_{len(parameters)}"
    parameters[name] = value
    return f":{name}"
