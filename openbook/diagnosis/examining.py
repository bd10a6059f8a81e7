"""Ask a model every question three ways: alone (closed-book), with the documents (open-book), with the passage (oracle).

With the documents means as `openbook ask` does it: the same functions, the same options. Questions are taken in blocks:
first all of a block without documents, then each with its passages, so that what the engine keeps is used again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from openbook.answer import (
    PASSAGES,
    Options,
    Reading,
    decoding_for,
    near_enough,
    read_hits,
    retrieve,
    said,
    strategy_of,
)
from openbook.answer_text import says_nothing_found, tidy
from openbook.diagnosis.holding import Finder, Holding
from openbook.diagnosis.observations import Header, Observation, Recording, Said, Seen, Wording, observation_of
from openbook.diagnosis.questions import Question
from openbook.errors import ContextOverflow, EngineError
from openbook.inference import FrozenModel
from openbook.inference.frozen import Cancelled, never
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.quotes import quote
from openbook.knowledge.scope import EVERYTHING, Scope
from openbook.prompts import closed_book_prompt
from openbook.records import Completion, Decoding, Embedder, Hit, Passage

DEPTH = 20  # passages in which the rank of one that holds the answer is looked for
BLOCK = 32  # questions
MOST_FAILED = 16  # questions in a row on which the model failed

Progress = Callable[[int, int], None]


class Stopped(Exception):
    """The caller cancelled, in the middle of a question. What was recorded stays."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What questions are put to. `scope.as_of` is a version, so that a change in the meantime changes nothing."""

    model: FrozenModel
    base: KnowledgeBase
    embedder: Embedder
    scope: Scope = EVERYTHING
    options: Options = field(default_factory=Options)

    @property
    def strategy(self) -> str:
        return strategy_of(self.options.strategy, self.model, self.options.decoding)

    @property
    def decoding(self) -> Decoding:
        return decoding_for(self.model, self.options.decoding)

    def retrieve(self, query: str, at_least: int) -> Sequence[Hit]:
        """As `openbook ask` ranks them, best first."""
        found = retrieve(query, self.base, self.embedder, self.options, self.strategy, self.scope, at_least=at_least)
        return found[1].current

    @property
    def passages(self) -> int:
        return self.options.passages or PASSAGES

    def pinned(self) -> Bench:
        """The same on the version that is the newest now. Raises KnowledgeError when that asked for is not kept."""
        return replace(self, scope=replace(self.scope, as_of=self.base.kept_version(self.scope.as_of)))


def header_for(bench: Bench, questions_digest: str) -> Header:
    return Header(
        model=bench.model.identity,
        numeric_class=bench.model.engine.numeric_class,
        knowledge_base=bench.base.id,
        knowledge_base_version=bench.base.kept_version(bench.scope.as_of),
        embedder=bench.base.embedder,
        questions=questions_digest,
        strategy=bench.strategy,
        passages=bench.passages,
        min_similarity=bench.options.min_similarity,
        context_tokens=bench.model.context_tokens,
        decoding=bench.decoding,
        where=bench.scope.where,
        labels=tuple(sorted(bench.scope.labels)),
    )


def examine(
    questions: Iterable[Question],
    bench: Bench,
    record: Recording,
    *,
    total: int = 0,
    progress: Progress = lambda done, total: None,
    cancelled: Cancelled = never,
) -> bool:
    """Ask what the record does not have yet, in order. False when `cancelled` stopped it; then it can go on later.

    A request on which the model fails is recorded as that, and its question is asked again by the next run, once. When
    it fails on every request of many questions in a row, that is no matter of the questions: raises EngineError.
    Raises ConfigError, KnowledgeError, StorageError.
    """
    bench = bench.pinned()
    finder = Finder(bench.base, bench.embedder, bench.scope)
    rest = record.missing(questions, observation_of, _stands)
    failing = Failing()
    try:
        while block := list(islice(rest, BLOCK)):
            alone = []
            for place, question in block:
                alone.append(tuple(ask_alone(bench, wording, cancelled) for wording in question.wordings))
                _must_answer(failing, place, alone[-1], bench)
            for (place, question), closed in zip(block, alone, strict=True):
                seen = _observe(bench, finder, question, closed, cancelled)
                _must_answer(
                    failing, place, [said for each in seen.asked for said in (each.opened, each.oracle)], bench
                )
                progress(record.append(seen), total)
            block.clear()  # before the next is read
    except Stopped:
        return False
    return True


def _stands(question: Question, there: Observation) -> bool:
    """Whether that need not be asked again."""
    return there.question == question and not there.failure


@dataclass(slots=True)
class Failing:
    """How many questions in a row the model failed on. Those that lie apart in the file are not in a row.

    So questions that can never be answered do not stop a run that asks nothing but them again.
    """

    questions: int = 0
    _last: int = -1

    def saw(self, place: int, failed: bool | None) -> bool:
        """Whether they are too many to be a matter of the questions. `failed`: None where there was nothing to ask."""
        if failed is not None:
            self.questions = (self.questions * (place == self._last + 1) + 1) if failed else 0
        self._last = place
        return self.questions >= MOST_FAILED


def _must_answer(failing: Failing, place: int, answers: Sequence[Said | None], bench: Bench) -> None:
    # Where nothing was found to read, the model was not asked, and no token read.
    failures = [said.failure for said in answers if said is not None and said.prompt_tokens != 0]
    if failing.saw(place, all(failures) if failures else None):
        raise EngineError(
            f"{bench.model.identity.name} failed on {failing.questions} questions in a row, so the run stops here: "
            f"{failures[-1]} What was answered is kept. When that is put right, run the same command to go on."
        )


def _observe(
    bench: Bench, finder: Finder, question: Question, closed: tuple[Said, ...], cancelled: Cancelled
) -> Observation:
    holding = finder.find(question)
    oracle_hits = list(holding.hits[: bench.passages])
    shown: dict[str, Passage] = {}
    asked: list[Wording] = []
    for wording, alone in zip(question.wordings, closed, strict=True):
        started = time.perf_counter()
        hits = bench.retrieve(wording, DEPTH)
        retrieve_s = time.perf_counter() - started
        rank = next((n for n, hit in enumerate(hits, 1) if holding.marks(hit.passage)), 0)
        opened = read(bench, wording, near_enough(hits[: bench.passages], bench.options), cancelled)
        oracle = read(bench, wording, oracle_hits, cancelled).said if oracle_hits else None
        whole = replace(opened.said, seconds=opened.said.seconds + retrieve_s)
        found = tuple(hit.passage.id for hit in opened.given)
        asked.append(Wording(wording, alone, whole, oracle, found, rank, opened.cited))
        shown |= {hit.passage.id: hit.passage for hit in (*opened.given, *oracle_hits)}
    return Observation(
        question=question,
        asked=tuple(asked),
        passages=tuple(_seen(passage, holding) for passage in shown.values()),
        holding=tuple(hit.passage.id for hit in oracle_hits),
        located=holding.located,
    )


def _seen(passage: Passage, holding: Holding) -> Seen:
    return Seen(passage.id, passage.document, passage.page, passage.start, passage.text, holding.marks(passage))


def ask_alone(bench: Bench, wording: str, cancelled: Cancelled) -> Said:
    def request() -> tuple[str, bool, Completion | None]:
        completion = bench.model.complete(closed_book_prompt(wording), bench.decoding, cancelled)
        text = tidy(completion.text)
        return text, says_nothing_found(text), completion

    return answered(request, cancelled)


@dataclass(frozen=True, slots=True)
class Read:
    """An answer from passages, where it is cited from (id of the passage, start, end), and which of them the reader was given."""

    said: Said
    cited: tuple[tuple[str, int, int], ...]
    given: Sequence[Hit]


def read(bench: Bench, wording: str, hits: Sequence[Hit], cancelled: Cancelled) -> Read:
    """The answer from exactly these passages. A failure of the model is part of it. Raises Stopped."""
    readings: list[Reading] = []

    def request() -> tuple[str, bool, Completion | None]:
        readings.append(read_hits(wording, hits, bench.strategy, bench.model, bench.decoding, cancelled=cancelled))
        return *said(readings[0], bench.model), readings[0].completion

    answer = answered(request, cancelled)
    # In one prompt, what did not fit was not given. Read each on its own, those after a sure one were there to be read.
    given = readings[0].hits if readings and bench.strategy in ("checked", "together") else hits
    if answer.abstained or answer.failure:
        return Read(answer, (), given)
    citations = quote(answer.text, wording, [hit.passage for hit in readings[0].sources]).citations
    starts = {hit.passage.id: hit.passage.start for hit in hits}
    cited = tuple((c.passage_id, c.start - starts[c.passage_id], c.end - starts[c.passage_id]) for c in citations)
    return Read(answer, cited, given)


def answered(request: Callable[[], tuple[str, bool, Completion | None]], cancelled: Cancelled) -> Said:
    """Raises Stopped when the caller cancelled."""
    if cancelled():
        raise Stopped
    started = time.perf_counter()
    try:
        text, abstained, completion = request()
    except (EngineError, ContextOverflow) as error:
        return Said(seconds=time.perf_counter() - started, failure=str(error))
    seconds = time.perf_counter() - started
    if completion is None:
        return Said(text, abstained, seconds, 0, 0)
    if completion.finish_reason == "cancelled":
        raise Stopped
    text = text.encode("utf-8", "replace").decode()  # half a character from a server could not be written down
    return Said(text, abstained, seconds, completion.prompt_tokens, completion.answer_tokens)
