"""What operators and clients ask about the server itself: /v1/models, their lineage, /health, /ready, /metrics."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from openbook.models import ModelStore
from openbook.models.lineage import Node, line_of
from openbook.serving.access import Caller
from openbook.serving.metrics import CONTENT_TYPE
from openbook.serving.refusals import Refusal
from openbook.serving.running import Stop
from openbook.serving.service import CLOSED_BOOK, Service


async def models(service: Service, request: Request, caller: Caller) -> JSONResponse:
    return JSONResponse({"object": "list", "data": _models(service)})


async def model(service: Service, request: Request, caller: Caller) -> JSONResponse:
    name = request.path_params["name"]
    for each in _models(service):
        if each["id"] == name:
            return JSONResponse(each)
    raise Refusal(404, f"The model {name[:100]!r} does not exist.", code="model_not_found", param="model")


async def lineage(service: Service, request: Request, caller: Caller) -> JSONResponse:
    """What the answering model was trained from and on: itself first, then what it was made of."""
    name, identity = request.path_params["name"], service.model.identity
    service.is_closed_book(name)

    def work(stop: Stop) -> list[Node]:
        store = ModelStore(service.configuration.settings.models_dir)
        for each in store.everything():
            if each.digest == identity.digest:
                return line_of(store, each)
        message = f"It is not known what {name} was trained on: the model is not in the store of this server."
        raise Refusal(404, message, code="lineage_unknown", param="model")

    nodes = await service.read(request.receive, work)
    data = [{"digest": n.digest, "names": n.names, "what": n.what, "details": n.details} for n in nodes]
    return JSONResponse({"object": "list", "id": name, "data": data})


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
    for name, gate in (("reading", service.reading), ("writing", service.writing)):
        service.metrics.gate(name, gate.running, gate.waiting)
    return Response(service.metrics.text(), media_type=None, headers={"content-type": CONTENT_TYPE})
