"""GET /v1/models: the model, its names for each knowledge base, and how it was trained."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter

from openbook.knowledge import KnowledgeBase
from openbook.models import ModelStore
from openbook.models.lineage import Node, line_of
from openbook.serving.answers import CLOSED_BOOK, ModelName
from openbook.serving.concurrency import Stop
from openbook.serving.errors import ApiError
from openbook.serving.schemas import Ancestor, Lineage, Model, Models, NamedBase, ScopeOptions, ServedModel
from openbook.serving.service import Call, CallOf, Route, needs, scope_of

router = APIRouter(route_class=Route)


@router.get("/v1/models", **needs("read"))
async def models(call: CallOf) -> Models:
    """The model, open-book and closed-book (for each knowledge base, if there are several), and the embedder."""
    return Models(data=_models(call))


@router.get("/v1/models/{name:path}/lineage", **needs("read"))
async def lineage(call: CallOf, name: str) -> Lineage:
    """How the answering model was trained: itself first, then the models it was made from."""
    identity = call.model.identity
    ModelName.parse(name, identity.name, call.service.bases)

    def work(stop: Stop) -> list[Node]:
        store = ModelStore(call.service.configuration.settings.models_dir)
        for each in stop.each(store.everything()):
            if each.digest == identity.digest:
                return line_of(store, each)
        message = f"This server does not know what {name} was trained on: the model is not in this server's store."
        raise ApiError(404, message, code="lineage_unknown", param="model")

    return Lineage(id=name, data=[Ancestor.model_validate(each) for each in await call.read(work)])


@router.get("/v1/models/{name:path}", **needs("read"))
async def model(call: CallOf, name: str) -> Model:
    """One model, by any name that a request may use, `MODEL:KNOWLEDGE_BASE@VERSION` included."""
    for each in _models(call):
        if each.id == name:
            return each
    parsed = ModelName.parse(name, call.model.identity.name, call.service.bases)
    base = call.service.base(parsed.knowledge_base)

    def work(stop: Stop) -> int | None:
        return scope_of(base, call.caller, parsed.scope_options(ScopeOptions()), "name").as_of

    return _open_book(call, name, {parsed.knowledge_base or "": base}, await call.read(work))


def _models(call: Call) -> list[Model]:
    reader, bases, embedder = call.model.identity.name, call.service.bases, call.service.embedder
    found = [_open_book(call, reader, bases)] if bases else []
    if len(bases) > 1:
        found += [_open_book(call, f"{reader}:{name}", {name: base}) for name, base in bases.items()]
    found.append(_reader(call, f"{reader}:{CLOSED_BOOK}", ServedModel(mode="closed-book", digest="")))
    dimensions = embedder.identity.dimensions
    about = ServedModel(mode="embedder", digest=embedder.model_digest, dimensions=dimensions)
    return [*found, Model(id=embedder.identity.name, openbook=about)]


def _open_book(call: Call, name: str, bases: Mapping[str, KnowledgeBase], version: int | None = None) -> Model:
    there = [NamedBase(name=base_name, id=base.id) for base_name, base in bases.items()]
    return _reader(call, name, ServedModel(mode="open-book", digest="", knowledge_bases=there, version=version))


def _reader(call: Call, name: str, about: ServedModel) -> Model:
    identity, tokens = call.model.identity, call.model.context_tokens
    known = {"digest": identity.digest, "evidence": identity.evidence, "context_tokens": tokens}
    return Model(id=name, openbook=about.model_copy(update=known))
