"""The parameters of an address: each known, each once, each within its bounds."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request

from openbook.serving.refusals import Refusal
from openbook.serving.service import check_at_most

_MOST_DIGITS = 13


def query_of(request: Request, known: set[str]) -> dict[str, str]:
    """The parameters of the address. Raises Refusal for one that is unknown or comes twice."""
    found: dict[str, str] = {}
    for key, value in request.query_params.multi_items():
        if key not in known or key in found:
            message = f"Unrecognized request argument supplied: {key[:60]}"
            raise Refusal(400, message, code="unknown_parameter", param=key[:60])
        found[key] = value
    return found


def needed(query: Mapping[str, str], name: str) -> str:
    """Raises Refusal when it is not there, or empty."""
    if not query.get(name):
        message = f"Missing required parameter: {name!r}."
        raise Refusal(400, message, code="missing_required_parameter", param=name)
    return query[name]


def number(query: Mapping[str, str], name: str, *, most: int, default: int | None = None, least: int = 1) -> int:
    """A whole number from `least` to `most`, which is the default unless another is given. Raises Refusal."""
    if name not in query:
        return most if default is None else default
    text = query[name]
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS and int(text) >= least):
        message = f"Invalid value for {name!r}: a whole number from {least}."
        raise Refusal(400, message, code="invalid_value", param=name)
    check_at_most(int(text), most, name)
    return int(text)
