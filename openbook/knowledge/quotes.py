"""Finding the words that support a statement: a verbatim span of a passage, or the finding that there is none.

A quote supports a sentence when nothing in it speaks against the sentence (`claims`), all values, names and code of the
sentence stand there, and words and meaning are near enough (`_likeness`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
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


SUPPORTED = 0.5
SURE = 0.7  # from here on 19 of 20 altered sentences are refused (docs/log.md)


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
    near = _cosines(found, embed)
    citations: dict[tuple[str, int, int], tuple[int, Citation]] = {}
    sentences: list[SentenceSupport] = []
    for i, ((start, end, _), sought) in enumerate(zip(parts, found, strict=True)):
        scored = [(_likeness(c, cosine), c.run) for c, cosine in zip(sought.candidates, near[i], strict=True)]
        enough = [each for each in scored if each[0] >= SUPPORTED]
        named = {number - 1 for at, numbers in marks if start < at <= end + 1 for number in numbers}
        place = None
        if enough:
            _, run = max(
                enough, key=lambda e: (round(e[0], 1), e[1].place in named, e[1].start - e[1].end, -e[1].place)
            )
            citation = run.citation()
            place = citations.setdefault((citation.document, citation.start, citation.end), (len(citations), citation))[
                0
            ]
        best = max((score for score, _ in scored), default=0.0)
        sentences.append(SentenceSupport(start, end, place, best, sought.states))
    return Quoted(
        tuple(citation for _, citation in citations.values()),
        tuple(answer[s.start : s.end] for s in sentences if s.states and s.citation is None),
        tuple(sentences),
    )


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
    asked = claims.statement(question)
    runs = [run for units in read.units for run in units if not run.heading]
    runs.sort(key=lambda run: (-len(asked.stems & (run.said.stems | run.topic)), run.place, run.start))
    runs = runs[: 8 * most]
    if embed is not None and runs:
        vectors = embed([question, *(run.text for run in runs)])
        near = {id(run): float(vectors[0] @ vectors[i + 1]) for i, run in enumerate(runs)}
        runs.sort(key=lambda run: (-near[id(run)], run.place, run.start))
    chosen = {run.text: run for run in reversed(runs)}
    return tuple(run.citation() for run in runs if chosen[run.text] is run)[:most]


# --- the parts of an answer -------------------------------------------------------------------------------------------

_FENCE = re.compile(r"^[ \t]*```[^\n]*\n(?P<code>.*?)(?:^[ \t]*```[^\n]*$|\Z)", re.MULTILINE | re.DOTALL)
_MARKS = re.compile(r"\s*\[\d{1,3}(?:\s*,\s*\d{1,3})*\]")
_OPEN = frozenset("what who whom whose which when where why how".split())
_PRONOUNS = frozenset("it its they their them we our us he his him she her this these those such".split())
_UNFINISHED = frozenset("the a an and or of to in on at by for from with is are was were that which than as".split())


def _parts(answer: str) -> Iterator[tuple[int, int, bool]]:
    """(start, end, whether it is a line of code) of each sentence of an answer; the whole where there is none."""
    at, found = 0, False
    for fence in (*_FENCE.finditer(answer), None):
        for start, end in sentence_spans(answer, at, fence.start() if fence else len(answer)):
            found = True
            yield start, end, False
        if fence:
            for line in re.finditer(r"[^\n]*\S", answer[fence.start("code") : fence.end("code")]):
                found = True
                start = fence.start("code") + line.start() + len(line[0]) - len(line[0].lstrip())
                yield start, fence.start("code") + line.end(), True
            at = fence.end()
    if not found and answer:
        yield 0, len(answer), False


# --- the parts of passages --------------------------------------------------------------------------------------------

_ROW = re.compile(r"\s*\|")
_ITEM = re.compile(r"\s*(?:[-*+•][ \t]|\d{1,3}[.)][ \t])")
_ENTRY = re.compile(r"\s*(?:[-*+•] )?([\w/-]+(?: [\w/-]+){0,3})(?::[ \t]| {2,})")
_RULED = re.compile(r"[ \t]*\n[ \t]*\|[ \t:|-]+(?:\n|\Z)")
_APART = re.compile(r"[^\s.!?,;:] {2,}\S")
_RULE = re.compile(r"[ \t]*\n[ \t]*([=\-~^\"'*+#])\1{2,}[ \t]*(?:\n|\Z)")


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

    @property
    def words(self) -> frozenset[str]:
        return self.said.stems | self.header.stems if self.header else self.said.stems

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
    headings = [claims.words_of(h) for h in passage.headings]
    base = frozenset(
        claims.stem(w) for t in (passage.title, *passage.headings) for w in claims.words_of(t) if claims.is_content(w)
    )
    section = intro = frozenset[str]()  # of the heading above, and of the sentence before a list or table
    units: list[_Run] = []
    header: list[str] = []  # the first row of a table, and those after it whose first cell is empty
    complete = False
    for start, end in _lines_apart(text):
        sentence = text[start:end]
        row = _ROW.match(sentence) is not None
        ruled = row and _RULED.match(text, end) is not None
        cells = sentence.split("|") if row else []
        under = row and bool(header) and not complete
        heads = ruled or (under and (not cells[1].strip() or all(map(claims.years_in, filter(str.strip, cells[2:])))))
        header = [sentence] if ruled else [*header, sentence] if heads else header if row else []
        complete = row and not heads
        said = claims.statement(sentence)
        unit = _Run(
            passage, place, start, end, said, base | section, listed=int(row or _ITEM.match(sentence) is not None)
        )
        if claims.words_of(sentence) in headings or sentence.startswith("#") or _RULE.match(text, end):
            unit.heading, section = True, said.stems
        elif heads:
            unit.heading = True
        elif row:
            columns = [[claims.years_in(cell) for cell in line.split("|")] for line in header]
            unit.header = claims.statement(" ".join(header)) if header else None
            over = (frozenset[str]().union(*(line[i] for line in columns if i < len(line))) for i in range(len(cells)))
            unit.rows = ((tuple(map(claims.statement, cells)), tuple(over)),)
            unit.topic |= unit.header.stems if unit.header else frozenset()
            unit.labels = (_label(cells[1]),)
        elif not sentence.endswith(".") and (entry := _ENTRY.match(sentence)):
            unit.labels, unit.listed = (_label(entry[1]),), 1
        if unit.listed:
            unit.topic |= intro
        elif not heads:
            intro = said.stems
        units.append(unit)
    return units


def _label(text: str) -> tuple[frozenset[str], ...]:
    words = (
        frozenset(claims.stem(w) for w in claims.words_of(word) if claims.is_content(w))
        for word in claims.plain(text).split()
    )
    return tuple(word for word in words if word)


def _named(label: Sequence[frozenset[str]], matter: frozenset[str]) -> bool:
    """Whether a statement names what a row is of: more than half of its words, or half and the first."""
    named = [word <= matter for word in label]
    return not named or 2 * sum(named) + named[0] > len(named)


def _lines_apart(text: str) -> Iterator[tuple[int, int]]:
    """Sentences; the rows of a table without lines, whose columns are two spaces apart, are sentences too."""
    for start, end in sentence_spans(text, 0, len(text)):
        lines = list(re.finditer(r"\S[^\n]*", text[start:end]))
        if len(lines) > 1 and 2 * sum(_APART.search(line[0]) is not None for line in lines) >= len(lines):
            yield from ((start + line.start(), start + line.end()) for line in lines)
        else:
            yield start, end


def _joined(units: Sequence[_Run]) -> _Run:
    """Neighbouring sentences as one."""
    if len(units) == 1:
        return units[0]
    first, said = units[0], [unit.said for unit in units]
    stems = frozenset().union(*(s.stems for s in said))
    affirmed = frozenset().union(*(s.stems - s.denied for s in said))
    values, at = [], 0
    for each in said:
        values += [(at + place, value) for place, value in each.values]
        at += len(each.text) + 1
    joint = Statement(
        " ".join(s.text for s in said), tuple(w for s in said for w in s.words), stems, tuple(values),
        frozenset().union(*(s.denied for s in said)) - affirmed, frozenset().union(*(s.sides for s in said)),
    )  # fmt: skip
    header = next((u.header for u in units if u.header), None)
    topic = first.topic | (header.stems if header else frozenset())
    return _Run(
        first.passage, first.place, first.start, units[-1].end, joint, topic,
        rows=tuple(row for u in units for row in u.rows), labels=tuple(label for u in units for label in u.labels),
        parts=tuple(units), header=header, listed=sum(u.listed for u in units),
    )  # fmt: skip


# --- candidates -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Candidate:
    run: _Run
    share: float  # of the words and values of the sentence, those that stand in the quote or over it


@dataclass(frozen=True, slots=True)
class _Sought:
    """A sentence of the answer and what may support it. `states`: it says something that needs support."""

    text: str
    candidates: tuple[_Candidate, ...]
    states: bool


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a sentence says, and of it what it adds to the question; `listed`: how many things it may enumerate."""

    said: Statement
    new: frozenset[str]
    added: tuple[Value, ...]
    names: tuple[str, ...]
    codes: tuple[str, ...]
    listed: int

    @property
    def hard(self) -> bool:
        return bool(self.said.values or self.names or self.codes)

    def overlap(self, there: Statement) -> float:
        values = {value.core for _, value in there.values}
        words = len(self.new & there.stems) + len((self.said.stems - self.new) & there.stems) / 2
        return words + 2 * sum(value.core in values for value in self.added)


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
        self.contexts = [claims.plain(" ".join((p.title, *p.headings))) for p in passages]
        self.scales = [claims.scales(text) for text in self.texts]
        self.common = frozenset(w for p in passages for w in re.findall(r"(?<!\w)[a-z]\w*", p.text))

    def sought(self, sentence: str, code: bool) -> _Sought:
        text = _MARKS.sub("", sentence).strip()
        if code:
            return self._verbatim(text)
        claim = self._claim(text)
        headline = bool(re.match(r"#{1,6}\s", text)) or (text.endswith(":") and not claim.hard)
        unfinished = text[-1:].isalnum() and claim.said.words[-1:] and claim.said.words[-1] in _UNFINISHED
        if headline or unfinished or not (claim.new or claim.added):
            return _Sought(text, (), states=not headline)
        return _Sought(text, tuple(self._candidates(claim)), states=True)

    def _claim(self, text: str) -> _Claim:
        asked = self.question
        said = claims.statement(re.sub(r"^\W*(?:yes|no)\b\W*(?=\w)", "", text, flags=re.IGNORECASE))
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

    def _candidates(self, claim: _Claim) -> list[_Candidate]:
        """The quotes with the most of its words of those that nothing speaks against, shorter ones first among equals."""
        said, found = claim.said, list[_Candidate]()
        nearest, against = self._standing(said)
        pool = [run for run in self.runs if claim.added or claim.new & (run.said.stems | run.topic)]
        for run in sorted(pool, key=lambda run: (-claim.overlap(run.said), run.end - run.start, run.text)):
            parts = run.parts or (run,)
            words = [len(said.stems & part.words) for part in parts]
            near = [part for part, n in zip(parts, words, strict=True) if n >= NEAR * nearest[run.place]]
            if (
                run.listed <= claim.listed
                and all(_named(label, said.stems | self.question.stems) for label in run.labels)
                and (len(parts) == 1 or (_adds(said, parts[0], parts[1:]) and _adds(said, parts[-1], parts[:-1])))
                and max(words) > against[run.place]
                and self._holds(claim, run, near)
            ):
                shared = len(said.stems & (run.said.stems | run.topic)) + len(said.values)
                found.append(_Candidate(run, shared / (len(said.stems) + len(said.values))))
            if len(found) == CANDIDATES:
                break
        return sorted(found, key=lambda c: (-c.share, c.run.end - c.run.start, c.run.text, c.run.place))[:COMPARED]

    def _standing(self, said: Statement) -> tuple[list[int], list[int]]:
        """For each passage how many words of it the nearest sentence has, and the nearest of those that say otherwise."""
        nearest, against = [0] * len(self.units), [-1] * len(self.units)
        for place, units in enumerate(self.units):
            for unit in units:
                words = len(said.stems & unit.words)
                if not unit.heading:
                    nearest[place] = max(nearest[place], words)
                    if words > max(1, against[place]) and self._contradicts(said, unit):
                        against[place] = words
        return nearest, against

    def _holds(self, claim: _Claim, run: _Run, near: Sequence[_Run]) -> bool:
        """Whether every value, name and code stands in a sentence that is `near`, and nothing in the quote speaks against it."""
        header = [run.header] if run.header else []
        values = [value for each in (*(part.said for part in near), *header) for _, value in each.values]
        missing = claims.missing_values(claim.said, values, self.scales[run.place])
        if missing and not self._around(claim, run, missing):
            return False
        text = " ".join([*(part.said.text for part in near), *(each.text for each in header), self.contexts[run.place]])
        pronoun = not _PRONOUNS.isdisjoint(word for part in near for word in part.said.words)
        named = f"{self.question.text} {text} {run.said.text if pronoun else ''}"
        words = {*claims.words_of(named), *map(str.casefold, re.findall(r"[\w'’&-]+", named))}
        for code in claim.codes:
            asked = claims.stands(code, self.question.text) and claims.stands(code, self.texts[run.place])
            if not asked and not claims.stands(code, text):
                return False
        return (
            all(name.casefold() in words for name in claim.names)
            and not self._contradicts(claim.said, run)
            and not any(claims.other_column(claim.said, cells, years) for cells, years in run.rows)
        )

    def _around(self, claim: _Claim, run: _Run, missing: Sequence[Value]) -> bool:
        """Whether the values are only the question's and stand in the passage, though not in another entry of the same matter."""
        if any(value in claim.added for value in missing):
            return False
        units = self.units[run.place]
        least = max(1.0, NEAR * len(claim.new & run.words))
        beside = [unit for unit in units if len(claim.new & unit.words) >= least] if run.listed else []
        wanted = {value.core for value in missing}
        if wanted & {value.core for unit in beside for _, value in unit.said.values}:
            return False
        over = claims.statement(self.contexts[run.place])
        return wanted <= {value.core for each in (over, *(unit.said for unit in units)) for _, value in each.values}

    def _contradicts(self, said: Statement, run: _Run) -> bool:
        there = run.said
        return (
            claims.opposed(said, there, self.question.sides)
            or claims.denies(said, there)
            or claims.reversed_roles(said, there)
            or claims.misaligned(said, there)
        )

    def _verbatim(self, code: str) -> _Sought:
        """A line of code where it stands, as it stands but for white space."""
        pattern = re.compile(r"\s+".join(map(re.escape, code.split())))
        for place, passage in enumerate(self.passages):
            if match := pattern.search(passage.text):
                run = _Run(passage, place, *match.span(), claims.statement(""), frozenset())
                return _Sought(code, (_Candidate(run, 1.0),), states=True)
        return _Sought(code, (), states=True)


def _adds(said: Statement, part: _Run, others: Sequence[_Run]) -> bool:
    """Whether a sentence of a longer quote has a word or value of the statement that its neighbours have not."""
    if said.stems & part.said.stems - frozenset().union(*(other.said.stems for other in others)):
        return True
    elsewhere = {value.core for other in others for _, value in other.said.values}
    return bool({value.core for _, value in said.values} & {value.core for _, value in part.said.values} - elsewhere)


# --- how near ---------------------------------------------------------------------------------------------------------


def _cosines(found: Sequence[_Sought], embed: Embed | None) -> list[list[float | None]]:
    """For each candidate of each sentence the cosine of its quote with the sentence; None where there is no embedder."""
    if embed is None:
        return [[None] * len(sought.candidates) for sought in found]
    texts = list(
        dict.fromkeys(text for s in found for text in (s.text, *(c.run.text for c in s.candidates)) if s.candidates)
    )
    vectors = dict(zip(texts, embed(texts), strict=True)) if texts else {}
    return [[float(vectors[s.text] @ vectors[c.run.text]) for c in s.candidates] for s in found]


# A logistic regression, fitted on the development half of benchmarks/support_pairs.jsonl: constant, words, cosine.
_WORDS = (-4.41, 6.24, 0.0)
_MEANING = (-5.65, 5.2, 2.9)


def _likeness(candidate: _Candidate, cosine: float | None) -> float:
    """From 0 to 1, how near a quote is to a sentence that nothing in it speaks against."""
    weights = _WORDS if cosine is None or candidate.run.rows else _MEANING  # a row means little alone
    return 1 / (1 + math.exp(-(weights[0] + weights[1] * candidate.share + weights[2] * (cosine or 0.0))))
