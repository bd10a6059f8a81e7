"""Routes about the server itself: /v1/models, their lineage, /health, /ready, /metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from openbook.knowledge import KnowledgeBase
from openbook.models import ModelStore
from openbook.models.lineage import Node, line_of
from openbook.serving import stopping
from openbook.serving.access import Caller
from openbook.serving.bodies import ScopeOptions
from openbook.serving.metrics import CONTENT_TYPE
from openbook.serving.naming import CLOSED_BOOK, named
from openbook.serving.refusals import Refusal
from openbook.serving.running import Stop
from openbook.serving.service import Service, scope_of


async def models(service: Service, request: Request, caller: Caller) -> JSONResponse:
    """The model, open-book and closed-book (for each knowledge base, if there are several), and the embedder."""
    return JSONResponse({"object": "list", "data": _models(service)})


async def model(service: Service, request: Request, caller: Caller) -> JSONResponse:
    """One model, by any name that a request may use, `MODEL:KNOWLEDGE_BASE@VERSION` included."""
    name = request.path_params["name"]
    for each in _models(service):
        if each["id"] == name:
            return JSONResponse(each)
    asks_for = named(name, service.model.identity.name, service.bases)
    base = service.base(asks_for.knowledge_base)

    def work(stop: Stop) -> int | None:
        return scope_of(base, caller, asks_for.scope_options(ScopeOptions()), "name").as_of

    version = await service.read(request.receive, work)
    return JSONResponse(_open_book(service, name, {asks_for.knowledge_base or "": base}, version))


async def lineage(service: Service, request: Request, caller: Caller) -> JSONResponse:
    """How the answering model was trained: itself first, then the models it was made from."""
    name, identity = request.path_params["name"], service.model.identity
    named(name, identity.name, service.bases)

    def work(stop: Stop) -> list[Node]:
        store = ModelStore(service.configuration.settings.models_dir)
        for each in stopping.each(store.everything(), stop):
            if each.digest == identity.digest:
                return line_of(store, each)
        message = f"This server does not know what {name} was trained on: the model is not in this server's store."
        raise Refusal(404, message, code="lineage_unknown", param="model")

    nodes = await service.read(request.receive, work)
    data = [{"digest": n.digest, "names": n.names, "what": n.what, "details": n.details} for n in nodes]
    return JSONResponse({"object": "list", "id": name, "data": data})


def _models(service: Service) -> list[dict[str, Any]]:
    identity, embedder, bases = service.model.identity, service.embedder.identity, service.bases
    found = [_open_book(service, identity.name, bases)] if bases else []
    if len(bases) > 1:
        found += [_open_book(service, f"{identity.name}:{name}", {name: base}) for name, base in bases.items()]
    found.append(_described(f"{identity.name}:{CLOSED_BOOK}", {"mode": "closed-book", **_about(service)}))
    vectors = {"mode": "embedder", "digest": service.embedder.model_digest, "dimensions": embedder.dimensions}
    return [*found, _described(embedder.name, vectors)]


def _open_book(
    service: Service, name: str, bases: Mapping[str, KnowledgeBase], version: int | None = None
) -> dict[str, Any]:
    there = [{"name": base_name, "id": base.id} for base_name, base in bases.items()]
    as_of = {} if version is None else {"version": version}
    return _described(name, {"mode": "open-book", **_about(service), "knowledge_bases": there, **as_of})


def _about(service: Service) -> dict[str, Any]:
    identity = service.model.identity
    tokens = service.model.context_tokens
    return {"digest": identity.digest, "evidence": identity.evidence, "context_tokens": tokens}


def _described(name: str, extra: dict[str, Any]) -> dict[str, Any]:
    """`created` is 0: a model is named by its digest and not by a date."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "openbook", "openbook": extra}


async def health(service: Service, request: Request, caller: Caller | None) -> JSONResponse:
    """Whether the process answers."""
    return JSONResponse({"status": "ok"})


async def ready(service: Service, request: Request, caller: Caller | None) -> JSONResponse:
    """Whether it takes requests: the model is open, each knowledge base can be read, and the server is not ending."""
    if service.ends.is_set():
        raise Refusal(503, "The server is stopping.", code="shutting_down", retry_after_s=5)
    for base in service.bases.values():
        base.kept_version()
    return JSONResponse({"status": "ready"})


async def metrics(service: Service, request: Request, caller: Caller) -> Response:
    """Counts and times in the text format of Prometheus."""
    service.count_gates()
    return Response(service.metrics.text(), media_type=None, headers={"content-type": CONTENT_TYPE})
