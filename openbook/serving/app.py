"""`create_app`: the routes of a server over the collaborators that it is given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from openbook.records import Embedder
from openbook.serving import chat, documents, operations, page, receipts, searching, versions
from openbook.serving.access import Caller, Doorkeeper, check_content_type
from openbook.serving.configuration import Configuration
from openbook.serving.guard import CALLER, ROUTE, Guard
from openbook.serving.keys import KeyFile, Right
from openbook.serving.metrics import Metrics
from openbook.serving.refusals import ClientGone, Refusal, not_found, refusal_of
from openbook.serving.running import Gate
from openbook.serving.service import Service

Handler: TypeAlias = Callable[[Service, Request, Any], Awaitable[ASGIApp]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`right`: what a caller needs; None: open to all. `content`: the type of the body."""

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    right: Right | None
    content: str | None = None


_JSON = "application/json"
_FORM = "multipart/form-data"

ENDPOINTS = (
    Endpoint("POST", "/v1/chat/completions", chat.chat, "read", _JSON),
    Endpoint("POST", "/v1/embeddings", searching.embeddings, "read", _JSON),
    Endpoint("GET", "/v1/models", operations.models, "read"),
    Endpoint("GET", "/v1/models/{name}", operations.model, "read"),
    Endpoint("GET", "/v1/models/{name}/lineage", operations.lineage, "read"),
    Endpoint("POST", "/v1/search", searching.search, "read", _JSON),
    Endpoint("GET", "/v1/documents", documents.list_documents, "read"),
    Endpoint("GET", "/v1/documents/text", documents.document_text, "read"),
    Endpoint("POST", "/v1/documents", documents.upload, "write", _FORM),
    Endpoint("POST", "/v1/documents/remove", documents.remove_documents, "write", _JSON),
    Endpoint("POST", "/v1/documents/purge", documents.purge_documents, "admin", _JSON),
    Endpoint("GET", "/v1/versions", versions.versions, "read"),
    Endpoint("GET", "/v1/versions/difference", versions.difference, "read"),
    Endpoint("GET", "/", page.index, None),
    Endpoint("GET", "/web/{name}", page.asset, None),
    Endpoint("GET", "/health", operations.health, None),
    Endpoint("GET", "/ready", operations.ready, None),
    Endpoint("GET", "/metrics", operations.metrics, "admin"),
)
WITH_RECEIPTS = (
    Endpoint("GET", "/v1/receipts/{id}", receipts.receipt, "read"),
    Endpoint("POST", "/v1/replay", receipts.replay_receipt, "read", _JSON),
)
WITH_REPORT = (Endpoint("GET", "/report", page.report, "admin"),)


def create_app(
    configuration: Configuration, model: FrozenModel, bases: Mapping[str, KnowledgeBase], embedder: Embedder
) -> Starlette:
    """An ASGI application. The first of `bases` (by name) is asked when a request names none; all share `embedder`.

    Raises ConfigError, KnowledgeBaseInvalid for a knowledge base of another embedder.
    """
    configuration.strategy  # noqa: B018  raises ConfigError now and not with the first question
    for base in bases.values():
        base.check_embedder(embedder.identity)
    bounds = configuration.bounds
    service = Service(
        configuration=configuration,
        model=model,
        bases=bases,
        embedder=embedder,
        doorkeeper=Doorkeeper(configuration, KeyFile(configuration.settings.home)),
        metrics=Metrics(),
        reading=Gate(bounds.running, bounds.waiting),
        writing=Gate(1, bounds.waiting),
        receiving=Gate(bounds.uploads, bounds.waiting),
        pool=ThreadPoolExecutor(bounds.running + 1, "openbook-serve"),
    )

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        service.ends.set()
        service.pool.shutdown(wait=True, cancel_futures=True)

    endpoints = ENDPOINTS + (WITH_RECEIPTS if configuration.receipts is not None else ())
    endpoints += WITH_REPORT if configuration.report is not None else ()
    app = Starlette(
        routes=[Route(each.path, _endpoint(service, each), methods=[each.method]) for each in endpoints],
        middleware=[Middleware(Guard, service=service)],
        exception_handlers={HTTPException: _http_exception},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.service = service
    return app


def _endpoint(service: Service, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Any:
        request.scope[ROUTE] = endpoint.path
        try:
            caller: Caller | None = None
            if endpoint.right is not None:
                caller = service.doorkeeper.caller(request.headers, endpoint.right)
                request.scope[CALLER] = caller.id
            if endpoint.content is not None:
                check_content_type(request.headers, [endpoint.content])
            return await endpoint.handler(service, request, caller)
        except (ClientGone, ClientDisconnect):
            return Response(status_code=499)  # nobody reads it; the log and the counts do
        except Exception as error:  # noqa: BLE001  told as far as the caller may know, and logged
            return refusal_of(error).response()

    return answer


def _http_exception(request: Request, error: Exception) -> Response:
    """What the router refuses: an unknown path, or a method that this path has not."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        message = f"Not allowed to {request.method} on {request.url.path[:200]}."
        refusal = Refusal(405, message, code="method_not_allowed")
        refusal.headers.update(error.headers or {})
        return refusal.response()
    return not_found(request.url.path[:200], request.method).response()
