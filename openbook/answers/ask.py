"""The core flow: retrieve, rank, read, cite.

An answer is a function of the question, the model, the corpus at one version, and the options. A replay reads the
passages that the receipt names; it does not search.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from openbook import __version__
from openbook.answers.answer_text import TextPreview, json_prose, tidied
from openbook.answers.certainty import Signals, certainty
from openbook.answers.prompts import ABSTENTION, FRAMING, checked_question, with_instruction
from openbook.answers.reading import ClosedBookPlan, Plan, Reading, cut_short, decoding_for, final_answer, plan_of
from openbook.answers.retrieval import Corpus, Options, Retrieval, retrieve
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
    Receipt,
    Timings,
    sha256_hex,
)
from openbook.inference import FrozenModel
from openbook.inference.json_grammar import check_schema_text
from openbook.knowledge.cite.quotes import AnswerSupport, cite_sentences, closest

_SURE: tuple[Confidence, ...] = ("supported", "likely")  # words of answers that need no second model


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
    return _ask(checked_question(question), model, corpus, options, listener)[0]


def search(query: str, corpus: Corpus, limit: int) -> tuple[int, list[Hit]]:
    """Return (version, the best passages for a question or words, best first). Raises QuestionError, KnowledgeError."""
    return corpus.search(checked_question(query), limit)


def _ask(
    question: str, model: FrozenModel, corpus: Corpus | None, options: Options, listener: Listener
) -> tuple[Answer, Plan]:
    started = time.perf_counter()

    model = model.for_request()

    # 1) Retrieve and rank: the best passages by meaning and by words, if any is near the question.
    decoding = decoding_for(model, options.decoding)
    found = Retrieval(ClosedBookPlan())
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
    reading = _read(found.plan, question, options.instruction, model, decoding, listener)
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
    answer = Answer(
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
        notes=(*declared, *reading.notes, *found.notes, *cut_short(completion, decoding.schema)),
        finish_reason=completion.finish_reason if completion else "end",
        prompt_tokens=completion.prompt_tokens if completion else 0,
        answer_tokens=completion.answer_tokens if completion else 0,
    )
    return answer, found.plan


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
    question = checked_question(question)
    started, listener = time.perf_counter(), replace(listener, on_text=None)
    first, plan = _ask(question, model, corpus, options, listener)
    if first.confidence in _SURE or not plan.is_measured or first.finish_reason == "cancelled":
        return first
    larger = fallback()
    corpus = replace(corpus, scope=replace(corpus.scope, as_of=first.receipt.knowledge_base_version))
    try:
        second, _ = _ask(question, larger, corpus, replace(options, strategy="auto"), listener)
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


def cite(text: str, question: str, reading: Reading, embedder: Embedder, schema: str = "") -> AnswerSupport:
    marks = tidied(reading.completion.text)[1] if reading.completion and not schema else []
    text = json_prose(text) if schema else text
    sources = [hit.passage for hit in reading.sources]
    return cite_sentences(text, question, sources, embed=embedder.embed_passages, marks=marks, framing=FRAMING)


def signals_of(quoted: AnswerSupport, completion: Completion) -> Signals:
    scores = [each.score for each in quoted.sentences] or [0.0]
    return Signals(math.fsum(scores) / len(scores), quoted.asked, completion.stated, completion.least_logprob)


def measured_signals(text: str, quoted: AnswerSupport, reading: Reading) -> Signals | None:
    """None for answers for which certainty was not measured: overviews, and answers that were cut off or end before
    their list.
    """
    completion = reading.completion
    if completion is None or not reading.plan.is_measured or cut_short(completion) or text.endswith(":"):
        return None
    return signals_of(quoted, completion)


def answer_again(
    receipt: Receipt, model: FrozenModel, hits: Sequence[Hit], cancelled: Cancelled = never
) -> tuple[str, Completion | None]:
    """Answer again from a receipt's passages. Return the answer, and the completion if the model was asked.

    A cancelled answer may be incomplete.
    """
    decoding = receipt.decoding
    plan = plan_of(receipt.strategy, hits, model, decoding)
    if decoding.schema:
        check_schema_text(decoding.schema)
    question = checked_question(receipt.question)
    reading = _read(plan, question, receipt.instruction, model, decoding, Listener(cancelled=cancelled))
    return final_answer(reading, model, decoding.schema)[0], reading.completion


def _read(
    plan: Plan, question: str, instruction: str, model: FrozenModel, decoding: Decoding, listener: Listener
) -> Reading:
    # A trained reader is asked as in training; its grammar alone makes the JSON.
    stated = "" if model.reader and plan.from_documents else decoding.schema
    return plan.read(with_instruction(question, instruction, stated), model, decoding, listener)


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
        strategy=reading.plan.strategy,
        passages=tuple(PassageReference(h.passage.id, h.passage.digest, h.passage.document) for h in reading.hits),
        prompt_digest=completion.prompt_digest if completion else "",
        decoding=decoding,
        answer_digest=sha256_hex(text.encode()),
        where=corpus.scope.where if corpus else "",
        labels=tuple(sorted(corpus.scope.labels)) if corpus else (),
        instruction=options.instruction,
    )
