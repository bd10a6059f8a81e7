"""Ask a model every question three ways: alone (closed-book), from documents (open-book), from the right passage
(oracle).

Retrieval and reading are those of `openbook ask`. Answers are kept in a file, so a stopped run resumes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from openbook.answers.answer_text import says_nothing_found, tidy
from openbook.answers.ask import cite, measured_signals
from openbook.answers.certainty import Signals
from openbook.answers.prompts import closed_book_prompt
from openbook.answers.reading import PassagePlan, PassageStrategy, Reading, decoding_for, final_answer, strategy_of
from openbook.answers.retrieval import PASSAGES, Corpus, Options, near_enough, ranked_hits
from openbook.core.errors import ContextOverflow, EngineError
from openbook.core.parallel import Cancelled, Listener, Progress, in_order, never
from openbook.core.records import Completion, Decoding, Embedder, Hit, Passage
from openbook.diagnosis.gold_passages import GoldFinder
from openbook.diagnosis.questions import Question
from openbook.diagnosis.run_log import Header, Observation, Record, Reply, RunLog, ShownPassage, Wording, open_run_log
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.index.scope import UNLABELLED, Scope

DEPTH = 20  # hits among which the rank of a passage with the answer is determined
MAX_FAILED = 16  # in a row, before the run stops
_Record = TypeVar("_Record", bound=Record)


@dataclass(frozen=True, slots=True)
class Bench:
    """`scope.as_of` pins a version. `at_once`: questions asked in parallel; results do not depend on it."""

    model: FrozenModel
    base: KnowledgeBase
    embedder: Embedder
    scope: Scope = UNLABELLED
    options: Options = field(default_factory=Options)
    at_once: int = 1

    @property
    def strategy(self) -> PassageStrategy:
        return strategy_of(self.options.strategy, self.model, self.options.decoding)

    @property
    def decoding(self) -> Decoding:
        return decoding_for(self.model, self.options.decoding)

    @property
    def passages(self) -> int:
        wanted = self.options.passages or PASSAGES
        return min(wanted, self.model.parallel_passages) if self.strategy == "parallel" else wanted

    def retrieve(self, query: str, at_least: int) -> Sequence[Hit]:
        corpus = Corpus(self.base, self.embedder, self.scope)
        return ranked_hits(query, corpus, self.options, self.strategy, at_least)[1].current

    def pinned(self) -> Bench:
        """This bench at the newest version. Raises KnowledgeError if the version asked for is not kept."""
        scope = replace(self.scope, as_of=self.base.kept_version(self.scope.as_of))
        return replace(self, model=self.model.for_request(), scope=scope)

    def header(self, questions_digest: str) -> Header:
        return Header(
            model=self.model.identity,
            numeric_class=self.model.engine.numeric_class,
            knowledge_base=self.base.id,
            knowledge_base_version=self.base.kept_version(self.scope.as_of),
            embedder=self.base.embedder,
            questions=questions_digest,
            strategy=self.strategy,
            passages=self.passages,
            min_similarity=self.options.min_similarity,
            context_tokens=self.model.context_tokens,
            decoding=self.decoding,
            where=self.scope.where,
            labels=tuple(sorted(self.scope.labels)),
        )


# --- one request ------------------------------------------------------------------------------------------------------


class Cancellation(Exception):
    """A request was cancelled. Recorded answers stay."""


@dataclass(frozen=True, slots=True)
class PassageReply:
    """`cited`: (passage id, start, end). `given`: passages given to the reader. `signals`: of certainty."""

    reply: Reply
    cited: tuple[tuple[str, int, int], ...]
    given: Sequence[Hit]
    signals: Signals | None = None


def ask_alone(bench: Bench, wording: str, cancelled: Cancelled) -> Reply:
    """Raises Cancellation."""

    def request() -> tuple[str, bool, Completion | None]:
        completion = bench.model.complete(closed_book_prompt(wording), bench.decoding, cancelled)
        text = tidy(completion.text)
        return text, says_nothing_found(text), completion

    return _reply(request, cancelled)


def ask_with(bench: Bench, wording: str, hits: Sequence[Hit], cancelled: Cancelled) -> PassageReply:
    """The answer from exactly these passages. The reply states a model's failure. Raises Cancellation."""
    readings: list[Reading] = []

    def request() -> tuple[str, bool, Completion | None]:
        listener = Listener(cancelled=cancelled)
        readings.append(PassagePlan(bench.strategy, hits).read(wording, bench.model, bench.decoding, listener))
        return *final_answer(readings[0], bench.model), readings[0].completion

    reply = _reply(request, cancelled)
    # All that fitted into the context, even if not read because an earlier passage was sure.
    given = [*readings[0].hits, *readings[0].unread] if readings else hits
    if reply.abstained or reply.failure:
        return PassageReply(reply, (), given)
    quoted = cite(reply.text, wording, readings[0], bench.embedder)
    starts = {hit.passage.id: hit.passage.start for hit in hits}
    cited = tuple((at := c.passage_id, c.start - starts[at], c.end - starts[at]) for c in quoted.citations)
    return PassageReply(reply, cited, given, measured_signals(reply.text, quoted, readings[0]))


def _reply(request: Callable[[], tuple[str, bool, Completion | None]], cancelled: Cancelled) -> Reply:
    if cancelled():
        raise Cancellation
    started = time.perf_counter()
    try:
        text, abstained, completion = request()
    except (EngineError, ContextOverflow) as error:
        return Reply(seconds=time.perf_counter() - started, failure=str(error))
    seconds = time.perf_counter() - started
    if completion is None:
        return Reply(text, abstained, seconds, 0, 0)
    if completion.finish_reason == "cancelled":
        raise Cancellation
    text = text.encode("utf-8", "replace").decode()  # replace half characters of a server, which cannot be written
    return Reply(text, abstained, seconds, completion.prompt_tokens, completion.answer_tokens)


# --- all questions ----------------------------------------------------------------------------------------------------


def run_questions(
    questions: Sequence[Question],
    bench: Bench,
    questions_digest: str,
    *,
    path: Path,
    progress: Progress = lambda done, total: None,
) -> None:
    """Ask all questions that the file at `path` lacks, in order.

    A failed request is recorded, and the next run repeats its question, once. Raises as `ask_due` does, and ConfigError
    if the file belongs to another run.
    """
    bench = bench.pinned()
    finder = GoldFinder(bench.base, bench.embedder, bench.scope)

    def is_due(question: Question, there: Observation) -> bool:
        return there.question != question or bool(there.failure)

    def failures(seen: Observation) -> list[str]:
        replies = (reply for wording in seen.asked for reply in wording.replies)
        # Zero tokens: nothing was found to read, so the model was not asked.
        return [reply.failure for reply in replies if reply.prompt_tokens != 0]

    with open_run_log(path, bench.header(questions_digest), Observation) as log:
        ask_due(log, questions, bench, partial(_observe, bench, finder), is_due, failures, progress)


def ask_due(
    log: RunLog[_Record],
    questions: Sequence[Question],
    bench: Bench,
    ask: Callable[[Question, Cancelled], _Record],
    is_due: Callable[[Question, _Record], bool],
    failures: Callable[[_Record], Sequence[str]],
    progress: Progress,
) -> None:
    """`ask` each question without a record in the log, or whose record `is_due` again, and append the record.

    `failures`: the error of each request of a record, or empty. Raises EngineError if all requests of `MAX_FAILED`
    consecutive questions of the file failed: then the questions are not the cause. The questions of a second run are
    rarely consecutive, so a few that always fail do not stop it.
    """

    def is_to_ask(question: Question) -> bool:
        there = log.find(question.id)
        return there is None or is_due(question, there)

    numbers = {question.id: number for number, question in enumerate(questions, 1)}
    streak, last = 0, -1
    with closing(in_order(ask, filter(is_to_ask, questions), bench.at_once, never)) as asked:
        for question, record in asked:
            number, failed = numbers[question.id], failures(record)
            if failed:
                streak = (streak if number == last + 1 else 0) + 1 if all(failed) else 0
            last = number
            if streak >= MAX_FAILED:
                raise EngineError(
                    f"{bench.model.identity.name} failed on {streak} questions in a row, so the run stops here: {failed[-1]} "
                    "What was answered is kept. When that is put right, run the same command to go on."
                )
            log.append(record)
            progress(number, len(questions))


def _observe(bench: Bench, finder: GoldFinder, question: Question, cancelled: Cancelled) -> Observation:
    gold = finder.find(question)
    oracle_hits = list(gold.hits[: bench.passages])
    shown: dict[str, Passage] = {}
    asked: list[Wording] = []
    for wording in question.wordings:
        alone = ask_alone(bench, wording, cancelled)
        started = time.perf_counter()
        hits = bench.retrieve(wording, DEPTH)
        retrieve_s = time.perf_counter() - started
        rank = next((n for n, hit in enumerate(hits, 1) if gold.spans_in(hit.passage)), 0)
        opened = ask_with(bench, wording, near_enough(hits[: bench.passages], bench.options), cancelled)
        oracle = ask_with(bench, wording, oracle_hits, cancelled).reply if oracle_hits else None
        reply = replace(opened.reply, seconds=opened.reply.seconds + retrieve_s)
        found = tuple(hit.passage.id for hit in opened.given)
        asked.append(Wording(wording, alone, reply, oracle, found, rank, opened.cited, opened.signals))
        shown |= {hit.passage.id: hit.passage for hit in (*opened.given, *oracle_hits)}
    passages = (ShownPassage(p.id, p.document, p.page, p.start, p.text, gold.spans_in(p)) for p in shown.values())
    holding = tuple(hit.passage.id for hit in oracle_hits)
    return Observation(question, tuple(asked), tuple(passages), holding, gold.located)
