"""Verbatim quotes for each sentence of an answer: the nearest span of the passages, and how well it supports the sentence.

A span is compared by words, numbers and meaning, without rules of a language: equal words may still differ in meaning.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from openbook.core.records import Citation, Passage, Support, Vectors
from openbook.knowledge.index.words import query_words, stemmer
from openbook.knowledge.ingest.sentences import sentence_spans

Embed: TypeAlias = Callable[[Sequence[str]], Vectors]

MAX_QUOTE_SENTENCES = 3
COMPARED = 4  # spans with the most of a sentence's words; their meaning is compared
CLOSEST = 3  # sentences given with an abstention
BACKED = 0.6
NUMBER_MISSING = 0.5  # the highest score of a sentence with a missing number

_MARKS = re.compile(r"\s*\[\d{1,3}(?:\s*,\s*\d{1,3})*\]")
_FENCE = re.compile(r"^[ \t]*```[^\n]*$", re.MULTILINE)
_ROW = re.compile(r"\s*\|")
_RULED = re.compile(r"[ \t]*\n[ \t]*\|[ \t:|-]+(?:\n|\Z)")
_DIGIT = re.compile(r"\d")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_POINT = re.compile(r"(?<=\d)\.(?=\d)")
# Chosen by hand between two logistic regressions: one on the development half of benchmarks/support_pairs.jsonl (-3.6; 0.6, 1.3, 3.0), and one
# that also had 811 pairs made from judged ones (research/log.md) (-1.7; 1.8, 0.0, 0.7).
_BIAS, _WEIGHTS = -3.1, (1.3, 0.9, 2.3)


@dataclass(frozen=True, slots=True)
class SentenceSupport:
    """Support of `answer[start:end]`, from 0 to 1. `citation`: the nearest quote's index in `AnswerSupport.citations`, None without a common word."""

    start: int
    end: int
    citation: int | None
    score: float

    @property
    def support(self) -> Support:
        if self.citation is None:
            return "none"
        return "backed" if self.score >= BACKED else "near"


@dataclass(frozen=True, slots=True)
class AnswerSupport:
    """The nearest quotes, the sentences in order, and the share of the question's words around the quotes."""

    citations: tuple[Citation, ...] = ()
    sentences: tuple[SentenceSupport, ...] = ()
    asked: float = 0.0


def cite_sentences(
    answer: str,
    question: str,
    passages: Sequence[Passage],
    *,
    embed: Embed | None = None,
    marks: Sequence[tuple[int, frozenset[int]]] = (),
    framing: str = "",
) -> AnswerSupport:
    """Cite each sentence of `answer` from `passages` (best first): the nearest run of 1 to `MAX_QUOTE_SENTENCES` sentences.

    List items and code lines are sentences. `marks`: offsets in the answer, and the passages (from 1) named there, preferred among equally good
    quotes. `framing`: the model's instructions, whose words ("the excerpts state ...") do not count where no passage has them.
    """
    text = _Passages(question, passages, framing)
    unmarked = [(span, _MARKS.sub("", answer[slice(*span)])) for span in _parts(answer)]
    parts = [(span, sentence) for span, sentence in unmarked if text.words(sentence)]
    sentences = [sentence for _, sentence in parts]
    nearest = [text.nearest(sentence) for sentence in sentences]
    compared = list(dict.fromkeys([*sentences, *(run.text for runs in nearest for run in runs)]))
    vectors = dict(zip(compared, embed(compared), strict=True)) if embed and compared else {}
    citations: dict[tuple[str, int, int], Citation] = {}
    found: list[SentenceSupport] = []
    around = frozenset[str]()
    for ((start, end), sentence), runs in zip(parts, nearest, strict=True):
        if not runs:
            found.append(SentenceSupport(start, end, None, 0.0))
            continue
        named = {n - 1 for at, numbers in marks if start < at <= end + 1 for n in numbers}
        cosines = [float(vectors[sentence] @ vectors[run.text]) if vectors else None for run in runs]
        scored = [(text.likeness(sentence, run, cosine), run) for run, cosine in zip(runs, cosines, strict=True)]
        score, run = max(scored, key=lambda e: (round(e[0], 1), e[1].rank in named, e[1].start - e[1].end, -e[1].rank))
        citation = run.citation()
        span = citation.document, citation.start, citation.end
        citations.setdefault(span, citation)
        found.append(SentenceSupport(start, end, list(citations).index(span), score))
        around |= run.around
    return AnswerSupport(tuple(citations.values()), tuple(found), text.share(text.question, around))


def closest(question: str, passages: Sequence[Passage], embed: Embed | None) -> tuple[Citation, ...]:
    """The `CLOSEST` sentences to the question, verbatim, nearest first."""
    text = _Passages("", passages)
    asked = text.words(question)
    runs = [run for run in text.runs if len(run.units) == 1]
    runs.sort(key=lambda run: (-text.weight(asked & run.words), run.rank, run.start))
    runs = runs[: 8 * CLOSEST]
    if embed is not None and runs:
        vectors = embed([question, *(run.text for run in runs)])
        near = {id(run): float(vectors[0] @ vectors[i + 1]) for i, run in enumerate(runs)}
        runs.sort(key=lambda run: (-near[id(run)], run.rank, run.start))
    first = {run.text: run for run in reversed(runs)}
    return tuple(run.citation() for run in runs if first[run.text] is run)[:CLOSEST]


def _parts(answer: str) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    at = 0
    for fence in (*_FENCE.finditer(answer), None):
        stop = fence.start() if fence else len(answer)
        found += sentence_spans(answer, at, stop)
        at = fence.end() if fence else stop
    return found


@dataclass(frozen=True, slots=True)
class _Unit:
    start: int
    end: int
    words: frozenset[str]
    header: str  # of the table whose row it is
    is_heading: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """Up to `MAX_QUOTE_SENTENCES` sentences of passage number `rank` (from 0), with offsets in the passage's text.

    `words`: its own; `around` adds those of the title, the headings and the table's header.
    """

    passage: Passage
    rank: int
    units: Sequence[_Unit]
    words: frozenset[str]
    around: frozenset[str]

    @property
    def start(self) -> int:
        return self.units[0].start

    @property
    def end(self) -> int:
        return self.units[-1].end

    @property
    def text(self) -> str:
        return self.passage.text[self.start : self.end]

    def citation(self) -> Citation:
        passage = self.passage
        return Citation(
            document=passage.document,
            page=passage.page,
            start=passage.start + self.start,
            end=passage.start + self.end,
            quote=self.text,
            passage_id=passage.id,
            also_in=passage.also_in,
        )


class _Passages:
    def __init__(self, question: str, passages: Sequence[Passage], framing: str = "") -> None:
        self._stem, self._framing = stemmer(), frozenset[str]()
        self._words = dict[str, frozenset[str]]()
        self.question = self.words(question)
        self.runs: list[_Run] = []
        counts = Counter[str]()
        for rank, passage in enumerate(passages):
            units = self._units(passage)
            for unit in units:
                counts.update(unit.words)
            topic = self.words(" ".join((passage.title, *passage.headings)))
            for first in range(len(units)):
                for last in range(first, min(first + MAX_QUOTE_SENTENCES, len(units))):
                    if units[last].is_heading:
                        break
                    inside = units[first : last + 1]
                    words = frozenset[str]().union(*(unit.words for unit in inside))
                    around = words | topic | self.words(inside[0].header)
                    self.runs.append(_Run(passage, rank, inside, words, around))
        self._framing = self.words(framing) - counts.keys()
        self._weights = dict[str, float]()
        self._counts, self._total = counts, sum(1 for run in self.runs if len(run.units) == 1)

    def words(self, text: str) -> frozenset[str]:
        """The stems of words except stop words. "1,000" is "1000", and "3.5" one word that is not "5.3"."""
        if text not in self._words:
            plain = _POINT.sub("p", _THOUSANDS.sub("", text))
            self._words[text] = frozenset(map(self._stem, query_words(plain)))
        return self._words[text] - self._framing

    def weight(self, words: Iterable[str]) -> float:
        """The sum of the words' weights: higher for words in fewer sentences."""
        for word in words:
            if word not in self._weights:
                self._weights[word] = math.log(1 + (1 + self._total) / (1 + self._counts[word]))
        return math.fsum(self._weights[word] for word in words)

    def share(self, words: frozenset[str], there: frozenset[str]) -> float:
        """The share of `there` in the weight of `words`; 1 for no words."""
        return self.weight(words & there) / whole if (whole := self.weight(words)) else 1.0

    def nearest(self, sentence: str) -> list[_Run]:
        """The `COMPARED` runs with the most of its words, shorter ones first among equals."""
        words = self.words(sentence)
        new = words - self.question or words
        near = (run for run in self.runs if words & run.words)
        scored = [(self.share(words, run.around) + 2 * self.share(new, run.around), run) for run in near]
        scored.sort(key=lambda each: (-round(each[0], 6), len(each[1].words), each[1].rank, each[1].start))
        return [run for _, run in scored[:COMPARED]]

    def likeness(self, sentence: str, run: _Run, cosine: float | None) -> float:
        """The support from 0 to 1; at most `NUMBER_MISSING` without a number of the sentence."""
        words = self.words(sentence)
        share, new = (self.share(each, run.around) for each in (words, words - self.question or words))
        features = (share, new, share if cosine is None else cosine)
        odds = _BIAS + math.fsum(w * x for w, x in zip(_WEIGHTS, features, strict=True))
        numbers = frozenset(word for word in words if _DIGIT.search(word))
        there = 1.0 if numbers <= run.around else self.share(numbers, run.around) * NUMBER_MISSING
        return there / (1 + math.exp(-odds))

    def _units(self, passage: Passage) -> list[_Unit]:
        text, header = passage.text, passage.header
        headings = {" ".join(heading.split()) for heading in passage.headings}
        units: list[_Unit] = []
        for start, end in sentence_spans(text, 0, len(text)):
            sentence = text[start:end]
            is_row = _ROW.match(sentence) is not None
            is_header = is_row and _RULED.match(text, end) is not None
            if is_header or not is_row:
                header = sentence if is_header else ""
            is_heading = is_header or sentence.startswith("#") or " ".join(sentence.split()) in headings
            units.append(_Unit(start, end, self.words(sentence), "" if is_header else header, is_heading))
        return units
