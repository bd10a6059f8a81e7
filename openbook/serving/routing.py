"""`Endpoint`: one row of the table of routes, with all that its description says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel
from starlette.requests import Request
from starlette.types import ASGIApp

from openbook.serving.bodies import Query
from openbook.serving.keys import Right
from openbook.serving.replies import Error
from openbook.serving.service import Service

JSON = "application/json"
FORM = "multipart/form-data"
PNG = "image/png"

Handler: TypeAlias = Callable[[Service, Request, Any], Awaitable[ASGIApp]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`right`: what a caller needs; None: open to all. `content`: the type of the body; `body` and `query`: what they may say.

    `reply` comes with 200, in one of `media` (None: text, or a picture); `events`: each event where it can come as a stream. `refuses_too`: the
    statuses of refusals beside those that follow from the rest, in one of the shapes `refusals`. `also`: other responses,
    by status, as OpenAPI writes them.
    """

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    right: Right | None
    content: str | None = None
    body: type[BaseModel] | None = None
    query: type[Query] | None = None
    reply: type[BaseModel] | None = None
    events: type[BaseModel] | None = None
    media: tuple[str, ...] = (JSON,)
    refuses_too: tuple[int, ...] = ()
    refusals: tuple[type[BaseModel], ...] = (Error,)
    also: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def refuses(self) -> set[int]:
        """The statuses with which it may say no."""
        found = {403, 413, 421, 500, 503}
        if self.right is not None:
            found |= {401, 408, 429, 504}
        if self.content is not None:
            found |= {400, 408, 415}
        if self.query is not None:
            found.add(400)
        return found.union(self.refuses_too)
