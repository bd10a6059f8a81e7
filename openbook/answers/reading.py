"""Plans: what to read for a question, and how the model reads it.

A plan is what retrieval found, or what a receipt names. Its `strategy` is the word for it in receipts.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, TypeAlias, TypeVar

from openbook.answers.answer_text import json_says_nothing, says_nothing_found, tidy
from openbook.answers.overview import KINDS, Kind, comparison, summary
from openbook.answers.prompts import ABSTENTION, closed_book_prompt, open_book_prompt
from openbook.core.config import Strategy
from openbook.core.errors import ContextOverflow, QuestionError
from openbook.core.parallel import Listener
from openbook.core.records import Completion, Decoding, Hit, Prompt, Timings
from openbook.inference import FrozenModel

_Result = TypeVar("_Result")

CLOSED_BOOK: Literal["closed-book"] = "closed-book"
READER_TOKENS = 160  # a trained reader answers in one line
PassageStrategy: TypeAlias = Literal["each", "parallel", "checked", "together"]
PASSAGE_STRATEGIES: tuple[PassageStrategy, ...] = ("each", "parallel", "checked", "together")


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of a plan.

    `hits`: those that were read. `sources`: the hits to cite from. `unread`: hits that fitted, but the strategy `each`
    stopped before them.
    """

    plan: Plan
    hits: Sequence[Hit] = ()
    completion: Completion | None = None
    sources: Sequence[Hit] = ()
    notes: Sequence[str] = ()
    timings: Timings = field(default_factory=Timings)
    unread: Sequence[Hit] = ()


@dataclass(frozen=True, slots=True)
class ClosedBookPlan:
    """The model is asked alone."""

    hits: Sequence[Hit] = ()
    strategy: ClassVar[Literal["closed-book"]] = CLOSED_BOOK
    from_documents: ClassVar[bool] = False
    is_measured: ClassVar[bool] = False

    def read(self, question: str, model: FrozenModel, decoding: Decoding, listener: Listener = Listener()) -> Reading:
        stream = model.stream(closed_book_prompt(question), decoding, listener.cancelled, listener.progress)
        completion, timings = _streamed(stream, listener)
        notes = ["From the model's memory alone; no document was read."]
        return Reading(self, (), completion, (), notes, timings)


@dataclass(frozen=True, slots=True)
class OverviewPlan:
    """The windows of whole documents are read, in groups. `searched`: for the listener."""

    strategy: Kind
    hits: Sequence[Hit]
    searched: str = ""
    from_documents: ClassVar[bool] = True
    is_measured: ClassVar[bool] = False  # certainty was not measured for such answers

    def read(self, question: str, model: FrozenModel, decoding: Decoding, listener: Listener = Listener()) -> Reading:
        listener.on_found(self.searched, self.hits)
        if not self.hits:
            return Reading(self)
        write = summary if self.strategy == "summary" else comparison
        stream = write(question, self.hits, model, decoding, listener.progress, listener.cancelled)
        completion, timings = _streamed(stream, listener)
        return Reading(self, self.hits, completion, self.hits, (), timings)


@dataclass(frozen=True, slots=True)
class PassagePlan:
    """The best passages are read, as many as fit into the context. `searched`: for the listener."""

    strategy: PassageStrategy
    hits: Sequence[Hit]
    searched: str = ""
    from_documents: ClassVar[bool] = True
    is_measured: ClassVar[bool] = True

    def read(self, question: str, model: FrozenModel, decoding: Decoding, listener: Listener = Listener()) -> Reading:
        """Raises ContextOverflow if not even one passage fits."""
        if not self.hits:
            listener.on_found(self.searched, self.hits)
            return Reading(self)
        if self.strategy == "each":
            return self._read_each(question, model, decoding, listener)
        kept, prompt, notes = pack(question, self.hits, model, decoding, parallel=self.strategy == "parallel")
        # The model's probe may decline. Trained readers decline by themselves.
        declines = self.strategy == "checked" or (self.strategy == "parallel" and model.reader is None)
        listener.on_found(self.searched, kept)
        stream = model.stream(replace(prompt, declines=declines), decoding, listener.cancelled, listener.progress)
        completion, timings = _streamed(stream, listener)
        return Reading(self, kept, completion, kept, notes, timings)

    def _read_each(self, question: str, model: FrozenModel, decoding: Decoding, listener: Listener) -> Reading:
        prompts = [open_book_prompt(question, [hit.passage], model.reader) for hit in self.hits]
        sizes = [model.count_prompt_tokens(prompt) for prompt in prompts]
        fits = [i for i, tokens in enumerate(sizes) if tokens + decoding.max_tokens <= model.context_tokens]
        if not fits:
            raise _too_long(sizes[0], model, decoding)
        kept = [self.hits[i] for i in fits]
        listener.on_found(self.searched, kept)
        stream = model.stream_each([prompts[i] for i in fits], decoding, listener.cancelled, listener.progress)
        read, timings = _streamed(stream, listener)
        sources = [] if read.chosen is None else [kept[read.chosen]]
        notes = _left_out(self.hits, kept, model)
        return Reading(self, kept[: read.read], read.completion, sources, notes, timings, kept[read.read :])


Plan: TypeAlias = ClosedBookPlan | OverviewPlan | PassagePlan


def plan_of(strategy: str, hits: Sequence[Hit], model: FrozenModel, decoding: Decoding) -> Plan:
    """The plan of a receipt. Raises QuestionError if there is no such strategy, or the model cannot read that way."""
    if strategy == CLOSED_BOOK:
        return ClosedBookPlan(hits)
    for kind in KINDS:
        if strategy == kind:
            return OverviewPlan(kind, hits)
    for each in PASSAGE_STRATEGIES:
        if strategy == each:
            return PassagePlan(strategy_of(each, model, decoding), hits)
    known = ", ".join((CLOSED_BOOK, *PASSAGE_STRATEGIES, *KINDS))
    raise QuestionError(f"The receipt has the unknown strategy {strategy!r}; there are {known}.")


def strategy_of(wanted: Strategy, model: FrozenModel, decoding: Decoding) -> PassageStrategy:
    """Raises QuestionError if the model cannot read that way."""
    if decoding.quote and decoding.schema:
        raise QuestionError("An answer is a verbatim quote or JSON, not both. Leave out the quote or the format.")
    if decoding.quote and (wanted in ("checked", "together") or not model.reads_each):
        raise QuestionError(
            "Only a trained reader that reads each passage on its own can quote: for instance the model 'reader', with the "
            "strategy 'each'."
        )
    if wanted == "auto":
        if model.reader is None:
            return "checked" if model.identity.evidence == "verified" else "together"
        return "parallel" if model.parallel_passages else "each" if model.reads_each else "together"
    if wanted == "each" and not model.reads_each:
        raise QuestionError(
            f"The strategy 'each' needs a trained reader in the local engine, and {model.identity.name} is not one. "
            "Use the strategy 'together', or the model 'reader'."
        )
    if wanted == "parallel" and not model.parallel_passages:
        raise QuestionError(
            f"{model.identity.name} cannot read passages side by side. That needs the local engine, and a model that is not a "
            "reader of single passages. Use the strategy 'together'."
        )
    return wanted


def decoding_for(model: FrozenModel, decoding: Decoding) -> Decoding:
    """The decoding for this model: a trained reader stops at the end of the line."""
    if model.reader is None:
        return decoding
    stops = tuple(dict.fromkeys(("\n", *decoding.stop)))
    return replace(decoding, stop=stops, max_tokens=min(decoding.max_tokens, READER_TOKENS))


def pack(
    question: str, hits: Sequence[Hit], model: FrozenModel, decoding: Decoding, *, parallel: bool = False
) -> tuple[list[Hit], Prompt, list[str]]:
    """The most of the best hits whose prompt fits, their prompt, and a note if some were left out.

    Raises ContextOverflow if not even one fits.
    """
    most = model.parallel_passages if parallel else len(hits)
    notes = [f"{most} of {len(hits)} passages read: no more can lie side by side."] if most < len(hits) else []
    hits = hits[:most]
    # A server's model; the models that run here are small.
    citing = model.identity.evidence == "claimed" and not decoding.schema
    for count in range(len(hits), 0, -1):
        kept = list(hits[:count])
        passages = [hit.passage for hit in kept]
        prompt = open_book_prompt(question, passages, model.reader, citing=citing, side_by_side=parallel)
        tokens = model.count_prompt_tokens(prompt)
        if tokens + decoding.max_tokens <= model.context_tokens:
            return kept, prompt, [*notes, *_left_out(hits, kept, model)]
    raise _too_long(tokens, model, decoding)


def final_answer(reading: Reading, model: FrozenModel, schema: str = "") -> tuple[str, bool]:
    """Return (the answer as shown, whether the model declined). `schema`: see `Decoding`; then nothing is `null`."""
    cut = cut_short(reading.completion)
    if schema:
        text = reading.completion.text if reading.completion else ""
        declined = reading.plan.from_documents and not cut and (not text or json_says_nothing(text))
        return (text or ("" if cut else "null")), declined
    text = tidy(reading.completion.text) if reading.completion else ""
    if not reading.plan.from_documents:
        return text, False
    declined = says_nothing_found(text, model.reader) or not (text or cut)
    return (ABSTENTION if declined else text), declined


def cut_short(completion: Completion | None, schema: str = "") -> tuple[str, ...]:
    """A note if the answer is not complete."""
    if completion is None or completion.finish_reason in ("end", "stop"):
        return ()
    if completion.finish_reason == "cancelled":
        return ("Cancelled before the answer was complete.",)
    broken = ", so its JSON is not complete" if schema else ""
    return (f"The answer was cut off at the longest length allowed (max_tokens){broken}.",)


def _too_long(tokens: int, model: FrozenModel, decoding: Decoding) -> ContextOverflow:
    return ContextOverflow(
        f"The question and one passage take {tokens} tokens and the answer up to {decoding.max_tokens}, but the "
        f"context holds {model.context_tokens}. Ask a shorter question, lower max_tokens, or raise context_tokens where the model runs."
    )


def _left_out(hits: Sequence[Hit], kept: Sequence[Hit], model: FrozenModel) -> list[str]:
    count = len(hits) - len(kept)
    note = f"{count} of {len(hits)} passages left out: the context holds {model.context_tokens} tokens."
    return [note] if count else []


def _streamed(stream: Generator[str, None, _Result], listener: Listener) -> tuple[_Result, Timings]:
    started = time.perf_counter()
    first_token_s: float | None = None
    with closing(stream):  # also when the listener raises
        while True:
            try:
                piece = next(stream)
            except StopIteration as done:
                result: _Result = done.value
                return result, Timings(first_token_s=first_token_s, read_s=time.perf_counter() - started)
            if first_token_s is None:
                first_token_s = time.perf_counter() - started
            if listener.on_text is not None:
                listener.on_text(piece)
