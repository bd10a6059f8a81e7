"""Shared state of all routes, and `Route`, which checks a request before its body is read."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import wraps
from inspect import iscoroutinefunction
from types import MappingProxyType
from typing import Annotated, Any, Protocol, TypeAlias, TypeVar

from fastapi import Depends, Request, Response
from fastapi.params import Form
from fastapi.routing import APIRoute
from starlette.datastructures import FormData
from starlette.requests import ClientDisconnect

from openbook.answers.ask import CLOSED_BOOK
from openbook.core.errors import UnknownVersion
from openbook.core.parallel import silent
from openbook.core.records import Digest, Embedder
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, Scope
from openbook.knowledge.index.filter_parser import parse_filter
from openbook.knowledge.versions import resolve_version
from openbook.serving.auth import Authenticator, Caller
from openbook.serving.concurrency import Places, Stop
from openbook.serving.configuration import Configuration
from openbook.serving.errors import ApiError, ClientGone, api_error, invalid
from openbook.serving.keys import Right
from openbook.serving.metrics import Metrics
from openbook.serving.model_reload import CurrentModel
from openbook.serving.schemas import Error, parse_form, parse_json

_T = TypeVar("_T")

JSON, FORM = "application/json", "multipart/form-data"
ROUTE, CALLER = "openbook.route", "openbook.caller"


class ServedEmbedder(Embedder, Protocol):
    @property
    def model_digest(self) -> Digest: ...

    def count_tokens(self, text: str) -> int:
        """The number of tokens read of `text`."""
        ...


@dataclass(frozen=True, slots=True)
class Service:
    """State shared by all requests. The first of `models` is the default. `ends` is set when the server stops; `answers`: one number for each answer
    that is being made.
    """

    configuration: Configuration
    models: Sequence[CurrentModel]
    bases: Mapping[str, KnowledgeBase]
    embedder: ServedEmbedder
    authenticator: Authenticator
    metrics: Metrics
    reading: Places
    uploading: Places
    deleting: Places
    pool: ThreadPoolExecutor
    ends: threading.Event = field(default_factory=threading.Event)
    answers: set[int] = field(default_factory=set)

    @contextmanager
    def lend(self) -> Iterator[Mapping[str, FrozenModel]]:
        """The models by name, the default first, open until the block ends."""
        with ExitStack() as stack:
            models = [stack.enter_context(each.lease()) for each in self.models]
            yield {each.identity.name: each for each in models}

    def fallback(self, model: FrozenModel, models: Mapping[str, FrozenModel]) -> Callable[[], FrozenModel] | None:
        """The lent model that answers too where `model` is not certain."""
        found = models.get(self.configuration.settings.fallback_model)
        return None if found is None or found is model else lambda: found

    def base(self, name: str | None, param: str = "knowledge_base") -> KnowledgeBase:
        """The named knowledge base, or the first. `param`: for errors. Raises ApiError."""
        if name is None and self.bases:
            return next(iter(self.bases.values()))
        if name is None:
            raise ApiError(404, "This server has no knowledge base.", code="no_knowledge_base")
        if name not in self.bases:
            message = f"The knowledge base {name[:100]!r} does not exist. There are: {', '.join(self.bases) or 'none'}."
            raise ApiError(404, message, code="knowledge_base_not_found", param=param)
        return self.bases[name]


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `model` answers all of it. `models`: those that it may name instead, by name; the default is first.

    `stop` ends its work on a thread.
    """

    service: Service
    model: FrozenModel
    models: Mapping[str, FrozenModel]
    request: Request
    caller: Caller
    stop: Stop

    def resolve(self, name: str) -> tuple[Call, str]:
        """This call with the model of that name, and the name's suffix: a knowledge base, CLOSED_BOOK, or empty. Raises ApiError."""
        service = self.service
        served, suffix = resolve_model(name, list(self.models), service.bases, service.configuration.settings.aliases)
        return replace(self, model=self.models[served]), suffix

    async def compute(self, work: Callable[[Call], _T], on_wait: Callable[[], None] = silent) -> _T:
        """Run `work` in a `reading` place, as `run` does. `on_wait`: see `Places.place`."""
        return await self.run(self.service.reading, work, on_wait=on_wait)

    async def run(
        self,
        places: Places | None,
        work: Callable[[Call], _T],
        limit_s: float | None = None,
        *,
        until_done: bool = False,
        on_wait: Callable[[], None] = silent,
    ) -> _T:
        """Run `work` on a thread, in one of `places`, with this call. The request's body must have been read.

        `until_done`: work that has begun finishes even if the client leaves: half a change is worse than an unreported
        one. Raises ClientGone, ApiError and what `work` raises.
        """
        service = self.service
        stop = Stop(service.configuration.bounds.answer_s if limit_s is None else limit_s, service.ends)
        watcher = asyncio.create_task(stop.watch(self.request.receive))
        try:
            async with places.place(self.caller.id, on_wait) if places else nullcontext():
                stop.check()
                stop.start()
                running = asyncio.get_running_loop().run_in_executor(service.pool, work, replace(self, stop=stop))
                return await (asyncio.shield(running) if until_done else running)
        finally:
            stop.client_gone.set()
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)


async def _call(request: Request) -> AsyncIterator[Call]:
    """The call of this request. Its models stay open until the response is sent."""
    service: Service = request.app.state.service
    with service.lend() as models:
        never = Stop(math.inf, service.ends)
        yield Call(service, next(iter(models.values())), models, request, request.state.caller, never)


def resolve_model(
    name: str, served: Sequence[str], bases: Iterable[str], aliases: Mapping[str, str]
) -> tuple[str, str]:
    """The served model that `name` means, and its suffix: a knowledge base (`reader:handbook`), CLOSED_BOOK, or empty.

    Suffixes serve clients that can choose only a model. In the meaning of an alias, `default` is the first model. Raises ApiError for
    an unknown name.
    """
    suffixes = {"": "", **{f":{base}": base for base in bases}, f":{CLOSED_BOOK}": CLOSED_BOOK}
    names = {f"{each}{end}": (each, suffix) for each in served for end, suffix in suffixes.items()}
    meanings = names | {f"default{end}": (served[0], suffix) for end, suffix in suffixes.items()}
    names = {alias: meanings[meaning] for alias, meaning in aliases.items() if meaning in meanings} | names
    if name not in names:
        message = f"The model {name[:100]!r} does not exist. There are: {', '.join(names)}."
        raise ApiError(404, message, code="model_not_found", param="model")
    return names[name]


CurrentCall: TypeAlias = Annotated[Call, Depends(_call)]


_FAILED = {"model": Error, "description": "Refused or failed; `code` says why."}
OPEN_TO_ALL: dict[str, Any] = {"responses": {"4XX": _FAILED, "5XX": _FAILED}}


def needs(right: Right, *, also: Mapping[int | str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """Route arguments that require that right. `also`: additional responses."""
    return {"openapi_extra": {"x-right": right}, "responses": {**OPEN_TO_ALL["responses"], **also}}


def content_of(kind: str, **schema: str) -> dict[int | str, Any]:
    """Without a schema: events or lines, which OpenAPI 3.1 cannot describe one by one."""
    return {200: {"content": {kind: {"schema": schema} if schema else {}}}}


class Route(APIRoute):
    """Checks key and content type before the body is read, and formats errors as OpenAI's API does.

    An endpoint that is no coroutine runs in `Call.compute`.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **more: Any) -> None:
        super().__init__(path, endpoint if iscoroutinefunction(endpoint) else _computed(endpoint), **more)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        is_form = self.body_field is not None and isinstance(self.body_field.field_info, Form)
        wanted = FORM if is_form else JSON if self.body_field else ""

        async def answer(request: Request) -> Response:
            request.scope[ROUTE] = self.path
            service: Service = request.app.state.service
            try:
                self._let_in(request, wanted)
                async with (
                    service.uploading.place(request.scope[CALLER]) if is_form else nullcontext()
                ):  # limits uploads on the disk
                    return await handle(_StrictRequest(request.scope, request.receive))
            except Exception as error:  # noqa: BLE001  sent as far as the caller may know, and logged
                if isinstance(error.__cause__ or error, ClientGone | ClientDisconnect):
                    return Response(status_code=499)  # for the log and metrics
                return self.refusal(api_error(error))

        return answer

    def refusal(self, error: ApiError) -> Response:
        return error.response()

    def _let_in(self, request: Request, wanted: str) -> None:
        if right := (self.openapi_extra or {}).get("x-right"):
            caller = request.app.state.service.authenticator.caller(request.headers, right)
            request.state.caller, request.scope[CALLER] = caller, caller.id
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if wanted and kind != wanted:
            # A page of another origin cannot send these without a preflight, or the Origin check stops it.
            message = f"The content type must be {wanted}, not {kind[:100]!r}."
            raise ApiError(415, message, code="unsupported_content_type")
        keys = Counter(key for key, _ in request.query_params.multi_items())
        if twice := next((key for key, times in keys.items() if times > 1), None):
            raise invalid(f"The parameter {twice[:100]!r} is given more than once; send it once.", twice[:100])


def _computed(work: Callable[..., _T]) -> Callable[..., Coroutine[Any, Any, _T]]:
    @wraps(work)
    async def endpoint(call: Call, **arguments: Any) -> _T:
        def begun(call: Call) -> _T:
            call.stop.check()
            return work(call, **arguments)

        return await call.compute(begun)

    return endpoint


class _StrictRequest(Request):
    async def json(self) -> Any:
        return parse_json(await self.body())

    async def form(self, **_: Any) -> FormData:  # type: ignore[override]  # FastAPI awaits it
        bounds = self.app.state.service.configuration.bounds
        return await parse_form(self.headers, self.stream(), bounds.upload_files)


def scope_of(
    base: KnowledgeBase, caller: Caller, as_of: str | int | None, where: str = "", param: str = "as_of"
) -> Scope:
    """The documents that the request and the caller's labels allow. `param`: for errors.

    Raises ApiError, and QuestionError for an invalid filter.
    """
    where = where.strip()
    if where:
        parse_filter(where)
    if as_of is None:
        return caller.scope(where=where)
    try:
        return caller.scope(resolve_version(base, str(as_of)), where)
    except UnknownVersion as error:
        shown = str(as_of)[:60]
        message = f"There is no version {shown!r}; GET /v1/versions lists the versions that are kept."
        raise invalid(message, param, "version_not_found") from error
