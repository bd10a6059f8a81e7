"""GET /v1/models: the model, its name for each knowledge base, and its lineage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from fastapi import APIRouter

from openbook.answer import CLOSED_BOOK
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.ingest.remedies import sync_command
from openbook.models import ModelStore
from openbook.models.lineage import ancestors_of
from openbook.serving.errors import ApiError
from openbook.serving.schemas import ABSENT, Reply
from openbook.serving.service import Call, CurrentCall, Route, needs

router = APIRouter(route_class=Route)


class NamedBase(Reply):
    """`sync`: the command for the server's machine that keeps a folder up to date; only for administrators."""

    name: str
    id: str
    sync: str | None = ABSENT


class ServedModel(Reply):
    """Only embedders have `dimensions`; only answering models have `evidence` and `context_tokens`."""

    mode: Literal["open-book", "closed-book", "embedder"]
    digest: str
    evidence: Literal["verified", "claimed"] | None = ABSENT
    context_tokens: int | None = ABSENT
    knowledge_bases: list[NamedBase] | None = ABSENT
    dimensions: int | None = ABSENT


class Model(Reply):
    """`created` is 0: models are identified by digest, not by date."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: Literal["openbook"] = "openbook"
    openbook: ServedModel


class Models(Reply):
    object: Literal["list"] = "list"
    data: list[Model]


class Ancestor(Reply):
    """`details`: its data and recipe, one sentence each."""

    digest: str
    names: tuple[str, ...]
    what: str
    details: tuple[str, ...]


class Lineage(Reply):
    object: Literal["list"] = "list"
    id: str
    data: list[Ancestor]


@router.get("/v1/models", **needs("read"))
async def models(call: CurrentCall) -> Models:
    """The models, open-book and closed-book (for each knowledge base, if there are several), and the embedder."""
    return Models(data=served_models(call))


@router.get("/v1/models/{name:path}/lineage", **needs("read"))
def lineage(call: CurrentCall, name: str) -> Lineage:
    """The answering model's training history: the model first, then its ancestors."""
    identity = call.resolve(name)[0].model.identity
    store = ModelStore(call.service.configuration.settings.models_dir)
    for each in call.stop.each(store.all_models()):
        if each.digest == identity.digest:
            return Lineage(id=name, data=[Ancestor.model_validate(node) for node in ancestors_of(store, each)])
    message = f"This server does not know what {name} was trained on: the model is not in this server's store."
    raise ApiError(404, message, code="lineage_unknown", param="model")


@router.get("/v1/models/{name:path}", **needs("read"))
async def model(call: CurrentCall, name: str) -> Model:
    """One model, by any name that a request may use."""
    for each in served_models(call):
        if each.id == name:
            return each
    named, suffix = call.resolve(name)
    return _model_of(call, named.model, name, {suffix: call.service.base(suffix or None)})


def served_models(call: Call) -> list[Model]:
    bases, embedder = call.service.bases, call.service.embedder
    found = list[Model]()
    for served, model in call.models.items():
        found += [_model_of(call, model, served, bases)] if bases else []
        if len(bases) > 1:
            found += [_model_of(call, model, f"{served}:{name}", {name: base}) for name, base in bases.items()]
        found.append(_model_of(call, model, f"{served}:{CLOSED_BOOK}"))
    dimensions = embedder.identity.dimensions
    about = ServedModel(mode="embedder", digest=embedder.model_digest, dimensions=dimensions)
    found.append(Model(id=embedder.identity.name, openbook=about))
    for alias, name in call.service.configuration.settings.aliases.items():
        if name == embedder.identity.name:
            found.append(Model(id=alias, openbook=about))
            continue
        named, suffix = call.resolve(alias)
        chosen = {suffix: bases[suffix]} if suffix in bases else bases
        found.append(_model_of(call, named.model, alias, None if suffix == CLOSED_BOOK else chosen))
    return found


def _model_of(call: Call, model: FrozenModel, name: str, bases: Mapping[str, KnowledgeBase] | None = None) -> Model:
    identity, is_admin = model.identity, call.caller.right == "admin"

    def named(each: str, base: KnowledgeBase) -> NamedBase:
        return NamedBase(name=each, id=base.id, sync=sync_command(base.store.place) if is_admin else None)

    about = ServedModel(
        mode="closed-book" if bases is None else "open-book",
        digest=identity.digest,
        evidence=identity.evidence,
        context_tokens=model.context_tokens,
        knowledge_bases=None if bases is None else [named(*each) for each in bases.items()],
    )
    return Model(id=name, openbook=about)
