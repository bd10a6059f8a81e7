"""Records (dataclasses) from the JSON that `dataclasses.asdict` and `json` make of them."""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

_Record = TypeVar("_Record")


def record_of(kind: type[_Record], value: object) -> _Record:
    """Law: `record_of(type(x), json.loads(json.dumps(asdict(x)))) == x`, for fields of plain values, records, tuples and mappings.

    Raises ValueError with the name of the field that does not fit.
    """
    if not (is_dataclass(kind) and isinstance(value, Mapping)):
        raise ValueError(f"no {kind.__name__}: {ascii(value)[:60]}")
    hints, wanted = _hints(kind), {field.name: field for field in fields(kind)}
    if unknown := value.keys() - wanted.keys():
        raise ValueError(f"{kind.__name__} has no field {sorted(map(str, unknown))[0][:60]!r}")
    found = {}
    for name, field in wanted.items():
        if name in value:
            found[name] = _value_of(hints[name], value[name], f"{kind.__name__}.{name}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{kind.__name__} needs {name!r}")
    return cast(_Record, kind(**found))


@functools.cache  # they are computed from source text, which takes longer than reading a record
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _value_of(kind: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Literal and value in inner:
        return value
    if origin in (Union, types.UnionType):
        return None if value is None and type(None) in inner else _value_of(inner[0], value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_value_of(inner[0], each, where) for each in value)
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {_value_of(inner[0], key, where): _value_of(inner[1], each, where) for key, each in value.items()}
    if is_dataclass(kind):
        return record_of(cast(Any, kind), value)
    if kind is float and type(value) is int:
        return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    raise ValueError(f"{where} cannot be {ascii(value)[:60]}")
