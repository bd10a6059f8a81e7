"""A request for an answer in any of OpenAI's shapes: the core flow, as one response or as events.

The whole conversation comes with each request and is forgotten after it.
"""

from __future__ import annotations

import asyncio
import json
import time
import unicodedata
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Protocol

from fastapi import Response
from starlette.types import Receive, Scope, Send

from openbook import knowledge
from openbook.answer import Options, ask, checked_question
from openbook.conversation import understood
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from openbook.receipts import append
from openbook.records import Answer, Citation, Decoding, canonical_json, sha256_hex
from openbook.serving.concurrency import Stop
from openbook.serving.errors import ApiError, ClientGone, api_error, check_at_most, invalid, server_stops
from openbook.serving.schemas import AnswerBody, Message, Reply, ScopeOptions, ServedAnswer, Usage
from openbook.serving.service import Call, Service, scope_of

CLOSED_BOOK = "closed-book"
MOST_STOPS = 4
MAX_INSTRUCTION_CHARS = 2_000  # what a small model can follow beside passages, and little of its context
DONE = b"data: [DONE]\n\n"

_STREAM_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
_JOINERS = "\u200c\u200d"  # they make other letters and pictures of their neighbours, and nothing else


# --- what is asked ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Conversation:
    """`turns`: the user's, before the question. `instruction`: how the caller wants to be answered. `earlier`: the number of earlier turns."""

    question: str
    turns: tuple[str, ...] = ()
    instruction: str = ""
    earlier: int = 0

    @classmethod
    def of(cls, messages: Sequence[Message], param: str, instructions: str | None = None) -> Conversation:
        """The last message is the question. `param`: where they stand; `instructions`: a system message beside them.

        Raises ApiError when the last message is not the user's.
        """
        last = messages[-1]
        if last.role != "user":
            message = f"The last message is the question, so its role must be 'user', not {last.role!r}."
            raise invalid(message, f"{param}[{len(messages) - 1}].role")
        turns = tuple(m.text for m in messages[:-1] if m.role == "user" and m.text.strip())
        told = [instructions or "", *(m.text for m in messages if m.role in ("system", "developer"))]
        instruction = "\n".join(text.replace("\0", " ").strip() for text in told if text.strip())
        earlier = sum(m.role in ("user", "assistant") and bool(m.text.strip()) for m in messages[:-1])
        return cls(last.text, turns, instruction, earlier)

    def warnings(self, *, closed_book: bool, trained: bool, rewritten: bool) -> list[str]:
        """What is ignored: by a reader `trained` on one instruction, or without passages."""
        found, length = [], len(self.instruction)
        if length and trained:
            found.append(
                "The system message is ignored. This model follows only the instruction that it was trained with."
            )
        elif length > MAX_INSTRUCTION_CHARS:
            limit = f"the limit is {MAX_INSTRUCTION_CHARS:,}"
            found.append(f"The system message is ignored. It has {length:,} characters; {limit}.")
        if closed_book and self.earlier and not rewritten:
            found.append("The earlier turns are ignored. Without passages, the model gets only the last question.")
        return found


@dataclass(frozen=True, slots=True)
class ModelName:
    """What a model's name asks for: `reader`, `reader:closed-book`, `reader:handbook`, `reader:handbook@3`.

    So a client that can choose only a model can also choose a knowledge base and its version. `knowledge_base`: None: the
    first. `as_of`: a version, time or tag; None: the newest.
    """

    closed_book: bool = False
    knowledge_base: str | None = None
    as_of: str | None = None

    @classmethod
    def parse(cls, model: str, served: str, bases: Collection[str]) -> ModelName:
        """`served`: the name of the model, which may hold colons itself. Raises ApiError for no such name."""
        if model == served:
            return cls()
        if model.startswith(f"{served}:"):
            rest = model[len(served) + 1 :]
            if rest == CLOSED_BOOK:
                return cls(closed_book=True)
            if rest in bases:
                return cls(knowledge_base=rest)
            base, _, as_of = rest.rpartition("@")
            if as_of and base in bases:
                return cls(knowledge_base=base, as_of=as_of)
        names = ", ".join([served, f"{served}:{CLOSED_BOOK}", *(f"{served}:{base}" for base in bases)])
        message = f"The model {model[:100]!r} does not exist. There are: {names}; @VERSION after a knowledge base names a version."
        raise ApiError(404, message, code="model_not_found", param="model")

    def scope_options(self, also: ScopeOptions) -> ScopeOptions:
        """Together with what the body chooses. Raises ApiError when the same is chosen in both places."""
        chosen = {"knowledge_base": self.knowledge_base, "as_of": self.as_of}
        chosen = {key: value for key, value in chosen.items() if value is not None}
        for key in chosen:
            if getattr(also, key) is not None:
                message = f"{key} is in the model's name and in openbook.{key}; send it in one place only."
                raise invalid(message, f"openbook.{key}")
        return also.model_copy(update=chosen)


# --- answering --------------------------------------------------------------------------------------------------------


class Shape(Protocol):
    """How one of OpenAI's shapes shows an answer. `text` is the answer's text with anything appended to it."""

    def whole(self, answer: ServedAnswer, text: str) -> Reply: ...

    def piece(self, text: str, *, first: bool) -> Iterable[bytes]:
        """The events for a part of the text; with `first`, the opening events come before them."""

    def end(self, answer: ServedAnswer, text: str, *, begun: bool) -> Iterable[bytes]:
        """The events after the text."""


async def respond(call: Call, body: AnswerBody, conversation: Conversation, shape: Shape) -> Reply | Response:
    """Raises ApiError, QuestionError before anything is computed."""
    service, own = call.service, body.openbook
    question = checked_question(conversation.question)
    name = ModelName.parse(body.model, call.model.identity.name, service.bases)
    if not name.closed_book and not service.bases:
        message = f"No knowledge base: ask {body.model}:{CLOSED_BOOK}."
        raise ApiError(404, message, code="no_knowledge_base", param="model")
    chosen = name.scope_options(own)
    base = None if name.closed_book else service.base(chosen.knowledge_base)
    trained = call.model.reader is not None
    options = _options(service, body)
    if not trained and len(conversation.instruction) <= MAX_INSTRUCTION_CHARS:
        options = replace(options, instruction=conversation.instruction)

    def work(stop: Stop, show: Callable[[str], None] = lambda piece: None) -> ServedAnswer:
        param = "model" if name.as_of is not None else "as_of"
        scope = scope_of(base, call.caller, chosen, param) if base else knowledge.Scope()
        answer = answered(call, conversation, base, scope, options, stop, show)
        unused = conversation.warnings(closed_book=base is None, trained=trained, rewritten=answer.question != question)
        values = {each.name: getattr(answer, each.name) for each in fields(answer)}
        if base is not None and not base.shows_all_to(call.caller.labels):
            values["timings"] = None  # they tell of documents that the caller may not see
        return ServedAnswer(**values, warnings=(*body.warnings, *unused))

    def appended(answer: Answer) -> str:
        return footnotes(answer) if own.footnotes else ""

    if body.stream:
        return EventStream(lambda: _events(call, work, shape, appended))
    answer = await call.read(work)
    return shape.whole(answer, answer.answer + appended(answer))


def answered(
    call: Call,
    conversation: Conversation,
    base: KnowledgeBase | None,
    scope: knowledge.Scope,
    options: Options,
    stop: Stop,
    show: Callable[[str], None] = lambda piece: None,
) -> Answer:
    """On a thread: the answer, its receipt in the log if one is kept. Without `base` it is closed-book.

    Raises as `ask` and `Stop.check` do.
    """
    service, began_ns, headers = call.service, time.time_ns(), call.request.headers
    mode = "closed-book" if base is None else "open-book"
    try:
        meant = understood(call.model, conversation.turns, conversation.question, stop)
        answer = ask(
            meant.question,
            call.model,
            base,
            service.embedder if base else None,
            options,
            query=meant.query,
            scope=scope,
            on_text=show,
            cancelled=stop,
        )
    except Exception as error:
        service.traces.failed(error, mode, began_ns, headers)
        raise
    service.traces.answered(answer, mode, began_ns, headers)
    cancelled = answer.finish_reason == "cancelled"
    end = "abstained" if answer.abstained and not cancelled else answer.finish_reason
    service.metrics.answer(mode, end, answer.prompt_tokens, answer.answer_tokens)
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
        stop=body.stops,
        quote=own.quote,
    )
    return Options(passages, own.strategy or service.configuration.settings.strategy, decoding)


def footnotes(answer: Answer) -> str:
    """For clients that show only text, for each citation a paragraph "[1] `document`, page 2, characters 10-20: `quote`".

    The numbers are those of `openbook.citations`, counted from 1.
    """
    return "".join(f"\n\n[{i}] {_footnote(each)}" for i, each in enumerate(answer.citations, 1))


def _footnote(citation: Citation) -> str:
    page = "" if citation.page is None else f", page {citation.page}"
    place = f"characters {citation.start}-{citation.end}"
    return f"{_inert(citation.document)}{page}, {place}: {_inert(citation.quote)}"


def _inert(text: str) -> str:
    """On one line, in backticks, between which Markdown is text; without characters that control how it is shown."""

    def plain(character: str) -> str:
        kind = unicodedata.category(character)
        if kind in ("Cc", "Cs", "Zl", "Zp"):
            return " "
        return "" if kind == "Cf" and character not in _JOINERS else character

    line = " ".join("".join(map(plain, text.replace("`", "'"))).split())
    return f"`{line or ' '}`"  # two backticks with nothing between would begin something else


# --- events -----------------------------------------------------------------------------------------------------------


def event(value: Reply | dict[str, Any], name: str = "") -> bytes:
    """A server-sent event. Its JSON is ASCII without line feeds, so that no text can end it or begin another.

    Some clients take other characters, such as U+2028, for the end of a line too.
    """
    data = value.model_dump(mode="json") if isinstance(value, Reply) else value
    begin = f"event: {name}\n" if name else ""
    return f"{begin}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


class EventStream(Response):
    """Events, or an error when they fail before the first. They are closed when the client goes."""

    media_type = "text/event-stream"

    def __init__(self, events: Callable[[], AsyncGenerator[bytes, None]]) -> None:
        super().__init__(headers=_STREAM_HEADERS)
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        try:
            async with aclosing(self._events()) as events:
                async for data in events:
                    if not started:
                        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                        started = True
                    await send({"type": "http.response.body", "body": data, "more_body": True})
        except ClientGone:
            return
        except Exception as error:  # noqa: BLE001  told as far as the client may know, and logged
            told = api_error(error)
            if not started:
                await told.response()(scope, receive, send)
                return
            await send({"type": "http.response.body", "body": event(told.body), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _events(
    call: Call,
    work: Callable[[Stop, Callable[[str], None]], ServedAnswer],
    shape: Shape,
    appended: Callable[[Answer], str],
) -> AsyncGenerator[bytes, None]:
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str | None] = asyncio.Queue()

    def show(piece: str) -> None:
        try:
            loop.call_soon_threadsafe(queue.put_nowait, piece)
        except RuntimeError as error:  # the loop is closed
            raise server_stops() from error

    task = asyncio.create_task(call.read(lambda stop: work(stop, show)))
    task.add_done_callback(lambda _: queue.put_nowait(None))
    shown = ""
    try:
        while (piece := await queue.get()) is not None:
            for each in shape.piece(piece, first=not shown) if piece else ():
                yield each
            shown += piece
        answer = task.result()
        # Where a model abstained in words of its own, those stand, and nothing follows.
        rest = answer.answer[len(shown) :] if answer.answer.startswith(shown) else ""
        begun = bool(shown)
        for text in filter(None, [rest, appended(answer)]):
            for each in shape.piece(text, first=not begun):
                yield each
            begun = True
        for each in shape.end(answer, answer.answer + appended(answer), begun=begun):
            yield each
    finally:
        task.cancel()


# --- what shapes share ------------------------------------------------------------------------------------------------


def request_id(body: AnswerBody, call: Call) -> str:
    """A function of the request: equal requests have equal ids, whole or streamed."""
    asked = body.model_dump(exclude={"stream", "stream_options"})
    return sha256_hex(canonical_json([asked, sorted(call.caller.labels)]))[:24]


def fingerprint(model: FrozenModel) -> str:
    """Which weights and which numeric class."""
    return "fp_" + sha256_hex(canonical_json([model.identity.digest, model.engine.numeric_class]))[:12]


def finish(answer: Answer) -> Literal["stop", "length"]:
    return "length" if answer.finish_reason == "length" else "stop"


def usage(answer: Answer) -> Usage:
    read, written = answer.prompt_tokens or 0, answer.answer_tokens or 0
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)
