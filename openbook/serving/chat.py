"""POST /v1/chat/completions: the core flow in the shape of OpenAI's API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive

from openbook.answer import ABSTENTION, Options, ask, checked_question
from openbook.knowledge import KnowledgeBase, Scope
from openbook.receipts import append
from openbook.records import Answer, Decoding, canonical_json, sha256_hex
from openbook.serving.access import Caller
from openbook.serving.bodies import CHAT_UNSUPPORTED, ChatBody, parsed
from openbook.serving.conversation import Asked, asked
from openbook.serving.refusals import Refusal
from openbook.serving.running import Stop
from openbook.serving.service import Service, check_at_most, scope_of
from openbook.serving.streaming import DONE, EventStream, Shown, event, pieces_of

MOST_STOPS = 4


@dataclass(frozen=True, slots=True)
class Job:
    """One question, checked. `base` is None for a closed-book answer."""

    asked: Asked
    base: KnowledgeBase | None
    scope: Scope
    options: Options

    @property
    def mode(self) -> str:
        return "closed-book" if self.base is None else "open-book"


async def chat(service: Service, request: Request, caller: Caller) -> ASGIApp:
    body = parsed(ChatBody, await request.body(), CHAT_UNSUPPORTED)
    check_at_most(len(body.messages), service.configuration.bounds.messages, "messages")
    if body.stream_options is not None and not body.stream:
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise Refusal(400, message, code="invalid_value", param="stream_options")
    made = asked(body.messages)
    checked_question(made.question)
    closed = service.is_closed_book(body.model)
    if not closed and not service.bases:
        raise Refusal(404, f"No knowledge base: ask {body.model}:closed-book.", code="no_knowledge_base", param="model")
    base = None if closed else service.base(body.openbook.knowledge_base)
    options = _options(service, body)

    def work(stop: Stop, show: Callable[[str], None] = lambda piece: None) -> Answer:
        scope = scope_of(base, caller, body.openbook) if base else Scope()
        return answered(service, Job(made, base, scope, options), stop, show)

    def described(answer: Answer) -> dict[str, Any]:
        return replace(answer, notes=(*answer.notes, *made.notes)).to_json()

    head = _Head(_id(body, caller), int(time.time()), body.model, _fingerprint(service))
    if body.stream:
        usage = bool(body.stream_options and body.stream_options.include_usage)
        held = [ABSTENTION, *([service.model.reader.abstention] if service.model.reader else [])]
        shown = Shown(held if base else ())
        return EventStream(lambda receive: _events(service, receive, work, head, shown, described, usage=usage))
    answer = await service.read(request.receive, work)
    return JSONResponse(head.completion(answer) | {"openbook": described(answer)})


def answered(service: Service, job: Job, stop: Stop, show: Callable[[str], None]) -> Answer:
    """On a thread: the answer, its receipt in the log if one is kept. Raises as `ask` does, and what breaking off means."""
    answer = ask(
        job.asked.question,
        service.model,
        job.base,
        service.embedder if job.base else None,
        job.options,
        query=job.asked.query,
        scope=job.scope,
        on_text=show,
        cancelled=stop,
    )
    cancelled = answer.finish_reason == "cancelled"
    end = "abstained" if answer.abstained and not cancelled else answer.finish_reason
    service.metrics.answer(job.mode, end, answer.prompt_tokens, answer.answer_tokens)
    if cancelled:
        stop.check()
    if (log := service.configuration.receipts) is not None:
        append(log, answer.receipt, timeout_s=service.configuration.settings.lock_timeout_s)
    return answer


def _options(service: Service, body: ChatBody) -> Options:
    settings, bounds, own = service.configuration.settings, service.configuration.bounds, body.openbook
    max_tokens = body.max_completion_tokens or body.max_tokens or settings.max_tokens
    check_at_most(max_tokens, max(bounds.answer_tokens, settings.max_tokens), "max_tokens")
    check_at_most(len(body.stops), MOST_STOPS, "stop")
    passages = settings.passages if own.passages is None else own.passages
    check_at_most(passages, max(bounds.passages, settings.passages), "openbook.passages")
    decoding = Decoding(
        temperature=body.temperature or 0.0,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=body.seed or 0,
        max_tokens=max_tokens,
        stop=("\n", *body.stops),
        quote=own.quote,
    )
    return Options(passages, own.strategy or service.configuration.strategy, decoding)


# --- shapes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Head:
    """What every part of one answer says. Of it only `created` differs between two equal requests."""

    id: str
    created: int
    model: str
    fingerprint: str

    def _of(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }

    def completion(self, answer: Answer) -> dict[str, Any]:
        message = {"role": "assistant", "content": answer.answer, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(answer)}
        return {**self._of("chat.completion"), "choices": [choice], "usage": _usage(answer)}

    def chunk(self, delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._of("chat.completion.chunk"), "choices": [choice]}

    def usage_chunk(self, answer: Answer) -> dict[str, Any]:
        return {**self._of("chat.completion.chunk"), "choices": [], "usage": _usage(answer)}


async def _events(
    service: Service,
    receive: Receive,
    work: Callable[[Stop, Callable[[str], None]], Answer],
    head: _Head,
    shown: Shown,
    described: Callable[[Answer], dict[str, Any]],
    *,
    usage: bool,
) -> AsyncGenerator[bytes, None]:
    begun = False

    def start(show: Callable[[str], None]) -> asyncio.Task[Answer]:
        return asyncio.create_task(service.read(receive, lambda stop: work(stop, show)))

    def delta(text: str) -> dict[str, str]:
        return {"content": text} if begun else {"role": "assistant", "content": text}

    async with aclosing(pieces_of(start)) as pieces:
        async for piece in pieces:
            if isinstance(piece, str):
                if text := shown.feed(piece):
                    yield event(head.chunk(delta(text)))
                    begun = True
                continue
            answer = piece.value
            if rest := shown.rest(answer.answer):
                yield event(head.chunk(delta(rest)))
            yield event(head.chunk({}, _finish(answer)) | {"openbook": described(answer)})
            if usage:
                yield event(head.usage_chunk(answer))
    yield DONE


def _finish(answer: Answer) -> str:
    return "length" if answer.finish_reason == "length" else "stop"


def _usage(answer: Answer) -> dict[str, Any]:
    read, written = answer.prompt_tokens or 0, answer.answer_tokens or 0
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _id(body: ChatBody, caller: Caller) -> str:
    """A function of the request: the same one asked twice has the same id."""
    return "chatcmpl-" + sha256_hex(canonical_json([body.model_dump(), sorted(caller.labels)]))[:24]


def _fingerprint(service: Service) -> str:
    """Which weights and which numeric class."""
    made_of = [service.model.identity.digest, service.model.engine.numeric_class]
    return "fp_" + sha256_hex(canonical_json(made_of))[:12]
