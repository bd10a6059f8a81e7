"""`create_app`: the routes of a server over the collaborators that it is given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from opentelemetry.trace import TracerProvider
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route

from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from openbook.serving import (
    chat,
    describing,
    documents,
    mcp_http,
    operations,
    page,
    pictures,
    receipts,
    replies,
    responses,
    searching,
    versions,
)
from openbook.serving.access import Caller, Doorkeeper, check_content_type
from openbook.serving.bodies import (
    ChatBody,
    DifferenceQuery,
    DocumentsBody,
    DocumentsQuery,
    EmbeddingBody,
    JsonRpcBody,
    ListQuery,
    PageQuery,
    PurgeBody,
    ReplayBody,
    ResponseBody,
    SearchBody,
    TextQuery,
    UploadBody,
)
from openbook.serving.configuration import Configuration
from openbook.serving.connections import Requests
from openbook.serving.guard import CALLER, ROUTE, Guard
from openbook.serving.keys import KeyFile
from openbook.serving.lookup import ReceiptLookup
from openbook.serving.metrics import Metrics
from openbook.serving.rates import Rates
from openbook.serving.refusals import ClientGone, Refusal, not_found, refusal_of
from openbook.serving.renewing import Models, Source
from openbook.serving.routing import FORM, JSON, PNG, Endpoint
from openbook.serving.running import Gate, caller_id
from openbook.serving.service import ServedEmbedder, Service
from openbook.serving.traces import Traces

_TEXT = "text/plain"
_RPC_ALSO = {
    202: {"description": "The notification was accepted."},
    406: {"description": "The client does not accept JSON."},
}

ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/chat/completions",
        chat.chat,
        "read",
        JSON,
        ChatBody,
        reply=replies.ChatCompletion,
        events=replies.ChatCompletionChunk,
        refuses_too=(404,),
    ),
    Endpoint(
        "POST",
        "/v1/responses",
        responses.responses,
        "read",
        JSON,
        ResponseBody,
        reply=replies.Response,
        events=replies.ResponseEvent,
        refuses_too=(404,),
    ),
    Endpoint(
        "POST",
        "/v1/embeddings",
        searching.embeddings,
        "read",
        JSON,
        EmbeddingBody,
        reply=replies.Embeddings,
        refuses_too=(404,),
    ),
    Endpoint("GET", "/v1/models", operations.models, "read", reply=replies.Models),
    Endpoint(
        "GET",
        "/v1/models/{name:path}/lineage",
        operations.lineage,
        "read",
        reply=replies.Lineage,
        refuses_too=(404,),
    ),
    Endpoint("GET", "/v1/models/{name:path}", operations.model, "read", reply=replies.Model, refuses_too=(400, 404)),
    Endpoint(
        "POST",
        "/v1/search",
        searching.search,
        "read",
        JSON,
        SearchBody,
        reply=replies.FoundPassages,
        refuses_too=(404,),
    ),
    Endpoint(
        "GET",
        "/v1/documents",
        documents.list_documents,
        "read",
        query=DocumentsQuery,
        reply=replies.Documents,
        refuses_too=(404,),
    ),
    Endpoint(
        "GET",
        "/v1/documents/text",
        documents.document_text,
        "read",
        query=TextQuery,
        reply=replies.DocumentText,
        refuses_too=(404,),
    ),
    Endpoint(
        "GET",
        "/v1/documents/page",
        pictures.page_picture,
        "read",
        query=PageQuery,
        media=(PNG,),
        refuses_too=(404, 409),
    ),
    Endpoint(
        "POST",
        "/v1/documents",
        documents.upload,
        "write",
        FORM,
        UploadBody,
        reply=replies.FileVerdicts,
        refuses_too=(404,),
    ),
    Endpoint(
        "POST",
        "/v1/documents/remove",
        documents.remove_documents,
        "write",
        JSON,
        DocumentsBody,
        reply=replies.FileVerdicts,
        refuses_too=(404,),
    ),
    Endpoint(
        "POST",
        "/v1/documents/purge",
        documents.purge_documents,
        "admin",
        JSON,
        PurgeBody,
        reply=replies.Purged,
        refuses_too=(404, 409),
    ),
    Endpoint(
        "GET", "/v1/versions", versions.versions, "read", query=ListQuery, reply=replies.Versions, refuses_too=(404,)
    ),
    Endpoint(
        "GET",
        "/v1/versions/difference",
        versions.difference,
        "read",
        query=DifferenceQuery,
        reply=replies.Difference,
        refuses_too=(404,),
    ),
    Endpoint(
        "POST",
        "/mcp",
        mcp_http.mcp,
        "read",
        JSON,
        JsonRpcBody,
        reply=replies.JsonRpc,
        refusals=(replies.Error, replies.JsonRpcError),
        refuses_too=(404,),
        also=_RPC_ALSO,
    ),
    Endpoint(
        "POST",
        "/mcp/{knowledge_base}",
        mcp_http.mcp,
        "read",
        JSON,
        JsonRpcBody,
        reply=replies.JsonRpc,
        refusals=(replies.Error, replies.JsonRpcError),
        refuses_too=(404,),
        also=_RPC_ALSO,
    ),
    Endpoint("GET", "/openapi.json", describing.openapi, "read", reply=replies.Description),
    Endpoint("GET", "/", page.index, None, media=("text/html",)),
    Endpoint("GET", "/web/{name}", page.asset, None, media=page.MEDIA, refuses_too=(404,)),
    Endpoint("GET", "/health", operations.health, None, reply=replies.Health),
    Endpoint("GET", "/ready", operations.ready, None, reply=replies.Ready),
    Endpoint("GET", "/metrics", operations.metrics, "admin", media=(_TEXT,)),
)
WITH_RECEIPTS = (
    Endpoint("GET", "/v1/receipts/{id}", receipts.receipt, "read", reply=replies.KeptReceipt, refuses_too=(404,)),
    Endpoint(
        "POST",
        "/v1/replay",
        receipts.replay_receipt,
        "read",
        JSON,
        ReplayBody,
        reply=replies.Replay,
        refuses_too=(404,),
    ),
)
WITH_REPORT = (Endpoint("GET", "/report", page.report, "admin", media=("text/html",)),)


def create_app(
    configuration: Configuration,
    model: FrozenModel,
    bases: Mapping[str, KnowledgeBase],
    embedder: ServedEmbedder,
    tracers: TracerProvider | None = None,
    source: Source | None = None,
) -> Starlette:
    """An ASGI application. The first of `bases` (by name) is asked when a request names none; all share `embedder`.

    `tracers`: who is told what answers take; None: OpenTelemetry's own of this process, which is none unless one was set.
    `source`: where other models come from that take the place of `model`; None: it stays.

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
        rates=Rates(bounds.requests_per_minute),
        traces=Traces(tracers),
        reading=Gate(bounds.running, bounds.waiting),
        writing=Gate(bounds.uploads, bounds.waiting),
        removing=Gate(1, bounds.waiting),
        purging=Gate(1, bounds.waiting),
        receiving=Gate(bounds.uploads, bounds.waiting, each=max(1, bounds.uploads // 2)),
        drawing=Gate(bounds.pictures, bounds.waiting),
        requests=Requests(bounds.connections),
        pool=ThreadPoolExecutor(bounds.running + bounds.uploads + 2, "openbook-serve"),
    )

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with app.state.mcp.run():
            yield
        service.ends.set()
        service.pool.shutdown(wait=True, cancel_futures=True)
        models.end()

    models = Models(model, source)
    endpoints = ENDPOINTS + (WITH_RECEIPTS if configuration.receipts is not None else ())
    endpoints += WITH_REPORT if configuration.report is not None else ()
    app = Starlette(
        routes=[Route(each.path, _endpoint(service, models, each), methods=[each.method]) for each in endpoints],
        middleware=[Middleware(Guard, service=service)],
        exception_handlers={HTTPException: _http_exception},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.service = service
    app.state.description = describing.description(endpoints, configuration)
    app.state.mcp = mcp_http.make_manager(service)
    if configuration.receipts is not None:
        app.state.receipts = ReceiptLookup(configuration.receipts)
    return app


def _endpoint(service: Service, models: Models, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Any:
        request.scope[ROUTE] = endpoint.path
        lease = models.lease()
        try:
            caller: Caller | None = None
            if endpoint.right is not None:
                caller = service.doorkeeper.caller(request.headers, endpoint.right)
                request.scope[CALLER] = caller.id
                caller_id.set(caller.id)
                service.rates.take(caller.id)
            if endpoint.content is not None:
                check_content_type(request.headers, [endpoint.content])
            response = await endpoint.handler(replace(service, model=lease.model), request, caller)
        except (ClientGone, ClientDisconnect):
            response = Response(status_code=499)  # nobody reads it; the log and the counts do
        except Exception as error:  # noqa: BLE001  told as far as the caller may know, and logged
            response = refusal_of(error).response()
        except BaseException:  # the request was cancelled
            lease.end()
            raise
        return lease.until_sent(response)

    return answer


def _http_exception(request: Request, error: Exception) -> Response:
    """What the router refuses: an unknown path, or a method that this path has not."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        message = f"Not allowed to {request.method} on {request.url.path[:200]}."
        refusal = Refusal(405, message, code="method_not_allowed")
        refusal.headers["allow"] = ", ".join(sorted(_methods(request)))
        return refusal.response()
    return not_found(request.url.path[:200], request.method).response()


def _methods(request: Request) -> set[str]:
    """Those of all routes of this path, of which each has one."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    return {
        method
        for route in routes
        if route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }
