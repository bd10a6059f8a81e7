"""Finding the words that support a statement: a verbatim span of a passage, or the finding that there is none.

A quote supports a sentence when nothing in it speaks against the sentence (`claims`), all values, names and code of the
sentence stand there, and words and meaning are near enough (`_likeness`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from openbook.knowledge import claims
from openbook.knowledge.claims import Statement
from openbook.knowledge.sentences import sentence_spans
from openbook.records import Citation, Passage, Vectors

Embed: TypeAlias = Callable[[Sequence[str]], Vectors]

MAX_QUOTE_SENTENCES = 3
CANDIDATES = 12  # quotes that are looked at for one sentence
NEAR = 0.6  # a value counts in a sentence with this share of the words of the nearest one
EMBEDDED = 3  # of them, the best by words, whose meaning is compared


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


def quote(
    answer: str,
    question: str,
    passages: Sequence[Passage],
    *,
    embed: Embed | None = None,
    preferred: Sequence[frozenset[int]] = (),
) -> Quoted:
    """Cite each sentence of `answer` from `passages` (best first), or list it as unsupported.

    List items, and lines of code, are sentences. Every citation's quote is the shortest run of 1 to `MAX_QUOTE_SENTENCES`
    sentences that supports the sentence, and stands verbatim at its span. `preferred`: for each sentence the places of the
    passages that its author names; of equally good quotes one of these is taken.
    """
    read = _Reading(question, passages)
    parts = list(_parts(answer))
    found = [read.candidates(answer[start:end], code) for start, end, code in parts]
    judged = _judged(found, embed)
    if parts and all(not each.states for each in found):
        found = [_Sought(each.text, (), states=True) for each in found]
    citations: dict[tuple[int, int, int], Citation] = {}
    sentences: list[SentenceSupport] = []
    for i, ((start, end, _), sought) in enumerate(zip(parts, found, strict=True)):
        best = _best(sought, judged[i], preferred[i] if i < len(preferred) else frozenset())
        place, score = None, 0.0
        if best is not None:
            run, score = best
            if score >= SUPPORTED:
                key = (run.place, run.start, run.end)
                citations.setdefault(key, run.citation())
                place = list(citations).index(key)
        sentences.append(SentenceSupport(start, end, place, score, sought.states))
    return Quoted(
        tuple(citations.values()),
        tuple(answer[s.start : s.end] for s in sentences if s.states and s.citation is None),
        tuple(sentences),
    )


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
_RULE = re.compile(r"[ \t]*\n[ \t]*([=\-~^\"'`*+#])\1{2,}[ \t]*(?:\n|\Z)")


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
    base = frozenset(claims.stem(w) for t in (passage.title, *passage.headings) for w in claims.words_of(t) if claims.is_content(w))
    section = frozenset[str]()
    units: list[_Run] = []
    header: list[str] = []  # the first row of a table, and those after it whose first cell is empty
    complete = False
    for start, end in _lines_apart(text):
        sentence = text[start:end]
        row = _ROW.match(sentence) is not None
        ruled = row and _RULED.match(text, end) is not None
        heads = ruled or (row and bool(header) and not complete and not sentence.split("|")[1].strip())
        header = [sentence] if ruled else [*header, sentence] if heads else header if row else []
        complete = row and not heads
        said = claims.statement(sentence)
        unit = _Run(passage, place, start, end, said, base | section, listed=int(row or _ITEM.match(sentence) is not None))
        if claims.words_of(sentence) in headings or sentence.startswith("#") or _RULE.match(text, end):
            unit.heading, section = True, said.stems
        elif heads:
            unit.heading = True
        elif row:
            cells = sentence.split("|")
            columns = [[claims.years_in(cell) for cell in line.split("|")] for line in header]
            unit.header = claims.statement(" ".join(header)) if header else None
            over = (frozenset[str]().union(*(line[i] for line in columns if i < len(line))) for i in range(len(cells)))
            unit.rows = ((tuple(map(claims.statement, cells)), tuple(over)),)
            unit.topic |= unit.header.stems if unit.header else frozenset()
            unit.labels = (_label(cells[1]),)
        elif not sentence.endswith(".") and (entry := _ENTRY.match(sentence)):
            unit.labels, unit.listed = (_label(entry[1]),), 1
        units.append(unit)
    return units


def _label(text: str) -> tuple[frozenset[str], ...]:
    words = (frozenset(claims.stem(w) for w in claims.words_of(word) if claims.is_content(w)) for word in claims.plain(text).split())
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


@dataclass(slots=True)
class _Candidate:
    run: _Run
    coverage: float  # share of what the sentence adds to the question that stands in the quote
    known: float  # the same, with what stands elsewhere in the passage
    topic: float  # share of the sentence's words of the question that stand there or in the headings
    missing: int  # words that the sentence adds and the passage has not
    whole: float  # share of all words and values of the sentence that stand there


@dataclass(slots=True)
class _Sought:
    text: str
    candidates: tuple[_Candidate, ...]
    states: bool
    exact: bool = False  # verbatim


class _Reading:
    """The passages, read once for all sentences of an answer."""

    def __init__(self, question: str, passages: Sequence[Passage]) -> None:
        self.question = claims.statement(question)
        self.asks = bool(self.question.words)
        self.open = bool(set(self.question.words[:3]) & set("what who whom whose which when where why how".split()))
        self.units = [_units(passage, place) for place, passage in enumerate(passages)]
        self.runs: list[_Run] = []
        for units in self.units:
            for first in range(len(units)):
                for last in range(first, min(first + MAX_QUOTE_SENTENCES, len(units))):
                    if units[first].heading or units[last].heading:
                        break
                    self.runs.append(_joined(units[first : last + 1]))
        self.whole = [frozenset[str]().union(*(u.said.stems | u.topic for u in units)) for units in self.units]
        self.texts = [claims.plain(p.text) for p in passages]
        self.contexts = [claims.plain(" ".join((p.title, *p.headings))) for p in passages]
        self.scales = [claims.scales(text) for text in self.texts]
        self.common = frozenset(w for p in passages for w in re.findall(r"(?<!\w)[a-z]\w*", p.text))

    def candidates(self, sentence: str, code: bool) -> _Sought:
        text = _MARKS.sub("", sentence).strip()
        if code:
            return self._verbatim(text)
        said = claims.statement(text)
        if said.words[:1] in (("yes",), ("no",)) and len(said.words) > 1:
            said = claims.statement(re.sub(r"^\W*(?:yes|no)\b\W*", "", text, flags=re.IGNORECASE))
        affirmation = len(said.words) == 1 and said.words[0] in ("yes", "no")
        if affirmation:  # what is affirmed or denied is the question
            said = self.question
        names, codes = claims.names_of(text, self.common), claims.codes_in(text)
        states = not (text.endswith(":") and not said.values and not names and not codes) and not re.match(r"#{1,6}\s", text)
        repeated = said.stems & self.question.stems
        new = said.stems - self.question.stems
        asked = {value.core for _, value in self.question.values}
        added = [value for _, value in said.values if value.core not in asked or affirmation]
        if not states or not (said.stems or added) or (said.words and said.words[-1] in _UNFINISHED and text[-1:].isalnum()):
            return _Sought(text, (), states)
        if not new and not added:
            if self.open and self.asks and not affirmation:
                return _Sought(text, (), states)
            new, repeated = said.stems, frozenset()
        found: list[_Candidate] = []
        enumerated = len(re.findall(r";|\band\b|\bor\b|\bwhile\b", text))
        enumerated += len(re.findall(r",\s(?!\d{4}\b)", text)) if enumerated else 0
        matter = said.stems | self.question.stems
        nearest, against = self._standing(said)
        pool = sorted(
            (run for run in self.runs if new & (run.said.stems | run.topic) or added),
            key=lambda run: (-len(new & run.said.stems) - len(repeated & run.said.stems) / 2 - 2 * sum(any(v.core == o.core for _, o in run.said.values) for v in added), run.end - run.start),
        )
        for run in pool:
            parts = run.parts or (run,)
            if run.listed > 1 and enumerated < run.listed - 1:
                continue
            if not all(_named(label, matter) for label in run.labels):
                continue  # an entry of another name
            near = [len(said.stems & part.words) for part in parts]
            if len(parts) > 1 and not (_adds(said, parts[0], parts[1:]) and _adds(said, parts[-1], parts[:-1])):
                continue
            if max(near) <= against[run.place]:
                continue  # the sentence beside it that is nearer says otherwise
            hard = [part for part, words in zip(parts, near, strict=True) if words >= NEAR * nearest[run.place]]
            if not self._holds(said, added, names, codes, run, hard, nearest[run.place]):
                continue
            there = run.said.stems | run.topic
            whole = self.whole[run.place]
            total = len(new) + len(added) or 1
            coverage = (len(new & there) + len(added)) / total
            known = (len(new & whole) + len(added)) / total
            topic = len(repeated & there) / len(repeated) if repeated else 1.0
            found.append(_Candidate(run, coverage, known, topic, len(new - whole), (len(said.stems & there) + len(said.values)) / (len(said.stems) + len(said.values) or 1)))
            if len(found) == CANDIDATES:
                break
        found.sort(key=lambda c: (-(c.coverage + c.topic / 2), c.run.end - c.run.start, c.run.place))
        return _Sought(text, tuple(found), states)

    def _standing(self, said: Statement) -> tuple[list[int], list[int]]:
        """For each passage how many words of it the nearest sentence has, and the nearest of those that say otherwise."""
        nearest, against = [0] * len(self.units), [0] * len(self.units)
        for place, units in enumerate(self.units):
            for unit in units:
                words = len(said.stems & unit.words)
                if not unit.heading:
                    nearest[place] = max(nearest[place], words)
                    if words > max(1, against[place]) and self._contradicts(said, unit):
                        against[place] = words
        return nearest, against

    def _holds(self, said: Statement, added: Sequence[claims.Value], names: Sequence[str], codes: Sequence[str], run: _Run, near: Sequence[_Run], most: int) -> bool:
        """Whether nothing speaks against it and every value, name and code stands there."""
        values = [value for part in near for _, value in part.said.values]
        if run.header:
            values += [value for _, value in run.header.values]
        missing = claims.missing_values(said, values, self.scales[run.place])
        if any(value in added for value in missing):
            return False
        if missing:
            beside = [unit for unit in self.units[run.place] if len(said.stems & unit.words) >= NEAR * most]
            if run.listed and any(v.core == w.core for unit in beside for _, w in unit.said.values for v in missing):
                return False
            wide = [v for unit in self.units[run.place] for _, v in unit.said.values]
            wide += [v for _, v in claims.statement(self.contexts[run.place]).values]
            if any(all(v.core != w.core for w in wide) for v in missing):
                return False
        around = f"{' '.join(part.said.text for part in near)} {run.header.text if run.header else ''} {self.contexts[run.place]}"
        words = {w.casefold() for w in re.findall(r"[\w'’&-]+", around)} | set(claims.words_of(around))
        wider = set(self.question.words)
        for name in names:
            if name.casefold() not in words and name.casefold() not in wider:
                return False
        for code in codes:
            if not claims.stands(code, around) and not (claims.stands(code, self.question.text) and claims.stands(code, self.texts[run.place])):
                return False
        if self._contradicts(said, run):
            return False
        return not any(claims.other_column(said, cells, years) for cells, years in run.rows)

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
        for units in self.units:
            for passage, place in {(u.passage.id, u.place): (u.passage, u.place) for u in units}.values():
                match = pattern.search(passage.text)
                if match:
                    run = _Run(passage, place, *match.span(), self.question, frozenset())
                    return _Sought(code, (_Candidate(run, 1.0, 1.0, 1.0, 0, 1.0),), states=True, exact=True)
        return _Sought(code, (), states=True)


def _adds(said: Statement, part: _Run, others: Sequence[_Run]) -> bool:
    """Whether a sentence of a longer quote has a word or value of the statement that its neighbours have not."""
    if said.stems & part.said.stems - frozenset().union(*(other.said.stems for other in others)):
        return True
    elsewhere = {value.core for other in others for _, value in other.said.values}
    return bool({value.core for _, value in said.values} & {value.core for _, value in part.said.values} - elsewhere)


# --- how near ---------------------------------------------------------------------------------------------------------


def _judged(found: Sequence[_Sought], embed: Embed | None) -> list[list[float | None]]:
    """For each candidate of each sentence the cosine of its quote with the sentence; None where not compared."""
    pairs = [(i, j) for i, sought in enumerate(found) for j in range(min(EMBEDDED, len(sought.candidates))) if not sought.exact]
    near: list[list[float | None]] = [[None] * len(sought.candidates) for sought in found]
    if embed is None or not pairs:
        return near
    texts = list(dict.fromkeys([found[i].text for i, _ in pairs] + [found[i].candidates[j].run.text for i, j in pairs]))
    vectors = dict(zip(texts, embed(texts), strict=True))
    for i, j in pairs:
        near[i][j] = float(vectors[found[i].text] @ vectors[found[i].candidates[j].run.text])
    return near


def _best(sought: _Sought, near: Sequence[float | None], preferred: frozenset[int]) -> tuple[_Run, float] | None:
    scored = [
        (_likeness(candidate, cosine), candidate.run.place in preferred, candidate.run)
        for candidate, cosine in zip(sought.candidates, near, strict=True)
    ]
    if not scored:
        return None
    score, _, run = max(scored, key=lambda each: (round(each[0], 2), each[1], -each[2].place, each[2].start - each[2].end))
    return run, score


# A logistic regression, fitted on the development half of benchmarks/support_pairs.jsonl: constant, words, cosine.
_WORDS = (-4.3, 5.93, 0.0)
_MEANING = (-5.8, 4.83, 3.33)


def _likeness(candidate: _Candidate, cosine: float | None) -> float:
    """From 0 to 1, how near a quote is to a sentence that nothing in it speaks against."""
    weights = _WORDS if cosine is None else _MEANING
    return 1 / (1 + math.exp(-(weights[0] + weights[1] * candidate.whole + weights[2] * (cosine or 0.0))))
