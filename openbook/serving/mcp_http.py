"""POST /mcp: the tools of `mcp.py` over HTTP, for whoever the key says is calling, within the bounds of the server.

Each request stands alone and is answered by one JSON document: there are no sessions and no streams that stay open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openbook.answer import Options
from openbook.knowledge import KnowledgeBase
from openbook.records import Answer, Decoding
from openbook.serving.access import Caller
from openbook.serving.answering import Job, answered
from openbook.serving.bodies import parse_json
from openbook.serving.conversation import Asked
from openbook.serving.mcp import Desk, tools_over
from openbook.serving.refusals import refusal_of
from openbook.serving.running import Stop
from openbook.serving.service import Service

_CALL = "openbook.mcp"
_JSON = b"application/json"

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Call:
    """Who calls, with which headers, of which knowledge base; `service`: as it is for this request."""

    service: Service
    caller: Caller
    headers: Headers
    base: KnowledgeBase


def make_manager(service: Service) -> StreamableHTTPSessionManager:
    """What answers the protocol's requests; it must `run()` as long as the server does."""

    async def use(context: Context, work: Callable[[Desk], _Result]) -> _Result:
        request = context.request_context.request
        if not isinstance(request, Request):
            raise TypeError("These tools are called over HTTP.")
        call: _Call = request.scope[_CALL]
        try:
            return await call.service.read(request.receive, lambda stop: work(_desk(call, stop)))
        except Exception as error:  # noqa: BLE001  told as far as the caller may know, and logged
            raise ToolError(refusal_of(error).message) from None

    server = tools_over(use)
    server.streamable_http_app(
        stateless_http=True,
        json_response=True,
        max_request_body_size=service.configuration.bounds.body_bytes,
        # Host and Origin are looked at before every route, in guard.py.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    return server.session_manager


async def mcp(service: Service, request: Request, caller: Caller) -> ASGIApp:
    """The tools search, ask and read_document over the Model Context Protocol (streamable HTTP), for documents that the caller may see."""
    call = _Call(service, caller, request.headers, service.base(request.path_params.get("knowledge_base")))
    body = await request.body()  # here, where what is wrong with it is told in the shape of all refusals
    parse_json(body)
    manager: StreamableHTTPSessionManager = request.app.state.mcp

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name, _plain(value) if name == b"accept" else value) for name, value in scope["headers"]]
        scope = {**scope, "headers": headers, _CALL: call}
        await manager.handle_request(scope, _again(body, receive), send)

    return respond


def _desk(call: _Call, stop: Stop) -> Desk:
    service, scope = call.service, call.caller.scope()
    settings = service.configuration.settings
    decoding = Decoding(max_tokens=settings.max_tokens)
    options = Options(settings.passages, service.configuration.strategy, decoding)

    def ask(question: str) -> Answer:
        return answered(service, Job(Asked(question), call.base, scope, options, call.headers), stop)

    return Desk(call.base, service.embedder, scope, ask)


def _plain(accept: bytes) -> bytes:
    """Without the event streams that a client would take as well, if it takes JSON: one of them would never end."""
    kinds = [each.partition(b";")[0].strip().lower() for each in accept.split(b",")]
    return _JSON if {_JSON, b"application/*", b"*/*"} & set(kinds) else accept


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that was read, then what else comes."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return first.pop() if first else await receive()

    return next_message
