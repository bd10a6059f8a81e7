"""Standing questions over HTTP, and the task that asks them again when their knowledge base has a new version.

A caller has the questions that its own key saved; callers without a key have theirs in common.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar

from fastapi import APIRouter

from openbook.answers.retrieval import Corpus, Options
from openbook.answers.standing_questions import (
    QuestionStore,
    StandingAnswer,
    StandingQuestion,
    State,
    ask_again,
    described,
    event,
    post,
    visible,
)
from openbook.core.records import Confidence
from openbook.knowledge import KnowledgeBase
from openbook.proofs.receipts import append_receipt
from openbook.serving.auth import LOCAL
from openbook.serving.concurrency import Stop
from openbook.serving.errors import LOG, ApiError, api_error
from openbook.serving.routing import Route, needs
from openbook.serving.schemas import Body, ListOf, NonEmpty, OfBase, Reply
from openbook.serving.service import Call, CurrentCall, Service

LOOK_S = 2.0  # between two looks for new versions
RETRY_S = 60.0  # after an error
_POLL_S = 0.05
_PLACE = "standing questions"  # the caller under which the task takes a place

router = APIRouter(route_class=Route)
_T = TypeVar("_T")
_Run: TypeAlias = Callable[[Callable[[Stop], _T]], Awaitable[_T]]


class QuestionBody(OfBase):
    """`where`: only documents that match."""

    question: str
    where: str = ""


class QuestionId(Body):
    id: NonEmpty


class AnswerOfVersion(Reply):
    """`receipt`: its digest."""

    answer: str
    receipt: str
    confidence: Confidence


class AnswerChange(Reply):
    """`version_before`: the last one with the old answer. `documents`: those whose windows made the difference."""

    version_before: int
    version_after: int
    at: str
    before: AnswerOfVersion
    after: AnswerOfVersion
    documents: list[str]


class SavedQuestion(Reply):
    """`state`: of the last check, at `version`; "new": not asked yet. `changes`: newest first."""

    object: Literal["question"] = "question"
    id: str
    knowledge_base: str
    question: str
    where: str
    created_at: str
    state: State
    version: int | None
    asked_at: str | None
    error: str
    answer: str
    receipt: str | None
    changes: list[AnswerChange]


class RemovedQuestion(Reply):
    object: Literal["removed"] = "removed"
    id: str


@router.get("/v1/questions", **needs("read"))
def list_questions(call: CurrentCall) -> ListOf[SavedQuestion]:
    """The standing questions that the caller's key saved, with their answers and how these changed."""
    return ListOf[SavedQuestion](data=[SavedQuestion(**described(*each)) for each in _saved(call)])


@router.post("/v1/questions", **needs("read"))
def save_question(call: CurrentCall, body: QuestionBody) -> SavedQuestion:
    """Save a question. It is asked in the background, now and after every new version."""
    base = call.service.base(body.knowledge_base)
    name = next(name for name, each in call.service.bases.items() if each is base)
    store = _store(call.service, base)
    question = store.add(call.caller.id, body.question, body.where)
    return SavedQuestion(**described(question, visible(store.answer(question), call.caller.labels, base), name))


@router.post("/v1/questions/remove", **needs("read"))
def remove_question(call: CurrentCall, body: QuestionId) -> RemovedQuestion:
    """Delete one of the caller's questions, with its answer."""
    if not any(_store(call.service, base).remove(call.caller.id, body.id) for base in call.service.bases.values()):
        raise ApiError(404, f"There is no question {body.id[:100]!r}.", code="question_not_found", param="id")
    return RemovedQuestion(id=body.id)


@router.post("/v1/questions/check", **needs("read"))
async def check_questions(call: CurrentCall, body: Body) -> ListOf[SavedQuestion]:
    """Ask the caller's questions now, as far as a newer version made that due. Returns all of them.

    It does not wait for the webhook, to which changes are posted in the background.
    """

    def run(work: Callable[[Stop], StandingAnswer | None]) -> Awaitable[StandingAnswer | None]:
        return call.run(call.service.reading, lambda own: work(own.stop), math.inf)

    for name, base in call.service.bases.items():
        while not await _check(call.service, name, base, call.caller.id, call.caller.labels, run):
            await call.run(None, lambda call: call.stop.check())  # raises if the client has left
            await asyncio.sleep(_POLL_S)
    return await call.compute(list_questions)


def recorded_changes(call: Call) -> int:
    """How many changes of answers are recorded for the caller. A purge deletes them."""
    return sum(len(answer.changes) for _, answer, _ in _saved(call) if answer)


def _saved(call: Call) -> Iterator[tuple[StandingQuestion, StandingAnswer | None, str]]:
    """The caller's questions with what it may see of their answers, and the name of their knowledge base."""
    for name, base in call.service.bases.items():
        store = _store(call.service, base)
        for question in call.stop.each(store.questions(call.caller.id)):
            yield question, visible(store.answer(question), call.caller.labels, base), name


def _store(service: Service, base: KnowledgeBase) -> QuestionStore:
    return QuestionStore(service.configuration.settings, base.id)


# --- in the background ------------------------------------------------------------------------------------------------


async def watch(service: Service) -> None:
    """Ask the questions of all owners whenever there is a new version, until cancelled."""
    seen: dict[str, object] = {}
    while True:
        pause = LOOK_S
        for name, base in service.bases.items():
            try:
                stamp, owners = await _in_pool(service, partial(_due, service, base, seen.get(name)))
                asked = [await _check(service, name, base, *each, partial(_when_free, service)) for each in owners]
                if all(asked):
                    seen[name] = stamp
            except Exception as error:  # noqa: BLE001  the task has no caller; the error is logged, without any text
                api_error(error)
                pause = RETRY_S
        await asyncio.sleep(pause)


def _due(service: Service, base: KnowledgeBase, seen: object) -> tuple[object, list[tuple[str, frozenset[str]]]]:
    """Return (what changes when there is something to ask, the owners with questions and their labels now)."""
    configuration, key_file, store = service.configuration, service.authenticator.keys, _store(service, base)
    found = store.stamp(base)
    if found is None:
        return None, []
    keys = [key for key in tuple(key_file.keys()) if key_file.days_left(key) != 0]
    held = {key.id: frozenset(key.labels) for key in keys}
    if not configuration.needs_key:
        held[LOCAL] = configuration.labels
    stamp = (found, held)
    if stamp == seen:
        return stamp, []
    owners = dict.fromkeys(question.owner for question in store.questions())
    return stamp, [(owner, held[owner]) for owner in owners if owner in held]


async def _check(
    service: Service,
    name: str,
    base: KnowledgeBase,
    owner: str,
    labels: frozenset[str],
    run: _Run[StandingAnswer | None],
) -> bool:
    """Ask an owner's questions one after the other, each through `run`. False: another process is asking them."""
    store = _store(service, base)
    changed: list[tuple[str, dict[str, Any]]] = []
    try:
        with store.checking(owner) as held:
            if not held:
                return False
            for question in store.questions(owner):
                mark = store.derived.purge_mark()
                answer = await run(partial(_ask, service, store, base, question, labels))
                if answer is not None and answer.state == "changed":
                    changed.append((mark, event(question, answer.changes[0], name)))
    finally:  # what changed is told, also if a later question failed
        if changed and service.configuration.webhook is not None:
            posting = asyncio.create_task(_post_each(service, store, service.configuration.webhook, changed))
            service.posting.add(posting)
            posting.add_done_callback(service.posting.discard)
    return True


async def _post_each(
    service: Service, store: QuestionStore, url: str, changed: Sequence[tuple[str, dict[str, Any]]]
) -> None:
    """Post events in order, after those of earlier checks; none from before a purge (each comes with the mark of then)."""
    async with service.webhook:
        for mark, each in changed:
            if mark == store.derived.purge_mark() and (why := await asyncio.to_thread(post, url, each)):
                LOG.warning("%s", why)


def _ask(
    service: Service,
    store: QuestionStore,
    base: KnowledgeBase,
    question: StandingQuestion,
    labels: frozenset[str],
    stop: Stop,
) -> StandingAnswer | None:
    configuration = service.configuration
    corpus, options = Corpus(base, service.embedder), Options.of(configuration.settings)
    with service.lend() as models:
        model = next(iter(models.values()))
        asked = partial(ask_again, store, question, labels, corpus, model, options, cancelled=stop)
        answer = asked(fallback=service.fallback(model, models), explain=lambda error: api_error(error).message)
    given = answer and answer.given
    if answer and given and configuration.receipts and given.receipt.knowledge_base_version == answer.version:
        append_receipt(configuration.receipts, given.receipt)
    return answer


async def _when_free(service: Service, work: Callable[[Stop], _T]) -> _T:
    """Run `work` in a `reading` place, once no request wants it."""
    reading = service.reading
    while reading.waiting or reading.running >= service.configuration.bounds.running:
        await asyncio.sleep(_POLL_S)
    stop = Stop(math.inf, service.ends)
    try:
        async with reading.place(_PLACE):
            return await _in_pool(service, partial(work, stop))
    finally:
        stop.client_gone.set()


async def _in_pool(service: Service, work: Callable[[], _T]) -> _T:
    return await asyncio.get_running_loop().run_in_executor(service.pool, work)
