"""The parameters of an address. Each must be known, given once and within its bounds."""

from __future__ import annotations

from typing import TypeVar

from starlette.requests import Request

from openbook.serving.bodies import ListQuery, Query, unknown_parameter, validated
from openbook.serving.service import check_at_most

_Query = TypeVar("_Query", bound=Query)


def query_of(request: Request, kind: type[_Query]) -> _Query:
    """Raises Refusal for a parameter that is unknown, comes twice or is wrong."""
    found: dict[str, str] = {}
    for key, value in request.query_params.multi_items():
        if key in found:
            raise unknown_parameter(key)
        found[key] = value
    return validated(kind, found)


def limit_of(query: ListQuery, most: int, default: int | None = None) -> int:
    """How many entries to list. Raises Refusal for more than `most`."""
    limit = query.limit or default or most
    check_at_most(limit, most, "limit")
    return limit
