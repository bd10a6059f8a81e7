"""Ask a model every question three ways: alone (closed-book), with the documents (open-book), with the passage (oracle).

With the documents means as `openbook ask` does it: the same functions, the same options.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from openbook.answer import (
    PASSAGES,
    Options,
    Reading,
    cite,
    decoding_for,
    final_answer,
    near_enough,
    ranked_hits,
    read_hits,
    strategy_of,
)
from openbook.answer_text import says_nothing_found, tidy
from openbook.diagnosis.gold_passages import GoldFinder
from openbook.diagnosis.questions import Question
from openbook.diagnosis.run_log import Header, Observation, Reply, RunLog, ShownPassage, Wording
from openbook.errors import ContextOverflow, EngineError
from openbook.inference import FrozenModel
from openbook.inference.frozen import Cancelled, never
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.scope import EVERYTHING, Scope
from openbook.parallel import in_order
from openbook.prompts import closed_book_prompt
from openbook.records import Completion, Decoding, Embedder, Hit, Passage

DEPTH = 20  # passages in which the rank of one that holds the answer is looked for
MOST_FAILED = 16  # questions in a row on which the model failed

Progress = Callable[[int, int], None]


class Stopped(Exception):
    """The caller cancelled, in the middle of a question. What was recorded stays."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What questions are put to. `scope.as_of` is a version, so that a change in the meantime changes nothing.

    `at_once`: how many questions are asked at the same time. What is found does not depend on it.
    """

    model: FrozenModel
    base: KnowledgeBase
    embedder: Embedder
    scope: Scope = EVERYTHING
    options: Options = field(default_factory=Options)
    at_once: int = 1

    @property
    def strategy(self) -> str:
        return strategy_of(self.options.strategy, self.model, self.options.decoding)

    @property
    def decoding(self) -> Decoding:
        return decoding_for(self.model, self.options.decoding)

    @property
    def passages(self) -> int:
        """The most that the model reads of those found: side by side, no more than it learned to."""
        wanted = self.options.passages or PASSAGES
        reader = self.model.reader
        return min(wanted, reader.passages) if reader and self.strategy == "parallel" else wanted

    def retrieve(self, query: str, at_least: int) -> Sequence[Hit]:
        """As `openbook ask` ranks them, best first."""
        found = ranked_hits(query, self.base, self.embedder, self.options, self.strategy, self.scope, at_least=at_least)
        return found[1].current

    def pinned(self) -> Bench:
        """The same on the version that is the newest now. Raises KnowledgeError if the version asked for is not kept."""
        return replace(self, scope=replace(self.scope, as_of=self.base.kept_version(self.scope.as_of)))

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


def run_questions(
    questions: Sequence[Question],
    bench: Bench,
    log: RunLog[Observation],
    *,
    progress: Progress = lambda done, total: None,
    cancelled: Cancelled = never,
) -> bool:
    """Ask what the log does not have yet, in order. False if `cancelled` stopped it; then it can go on later.

    A request on which the model fails is recorded as that, and its question is asked again by the next run, once. If
    it fails on every request of many questions in a row, the questions are not the cause: raises EngineError.
    Raises ConfigError, KnowledgeError, StorageError.
    """
    bench = bench.pinned()
    finder = GoldFinder(bench.base, bench.embedder, bench.scope)
    streak = FailureStreak(bench.model.identity.name)

    def is_open(question: Question) -> bool:
        there = log.find(question.id)
        return there is None or there.question != question or bool(there.failure)

    def observe(asked: tuple[int, Question], gives_up: Cancelled) -> Observation:
        return _observe(bench, finder, asked[1], gives_up)

    to_ask = ((place, question) for place, question in enumerate(questions) if is_open(question))
    with closing(in_order(observe, to_ask, bench.at_once, cancelled)) as observed:
        try:
            for (place, _), seen in observed:
                replies = (reply for each in seen.asked for reply in (each.closed, each.opened, each.oracle))
                # If nothing was found to read, the model was not asked, and no token read.
                streak.add(
                    place, [reply.failure for reply in replies if reply is not None and reply.prompt_tokens != 0]
                )
                log.append(seen)
                progress(place + 1, len(questions))
        except Stopped:
            return False
    return True


@dataclass(slots=True)
class FailureStreak:
    """How many questions in a row the model failed on. Those that lie apart in the file are not in a row.

    A second run asks only what failed before, which lies apart. So a few questions that always fail do not stop it.
    """

    model: str
    questions: int = 0
    _last: int = -1

    def add(self, place: int, failures: Sequence[str]) -> None:
        """`failures`: for each request of a question why it failed, or an empty text. Raises EngineError if they are too many."""
        if failures:
            before = self.questions if place == self._last + 1 else 0
            self.questions = before + 1 if all(failures) else 0
        self._last = place
        if self.questions >= MOST_FAILED:
            raise EngineError(
                f"{self.model} failed on {self.questions} questions in a row, so the run stops here: {failures[-1]} "
                "What was answered is kept. When that is put right, run the same command to go on."
            )


def _observe(bench: Bench, finder: GoldFinder, question: Question, cancelled: Cancelled) -> Observation:
    """Raises Stopped, KnowledgeError."""
    gold = finder.find(question)
    oracle_hits = list(gold.hits[: bench.passages])
    shown: dict[str, Passage] = {}
    asked: list[Wording] = []
    for wording in question.wordings:
        alone = ask_alone(bench, wording, cancelled)
        started = time.perf_counter()
        hits = bench.retrieve(wording, DEPTH)
        retrieve_s = time.perf_counter() - started
        rank = next((n for n, hit in enumerate(hits, 1) if gold.marks(hit.passage)), 0)
        opened = ask_with(bench, wording, near_enough(hits[: bench.passages], bench.options), cancelled)
        oracle = ask_with(bench, wording, oracle_hits, cancelled).reply if oracle_hits else None
        reply = replace(opened.reply, seconds=opened.reply.seconds + retrieve_s)
        found = tuple(hit.passage.id for hit in opened.given)
        asked.append(Wording(wording, alone, reply, oracle, found, rank, opened.cited))
        shown |= {hit.passage.id: hit.passage for hit in (*opened.given, *oracle_hits)}
    passages = (ShownPassage(p.id, p.document, p.page, p.start, p.text, gold.marks(p)) for p in shown.values())
    holding = tuple(hit.passage.id for hit in oracle_hits)
    return Observation(question, tuple(asked), tuple(passages), holding, gold.located)


def ask_alone(bench: Bench, wording: str, cancelled: Cancelled) -> Reply:
    """Raises Stopped."""

    def request() -> tuple[str, bool, Completion | None]:
        completion = bench.model.complete(closed_book_prompt(wording), bench.decoding, cancelled)
        text = tidy(completion.text)
        return text, says_nothing_found(text), completion

    return _reply(request, cancelled)


@dataclass(frozen=True, slots=True)
class PassageReply:
    """A reply from passages, where it is cited from (id of the passage, start, end), and which of them the reader was given."""

    reply: Reply
    cited: tuple[tuple[str, int, int], ...]
    given: Sequence[Hit]


def ask_with(bench: Bench, wording: str, hits: Sequence[Hit], cancelled: Cancelled) -> PassageReply:
    """The answer from exactly these passages. A failure of the model is part of it. Raises Stopped."""
    readings: list[Reading] = []

    def request() -> tuple[str, bool, Completion | None]:
        readings.append(read_hits(wording, hits, bench.strategy, bench.model, bench.decoding, cancelled=cancelled))
        return *final_answer(readings[0], bench.model), readings[0].completion

    reply = _reply(request, cancelled)
    # A passage that did not fit was not given. One that did and came after a sure one was: it could have been read.
    given = [*readings[0].hits, *readings[0].unread] if readings else hits
    if reply.abstained or reply.failure:
        return PassageReply(reply, (), given)
    citations = cite(reply.text, wording, readings[0], bench.embedder, abstained=False)[0].citations
    starts = {hit.passage.id: hit.passage.start for hit in hits}
    cited = tuple((c.passage_id, c.start - starts[c.passage_id], c.end - starts[c.passage_id]) for c in citations)
    return PassageReply(reply, cited, given)


def _reply(request: Callable[[], tuple[str, bool, Completion | None]], cancelled: Cancelled) -> Reply:
    """Raises Stopped if the caller cancelled."""
    if cancelled():
        raise Stopped
    started = time.perf_counter()
    try:
        text, abstained, completion = request()
    except (EngineError, ContextOverflow) as error:
        return Reply(seconds=time.perf_counter() - started, failure=str(error))
    seconds = time.perf_counter() - started
    if completion is None:
        return Reply(text, abstained, seconds, 0, 0)
    if completion.finish_reason == "cancelled":
        raise Stopped
    text = text.encode("utf-8", "replace").decode()  # half a character from a server could not be written down
    return Reply(text, abstained, seconds, completion.prompt_tokens, completion.answer_tokens)
