"""POST /v1/search and POST /v1/embeddings: retrieval without an answer."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse

from openbook.answer import checked_question
from openbook.records import Hit
from openbook.serving.access import Caller
from openbook.serving.bodies import EmbeddingBody, SearchBody, parsed
from openbook.serving.refusals import Refusal
from openbook.serving.running import Stop
from openbook.serving.service import Service, check_at_most, scope_of
from openbook.serving.stopping import each, go_on


async def search(service: Service, request: Request, caller: Caller) -> JSONResponse:
    """Passages for a query, best first, from documents that the caller may see."""
    body = parsed(SearchBody, await request.body())
    check_at_most(body.limit, service.configuration.bounds.hits, "limit")
    query = checked_question(body.query)
    base = service.base(body.knowledge_base)

    def work(stop: Stop) -> tuple[int, list[Hit]]:
        scope = scope_of(base, caller, body)
        go_on(stop)
        return base.search(query, service.embedder, body.limit, scope)

    version, hits = await service.read(request.receive, work)
    data = [{"object": "hit", **asdict(hit)} for hit in hits]
    return JSONResponse({"object": "list", "knowledge_base": base.id, "version": version, "data": data})


async def embeddings(service: Service, request: Request, caller: Caller) -> JSONResponse:
    """Vectors like those of the passages in the knowledge base. `usage` counts the tokens that were read."""
    body = parsed(EmbeddingBody, await request.body())
    identity = service.embedder.identity
    if body.model != identity.name:
        message = f"The model {body.model[:100]!r} does not exist. The embedder is {identity.name}."
        raise Refusal(404, message, code="model_not_found", param="model")
    if body.dimensions not in (None, identity.dimensions):
        message = f"{identity.name} has {identity.dimensions} dimensions, and no other number."
        raise Refusal(400, message, code="unsupported_parameter", param="dimensions")
    texts = [body.input] if isinstance(body.input, str) else body.input
    check_at_most(len(texts), service.configuration.bounds.embedding_texts, "input")
    check_at_most(max(map(len, texts), default=0), service.configuration.bounds.embedding_chars, "input")
    if not texts or not all(texts):
        raise Refusal(
            400,
            "Invalid 'input': it must have at least one text, and no text may be empty.",
            code="invalid_value",
            param="input",
        )

    def work(stop: Stop) -> tuple[list[Any], int]:
        # One at a time, so that a client that goes away stops it.
        rows = [service.embedder.embed_passages([text])[0] for text in each(texts, stop)]
        return rows, sum(map(service.embedder.count_tokens, texts))

    rows, tokens = await service.read(request.receive, work)
    as_base64 = body.encoding_format == "base64"
    data = [{"object": "embedding", "index": i, "embedding": _vector(row, as_base64)} for i, row in enumerate(rows)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    made_by = {"name": identity.name, "digest": service.embedder.model_digest, "dimensions": identity.dimensions}
    return JSONResponse(
        {"object": "list", "data": data, "model": identity.name, "usage": usage, "openbook": {"embedder": made_by}}
    )


def _vector(row: Any, as_base64: bool) -> str | list[float]:
    """Float32 [dimensions], as OpenAI gives it: little-endian bytes in base64, or numbers."""
    if as_base64:
        return base64.b64encode(np.asarray(row, dtype="<f4").tobytes()).decode()
    return [float(x) for x in row]
