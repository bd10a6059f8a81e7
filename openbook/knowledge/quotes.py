"""Finds the words that support a statement: a verbatim span of a passage, or none.

A quote supports a sentence when nothing in it speaks against the sentence (`claims`), all values, names and code of the
sentence stand there, and words and meaning are near enough (`_likeness`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from openbook.knowledge import claims
from openbook.knowledge.claims import Statement
from openbook.knowledge.sentences import sentence_spans
from openbook.knowledge.values import Value
from openbook.records import Citation, Passage, Vectors

Embed: TypeAlias = Callable[[Sequence[str]], Vectors]

MAX_QUOTE_SENTENCES = 3
CANDIDATES = 12  # quotes of a sentence that nothing speaks against
COMPARED = 3  # of them, those with the most of its words, whose meaning is compared
NEAR = 0.6  # a value counts in a sentence with this share of the words of the nearest one
SUPPORTED = 0.5
SURE = 0.7  # from here on 19 of 20 altered sentences are refused (docs/log.md)


@dataclass(frozen=True, slots=True)
class SentenceSupport:
    """`answer[start:end]` and the place of its citation in `Quoted.citations`; None: unsupported, or it states nothing.

    `score` is from 0 to 1; a sentence is supported from `SUPPORTED` on.
    """

    start: int
    end: int
    citation: int | None
    score: float
    states: bool = True


@dataclass(frozen=True, slots=True)
class Quoted:
    """Citations for the parts of an answer that have support, the parts that have none, and all parts in order."""

    citations: tuple[Citation, ...] = ()
    unsupported: tuple[str, ...] = ()
    sentences: tuple[SentenceSupport, ...] = ()


def quote(
    answer: str,
    question: str,
    passages: Sequence[Passage],
    *,
    embed: Embed | None = None,
    marks: Sequence[tuple[int, frozenset[int]]] = (),
) -> Quoted:
    """Cite each sentence of `answer` from `passages` (best first), or list it as unsupported.

    List items, and lines of code, are sentences. Every citation's quote is the shortest run of 1 to `MAX_QUOTE_SENTENCES`
    sentences that supports the sentence, and stands verbatim at its span. `marks`: places in the answer and the
    numbers of passages, from 1, that its author named there; of equally good quotes of a sentence one from these is taken.
    """
    read = _Reading(question, passages)
    parts = list(_parts(answer))
    found = [read.sought(answer[start:end], code) for start, end, code in parts]
    if not any(each.states for each in found):  # an answer that states nothing has no support
        found = [replace(each, states=True) for each in found]
    citations: dict[tuple[str, int, int], Citation] = {}
    sentences: list[SentenceSupport] = []
    for (start, end, _), sought, cosines in zip(parts, found, _cosines(found, embed), strict=True):
        scored = [
            (_likeness(run, share, cosine), run)
            for (run, share), cosine in zip(sought.candidates, cosines, strict=True)
        ]
        enough = [(score, run) for score, run in scored if score >= SUPPORTED]
        named = {number - 1 for at, numbers in marks if start < at <= end + 1 for number in numbers}
        place = None
        if enough:
            _, run = max(
                enough, key=lambda e: (round(e[0], 1), e[1].place in named, e[1].start - e[1].end, -e[1].place)
            )
            citation = run.citation()
            span = citation.document, citation.start, citation.end
            citations.setdefault(span, citation)
            place = list(citations).index(span)
        best = max((score for score, _ in scored), default=0.0)
        sentences.append(SentenceSupport(start, end, place, best, sought.states))
    unsupported = tuple(answer[s.start : s.end] for s in sentences if s.states and s.citation is None)
    return Quoted(tuple(citations.values()), unsupported, tuple(sentences))


def is_sure(answer: str, question: str, quoted: Quoted, *, stated: bool = False) -> bool:
    """Whether each sentence of the answer is surely supported, and together they say more than the question.

    Where it is known that the passages have the answer `stated`, a quote of one sentence will do.
    """
    sure = stated or all(each.score >= SURE and each.citation is not None for each in quoted.sentences if each.states)
    said, asked = claims.statement(answer), claims.statement(question)
    return sure and bool(quoted.citations) and (not said.stems <= asked.stems or said.values != asked.values)


def closest(question: str, passages: Sequence[Passage], embed: Embed | None, most: int = 3) -> tuple[Citation, ...]:
    """The sentences nearest to the question, verbatim, nearest first: for an answer that is not there."""
    read = _Reading(question, passages)
    runs = [run for units in read.units for run in units if not run.heading]
    runs.sort(key=lambda run: (-len(read.question.stems & (run.said.stems | run.topic)), run.place, run.start))
    runs = runs[: 8 * most]
    if embed is not None and runs:
        vectors = embed([question, *(run.text for run in runs)])
        near = {id(run): float(vectors[0] @ vectors[i + 1]) for i, run in enumerate(runs)}
        runs.sort(key=lambda run: (-near[id(run)], run.place, run.start))
    first = {run.text: run for run in reversed(runs)}
    return tuple(run.citation() for run in runs if first[run.text] is run)[:most]


# --- the parts of an answer -------------------------------------------------------------------------------------------

_FENCE = re.compile(r"^[ \t]*```[^\n]*\n(?P<code>.*?)(?:^[ \t]*```[^\n]*$|\Z)", re.MULTILINE | re.DOTALL)
_MARKS = re.compile(r"\s*\[\d{1,3}(?:\s*,\s*\d{1,3})*\]")
_YES_OR_NO = re.compile(r"^\W*(?:yes|no)\b\W*(?=\w)", re.IGNORECASE)
_OPEN = frozenset("what who whom whose which when where why how".split())
_UNFINISHED = frozenset("the a an and or of to in on at by for from with is are was were that which than as".split())


def _parts(answer: str) -> Iterator[tuple[int, int, bool]]:
    """(start, end, whether it is a line of code) of each sentence of an answer; the whole where there is none."""
    at, found = 0, False
    for fence in (*_FENCE.finditer(answer), None):
        for start, end in sentence_spans(answer, at, fence.start() if fence else len(answer)):
            found = True
            yield start, end, False
        if fence:
            for line in re.compile(r"[^\s][^\n]*").finditer(answer, *fence.span("code")):
                found = True
                yield line.start(), line.start() + len(line[0].rstrip()), True
            at = fence.end()
    if not found and answer:
        yield 0, len(answer), False


# --- the parts of passages --------------------------------------------------------------------------------------------

_ROW = re.compile(r"\s*\|")
_ITEM = re.compile(r"\s*(?:[-*+•][ \t]|\d{1,3}[.)][ \t])")
_ENTRY = re.compile(r"\s*(?:[-*+•] )?([\w/-]+(?: [\w/-]+){0,3})(?::[ \t]| {2,})")
_RULED = re.compile(r"[ \t]*\n[ \t]*\|[ \t:|-]+(?:\n|\Z)")


@dataclass(slots=True)
class _Run:
    """Up to MAX_QUOTE_SENTENCES sentences of one passage, its offsets in the passage's text."""

    passage: Passage
    place: int
    start: int
    end: int
    said: Statement
    topic: frozenset[str]  # of the title and headings it stands under, and of its table's header
    rows: tuple[tuple[tuple[Statement, ...], tuple[frozenset[str], ...]], ...] = ()  # cells, and the years over each
    labels: tuple[tuple[frozenset[str], ...], ...] = ()  # what each row or entry is of, word by word
    parts: tuple[_Run, ...] = ()  # the sentences of a longer run
    header: Statement | None = None
    listed: int = 0  # how many list items or table rows it has
    heading: bool = False

    @property
    def text(self) -> str:
        return self.passage.text[self.start : self.end]

    def shared(self, said: Statement) -> int:
        """How many words of a statement it or its table's header has."""
        return len(said.stems & (self.said.stems | self.header.stems if self.header else self.said.stems))

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


def _units(passage: Passage, place: int) -> list[_Run]:
    """The sentences of a passage, each with what stands over it."""
    text = passage.text
    headings = [claims.words_of(heading) for heading in passage.headings]
    topic = claims.stems_of(" ".join((passage.title, *passage.headings)))
    intro = frozenset[str]()  # of the sentence before a list or table
    header: list[str] = []  # the first row of a table, and those after it whose first cell is empty
    complete = False
    units: list[_Run] = []
    for start, end in sentence_spans(text, 0, len(text)):
        sentence = text[start:end]
        unit = _Run(passage, place, start, end, claims.statement(sentence), topic)
        units.append(unit)
        row = _ROW.match(sentence) is not None
        cells = sentence.split("|") if row else []
        ruled = row and _RULED.match(text, end) is not None
        goes_on = row and bool(header) and not complete
        goes_on = goes_on and (not cells[1].strip() or all(map(claims.years_in, filter(str.strip, cells[2:]))))
        if ruled or goes_on:
            header = [*header, sentence] if goes_on and not ruled else [sentence]
            unit.heading = True
            continue
        complete = row
        header = header if row else []
        if row:
            unit.header = claims.statement(" ".join(header)) if header else None
            columns = [[claims.years_in(cell) for cell in line.split("|")] for line in header]
            over = (frozenset[str]().union(*(line[i] for line in columns if i < len(line))) for i in range(len(cells)))
            unit.rows = ((tuple(map(claims.statement, cells)), tuple(over)),)
            unit.topic |= unit.header.stems if unit.header else frozenset()
            unit.labels, unit.listed = (_label(cells[1]),), 1
        elif claims.words_of(sentence) in headings or sentence.startswith("#"):
            unit.heading = True
        elif not sentence.endswith(".") and (entry := _ENTRY.match(sentence)):
            unit.labels, unit.listed = (_label(entry[1]),), 1
        elif _ITEM.match(sentence):
            unit.listed = 1
        if unit.listed:
            unit.topic |= intro
        else:
            intro = unit.said.stems
    return units


def _label(text: str) -> tuple[frozenset[str], ...]:
    return tuple(stems for word in claims.plain(text).split() if (stems := claims.stems_of(word)))


def _joined(units: Sequence[_Run]) -> _Run:
    """Neighbouring sentences as one."""
    if len(units) == 1:
        return units[0]
    first = units[0]
    header = next((unit.header for unit in units if unit.header), None)
    return _Run(
        first.passage,
        first.place,
        first.start,
        units[-1].end,
        claims.joined([unit.said for unit in units]),
        first.topic | (header.stems if header else frozenset()),
        rows=tuple(row for unit in units for row in unit.rows),
        labels=tuple(label for unit in units for label in unit.labels),
        parts=tuple(units),
        header=header,
        listed=sum(unit.listed for unit in units),
    )


# --- candidates -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sought:
    """A sentence of the answer. `states`: it says something that needs support.

    `candidates`: what may support it, with the share of its words and values that stand there or over it.
    """

    text: str
    candidates: tuple[tuple[_Run, float], ...]
    states: bool = True


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a sentence says, and of it what it adds to the question; `listed`: how many things it may enumerate."""

    said: Statement
    new: frozenset[str]
    added: tuple[Value, ...]
    names: tuple[str, ...]
    codes: tuple[str, ...]
    listed: int

    def overlap(self, there: Statement) -> int:
        values = {value.core for _, value in there.values}
        words = len(self.new & there.stems) + len(self.said.stems & there.stems)
        return words + 4 * sum(value.core in values for value in self.added)


class _Reading:
    """The passages, read once for all sentences of an answer."""

    def __init__(self, question: str, passages: Sequence[Passage]) -> None:
        self.passages = passages
        self.question = claims.statement(question)
        self.units = [_units(passage, place) for place, passage in enumerate(passages)]
        self.runs: list[_Run] = []
        for units in self.units:
            for first in range(len(units)):
                for last in range(first, min(first + MAX_QUOTE_SENTENCES, len(units))):
                    if units[first].heading or units[last].heading:
                        break
                    self.runs.append(_joined(units[first : last + 1]))
        self.texts = [claims.plain(p.text) for p in passages]
        self.scales = [claims.scales(text) for text in self.texts]
        self.common = frozenset(w for p in passages for w in re.findall(r"(?<!\w)[a-z]\w*", p.text))

    def sought(self, sentence: str, code: bool) -> _Sought:
        text = _MARKS.sub("", sentence).strip()
        if code:
            return self._verbatim(text)
        claim = self._claim(text)
        hard = claim.said.values or claim.names or claim.codes
        if re.match(r"#{1,6}\s", text) or (text.endswith(":") and not hard):
            return _Sought(text, (), states=False)
        unfinished = text[-1:].isalnum() and claim.said.words[-1:] and claim.said.words[-1] in _UNFINISHED
        if unfinished or not (claim.new or claim.added):
            return _Sought(text, ())
        return _Sought(text, tuple(self._candidates(claim)))

    def _claim(self, text: str) -> _Claim:
        asked = self.question
        said = claims.statement(_YES_OR_NO.sub("", text))
        affirms = said.words in (("yes",), ("no",))
        if affirms:  # what is affirmed or denied is the question
            said = asked
        cores = set() if affirms else {value.core for _, value in asked.values}
        added = tuple(value for _, value in said.values if value.core not in cores)
        new = said.stems - asked.stems
        if not new and not added and (affirms or not _OPEN & {*asked.words[:3]}):
            new = said.stems  # an answer in the words of a question for yes or no is judged by all of them
        names, codes = claims.names_of(text, self.common), claims.codes_in(text)
        listed = len(re.findall(r";|\band\b|\bor\b|\bwhile\b", text))
        listed += len(re.findall(r",\s(?!\d{4}\b)", text)) if listed else 0
        return _Claim(said, new, added, tuple(names), tuple(codes), listed + 1)

    def _candidates(self, claim: _Claim) -> list[tuple[_Run, float]]:
        """The quotes with the most of its words of those that nothing speaks against, shorter ones first among equals."""
        said, found = claim.said, list[tuple[_Run, float]]()
        nearest = [max((u.shared(said) for u in units if not u.heading), default=0) for units in self.units]
        against = [self._against(said, units) for units in self.units]
        pool = [run for run in self.runs if claim.added or claim.new & (run.said.stems | run.topic)]
        for run in sorted(pool, key=lambda run: (-claim.overlap(run.said), run.end - run.start, run.text)):
            parts = run.parts or (run,)
            near = [part for part in parts if part.shared(said) >= NEAR * nearest[run.place]]
            if (
                run.listed <= claim.listed
                and all(_named(label, said.stems | self.question.stems) for label in run.labels)
                and (len(parts) == 1 or (_adds(said, parts[0], parts[1:]) and _adds(said, parts[-1], parts[:-1])))
                and max(part.shared(said) for part in parts) > against[run.place]
                and self._holds(claim, run, near)
            ):
                shared = len(said.stems & (run.said.stems | run.topic)) + len(said.values)
                found.append((run, shared / (len(said.stems) + len(said.values))))
            if len(found) == CANDIDATES:
                break
        return sorted(found, key=lambda each: (-each[1], each[0].end - each[0].start))[:COMPARED]

    def _against(self, said: Statement, units: Iterable[_Run]) -> int:
        """How many words of a statement the nearest sentence has that says otherwise; -1: there is none."""
        shared = [(unit.shared(said), unit) for unit in units if not unit.heading]
        return max((n for n, unit in shared if n > 1 and claims.contradict(said, unit.said, self.question)), default=-1)

    def _holds(self, claim: _Claim, run: _Run, near: Sequence[_Run]) -> bool:
        """Whether every value, name and code stands in a sentence that is `near`, and nothing in the quote speaks against it."""
        there = [*(part.said for part in near), *([run.header] if run.header else [])]
        values = [value for each in there for _, value in each.values]
        context = claims.plain(" ".join((run.passage.title, *run.passage.headings)))
        missing = claims.missing_values(claim.said, values, self.scales[run.place])
        if missing:  # what the question says too may stand elsewhere in the passage
            around = [claims.statement(context), *(unit.said for unit in self.units[run.place])]
            elsewhere = {value.core for each in around for _, value in each.values}
            if any(value in claim.added or value.core not in elsewhere for value in missing):
                return False
        text = " ".join([*(each.text for each in there), context])
        for code in claim.codes:
            asked = claims.stands(code, self.question.text) and claims.stands(code, self.texts[run.place])
            if not asked and not claims.stands(code, text):
                return False
        named = f"{self.question.text} {text}"
        words = {*claims.words_of(named), *map(str.casefold, re.findall(r"[\w'’&-]+", named))}
        return (
            all(name.casefold() in words for name in claim.names)
            and not claims.contradict(claim.said, run.said, self.question)
            and not any(claims.other_column(claim.said, cells, years) for cells, years in run.rows)
        )

    def _verbatim(self, code: str) -> _Sought:
        """A line of code where it stands, as it stands but for white space."""
        pattern = re.compile(r"\s+".join(map(re.escape, code.split())))
        for place, passage in enumerate(self.passages):
            if match := pattern.search(passage.text):
                run = _Run(passage, place, *match.span(), claims.statement(""), frozenset())
                return _Sought(code, ((run, 1.0),))
        return _Sought(code, ())


def _named(label: Sequence[frozenset[str]], matter: frozenset[str]) -> bool:
    """Whether a statement names what a row is of: at least half of its words."""
    return 2 * sum(word <= matter for word in label) >= len(label)


def _adds(said: Statement, part: _Run, others: Sequence[_Run]) -> bool:
    """Whether a sentence of a longer quote has a word or value of the statement that its neighbours have not."""
    elsewhere = claims.joined([other.said for other in others])
    values = {value.core for _, value in said.values} & {value.core for _, value in part.said.values}
    return bool(
        said.stems & part.said.stems - elsewhere.stems or values - {value.core for _, value in elsewhere.values}
    )


# --- how near ---------------------------------------------------------------------------------------------------------


def _cosines(found: Sequence[_Sought], embed: Embed | None) -> list[list[float | None]]:
    """For each candidate of each sentence the cosine of its quote with the sentence; None where there is no embedder."""
    texts = [text for s in found if s.candidates for text in (s.text, *(run.text for run, _ in s.candidates))]
    if embed is None or not texts:
        return [[None] * len(sought.candidates) for sought in found]
    texts = list(dict.fromkeys(texts))
    vectors = dict(zip(texts, embed(texts), strict=True))
    return [[float(vectors[s.text] @ vectors[run.text]) for run, _ in s.candidates] for s in found]


# A logistic regression, fitted on the development half of benchmarks/support_pairs.jsonl: constant, words, cosine.
_WORDS = (-4.41, 6.24, 0.0)
_MEANING = (-5.65, 5.2, 2.9)


def _likeness(run: _Run, share: float, cosine: float | None) -> float:
    """From 0 to 1, how near a quote is to a sentence that nothing in it speaks against."""
    constant, words, meaning = _WORDS if cosine is None or run.rows else _MEANING  # a row means little alone
    return 1 / (1 + math.exp(-(constant + words * share + meaning * (cosine or 0.0))))
