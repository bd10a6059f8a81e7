"""What operators and clients ask about the server itself: /v1/models, /health, /ready, /metrics."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from openbook.serving.access import Caller
from openbook.serving.metrics import CONTENT_TYPE
from openbook.serving.refusals import Refusal
from openbook.serving.service import CLOSED_BOOK, Service


async def models(service: Service, request: Request, caller: Caller) -> JSONResponse:
    return JSONResponse({"object": "list", "data": _models(service)})


async def model(service: Service, request: Request, caller: Caller) -> JSONResponse:
    name = request.path_params["name"]
    for each in _models(service):
        if each["id"] == name:
            return JSONResponse(each)
    raise Refusal(404, f"The model {name[:100]!r} does not exist.", code="model_not_found", param="model")


def _models(service: Service) -> list[dict[str, Any]]:
    """`created` is 0: a model is named by its digest and not by a date."""
    identity, embedder = service.model.identity, service.embedder.identity
    about: dict[str, Any] = {"digest": identity.digest, "evidence": identity.evidence}
    about["context_tokens"] = service.model.context_tokens
    bases = [{"name": name, "id": base.id} for name, base in service.bases.items()]
    found = [(identity.name, {"mode": "open-book", **about, "knowledge_bases": bases})] if bases else []
    found.append((identity.name + CLOSED_BOOK, {"mode": "closed-book", **about}))
    vectors = {"mode": "embedder", "digest": embedder.digest, "dimensions": embedder.dimensions}
    found.append((embedder.name, vectors))
    return [
        {"id": name, "object": "model", "created": 0, "owned_by": "openbook", "openbook": extra}
        for name, extra in found
    ]


async def health(service: Service, request: Request, caller: Caller | None) -> JSONResponse:
    """Whether the process answers at all."""
    return JSONResponse({"status": "ok"})


async def ready(service: Service, request: Request, caller: Caller | None) -> JSONResponse:
    """Whether it takes requests: the model is open, each knowledge base can be read, and the server is not ending."""
    if service.ends.is_set():
        raise Refusal(503, "The server is ending.", code="shutting_down", retry_after_s=5)
    for base in service.bases.values():
        base.kept_version()
    return JSONResponse({"status": "ready"})


async def metrics(service: Service, request: Request, caller: Caller) -> Response:
    service.count_gates()
    return Response(service.metrics.text(), media_type=None, headers={"content-type": CONTENT_TYPE})
