"""Answers in any client's shape, whole or as events. Each request brings its whole conversation; none of it is kept."""

from __future__ import annotations

import asyncio
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar

from fastapi.responses import StreamingResponse

from openbook.answers.ask import ask_with_fallback
from openbook.answers.prompts import checked_question
from openbook.answers.reading import CLOSED_BOOK
from openbook.answers.retrieval import Corpus, Options
from openbook.core.errors import QuestionError
from openbook.core.parallel import Listener
from openbook.core.records import Answer, AnswerSentence, Citation, Decoding, Hit, canonical_json, sha256_hex
from openbook.inference.json_grammar import checked_schema
from openbook.knowledge import KnowledgeBase
from openbook.proofs.receipts import append_receipt
from openbook.serving.errors import ApiError, ClientGone, api_error, check_at_most, invalid
from openbook.serving.schemas import INT64, AnswerBody, Message, ScopeParams, ServedAnswer
from openbook.serving.service import Call, scope_of

MAX_STOPS = 32  # editors send a dozen
MAX_INSTRUCTION_CHARS = 2_000  # more would confuse a small model and fill its context

TASK = "### Task:"  # begins what Open WebUI writes itself: titles to find, and questions that bring their own text

_TOLD, _TOOLS = ("system", "developer"), ("tool", "function")  # roles
_PROGRESS_S = 0.25  # at least, between two events of the stage "reading"
_STREAM_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


# --- what is asked ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Conversation:
    """The question and what came before it.

    `turns`: the user's earlier messages; `messages_before` counts all sides. `unread`: paths of results of tools, and of what
    follows the question.
    """

    question: str
    turns: tuple[str, ...] = ()
    instruction: str = ""
    messages_before: int = 0
    unread: tuple[str, ...] = ()

    @classmethod
    def of(cls, call: Call, messages: Sequence[Message], param: str, instructions: str | None = None) -> Conversation:
        """Split messages; the user's last one is the question. Raises ApiError without one. `param`: for errors."""
        check_at_most(len(messages), call.service.configuration.bounds.messages, "messages", param)
        last = max((i for i, m in enumerate(messages) if m.role == "user"), default=None)
        if last is None:
            message = f"The question is the last message whose role is 'user'; {param} has none."
            raise invalid(message, f"{param}[{len(messages) - 1}].role")
        turns = tuple(m.text for m in messages[:last] if m.role == "user" and m.text.strip())
        told = [instructions or "", *(m.text for m in messages if m.role in _TOLD)]
        instruction = "\n".join(text.replace("\0", " ").strip() for text in told if text.strip())
        messages_before = sum(m.role not in _TOLD and bool(m.text.strip()) for m in messages[:last])
        unread = tuple(
            f"{param}[{i}]" for i, m in enumerate(messages) if m.role in _TOOLS or (i > last and m.role not in _TOLD)
        )
        return cls(messages[last].text, turns, instruction, messages_before, unread)

    def warnings(self, *, closed_book: bool, trained: bool) -> list[str]:
        """The ignored parts, a sentence each. A reader `trained` on one instruction takes no other."""
        found, length = [], len(self.instruction)
        if length and trained:
            found.append(
                "The system message is ignored. This model follows only the instruction that it was trained with."
            )
        elif length > MAX_INSTRUCTION_CHARS:
            limit = f"the limit is {MAX_INSTRUCTION_CHARS:,}"
            found.append(f"The system message is ignored. It has {length:,} characters; {limit}.")
        if closed_book and self.messages_before:
            found.append("The earlier turns are ignored. Without passages, the model gets only the last question.")
        if self.unread:
            more = f" and {len(self.unread) - 1:,} more" if self.unread[1:] else ""
            found.append(
                f"{self.unread[0]!r}{more} ignored. The model reads the question, which is the user's last message, and passages; "
                "it neither reads results of tools nor continues an answer."
            )
        return found


# --- answering --------------------------------------------------------------------------------------------------------


class Shape(ABC):
    """A format for the answers to one question: as many as the body wants, or one for all. Streams are server-sent events."""

    media_type: ClassVar[str] = "text/event-stream"

    @abstractmethod
    def whole(self, answers: Sequence[ServedAnswer]) -> Any: ...

    def begin(self) -> bytes:
        """The events before the text."""
        return b""

    @abstractmethod
    def piece(self, text: str) -> bytes:
        """The event for a part of the text."""

    @abstractmethod
    def end(self, answers: Sequence[ServedAnswer]) -> bytes:
        """The events after the text of the first answer."""

    def failed(self, error: ApiError) -> bytes:
        """The last event, if the answer failed."""
        return event(error.body)


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a question is answered. `seeds`: one for each answer to compute. `warnings`: what is ignored, and why."""

    base: KnowledgeBase | None
    options: Options
    seeds: Sequence[int]
    warnings: tuple[str, ...]


async def respond(
    call: Call,
    body: AnswerBody,
    conversation: Conversation,
    limit: str,
    shape: Shape,
    progress: Callable[[dict[str, Any]], bytes] | None = None,
) -> Any:
    """Answer whole or as events. `limit`: the body's parameter for the answer's length.

    `progress`: the event for a stage before the text. Raises ApiError, QuestionError before any work.
    """
    checked_question(conversation.question)
    call, suffix = call.resolve(body.model)
    plan = _plan(call, body, conversation, _base(call, body, suffix), limit, tells_progress=progress is not None)

    def work(call: Call, listener: Listener = Listener()) -> list[ServedAnswer]:
        return _answers(call, body, conversation.question, plan, listener)

    if not body.stream:
        return shape.whole(await call.compute(work))
    events = _events(call, work, shape, progress)
    first = await anext(events)  # an error until then is a response with its own status
    return StreamingResponse(
        _ending_with_error(first, events, shape), headers=_STREAM_HEADERS, media_type=shape.media_type
    )


def _plan(
    call: Call,
    body: AnswerBody,
    conversation: Conversation,
    base: KnowledgeBase | None,
    limit: str,
    *,
    tells_progress: bool,
) -> _Plan:
    """Raises ApiError for a value above a bound."""
    trained, in_json = call.model.reader is not None, body.wanted_schema is not None
    is_task = base is not None and conversation.question.startswith(TASK)
    base = None if is_task else base
    options, lowered = _options(call, body, limit)
    follows = not trained and len(conversation.instruction) <= MAX_INSTRUCTION_CHARS
    options = replace(options, earlier=conversation.turns, instruction=conversation.instruction if follows else "")
    if in_json:
        options = replace(options, decoding=replace(options.decoding, stop=()))
    sampled, seed = bool(options.decoding.temperature), options.decoding.seed
    seeds = [(seed + i + INT64) % (2 * INT64) - INT64 for i in range(body.choices if sampled else 1)]
    ignored = {
        f"No document is read for a message that begins with {TASK!r}: it is a task, not a question.": is_task,
        "'openbook.progress' is ignored. Only streams of /v1/chat/completions have it.": (
            body.openbook.progress and not (body.stream and tells_progress)
        ),
        f"The {body.choices} answers are equal. Only with a 'temperature' above 0 do they differ.": (
            body.choices > 1 and not sampled
        ),
        "This model was not trained to write JSON. Its values may be wrong or cut.": in_json
        and trained
        and base is not None,
        "'stop' is ignored. It could end an answer before its JSON is complete.": in_json and bool(body.stops),
    }
    told = conversation.warnings(closed_book=base is None, trained=trained)
    warnings = (*body.warnings, *lowered, *told, *(sentence for sentence, applies in ignored.items() if applies))
    return _Plan(base, options, seeds, warnings)


def _answers(
    call: Call, body: AnswerBody, question: str, plan: _Plan, listener: Listener = Listener()
) -> list[ServedAnswer]:
    """Compute the answers on a worker thread; `listener` hears of the first."""
    schema, own, base, corpus = _schema(body), body.openbook, plan.base, None
    if base is not None:
        scope = scope_of(base, call.caller, own.as_of, own.where, "openbook.as_of")
        corpus = Corpus(base, call.service.embedder, scope)
    found = list[ServedAnswer]()
    for seed in plan.seeds:
        options = replace(plan.options, decoding=replace(plan.options.decoding, seed=seed, schema=schema))
        answer = answered(call, question, corpus, options, Listener() if found else listener)
        if base is not None and not base.shows_all_to(call.caller.labels):
            answer = replace(answer, timings=None)  # times would reveal documents that the caller may not see
        values = {each.name: getattr(answer, each.name) for each in fields(answer)}
        found.append(ServedAnswer(**values, warnings=plan.warnings))
    return found


def _schema(body: AnswerBody) -> str:
    """For `Decoding`. Compiles it, which may take a second. Raises ApiError."""
    try:
        return "" if body.wanted_schema is None else checked_schema(body.wanted_schema)
    except QuestionError as error:
        raise invalid(str(error), body.wanted_format[0]) from error


def _base(call: Call, body: AnswerBody, suffix: str) -> KnowledgeBase | None:
    """The knowledge base to read. `suffix`: of the model's name. Raises ApiError."""
    service, own, place = call.service, body.openbook, "openbook.knowledge_base"
    if suffix == CLOSED_BOOK:
        for name in ScopeParams.model_fields:
            if getattr(own, name) not in (None, ""):
                raise invalid(f"{body.model} reads no documents; leave openbook.{name} out.", f"openbook.{name}")
        return None
    if not service.bases:
        message = f"No knowledge base: ask {call.model.identity.name}:{CLOSED_BOOK}."
        raise ApiError(404, message, code="no_knowledge_base", param="model")
    if suffix and own.knowledge_base is not None:
        message = f"The knowledge base is in the model's name and in {place}; send it in one place only."
        raise invalid(message, place)
    return service.base(suffix or own.knowledge_base, place)


def answered(
    call: Call, question: str, corpus: Corpus | None, options: Options, listener: Listener = Listener()
) -> Answer:
    """Answer on a worker thread and log the receipt. No `corpus`: closed-book. Raises as `ask` and `Stop.check` do."""
    stop = call.stop
    call.service.answers.add(id(stop))
    try:
        fallback, listener = call.service.fallback(call.model, call.models), replace(listener, cancelled=stop)
        answer = ask_with_fallback(question, call.model, fallback, corpus, options, listener)
    finally:
        call.service.answers.discard(id(stop))
    call.service.metrics.answer(CLOSED_BOOK if corpus is None else "open-book", answer)
    if answer.finish_reason == "cancelled":
        stop.check()
    if (log := call.service.configuration.receipts) is not None:
        append_receipt(log, answer.receipt)
    return answer


def _options(call: Call, body: AnswerBody, limit: str) -> tuple[Options, list[str]]:
    """(options, a warning if the answer's length was lowered). Raises ApiError."""
    configuration, own = call.service.configuration, body.openbook
    settings, bounds, lowered = configuration.settings, configuration.bounds, list[str]()
    max_tokens = getattr(body, limit) or settings.max_tokens
    most = max(bounds.answer_tokens or call.model.context_tokens // 2, settings.max_tokens)
    if max_tokens > most:  # the passages need the rest of the context
        lowered = [f"{limit!r} is lowered from {max_tokens:,} to {most:,}, the most that this server allows."]
        max_tokens = most
    check_at_most(body.choices, bounds.answers, "answers", "n")
    check_at_most(len(body.stops), MAX_STOPS, "texts", "stop")
    passages = settings.passages if own.passages is None else own.passages
    check_at_most(passages, max(bounds.passages, settings.passages), "passages", "openbook.passages")
    decoding = Decoding(
        temperature=body.temperature or 0.0,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=body.seed or 0,
        max_tokens=max_tokens,
        stop=body.stops,
        quote=own.quote,
    )
    own_strategy = own.strategy or settings.strategy
    return replace(Options.of(settings), passages=passages, strategy=own_strategy, decoding=decoding), lowered


# --- events -----------------------------------------------------------------------------------------------------------


def event(value: dict[str, Any], name: str = "") -> bytes:
    """A server-sent event: ASCII JSON without line feeds, so text cannot end an event. Some clients break lines at U+2028."""
    begin = f"event: {name}\n" if name else ""
    return f"{begin}data: {json.dumps(value, separators=(',', ':'))}\n\n".encode()


async def _events(
    call: Call,
    work: Callable[[Call, Listener], list[ServedAnswer]],
    shape: Shape,
    progress: Callable[[dict[str, Any]], bytes] | None,
) -> AsyncGenerator[bytes, None]:
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str | bytes | None] = asyncio.Queue()
    read_at = -math.inf

    def show(item: str | bytes) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, item)

    def tell(stage: str, **more: Any) -> None:
        if progress is not None:
            show(progress({"stage": stage, **more}))

    def found(searched: str, hits: Sequence[Hit]) -> None:
        tell("found", searched=searched, passages=[asdict(hit) for hit in hits])

    def reading(done: int, total: int) -> None:
        nonlocal read_at
        if done == total or time.monotonic() - read_at >= _PROGRESS_S:
            read_at = time.monotonic()
            tell("reading", done=done, total=total)

    listener = Listener(show, found, reading) if progress else Listener(show)
    task = asyncio.create_task(call.compute(lambda call: work(call, listener), lambda: tell("waiting")))
    task.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        shown, begun = "", False
        while (item := await queue.get()) is not None:
            if isinstance(item, str):
                if not begun:
                    yield shape.begin()
                shown, begun, item = shown + item, True, shape.piece(item)
            yield item
        answers = task.result()  # raises the error that ended it
        if not begun:
            yield shape.begin()
        # A model that abstained in its own words keeps them; nothing is added.
        text = answers[0].answer
        if text.startswith(shown) and text != shown:
            yield shape.piece(text[len(shown) :])
        yield shape.end(answers)
    finally:
        task.cancel()


async def _ending_with_error(first: bytes, events: AsyncGenerator[bytes, None], shape: Shape) -> AsyncIterator[bytes]:
    """If the answer fails, the last event is the error."""
    async with aclosing(events):
        yield first
        try:
            async for each in events:
                yield each
        except ClientGone:
            return
        except Exception as error:  # noqa: BLE001  sent as far as the client may know, and logged
            yield shape.failed(api_error(error))


# --- what shapes share ------------------------------------------------------------------------------------------------


def cited_sentences(answer: Answer) -> list[tuple[AnswerSentence, Citation]]:
    """Each sentence with its nearest quote."""
    return [(each, answer.citations[each.citation]) for each in answer.sentences if each.citation is not None]


def request_id(body: AnswerBody, call: Call) -> str:
    """An id that is equal for equal requests, whole or streamed."""
    asked = body.model_dump(exclude={"stream": True, "stream_options": True, "openbook": {"progress"}})
    return sha256_hex(canonical_json([asked, sorted(call.caller.labels)]))[:24]
