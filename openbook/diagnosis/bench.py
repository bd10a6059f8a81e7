"""The setup that is diagnosed (model, knowledge base, options), and one request to it: a question alone, or with given passages.

Passages are read as `openbook ask` reads them: by the same functions and options.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from openbook.answer import Reading, cite, decoding_for, final_answer, read_hits
from openbook.answer_text import says_nothing_found, tidy
from openbook.config import Strategy
from openbook.diagnosis.run_log import Header, Reply
from openbook.errors import ContextOverflow, EngineError
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.scope import UNLABELLED, Scope
from openbook.parallel import Cancelled, Listener
from openbook.prompts import closed_book_prompt
from openbook.records import Completion, Decoding, Embedder, Hit
from openbook.retrieval import PASSAGES, Corpus, Options, ranked_hits, strategy_of


class Stopped(Exception):
    """The caller cancelled, in the middle of a question. What was recorded stays."""


@dataclass(frozen=True, slots=True)
class Bench:
    """The setup that is diagnosed. `scope.as_of` is a version, so that a change in the meantime changes nothing.

    `at_once`: how many questions are asked at the same time. What is found does not depend on it.
    """

    model: FrozenModel
    base: KnowledgeBase
    embedder: Embedder
    scope: Scope = UNLABELLED
    options: Options = field(default_factory=Options)
    at_once: int = 1

    @property
    def strategy(self) -> Strategy:
        return strategy_of(self.options.strategy, self.model, self.options.decoding)

    @property
    def decoding(self) -> Decoding:
        return decoding_for(self.model, self.options.decoding)

    @property
    def passages(self) -> int:
        """The most that the model reads of those found: side by side, no more than it can."""
        wanted = self.options.passages or PASSAGES
        return min(wanted, self.model.parallel_passages) if self.strategy == "parallel" else wanted

    def retrieve(self, query: str, at_least: int) -> Sequence[Hit]:
        """As `openbook ask` ranks them, best first."""
        corpus = Corpus(self.base, self.embedder, self.scope)
        return ranked_hits(query, corpus, self.options, self.strategy, at_least)[1].current

    def pinned(self) -> Bench:
        """The same on the version that is the newest now. Raises KnowledgeError if the version asked for is not kept."""
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
        readings.append(
            read_hits(wording, hits, bench.strategy, bench.model, bench.decoding, Listener(cancelled=cancelled))
        )
        return *final_answer(readings[0], bench.model), readings[0].completion

    reply = _reply(request, cancelled)
    # Given: what fitted into the context, also what was not read because an earlier passage was sure.
    given = [*readings[0].hits, *readings[0].unread] if readings else hits
    if reply.abstained or reply.failure:
        return PassageReply(reply, (), given)
    citations = cite(reply.text, wording, readings[0], bench.embedder).citations
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
