"""What all requests share, and `Call`: one request with its caller, its models and the end of its work."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Annotated, Protocol, TypeAlias, TypeVar

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from openbook.answers.reading import CLOSED_BOOK
from openbook.core.errors import UnknownVersion
from openbook.core.parallel import silent
from openbook.core.records import Answer, Digest, Embedder, Timings
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, Scope
from openbook.knowledge.index.filter_parser import parse_filter
from openbook.knowledge.versions import resolve_version
from openbook.serving.auth import Authenticator, Caller
from openbook.serving.concurrency import Places, Stop
from openbook.serving.configuration import Configuration
from openbook.serving.errors import ApiError, invalid
from openbook.serving.model_reload import CurrentModel

_T = TypeVar("_T")


class ServedEmbedder(Embedder, Protocol):
    @property
    def model_digest(self) -> Digest: ...

    def count_tokens(self, text: str) -> int:
        """The number of tokens read of `text`."""
        ...


_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Prometheus counts and times of one server, never the content of requests. See docs/operations.md."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        self._requests = Counter("openbook_requests", "Requests answered.", ["route", "method", "status"], registry=own)
        about = "Seconds from the head of a request to the last byte of its answer."
        self._seconds = Histogram("openbook_request_seconds", about, ["route"], buckets=_BUCKETS_S, registry=own)
        about = "Answers of the model, by how they ended."
        self._answers = Counter("openbook_answers", about, ["mode", "end"], registry=own)
        about = "Seconds of an answer: retrieve, first token (from when reading begins), read."
        self._steps = Histogram("openbook_answer_seconds", about, ["step"], buckets=_BUCKETS_S, registry=own)
        self._tokens = Counter("openbook_tokens", "Tokens read and written.", ["kind"], registry=own)
        # The label is named gate since 0.1.0; dashboards use it.
        self._running = Gauge("openbook_running", "Requests that compute now.", ["gate"], registry=own)
        self._waiting = Gauge("openbook_waiting", "Requests that wait for a place.", ["gate"], registry=own)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def answer(self, mode: str, answer: Answer) -> None:
        cancelled, times = answer.finish_reason == "cancelled", answer.timings or Timings()
        self._answers.labels(mode, "abstained" if answer.declined and not cancelled else answer.finish_reason).inc()
        self._tokens.labels("read").inc(answer.prompt_tokens or 0)
        self._tokens.labels("written").inc(answer.answer_tokens or 0)
        for step, seconds in (
            ("retrieve", times.retrieve_s),
            ("first_token", times.first_token_s),
            ("read", times.read_s),
        ):
            if seconds is not None and not cancelled:
                self._steps.labels(step).observe(seconds)

    def watch(self, name: str, places: Places) -> None:
        self._running.labels(name).set_function(lambda: places.running)
        self._waiting.labels(name).set_function(lambda: places.waiting)

    def text(self) -> bytes:
        return generate_latest(self._registry)


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
