"""The core flow: retrieve, rank, read, cite.

An answer is a function of the question, the model, the corpus at one version, and the options. A replay reads the
passages that the receipt names; it does not search.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TypeVar

from openbook import __version__
from openbook.answers.answer_text import TextPreview, json_prose, json_says_nothing, says_nothing_found, tidied, tidy
from openbook.answers.certainty import Signals, certainty
from openbook.answers.overview import KINDS, comparison, summary
from openbook.answers.prompts import (
    ABSTENTION,
    FRAMING,
    checked_question,
    closed_book_prompt,
    open_book_prompt,
    with_instruction,
)
from openbook.answers.retrieval import Corpus, Options, Retrieval, retrieve, strategy_of
from openbook.core.config import STRATEGIES
from openbook.core.errors import ContextOverflow, QuestionError
from openbook.core.parallel import Cancelled, Listener, never
from openbook.core.records import (
    RECEIPT_FORMAT,
    Answer,
    AnswerSentence,
    Citation,
    Completion,
    Confidence,
    Decoding,
    Embedder,
    Hit,
    PassageReference,
    Prompt,
    Receipt,
    Timings,
    sha256_hex,
)
from openbook.inference import FrozenModel
from openbook.inference.json_grammar import check_schema_text
from openbook.knowledge.cite.quotes import AnswerSupport, cite_sentences, closest

_Result = TypeVar("_Result")

CLOSED_BOOK = "closed-book"  # the strategy without passages
READER_TOKENS = 160  # a trained reader answers in one line
_SURE: tuple[Confidence, ...] = ("supported", "likely")  # words of answers that need no second model


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of reading.

    `sources`: the hits to cite from. `unread`: hits that fitted, but the strategy `each` stopped before them. `prompt`:
    set if all hits were read in one prompt.
    """

    strategy: str
    hits: Sequence[Hit] = ()
    completion: Completion | None = None
    sources: Sequence[Hit] = ()
    notes: Sequence[str] = ()
    timings: Timings = field(default_factory=Timings)
    prompt: Prompt | None = None
    unread: Sequence[Hit] = ()


def ask(
    question: str,
    model: FrozenModel,
    corpus: Corpus | None = None,
    options: Options = Options(),
    listener: Listener = Listener(),
) -> Answer:
    """Answer `question` from a corpus, or from the model alone without one.

    "Summarize FILE" (or a topic) and "compare FILE with FILE" are answered from whole documents.

    Raises QuestionError, ContextOverflow, EngineError, KnowledgeError.
    """
    question = checked_question(question)
    started = time.perf_counter()

    model = model.for_request()

    # 1) Retrieve and rank: the best passages by meaning and by words, if any is near the question.
    decoding = decoding_for(model, options.decoding)
    found = Retrieval(CLOSED_BOOK)
    if corpus is not None:
        found = retrieve(question, model, corpus, options)
    elif decoding.quote:
        raise QuestionError(
            "Without documents there is nothing to quote. Ask from documents, or without a verbatim quote."
        )
    retrieve_s = time.perf_counter() - started

    # 2) Read: as many of the best as fit into the context, with a note if some do not.
    abstentions = [ABSTENTION, *([model.reader.abstention] if model.reader else [])]
    if listener.on_text and not decoding.schema:
        preview = TextPreview(listener.on_text, abstentions if corpus else [])
        listener = replace(listener, on_text=preview.feed)
    # A trained reader is asked as in training; its grammar alone makes the JSON.
    stated = "" if model.reader and corpus else decoding.schema
    asked = with_instruction(question, options.instruction, stated)
    reading = read_hits(asked, found.hits, found.strategy, model, decoding, listener, searched=found.searched)
    text, declined = final_answer(reading, model, decoding.schema)
    completion = reading.completion

    # 3) Cite and judge: the nearest quote of each sentence, and how certain the answer is.
    quoted, nearest = AnswerSupport(), tuple[Citation, ...]()
    sure: float | None = None
    word: Confidence = "check it"
    if corpus is not None and declined:
        nearest = closest(question, [hit.passage for hit in reading.hits], corpus.embedder.embed_passages)
        word = "not found"
    elif corpus is not None:
        quoted = cite(text, question, reading, corpus.embedder, decoding.schema)
        measured = measured_signals(text, quoted, reading)
        sure, word = certainty(measured, options.limits) if measured else (None, "check it")
    declared = found.editions.notes(quoted.citations) if found.editions is not None else []

    receipt = _receipt(question, text, reading, model, decoding, options, corpus, found.version)
    receipt = replace(receipt, certainty=sure, confidence=word if corpus else "").sealed()
    return Answer(
        question=question,
        answer=text,
        declined=declined,
        abstained=declined,
        certainty=sure,
        confidence=word,
        citations=quoted.citations,
        sentences=tuple(AnswerSentence(each.start, each.end, each.citation, each.support) for each in quoted.sentences),
        closest=nearest,
        passages=tuple(reading.hits),
        receipt=receipt,
        timings=replace(reading.timings, retrieve_s=retrieve_s, total_s=time.perf_counter() - started),
        notes=(*declared, *reading.notes, *found.notes, *_cut_short(completion, decoding.schema)),
        finish_reason=completion.finish_reason if completion else "end",
        prompt_tokens=completion.prompt_tokens if completion else 0,
        answer_tokens=completion.answer_tokens if completion else 0,
    )


def ask_with_fallback(
    question: str,
    model: FrozenModel,
    fallback: Callable[[], FrozenModel] | None,
    corpus: Corpus | None = None,
    options: Options = Options(),
    listener: Listener = Listener(),
) -> Answer:
    """As `ask`. If documents were read and the answer is not at least likely, the model that `fallback` opens answers
    too, from the same version. The more certain answer is returned, with both certainties in its notes.

    "not found" gives way only to a likely answer. No text is streamed, since a stream cannot take words back.
    """
    if fallback is None or corpus is None:
        return ask(question, model, corpus, options, listener)
    started, listener = time.perf_counter(), replace(listener, on_text=None)
    first = ask(question, model, corpus, options, listener)
    if first.confidence in _SURE or first.receipt.strategy in KINDS or first.finish_reason == "cancelled":
        return first
    larger = fallback()
    corpus = replace(corpus, scope=replace(corpus.scope, as_of=first.receipt.knowledge_base_version))
    try:
        second = ask(question, larger, corpus, replace(options, strategy="auto"), listener)
    except (ContextOverflow, QuestionError) as error:
        return replace(first, notes=(*first.notes, f"{larger.identity.name} could not answer too: {error}"))
    if first.certainty is None:
        is_better = second.confidence in _SURE
    else:
        is_better = second.certainty is not None and second.certainty > first.certainty
    shown = second if is_better or second.finish_reason == "cancelled" else first
    sides = [
        f"{each.receipt.model.name} ({each.confidence}{'' if each.certainty is None else f', {each.certainty:.2f}'})"
        for each in (first, second)
    ]
    note = f"Two models were asked: {sides[0]} and {sides[1]}. This is the answer of {shown.receipt.model.name}."
    timings = replace(shown.timings or Timings(), total_s=time.perf_counter() - started)
    return replace(shown, notes=(*shown.notes, note), timings=timings)


def read_hits(
    question: str,
    hits: Sequence[Hit],
    strategy: str,
    model: FrozenModel,
    decoding: Decoding,
    listener: Listener = Listener(),
    *,
    searched: str = "",
) -> Reading:
    """`searched`: for the listener. Raises ContextOverflow if not even one passage fits."""
    if strategy == CLOSED_BOOK:
        stream = model.stream(closed_book_prompt(question), decoding, listener.cancelled, listener.progress)
        completion, timings = _streamed(stream, listener)
        notes = ["From the model's memory alone; no document was read."]
        return Reading(strategy, (), completion, (), notes, timings)
    if not hits:
        listener.on_found(searched, hits)
        return Reading(strategy)
    if strategy in KINDS:
        listener.on_found(searched, hits)
        write = summary if strategy == "summary" else comparison
        stream = write(question, hits, model, decoding, listener.progress, listener.cancelled)
        completion, timings = _streamed(stream, listener)
        return Reading(strategy, hits, completion, hits, (), timings)
    if strategy == "each":
        return _read_each(question, hits, model, decoding, listener, searched)
    kept, prompt, notes = pack(question, hits, model, decoding, parallel=strategy == "parallel")
    prompt = replace(prompt, declines=_may_decline(strategy, model))
    listener.on_found(searched, kept)
    completion, timings = _streamed(model.stream(prompt, decoding, listener.cancelled, listener.progress), listener)
    return Reading(strategy, kept, completion, kept, notes, timings, prompt)


def _read_each(
    question: str,
    hits: Sequence[Hit],
    model: FrozenModel,
    decoding: Decoding,
    listener: Listener,
    searched: str,
) -> Reading:
    prompts = [open_book_prompt(question, [hit.passage], model.reader) for hit in hits]
    sizes = [model.count_prompt_tokens(prompt) for prompt in prompts]
    fits = [i for i, tokens in enumerate(sizes) if tokens + decoding.max_tokens <= model.context_tokens]
    if not fits:
        raise _too_long(sizes[0], model, decoding)
    kept = [hits[i] for i in fits]
    listener.on_found(searched, kept)
    stream = model.stream_each([prompts[i] for i in fits], decoding, listener.cancelled, listener.progress)
    read, timings = _streamed(stream, listener)
    sources = [] if read.chosen is None else [kept[read.chosen]]
    notes = _left_out(hits, kept, model)
    return Reading("each", kept[: read.read], read.completion, sources, notes, timings, unread=kept[read.read :])


def _may_decline(strategy: str, model: FrozenModel) -> bool:
    """True if the model's probe may decline. Trained readers decline by themselves."""
    return strategy == "checked" or (strategy == "parallel" and model.reader is None)


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
    if schema:
        text = reading.completion.text if reading.completion else ""
        cut = _cut_short(reading.completion)
        declined = reading.strategy != CLOSED_BOOK and not cut and (not text or json_says_nothing(text))
        return (text or ("" if cut else "null")), declined
    text = tidy(reading.completion.text) if reading.completion else ""
    if reading.strategy == CLOSED_BOOK:
        return text, False
    declined = says_nothing_found(text, model.reader) or not (text or _cut_short(reading.completion))
    return (ABSTENTION if declined else text), declined


def cite(text: str, question: str, reading: Reading, embedder: Embedder, schema: str = "") -> AnswerSupport:
    marks = tidied(reading.completion.text)[1] if reading.completion and not schema else []
    text = json_prose(text) if schema else text
    sources = [hit.passage for hit in reading.sources]
    return cite_sentences(text, question, sources, embed=embedder.embed_passages, marks=marks, framing=FRAMING)


def signals_of(quoted: AnswerSupport, completion: Completion) -> Signals:
    scores = [each.score for each in quoted.sentences] or [0.0]
    return Signals(math.fsum(scores) / len(scores), quoted.asked, completion.stated, completion.least_logprob)


def measured_signals(text: str, quoted: AnswerSupport, reading: Reading) -> Signals | None:
    """None for summaries and comparisons, for which certainty was not measured, and for an answer that was cut off or
    ends before its list.
    """
    completion = reading.completion
    if completion is None or reading.strategy in KINDS or _cut_short(completion) or text.endswith(":"):
        return None
    return signals_of(quoted, completion)


def answer_again(
    receipt: Receipt, model: FrozenModel, hits: Sequence[Hit], cancelled: Cancelled = never
) -> tuple[str, Completion | None]:
    """Answer again from a receipt's passages. Return the answer, and the completion if the model was asked.

    A cancelled answer may be incomplete.
    """
    known = (CLOSED_BOOK, *(each for each in STRATEGIES if each != "auto"), *KINDS)
    if receipt.strategy not in known:
        raise QuestionError(f"The receipt has the unknown strategy {receipt.strategy!r}; there are {', '.join(known)}.")
    if receipt.strategy in STRATEGIES:
        strategy_of(receipt.strategy, model, receipt.decoding)
    schema = receipt.decoding.schema
    question = checked_question(receipt.question)
    if schema:
        check_schema_text(schema)
    stated = "" if model.reader and receipt.strategy != CLOSED_BOOK else schema
    question = with_instruction(question, receipt.instruction, stated)
    reading = read_hits(question, hits, receipt.strategy, model, receipt.decoding, Listener(cancelled=cancelled))
    return final_answer(reading, model, schema)[0], reading.completion


def decoding_for(model: FrozenModel, decoding: Decoding) -> Decoding:
    """The decoding for this model: a trained reader stops at the end of the line."""
    if model.reader is None:
        return decoding
    stops = tuple(dict.fromkeys(("\n", *decoding.stop)))
    return replace(decoding, stop=stops, max_tokens=min(decoding.max_tokens, READER_TOKENS))


def _too_long(tokens: int, model: FrozenModel, decoding: Decoding) -> ContextOverflow:
    return ContextOverflow(
        f"The question and one passage take {tokens} tokens and the answer up to {decoding.max_tokens}, but the "
        f"context holds {model.context_tokens}. Ask a shorter question, lower max_tokens, or raise context_tokens where the model runs."
    )


def _left_out(hits: Sequence[Hit], kept: Sequence[Hit], model: FrozenModel) -> list[str]:
    count = len(hits) - len(kept)
    note = f"{count} of {len(hits)} passages left out: the context holds {model.context_tokens} tokens."
    return [note] if count else []


def _cut_short(completion: Completion | None, schema: str = "") -> tuple[str, ...]:
    if completion is None or completion.finish_reason in ("end", "stop"):
        return ()
    if completion.finish_reason == "cancelled":
        return ("Cancelled before the answer was complete.",)
    broken = ", so its JSON is not complete" if schema else ""
    return (f"The answer was cut off at the longest length allowed (max_tokens){broken}.",)


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


def _receipt(
    question: str,
    text: str,
    reading: Reading,
    model: FrozenModel,
    decoding: Decoding,
    options: Options,
    corpus: Corpus | None,
    version: int | None,
) -> Receipt:
    completion = reading.completion
    return Receipt(
        format=RECEIPT_FORMAT,
        openbook_version=__version__,
        model=model.identity,
        numeric_class=completion.numeric_class if completion else "",
        embedder=corpus.base.embedder if corpus else None,
        knowledge_base=corpus.base.id if corpus else None,
        knowledge_base_version=version,
        question=question,
        question_digest=sha256_hex(question.encode()),
        strategy=reading.strategy,
        passages=tuple(PassageReference(h.passage.id, h.passage.digest, h.passage.document) for h in reading.hits),
        prompt_digest=completion.prompt_digest if completion else "",
        decoding=decoding,
        answer_digest=sha256_hex(text.encode()),
        where=corpus.scope.where if corpus else "",
        labels=tuple(sorted(corpus.scope.labels)) if corpus else (),
        instruction=options.instruction,
    )
