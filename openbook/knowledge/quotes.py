"""Finds the words that support a statement: a verbatim span of a passage, or none.

A quote supports a sentence when nothing in it speaks against the sentence (`claims`), all values, names and code of the
sentence stand there, and words and meaning are near enough (`_likeness`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from openbook.knowledge import claims
from openbook.knowledge.claims import Statement
from openbook.knowledge.sentences import sentence_spans
from openbook.knowledge.values import Value
from openbook.records import Citation, Passage, Vectors

Embed: TypeAlias = Callable[[Sequence[str]], Vectors]

MAX_QUOTE_SENTENCES = 3
CANDIDATES = 12  # quotes that are collected for a sentence
COMPARED = 3  # of them, those with the most of its words; their meaning is compared
NEAR = 0.6  # a value counts in a sentence with this share of the words of the nearest one
CLOSEST = 3  # sentences given with an abstention
SUPPORTED = 0.5
SURE = 0.7  # from here on 19 of 20 altered sentences are refused (docs/log.md)


@dataclass(frozen=True, slots=True)
class SentenceSupport:
    """`answer[start:end]`. `citation`: its index in `AnswerSupport.citations`. `score`: from 0 to 1, supported from `SUPPORTED` on."""

    start: int
    end: int
    citation: int | None
    score: float
    needs_support: bool = True


@dataclass(frozen=True, slots=True)
class AnswerSupport:
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
) -> AnswerSupport:
    """Cite each sentence of `answer` from `passages` (best first), or list it as unsupported.

    List items, and lines of code, are sentences. Every citation's quote is the shortest run of 1 to `MAX_QUOTE_SENTENCES`
    sentences that supports the sentence, and stands verbatim at its span. `marks`: offsets in the answer, and the
    numbers of passages, from 1, that its author named there; of equally good quotes one from these is taken.
    """
    read = _Passages(question, passages)
    parts = _parts(answer)
    found = [read.candidates_for(answer[start:end], code) for start, end, code in parts]
    if not any(each.needs_support for each in found):  # an answer that states nothing has no support
        found = [replace(each, needs_support=True) for each in found]
    citations: dict[tuple[str, int, int], Citation] = {}
    sentences: list[SentenceSupport] = []
    for (start, end, _), sentence, scored in zip(parts, found, _scored(found, embed), strict=True):
        enough = [(score, run) for score, run in scored if score >= SUPPORTED]
        named = {number - 1 for at, numbers in marks if start < at <= end + 1 for number in numbers}
        cited = None
        if enough:
            _, run = max(enough, key=lambda e: (round(e[0], 1), e[1].rank in named, e[1].start - e[1].end, -e[1].rank))
            citation = run.citation()
            span = citation.document, citation.start, citation.end
            citations.setdefault(span, citation)
            cited = list(citations).index(span)
        best = max((score for score, _ in scored), default=0.0)
        sentences.append(SentenceSupport(start, end, cited, best, sentence.needs_support))
    unsupported = tuple(answer[s.start : s.end] for s in sentences if s.needs_support and s.citation is None)
    return AnswerSupport(tuple(citations.values()), unsupported, tuple(sentences))


def is_sure(answer: str, question: str, quoted: AnswerSupport, *, confirmed: bool) -> bool:
    """Whether each sentence of the answer is surely supported, and together they say more than the question.

    Never, where a quote cannot tell: whether a yes or a no follows from it, and whether both halves of "when ..., and how ..."
    are answered. `confirmed`: the passages surely state it, by the model's probe or its word. Then one quote is enough.
    """
    if _VERDICT.search(answer) or _ASKS_TWICE.search(question):
        return False
    sure = confirmed or all(
        each.score >= SURE and each.citation is not None for each in quoted.sentences if each.needs_support
    )
    statement, asked = claims.statement(answer), claims.statement(question)
    return sure and bool(quoted.citations) and (not statement.stems <= asked.stems or statement.values != asked.values)


def closest(question: str, passages: Sequence[Passage], embed: Embed | None) -> tuple[Citation, ...]:
    """The `CLOSEST` sentences of the passages that are nearest to the question, verbatim, nearest first."""
    read = _Passages(question, passages)
    runs = [run for units in read.units for run in units if not run.heading]
    runs.sort(key=lambda run: (-len(read.question.stems & (run.statement.stems | run.topic)), run.rank, run.start))
    runs = runs[: 8 * CLOSEST]
    if embed is not None and runs:
        vectors = embed([question, *(run.text for run in runs)])
        near = {id(run): float(vectors[0] @ vectors[i + 1]) for i, run in enumerate(runs)}
        runs.sort(key=lambda run: (-near[id(run)], run.rank, run.start))
    first = {run.text: run for run in reversed(runs)}
    return tuple(run.citation() for run in runs if first[run.text] is run)[:CLOSEST]


# --- the parts of an answer -------------------------------------------------------------------------------------------

_FENCE = re.compile(r"^[ \t]*```[^\n]*\n(?P<code>.*?)(?:^[ \t]*```[^\n]*$|\Z)", re.MULTILINE | re.DOTALL)
_CODE_LINE = re.compile(r"\S.*")
_MARKS = re.compile(r"\s*\[\d{1,3}(?:\s*,\s*\d{1,3})*\]")
_YES_OR_NO = re.compile(r"^\W*(?:yes|no)\b\W*(?=\w)", re.IGNORECASE)
_VERDICT = re.compile(r"^\W*(?:yes|no)\b\s*(?:[^\w\s]|$)|\banswer\b[^.\n]{0,40}\bis\W+(?:yes|no)\b", re.IGNORECASE)
_ASKS_TWICE = re.compile(
    r"\?.+\?|\w\W+(?:and|or)\s+(?:how|what|when|who|whose|why|where|which|whether|can|is|are|do|does|did|may|must)\b",
    re.IGNORECASE | re.DOTALL,
)
_OPEN = frozenset("what who whom whose which when where why how".split())
_UNFINISHED = frozenset("the a an and or of to in on at by for from with is are was were that which than as".split())


def _parts(answer: str) -> list[tuple[int, int, bool]]:
    """(start, end, whether it is a line of code) of each sentence of an answer; the whole where there is none."""
    found: list[tuple[int, int, bool]] = []
    at = 0
    for fence in (*_FENCE.finditer(answer), None):
        sentences = sentence_spans(answer, at, fence.start() if fence else len(answer))
        found += [(start, end, False) for start, end in sentences]
        if fence:
            lines = _CODE_LINE.finditer(answer, *fence.span("code"))
            found += [(line.start(), line.start() + len(line[0].rstrip()), True) for line in lines]
            at = fence.end()
    if answer and not found:
        return [(0, len(answer), False)]
    return found


# --- the parts of passages --------------------------------------------------------------------------------------------

_ROW = re.compile(r"\s*\|")
_ITEM = re.compile(r"\s*(?:[-*+•][ \t]|-?\d{1,9}[.)][ \t])")
_ENTRY = re.compile(r"\s*(?:[-*+•] )?([\w/-]+(?: [\w/-]+){0,3})(?::[ \t]| {2,})")
_RULED = re.compile(r"[ \t]*\n[ \t]*\|[ \t:|-]+(?:\n|\Z)")


@dataclass(slots=True)
class _Run:
    """Up to MAX_QUOTE_SENTENCES sentences of passage number `rank` (from 0), with offsets in the passage's text."""

    passage: Passage
    rank: int
    start: int
    end: int
    statement: Statement
    topic: frozenset[str]  # words of the title, the headings above and the table's header
    rows: tuple[tuple[tuple[Statement, ...], tuple[frozenset[str], ...]], ...] = ()  # cells, and the years over each
    # The first cell of each row, or the name of each entry, word by word.
    labels: tuple[tuple[frozenset[str], ...], ...] = ()
    parts: tuple[_Run, ...] = ()  # the sentences of a longer run
    header: Statement | None = None
    listed: int = 0  # how many list items or table rows it has
    heading: bool = False

    @property
    def text(self) -> str:
        return self.passage.text[self.start : self.end]

    def shared(self, statement: Statement) -> int:
        """How many words of a statement it or its table's header has."""
        here = self.statement.stems | (self.header.stems if self.header else frozenset())
        return len(statement.stems & here)

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


def _units(passage: Passage, rank: int) -> list[_Run]:
    """The sentences of a passage, each with the headings and table header above it."""
    text = passage.text
    headings = [claims.words_of(heading) for heading in passage.headings]
    topic = claims.stems_of(" ".join((passage.title, *passage.headings)))
    intro = frozenset[str]()  # of the sentence before a list or table
    header: list[str] = []  # the first row of a table, and those after it whose first cell is empty
    complete = False
    units: list[_Run] = []
    for start, end in sentence_spans(text, 0, len(text)):
        sentence = text[start:end]
        unit = _Run(passage, rank, start, end, claims.statement(sentence), topic)
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
            intro = unit.statement.stems
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
        first.rank,
        first.start,
        units[-1].end,
        claims.joined([unit.statement for unit in units]),
        first.topic | (header.stems if header else frozenset()),
        rows=tuple(row for unit in units for row in unit.rows),
        labels=tuple(label for unit in units for label in unit.labels),
        parts=tuple(units),
        header=header,
        listed=sum(unit.listed for unit in units),
    )


# --- candidates -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sentence:
    """A sentence of the answer. `candidates`: what may support it, with the share of its words and values that are there."""

    text: str
    candidates: tuple[tuple[_Run, float], ...]
    needs_support: bool = True


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a sentence says, and of it what it adds to the question; `listed`: how many things it may enumerate."""

    statement: Statement
    new: frozenset[str]
    added: tuple[Value, ...]
    names: tuple[str, ...]
    codes: tuple[str, ...]
    listed: int

    def overlap(self, there: Statement) -> int:
        words = len(self.new & there.stems) + len(self.statement.stems & there.stems)
        return words + 4 * sum(value.core in there.cores for value in self.added)


class _Passages:
    """The passages, read once for all sentences of an answer."""

    def __init__(self, question: str, passages: Sequence[Passage]) -> None:
        self.passages = passages
        self.question = claims.statement(question)
        self.units = [_units(passage, rank) for rank, passage in enumerate(passages)]
        self.runs: list[_Run] = []
        for units in self.units:
            for first in range(len(units)):
                for last in range(first, min(first + MAX_QUOTE_SENTENCES, len(units))):
                    if units[first].heading or units[last].heading:
                        break
                    self.runs.append(_joined(units[first : last + 1]))
        self.texts = [claims.plain(p.text) for p in passages]
        self.scales = [claims.scales_in(text) for text in self.texts]
        self.common = frozenset(w for p in passages for w in re.findall(r"(?<!\w)[a-z]\w*", p.text))

    def candidates_for(self, sentence: str, code: bool) -> _Sentence:
        text = _MARKS.sub("", sentence).strip()
        if code:
            return self._verbatim(text)
        claim = self._claim(text)
        hard = claim.statement.values or claim.names or claim.codes
        if re.match(r"#{1,6}\s", text) or (text.endswith(":") and not hard):
            return _Sentence(text, (), needs_support=False)
        unfinished = text[-1:].isalnum() and claim.statement.words[-1:] and claim.statement.words[-1] in _UNFINISHED
        if unfinished or not (claim.new or claim.added):
            return _Sentence(text, ())
        return _Sentence(text, tuple(self._candidates(claim)))

    def _claim(self, text: str) -> _Claim:
        asked = self.question
        statement = claims.statement(_YES_OR_NO.sub("", text))
        affirms = statement.words in (("yes",), ("no",))
        if affirms:  # what is affirmed or denied is the question
            statement = asked
        added = tuple(value for _, value in statement.values if affirms or value.core not in asked.cores)
        new = statement.stems - asked.stems
        if not new and not added and (affirms or not _OPEN & {*asked.words[:3]}):
            new = statement.stems  # an answer in the words of a question for yes or no is judged by all of them
        names, codes = claims.names_of(text, self.common), claims.codes_in(text)
        listed = len(re.findall(r";|\band\b|\bor\b|\bwhile\b", text))
        listed += len(re.findall(r",\s(?!\d{4}\b)", text)) if listed else 0
        return _Claim(statement, new, added, tuple(names), tuple(codes), listed + 1)

    def _candidates(self, claim: _Claim) -> list[tuple[_Run, float]]:
        """The quotes with the most of its words of those that nothing speaks against, shorter ones first among equals."""
        statement, found = claim.statement, list[tuple[_Run, float]]()
        nearest = [max((u.shared(statement) for u in units if not u.heading), default=0) for units in self.units]
        against = [self._against(statement, units) for units in self.units]
        pool = [run for run in self.runs if claim.added or claim.new & (run.statement.stems | run.topic)]
        for run in sorted(pool, key=lambda run: (-claim.overlap(run.statement), run.end - run.start, run.text)):
            parts = run.parts or (run,)
            near = [part for part in parts if part.shared(statement) >= NEAR * nearest[run.rank]]
            if (
                run.listed <= claim.listed
                and all(_named(label, statement.stems | self.question.stems) for label in run.labels)
                and (
                    len(parts) == 1
                    or (_adds(statement, parts[0], parts[1:]) and _adds(statement, parts[-1], parts[:-1]))
                )
                and max(part.shared(statement) for part in parts) > against[run.rank]
                and self._holds(claim, run, near)
            ):
                shared = len(statement.stems & (run.statement.stems | run.topic)) + len(statement.values)
                found.append((run, shared / (len(statement.stems) + len(statement.values))))
            if len(found) == CANDIDATES:
                break
        return sorted(found, key=lambda each: (-each[1], each[0].end - each[0].start))[:COMPARED]

    def _against(self, statement: Statement, units: Iterable[_Run]) -> int:
        """How many words of the statement stand in the sentence that contradicts it and shares most with it; -1: none contradicts it."""
        shared = [(unit.shared(statement), unit) for unit in units if not unit.heading]
        return max(
            (n for n, unit in shared if n > 1 and claims.contradict(statement, unit.statement, self.question)),
            default=-1,
        )

    def _holds(self, claim: _Claim, run: _Run, near: Sequence[_Run]) -> bool:
        """Whether every value, name and code stands in a sentence that is `near`, and nothing in the quote speaks against it."""
        there = [*(part.statement for part in near), *([run.header] if run.header else [])]
        values = (value for each in there for _, value in each.values)
        context = claims.plain(" ".join((run.passage.title, *run.passage.headings)))
        missing = claims.missing_values(claim.statement, values, self.scales[run.rank])
        if missing:  # what the question says too may stand elsewhere in the passage
            around = [claims.statement(context), *(unit.statement for unit in self.units[run.rank])]
            if any(value in claim.added or all(value.core not in each.cores for each in around) for value in missing):
                return False
        text = " ".join([*(each.text for each in there), context])
        for code in claim.codes:
            asked = claims.has_code(self.question.text, code) and claims.has_code(self.texts[run.rank], code)
            if not asked and not claims.has_code(text, code):
                return False
        named = f"{self.question.text} {text}"
        words = {*claims.words_of(named), *map(str.casefold, re.findall(r"[\w'’&-]+", named))}
        return (
            all(name.casefold() in words for name in claim.names)
            and not claims.contradict(claim.statement, run.statement, self.question)
            and not any(claims.other_column(claim.statement, cells, years) for cells, years in run.rows)
        )

    def _verbatim(self, code: str) -> _Sentence:
        """A line of code where it stands, as it stands but for white space."""
        pattern = re.compile(r"\s+".join(map(re.escape, code.split())))
        for rank, passage in enumerate(self.passages):
            if match := pattern.search(passage.text):
                run = _Run(passage, rank, *match.span(), claims.statement(""), frozenset())
                return _Sentence(code, ((run, 1.0),))
        return _Sentence(code, ())


def _named(label: Sequence[frozenset[str]], matter: frozenset[str]) -> bool:
    """Whether a statement names what a row is of: at least half of its words."""
    return 2 * sum(word <= matter for word in label) >= len(label)


def _adds(statement: Statement, part: _Run, others: Sequence[_Run]) -> bool:
    """Whether a sentence of a longer quote has a word or value of the statement that its neighbours have not."""
    elsewhere = claims.joined([other.statement for other in others])
    return not (statement.stems & part.statement.stems <= elsewhere.stems) or any(
        core in part.statement.cores and core not in elsewhere.cores for core in statement.cores
    )


# --- how near ---------------------------------------------------------------------------------------------------------


def _scored(found: Sequence[_Sentence], embed: Embed | None) -> list[list[tuple[float, _Run]]]:
    """The candidates of each sentence, each with how near it is."""
    texts = [text for s in found if s.candidates for text in (s.text, *(run.text for run, _ in s.candidates))]
    texts = list(dict.fromkeys(texts))
    vectors = dict(zip(texts, embed(texts), strict=True)) if embed and texts else {}
    return [[(_likeness(s.text, run, share, vectors), run) for run, share in s.candidates] for s in found]


def _likeness(sentence: str, run: _Run, share: float, vectors: Mapping[str, Vectors]) -> float:
    """From 0 to 1, how near a quote is to a sentence that nothing in it speaks against. `vectors`: of both; none, without an embedder."""
    # A logistic regression, fitted on the development half of benchmarks/support_pairs.jsonl.
    if vectors and not run.rows:  # a row means little alone
        cosine = float(vectors[sentence] @ vectors[run.text])
        nearness = -5.65 + 5.2 * share + 2.9 * cosine
    else:
        nearness = -4.41 + 6.24 * share
    return 1 / (1 + math.exp(-nearness))
