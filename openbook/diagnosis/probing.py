"""What all probes share: a question with the passages around it, a reading that says what was read, and what a result is.

A probe changes what a request holds and looks at what becomes of the answer. The knowledge base is never changed: altered,
removed and invented passages exist in a request alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from openbook.answer import Reading, Strategy, near_enough, open_book_prompt, read_hits, said
from openbook.diagnosis.examining import Bench, answered
from openbook.diagnosis.holding import LOOKED_THROUGH, Finder, Holding
from openbook.diagnosis.observations import Said
from openbook.diagnosis.questions import Question
from openbook.diagnosis.summary import Share, share
from openbook.diagnosis.verdicts import holds_any, is_right
from openbook.inference.frozen import Cancelled
from openbook.knowledge.quoting import quote
from openbook.knowledge.values import accepted_value, same_value, stated_values
from openbook.records import Completion, Hit, Passage


@dataclass(frozen=True, slots=True)
class Case:
    """`gold`: the passage that holds the answer, if one is known to.

    `ranked`: what the retriever finds, best first. `rest`: those of it that hold no accepted answer.
    """

    question: Question
    gold: Hit | None
    ranked: tuple[Hit, ...]
    rest: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """`read`: ids of the passages that were read, best first; `cited`: of those that the answer is cited from."""

    said: Said
    read: tuple[str, ...] = ()
    cited: frozenset[str] = frozenset()

    @property
    def silent(self) -> bool:
        return self.said.abstained

    @property
    def text(self) -> str:
        return self.said.text


class Trial(Protocol):
    """What was seen of one question. `outcome`: in a word; `failure`: why there is none, the model's fault."""

    @property
    def id(self) -> str: ...

    @property
    def outcome(self) -> str: ...

    @property
    def failure(self) -> str: ...


class Result(Protocol):
    """What a probe found: a dataclass of numbers, which it can also say."""

    def rows(self) -> list[tuple[str, Share]]:
        """What was counted, and how often it was so."""
        ...

    def meaning(self) -> str:
        """What the numbers mean, in a sentence or two."""
        ...


def case_of(question: Question, bench: Bench, finder: Finder) -> Case:
    """Raises KnowledgeError."""
    holding = finder.find(question)
    ranked = bench.retrieve(question.question, LOOKED_THROUGH)
    rest = [hit for hit in ranked if not (holding.marks(hit.passage) or tells(hit.passage, question.answers))]
    return Case(question, _gold(holding), tuple(ranked), tuple(rest))


def given(bench: Bench, ranked: Sequence[Hit]) -> list[Hit]:
    """Those that `openbook ask` would give to the reader."""
    return near_enough(ranked[: bench.passages], bench.options)


def _gold(holding: Holding) -> Hit | None:
    """Of the passages that a gold span reaches into, the first that holds a whole answer."""
    whole = (hit for hit in holding.hits if holds_any(hit.passage.text, holding.question.answers))
    return next(whole, holding.hits[0] if holding.hits else None)


def tells(passage: Passage, answers: Sequence[str]) -> bool:
    """Whether one of the answers stands in the passage or above it, in its words or as a value: "28 days", "twenty-eight days"."""
    values = [value for value in map(accepted_value, answers) if value is not None]
    return any(
        holds_any(text, answers) or any(same_value(stated, value) for stated in stated_values(text) for value in values)
        for text in (passage.text, passage.title, *passage.headings)
    )


def read(
    bench: Bench, question: str, hits: Sequence[Hit], cancelled: Cancelled, strategy: Strategy | None = None
) -> Read:
    """The answer from exactly these passages. A failure of the model is part of it. Raises Stopped."""
    if strategy is not None:
        bench = replace(bench, options=replace(bench.options, strategy=strategy))
    readings: list[Reading] = []

    def request() -> tuple[str, bool, Completion | None]:
        readings.append(read_hits(question, hits, bench.strategy, bench.model, bench.decoding, cancelled=cancelled))
        return *said(readings[0], bench.model), readings[0].completion

    answer = answered(request, cancelled)
    if answer.failure:
        return Read(answer)
    ids = tuple(hit.passage.id for hit in readings[0].hits)
    if answer.abstained:
        return Read(answer, ids)
    citations = quote(answer.text, question, [hit.passage for hit in readings[0].sources]).citations
    return Read(answer, ids, frozenset(citation.passage_id for citation in citations))


def right(answer: Read, question: Question) -> bool:
    return not answer.silent and is_right(answer.text, question)


def fits(bench: Bench, question: str, hits: Sequence[Hit], strategy: str) -> bool:
    """Whether all of these passages can be read: none would be left out for want of room."""
    model, passages = bench.model, [hit.passage for hit in hits]
    prompts = [[passage] for passage in passages] if strategy == "each" else [passages]
    room = model.context_tokens - bench.decoding.max_tokens
    return all(model.count_prompt_tokens(open_book_prompt(question, each, model.reader)) <= room for each in prompts)


def made_up(passage: Passage) -> Hit:
    """A passage as if it were found."""
    return Hit(passage, 0.0, None, None, None)


# --- counting ---------------------------------------------------------------------------------------------------------


def shares(trials: Iterable[Trial], outcomes: Sequence[str]) -> dict[str, Share]:
    """Of the trials that had one of these outcomes."""
    counted = Counter(trial.outcome for trial in trials if not trial.failure)
    whole = sum(counted[outcome] for outcome in outcomes)
    return {outcome: share(counted[outcome], whole) for outcome in outcomes}


def left_out(trials: Iterable[Trial], outcomes: Sequence[str]) -> Mapping[str, int]:
    """How many trials say nothing, by the reason."""
    counted = Counter("the model failed" if trial.failure else trial.outcome for trial in trials)
    return {reason: n for reason, n in sorted(counted.items()) if reason not in outcomes}
