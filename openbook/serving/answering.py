"""A request for an answer in any of OpenAI's shapes: the core flow, as one response or as events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive

from openbook.answer import Options, ask, checked_question
from openbook.conversation import understood
from openbook.knowledge import KnowledgeBase, Scope
from openbook.receipts import append
from openbook.records import Answer, Decoding, canonical_json, sha256_hex
from openbook.serving.access import Caller
from openbook.serving.bodies import AnswerBody
from openbook.serving.conversation import Asked
from openbook.serving.footnotes import footnotes
from openbook.serving.naming import CLOSED_BOOK, named
from openbook.serving.refusals import Refusal
from openbook.serving.replies import ServedAnswer
from openbook.serving.running import Stop
from openbook.serving.service import Service, check_at_most, scope_of
from openbook.serving.streaming import EventStream, pieces_of

MOST_STOPS = 4

Work: TypeAlias = Callable[[Stop, Callable[[str], None]], Answer]


class Shape(Protocol):
    """How one of OpenAI's shapes shows an answer. `text` is the answer's text with anything appended to it."""

    def whole(self, answer: Answer, text: str) -> dict[str, Any]: ...

    def piece(self, text: str, *, first: bool) -> Iterable[bytes]:
        """The events for a part of the text; with `first`, the opening events come before them."""

    def end(self, answer: Answer, text: str, *, begun: bool) -> Iterable[bytes]:
        """The events after the text."""


@dataclass(frozen=True, slots=True)
class Job:
    """One question, checked. `base` is None for a closed-book answer. `headers`: of the request, for its trace."""

    asked: Asked
    base: KnowledgeBase | None
    scope: Scope
    options: Options
    headers: Mapping[str, str]

    @property
    def mode(self) -> str:
        return "closed-book" if self.base is None else "open-book"


async def respond(
    service: Service, request: Request, caller: Caller, body: AnswerBody, made: Asked, shape: Shape
) -> ASGIApp:
    """The response to a body of which `made` is the question. Raises Refusal, QuestionError before anything is computed."""
    checked_question(made.question)
    asks_for = named(body.model, service.model.identity.name, service.bases)
    if not asks_for.closed_book and not service.bases:
        message = f"No knowledge base: ask {body.model}:{CLOSED_BOOK}."
        raise Refusal(404, message, code="no_knowledge_base", param="model")
    asked_scope = asks_for.scope_options(body.openbook)
    base = None if asks_for.closed_book else service.base(asked_scope.knowledge_base)
    trained = service.model.reader is not None
    options = replace(_options(service, body), instruction=made.heeded(trained=trained))
    place = "model" if asks_for.as_of is not None else "as_of"

    def work(stop: Stop, show: Callable[[str], None] = lambda piece: None) -> Answer:
        scope = scope_of(base, caller, asked_scope, place) if base else Scope()
        answer = answered(service, Job(made, base, scope, options, request.headers), stop, show)
        shows_timings = base is None or base.shows_all_to(caller.labels)
        rewritten = answer.question != checked_question(made.question)
        unused = made.warnings(closed_book=base is None, trained=trained, rewritten=rewritten)
        warnings = (*body.warnings, *unused)
        served = ServedAnswer(**{each.name: getattr(answer, each.name) for each in fields(answer)}, warnings=warnings)
        return served if shows_timings else replace(served, timings=None)

    def added(answer: Answer) -> str:
        return footnotes(answer) if body.openbook.footnotes else ""

    if body.stream:
        return EventStream(lambda receive: _events(service, receive, work, shape, added))
    answer = await service.read(request.receive, work)
    return JSONResponse(shape.whole(answer, answer.answer + added(answer)))


def answered(service: Service, job: Job, stop: Stop, show: Callable[[str], None] = lambda piece: None) -> Answer:
    """On a thread: the answer, its receipt in the log if one is kept. Raises as `ask` does, and what breaking off means."""
    began_ns = time.time_ns()
    try:
        meant = understood(service.model, job.asked.turns, job.asked.question, stop)
        answer = ask(
            meant.question,
            service.model,
            job.base,
            service.embedder if job.base else None,
            job.options,
            query=meant.query,
            scope=job.scope,
            on_text=show,
            cancelled=stop,
        )
    except Exception as error:
        service.traces.failed(error, job.mode, began_ns, job.headers)
        raise
    service.traces.answered(answer, job.mode, began_ns, job.headers)
    cancelled = answer.finish_reason == "cancelled"
    end = "abstained" if answer.abstained and not cancelled else answer.finish_reason
    service.metrics.answer(job.mode, end, answer.prompt_tokens, answer.answer_tokens)
    if cancelled:
        stop.check()
    if (log := service.configuration.receipts) is not None:
        append(log, answer.receipt)
    understood_as = (f"Understood as: {answer.question}",) if meant.rewritten else ()
    return replace(answer, notes=(*understood_as, *answer.notes))


def _options(service: Service, body: AnswerBody) -> Options:
    settings, bounds, own = service.configuration.settings, service.configuration.bounds, body.openbook
    max_tokens = body.most_tokens or settings.max_tokens
    check_at_most(max_tokens, max(bounds.answer_tokens, settings.max_tokens), "max_tokens")
    check_at_most(len(body.stops), MOST_STOPS, "stop")
    passages = settings.passages if own.passages is None else own.passages
    check_at_most(passages, max(bounds.passages, settings.passages), "openbook.passages")
    decoding = Decoding(
        temperature=body.temperature or 0.0,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=body.seed or 0,
        max_tokens=max_tokens,
        stop=tuple(body.stops),
        quote=own.quote,
    )
    return Options(passages, own.strategy or service.configuration.strategy, decoding)


async def _events(
    service: Service, receive: Receive, work: Work, shape: Shape, added: Callable[[Answer], str]
) -> AsyncGenerator[bytes, None]:
    begun, shown = False, ""

    def start(show: Callable[[str], None]) -> asyncio.Task[Answer]:
        return asyncio.create_task(service.read(receive, lambda stop: work(stop, show)))

    async with aclosing(pieces_of(start)) as pieces:
        async for piece in pieces:
            if isinstance(piece, str):
                shown += piece
                texts = [piece]
            else:
                # Where a model abstained in words of its own, those stand, and nothing follows.
                answer = piece.value.answer
                texts = [answer[len(shown) :] if answer.startswith(shown) else "", added(piece.value)]
            for text in filter(None, texts):
                for event in shape.piece(text, first=not begun):
                    yield event
                begun = True
            if not isinstance(piece, str):
                for event in shape.end(piece.value, piece.value.answer + added(piece.value), begun=begun):
                    yield event


# --- what shapes share ------------------------------------------------------------------------------------------------


def request_id(body: AnswerBody, caller: Caller) -> str:
    """A function of the request: equal requests have equal ids, whole or streamed."""
    asked = body.model_dump(exclude={"stream", "stream_options"})
    return sha256_hex(canonical_json([asked, sorted(caller.labels)]))[:24]


def fingerprint(service: Service) -> str:
    """Which weights and which numeric class."""
    made_of = [service.model.identity.digest, service.model.engine.numeric_class]
    return "fp_" + sha256_hex(canonical_json(made_of))[:12]


def finish(answer: Answer) -> str:
    return "length" if answer.finish_reason == "length" else "stop"


def usage(answer: Answer) -> dict[str, Any]:
    read, written = answer.prompt_tokens or 0, answer.answer_tokens or 0
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
