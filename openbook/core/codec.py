"""JSON to typed records. Types are strict; unknown and repeated keys are errors."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

import msgspec

from openbook.core.errors import did_you_mean

T = TypeVar("T")
_KINDS = {
    "str": "text",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}


def parse_json(data: str | bytes, where: str, error: type[Exception]) -> Any:
    """`where` begins the error message: `manifest.json`, `Line 1 of x`."""
    try:
        return json.loads(data if isinstance(data, str) else data.decode(), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as reason:
        raise error(f"{where} is not a JSON document: {str(reason)[:200]}.") from reason


def convert(value: object, kind: type[T], where: str, error: type[Exception]) -> T:
    """Parsed JSON as a record of `kind`: a dataclass of plain values, records, tuples and mappings.

    Law: `convert(json.loads(json.dumps(asdict(x))), type(x), ...) == x`. A ValueError of `__post_init__` becomes an
    `error`.
    """
    try:
        record = msgspec.convert(value, kind)
    except msgspec.ValidationError as reason:
        raise error(_in_our_words(str(reason), value, where)) from reason
    except UnicodeEncodeError as reason:
        raise error(f"{where} has a key with half of a character: {reason.object[:80]!r}.") from reason
    _refuse_unknown_keys(value, record, where, "", error)
    return record


def decode(data: str | bytes, kind: type[T], where: str, error: type[Exception]) -> T:
    return convert(parse_json(data, where, error), kind, where, error)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `json.loads`: raises ValueError for a repeated key."""
    value = dict(pairs)
    if len(value) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"duplicate key {twice[:80]!r} in a JSON object")
    return value


def _place_in(where: str, place: str) -> str:
    """`manifest.json.files[0]`, or after a phrase `Line 1 of x: files[0]`."""
    return f"{where}: {place.removeprefix('.')}" if place and " " in where else where + place


def _in_our_words(reason: str, value: Any, where: str) -> str:
    """``Expected `int`, got `str` - at `$.p.a` `` becomes `it.p.a must be an integer, not 'x'.`"""
    what, _, place = reason.partition(" - at `$")
    place = place.rstrip("`")
    there = _place_in(where, place)
    if lacking := re.fullmatch(r"Object missing required field `(.*)`", what):
        return f"{there} lacks the key {lacking[1]!r}."
    if "[...]" in place:  # somewhere in a mapping
        return f"{there}: {what}."
    for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", place):
        value = value[int(index) if index else key]
    if what.startswith("Expected "):
        kind = what.removeprefix("Expected ").partition(", got ")[0]
        kind = re.sub(r"`(.+?)`", lambda name: _KINDS.get(name[1], name[1]), kind)
        return f"{there} must be {kind}, not {repr(value)[:60]}."
    if what.startswith("Invalid enum value"):
        return f"{there} cannot be {repr(value)[:60]}."
    return f"{there}: {what}."


@cache
def _field_names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _refuse_unknown_keys(value: Any, record: Any, where: str, place: str, error: type[Exception]) -> None:
    if is_dataclass(record):
        kind: Any = type(record)
        names = _field_names(kind)
        for key, inner in value.items():
            if key not in names:
                hint = did_you_mean(str(key), names)
                raise error(f"{_place_in(where, place)} has the unknown key {str(key)[:80]!r}.{hint}")
            _refuse_unknown_keys(inner, getattr(record, key), where, f"{place}.{key}", error)
    elif isinstance(record, Mapping):
        for key, inner in zip(value, record.values(), strict=True):
            _refuse_unknown_keys(value[key], inner, where, f"{place}.{key}", error)
    elif isinstance(value, list) and isinstance(record, Sequence):
        for at, (each, inner) in enumerate(zip(value, record, strict=True)):
            _refuse_unknown_keys(each, inner, where, f"{place}[{at}]", error)
