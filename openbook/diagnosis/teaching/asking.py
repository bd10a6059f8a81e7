"""Asking: from memory, with a knowledge base, or with given passages; and whether what was said is right.

What does not fit into the model's context is not answered, which is not right, as in `openbook.diagnosis.probes`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from openbook.answer import Options, ask, reading_prompt
from openbook.answer_text import says_nothing_found, tidy
from openbook.diagnosis.probes import Probe
from openbook.diagnosis.scoring import holds_answer, is_right
from openbook.diagnosis.teaching.facts import Fact
from openbook.diagnosis.teaching.seams import Seams
from openbook.errors import ContextOverflow
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, add
from openbook.records import Decoding, Embedder

DECODING = Decoding(max_tokens=40, stop=("\n",))
TOO_LONG = "(too long for the model's context)"  # in the place of an answer


@dataclass(frozen=True, slots=True)
class Told:
    """One answer. `right` is 0 or 1; an abstention is not right. `read`: the documents that were read for it."""

    question: str
    answer: str
    right: float
    seconds: float
    read: tuple[str, ...] = ()


def tell(
    question: str,
    answers: Sequence[str],
    model: FrozenModel,
    base: KnowledgeBase | None = None,
    embedder: Embedder | None = None,
) -> Told:
    """As `openbook ask` does it: from memory without `base`."""
    started = time.perf_counter()
    try:
        given = ask(question, model, base, embedder, Options(decoding=DECODING))
    except ContextOverflow:
        return Told(question, TOO_LONG, 0.0, time.perf_counter() - started)
    right = 0.0 if given.abstained else is_right(given.answer, answers)
    read = tuple(hit.passage.document for hit in given.passages)
    return Told(question, given.answer, right, time.perf_counter() - started, read)


def tell_from(question: str, answers: Sequence[str], model: FrozenModel, passages: Sequence[tuple[str, str]]) -> Told:
    """From (title, text) of passages that are given, in one prompt."""
    started = time.perf_counter()
    try:
        text = tidy(model.complete(reading_prompt(question, passages, model.reader), DECODING).text)
    except ContextOverflow:
        return Told(question, TOO_LONG, 0.0, time.perf_counter() - started)
    right = 0.0 if says_nothing_found(text, model.reader) else is_right(text, answers)
    return Told(question, text, right, time.perf_counter() - started)


def recall(
    facts: Sequence[Fact],
    model: FrozenModel,
    base: KnowledgeBase | None,
    seams: Seams,
) -> tuple[list[float], list[Told]]:
    """(of each fact the share of its questions that were answered right, all answers)."""
    total = sum(len(fact.asked) for fact in facts)
    scores, said = [], list[Told]()
    for fact in facts:
        told = []
        for question in fact.asked:
            told.append(tell(question, fact.answers, model, base, seams.embedder if base else None))
            seams.progress("ask", len(said) + len(told), total)
        said += told
        scores.append(sum(each.right for each in told) / len(told))
    return scores, said


def known(probes: Sequence[Probe], model: FrozenModel, seams: Seams) -> list[float]:
    """Of each question, to be answered from memory, whether the answer holds what is accepted."""
    return _asked(probes, lambda probe: tell(probe.question, probe.answers, model), seams)


def read(probes: Sequence[Probe], model: FrozenModel, seams: Seams) -> list[float]:
    """The same for questions with their passage."""

    def answer(probe: Probe) -> Told:
        return tell_from(probe.question, probe.answers, model, [(probe.title, probe.passage)])

    return _asked(probes, answer, seams)


def _asked(probes: Sequence[Probe], answer: Callable[[Probe], Told], seams: Seams) -> list[float]:
    scores = []
    for probe in probes:
        said = answer(probe).answer
        scores.append(0.0 if said == TOO_LONG else holds_answer(said, probe.answers))
        seams.progress("ask", len(scores), len(probes))
    return scores


@contextmanager
def documents_in_a_base(texts: dict[str, str], seams: Seams) -> Iterator[KnowledgeBase]:
    """A knowledge base of these documents (text by name), which is gone afterwards."""
    with TemporaryDirectory() as scrap:
        folder = Path(scrap) / "documents"
        folder.mkdir()
        for name, text in texts.items():
            (folder / f"{name}.txt").write_text(text + "\n", encoding="utf-8")
        base = KnowledgeBase.ensure(Path(scrap) / "base", seams.embedder.identity)
        try:
            add(base, [folder], seams.embedder)
            yield base
        finally:
            base.close()


@contextmanager
def opened(make: Callable[[], FrozenModel]) -> Iterator[FrozenModel]:
    model = make()
    try:
        yield model
    finally:
        model.close()
