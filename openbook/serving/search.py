"""POST /v1/search and POST /v1/embeddings: retrieval without an answer."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter
from pydantic import Field

from openbook.answers.prompts import checked_question
from openbook.core.records import Hit
from openbook.serving.errors import ApiError, check_at_most, invalid
from openbook.serving.routing import Route, needs
from openbook.serving.schemas import NO_TOKENS, LenientBody, OfVersion, ScopeParams
from openbook.serving.service import CurrentCall, scope_of

router = APIRouter(route_class=Route)

_EMBEDDED_AT_ONCE = 8  # texts; the client's presence is checked after each group


class SearchBody(ScopeParams):
    query: str
    limit: int = Field(default=10, ge=1)


@router.post("/v1/search", **needs("read"))
def search(call: CurrentCall, body: SearchBody) -> OfVersion[Hit]:
    """Passages for a query, best first, from documents that the caller may see."""
    service = call.service
    check_at_most(body.limit, service.configuration.bounds.hits, "passages", "limit")
    query = checked_question(body.query)
    base = service.base(body.knowledge_base)
    version, hits = base.search(
        query, service.embedder, body.limit, scope_of(base, call.caller, body.as_of, body.where)
    )
    return OfVersion[Hit](knowledge_base=base.id, version=version, data=hits)


class EmbeddingBody(LenientBody):
    model: str
    input: str | Annotated[list[str], Field(fail_fast=True), NO_TOKENS]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1)
    user: str | None = None


@router.post("/v1/embeddings", **needs("read"))
def embeddings(call: CurrentCall, body: EmbeddingBody) -> dict[str, Any]:
    """Vectors as those of the knowledge base's passages. Tokens include begin and end, and exclude what was truncated."""
    embedder, bounds = call.service.embedder, call.service.configuration.bounds
    identity = embedder.identity
    if call.service.configuration.settings.aliases.get(body.model, body.model) != identity.name:
        message = f"The model {body.model[:100]!r} does not exist. The embedder is {identity.name}."
        raise ApiError(404, message, code="model_not_found", param="model")
    if body.dimensions not in (None, identity.dimensions):
        message = f"{identity.name} has {identity.dimensions} dimensions, and no other number."
        raise invalid(message, "dimensions", "unsupported_parameter")
    texts = [body.input] if isinstance(body.input, str) else body.input
    check_at_most(len(texts), bounds.embedding_texts, "texts", "input")
    check_at_most(max(map(len, texts), default=0), bounds.embedding_chars, "characters a text", "input")
    if not texts or not all(texts):
        raise invalid("Invalid 'input': it must have at least one text, and no text may be empty.", "input")
    groups = (texts[at : at + _EMBEDDED_AT_ONCE] for at in range(0, len(texts), _EMBEDDED_AT_ONCE))
    rows = [row for group in call.stop.each(groups) for row in embedder.embed_passages(group)]
    tokens = sum(map(embedder.count_tokens, texts))

    vectors: list[Any] = [list(map(float, row)) for row in rows]
    if body.encoding_format == "base64":
        vectors = [base64.b64encode(np.asarray(row, dtype="<f4").tobytes()).decode() for row in rows]
    made_by = {"name": identity.name, "digest": embedder.model_digest, "dimensions": identity.dimensions}
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": each} for i, each in enumerate(vectors)],
        "model": identity.name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "openbook": {"embedder": made_by, "warnings": body.warnings},
    }
