"""POST /mcp: the tools of `mcp.py` over HTTP, for whoever the key says is calling, within the bounds of the server.

Each request stands alone and is answered by one JSON document: there are no sessions and no streams that stay open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import Message, Receive, Scope, Send

from openbook.answer import Options
from openbook.knowledge import KnowledgeBase
from openbook.records import Answer, Decoding
from openbook.serving.answers import Conversation, answered
from openbook.serving.concurrency import Stop
from openbook.serving.errors import api_error
from openbook.serving.mcp import ToolContext, tools_over
from openbook.serving.service import Call, CallOf, Route, Service, needs

router = APIRouter(route_class=Route)

_CALL = "openbook.mcp"
_ALSO: dict[int | str, Any] = {
    202: {"description": "The notification was accepted."},
    "4XX": {"description": "An error in OpenAI's shape or in that of JSON-RPC."},
}
_JSON = b"application/json"

_Result = TypeVar("_Result")


def make_manager(service: Service) -> StreamableHTTPSessionManager:
    """What answers the protocol's requests; it must `run()` as long as the server does."""

    async def use(context: Context, work: Callable[[ToolContext], _Result]) -> _Result:
        request = context.request_context.request
        if not isinstance(request, Request):
            raise TypeError("These tools are called over HTTP.")
        call: Call = request.scope[_CALL][0]
        base: KnowledgeBase = request.scope[_CALL][1]
        try:
            return await call.read(lambda stop: work(_tool_context(call, base, stop)))
        except Exception as error:  # noqa: BLE001  told as far as the caller may know, and logged
            raise ToolError(api_error(error).message) from None

    server = tools_over(use)
    server.streamable_http_app(
        stateless_http=True,
        json_response=True,
        max_request_body_size=service.configuration.bounds.body_bytes,
        # Host and Origin are checked before every route, in middleware.py.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    return server.session_manager


@router.post("/mcp", response_class=Response, **needs("read", also=_ALSO))
async def mcp(call: CallOf, body: dict[str, Any]) -> Response:
    """The tools search, ask and read_document over the Model Context Protocol (streamable HTTP), for documents that the caller may see."""
    return _Relay(call, call.service.base(None))


@router.post("/mcp/{knowledge_base}", response_class=Response, **needs("read", also=_ALSO))
async def mcp_of(call: CallOf, body: dict[str, Any], knowledge_base: str) -> Response:
    """The same for the knowledge base of that name."""
    return _Relay(call, call.service.base(knowledge_base))


@dataclass(eq=False)
class _Relay(Response):
    """What the protocol's own server answers to this call."""

    call: Call
    base: KnowledgeBase
    background: None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = self.call.request
        headers = [(name, _plain(value) if name == b"accept" else value) for name, value in scope["headers"]]
        first: list[Message] = [{"type": "http.request", "body": await request.body(), "more_body": False}]

        async def receive_again() -> Message:
            return first.pop() if first else await receive()

        manager: StreamableHTTPSessionManager = request.app.state.mcp
        scope = {**scope, "headers": headers, _CALL: (self.call, self.base)}
        await manager.handle_request(scope, receive_again, send)


def _tool_context(call: Call, base: KnowledgeBase, stop: Stop) -> ToolContext:
    configuration, scope = call.service.configuration, call.caller.scope()
    settings = configuration.settings
    options = Options(settings.passages, settings.strategy, Decoding(max_tokens=settings.max_tokens))

    def ask(question: str) -> Answer:
        return answered(call, Conversation(question), base, scope, options, stop)

    return ToolContext(base, call.service.embedder, scope, ask)


def _plain(accept: bytes) -> bytes:
    """Without the event streams that a client would take as well, if it takes JSON: one of them would never end."""
    kinds = [each.partition(b";")[0].strip().lower() for each in accept.split(b",")]
    return _JSON if {_JSON, b"application/*", b"*/*"} & set(kinds) else accept
