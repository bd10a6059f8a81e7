"""The versions of a knowledge base over HTTP: a list, and how two of them differ for the caller."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from openbook.knowledge.versions import diff, history
from openbook.serving import stopping
from openbook.serving.access import Caller
from openbook.serving.bodies import DifferenceQuery, ListQuery, ScopeOptions
from openbook.serving.queries import limit_of, query_of
from openbook.serving.running import Stop
from openbook.serving.service import Service, scope_of

_LISTS = ("added", "changed", "removed", "described", "passages_added", "passages_removed")


async def versions(service: Service, request: Request, caller: Caller) -> JSONResponse:
    """The newest first. `documents` counts those that the caller may see. Changes between versions are not shown, since they count all documents."""
    query = query_of(request, ListQuery)
    base = service.base(query.knowledge_base)
    limit = limit_of(query, service.configuration.bounds.listed, default=100)

    def work(stop: Stop) -> list[dict[str, Any]]:
        return [
            {
                "object": "version",
                "version": each.version,
                "created_at": each.created_at,
                "tags": each.tags,
                "documents": len(base.documents(caller.scope(each.version))),
            }
            for each in stopping.each(history(base)[:limit], stop)
        ]

    data = await service.read(request.receive, work)
    return JSONResponse({"object": "list", "knowledge_base": base.id, "data": data})


async def difference(service: Service, request: Request, caller: Caller) -> JSONResponse:
    """From version `before` to `after` (default: the newest), between what the caller may see of both.

    Each list has at most `limit` entries; `counts` says how many there are.
    """
    query = query_of(request, DifferenceQuery)
    base = service.base(query.knowledge_base)
    limit = limit_of(query, service.configuration.bounds.listed, default=100)
    sides = (query.before, query.after)

    def work(stop: Stop) -> dict[str, Any]:
        before, after = (
            base.kept_version(scope_of(base, caller, ScopeOptions(as_of=side), param=param).as_of)
            for side, param in zip(sides, ("before", "after"), strict=True)
        )
        found = asdict(diff(base, before, after, caller.scope(), lambda: stopping.go_on(stop)))
        counts = {name: len(found[name]) for name in _LISTS}
        return {"before": before, "after": after, "counts": counts, **{name: found[name][:limit] for name in _LISTS}}

    data = await service.read(request.receive, work)
    return JSONResponse({"object": "difference", "knowledge_base": base.id, **data})
