"""GET /v1/models: the model, its name for each knowledge base, and its lineage."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter

from openbook.answers.reading import CLOSED_BOOK
from openbook.knowledge.ingest.remedies import sync_command
from openbook.models import ModelStore
from openbook.models.lineage import ancestors_of
from openbook.serving.errors import ApiError
from openbook.serving.routing import Route, needs
from openbook.serving.schemas import ABSENT, ListOf, Reply
from openbook.serving.service import Call, CurrentCall

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


class Ancestor(Reply):
    """`details`: its data and recipe, one sentence each."""

    digest: str
    names: tuple[str, ...]
    what: str
    details: tuple[str, ...]


class Lineage(ListOf[Ancestor]):
    id: str


@router.get("/v1/models", **needs("read"))
async def models(call: CurrentCall) -> ListOf[Model]:
    """The models, open-book and closed-book (for each knowledge base, if there are several), and the embedder."""
    return ListOf[Model](data=served_models(call))


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
    found = _model_of(call, name)
    if found.openbook.mode == "open-book":
        call.service.base(None)  # raises if there is none
    return found


def served_models(call: Call) -> list[Model]:
    bases, names = call.service.bases, list[str]()
    for served in call.models:
        names += [served] if bases else []
        names += [f"{served}:{name}" for name in bases] if len(bases) > 1 else []
        names.append(f"{served}:{CLOSED_BOOK}")
    names.append(call.service.embedder.identity.name)
    return [_model_of(call, name) for name in (*names, *call.service.configuration.settings.aliases)]


def _model_of(call: Call, name: str) -> Model:
    """Raises ApiError for an unknown name."""
    service, embedder = call.service, call.service.embedder
    if service.configuration.settings.aliases.get(name, name) == embedder.identity.name:
        dimensions = embedder.identity.dimensions
        about = ServedModel(mode="embedder", digest=embedder.model_digest, dimensions=dimensions)
        return Model(id=name, openbook=about)
    named, suffix = call.resolve(name)
    bases = {suffix: service.bases[suffix]} if suffix in service.bases else service.bases
    is_admin, is_open_book = call.caller.right == "admin", suffix != CLOSED_BOOK
    listed = [
        NamedBase(name=each, id=base.id, sync=sync_command(base.store.place) if is_admin else None)
        for each, base in bases.items()
    ]
    about = ServedModel(
        mode="open-book" if is_open_book else "closed-book",
        digest=named.model.identity.digest,
        evidence=named.model.identity.evidence,
        context_tokens=named.model.context_tokens,
        knowledge_bases=listed if is_open_book else None,
    )
    return Model(id=name, openbook=about)
