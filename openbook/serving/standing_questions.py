"""Standing questions over HTTP: saved, listed, removed, and asked when their caller requests it.

A caller has the questions that its own key saved; callers without a key have theirs in common. `openbook questions watch`
asks the questions of all callers and posts what changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Literal

from fastapi import APIRouter

from openbook.answers.retrieval import Corpus, Options
from openbook.answers.standing_questions import (
    QuestionStore,
    SavedQuestion,
    StandingAnswer,
    StandingQuestion,
    ask_again,
    described,
    visible,
)
from openbook.knowledge import KnowledgeBase
from openbook.proofs.receipts import append_receipt
from openbook.serving.auth import LOCAL
from openbook.serving.errors import ApiError, api_error
from openbook.serving.routing import Route, needs
from openbook.serving.schemas import Body, ListOf, NonEmpty, OfBase, Reply
from openbook.serving.service import Call, CurrentCall

router = APIRouter(route_class=Route)


class QuestionBody(OfBase):
    """`where`: only documents that match."""

    question: str
    where: str = ""


class QuestionId(Body):
    id: NonEmpty


class RemovedQuestion(Reply):
    object: Literal["removed"] = "removed"
    id: str


@router.get("/v1/questions", **needs("read"))
def list_questions(call: CurrentCall) -> ListOf[SavedQuestion]:
    """The standing questions that the caller's key saved, with their answers and how these changed."""
    return ListOf[SavedQuestion](data=[described(*each) for each in _saved(call)])


@router.post("/v1/questions", **needs("read"))
def save_question(call: CurrentCall, body: QuestionBody) -> SavedQuestion:
    """Save a question. It is asked at the next check."""
    base = call.service.base(body.knowledge_base)
    name = next(name for name, each in call.service.bases.items() if each is base)
    store = _store(call, base)
    labels = call.caller.labels if call.caller.id == LOCAL else ()  # a key's may change
    question = store.add(call.caller.id, body.question, body.where, sorted(labels))
    return described(question, visible(store.answer(question), call.caller.labels, base), name)


@router.post("/v1/questions/remove", **needs("read"))
def remove_question(call: CurrentCall, body: QuestionId) -> RemovedQuestion:
    """Delete one of the caller's questions, with its answer."""
    if not any(_store(call, base).remove(call.caller.id, body.id) for base in call.service.bases.values()):
        raise ApiError(404, f"There is no question {body.id[:100]!r}.", code="question_not_found", param="id")
    return RemovedQuestion(id=body.id)


@router.post("/v1/questions/check", **needs("read"))
async def check_questions(call: CurrentCall, body: Body) -> ListOf[SavedQuestion]:
    """Ask the caller's questions now, as far as a newer version makes that due. Returns all of them.

    Questions that another check is asking are not waited for.
    """
    await call.run(call.service.reading, _check, math.inf)
    return await call.compute(list_questions)


def _check(call: Call) -> None:
    settings, receipts = call.service.configuration.settings, call.service.configuration.receipts
    fallback = call.service.fallback(call.model, call.models)
    for base in call.service.bases.values():
        store, corpus = _store(call, base), Corpus(base, call.service.embedder)
        ask = partial(ask_again, store, corpus=corpus, model=call.model, options=Options.of(settings))
        ask = partial(ask, fallback=fallback, cancelled=call.stop, explain=lambda error: api_error(error).message)
        with store.checking(call.caller.id) as held:
            for question in call.stop.each(store.due(call.caller.id)) if held else ():
                answer = ask(question=question, labels=call.caller.labels)
                given = answer and answer.given
                if answer and given and receipts and given.receipt.knowledge_base_version == answer.version:
                    append_receipt(receipts, given.receipt)


def recorded_changes(call: Call) -> int:
    """How many changes of answers are recorded for the caller. A purge deletes them."""
    return sum(len(answer.changes) for _, answer, _ in _saved(call) if answer)


def _saved(call: Call) -> Iterator[tuple[StandingQuestion, StandingAnswer | None, str]]:
    """The caller's questions with what it may see of their answers, and the name of their knowledge base."""
    for name, base in call.service.bases.items():
        store = _store(call, base)
        for question in call.stop.each(store.questions(call.caller.id)):
            yield question, visible(store.answer(question), call.caller.labels, base), name


def _store(call: Call, base: KnowledgeBase) -> QuestionStore:
    return QuestionStore(call.service.configuration.settings, base.id)
