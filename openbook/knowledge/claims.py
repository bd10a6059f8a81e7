"""What a sentence claims, and whether a text says otherwise: another number, date, name or code, a denial, an opposite.

Rules over words, so that each refusal has a reason that can be read. They find what contradicts; whether the rest means the
same is for `quotes` to judge.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise

from openbook.knowledge.values import MONEY_SCALES, MONTHS, NUMBER_WORDS, WEEKDAYS, Value, details_agree, located_values
from openbook.knowledge.words import is_function_word, stemmer

_WORD = re.compile(r"\d+(?:[.,:/-]\d+)*|\w+n['\u2019]t|\w+(?:['\u2019](?!s\b)\w+)*")
_MARKUP = re.compile(r"\]\((?!https?:)[^)\s]*\)|\*\*|[`\\!]|(?<=[$€£(]) +|(?<=\d),(?=\d{3}\b)|(?<=\d)\+")
_BRACKETED = re.compile(r"([$€£]?)\((\d[\d.]*)\)")  # negative, in accounts
_RANGE = re.compile(r"(?<![\w.-])(\d+(?:\.\d+)?)[-–](?=\d+(?:\.\d+)?(?![\w-]))")
_TWICE = re.compile(r"\b(?:both|twice)\b", re.IGNORECASE)
_SCALE = re.compile(r"\bin (thousand|million|billion)s\b|(?<!\w)[€$£](m|bn|k)\b", re.IGNORECASE)
_SCALES = {form: MONEY_SCALES[form] for form in "thousand million billion k m bn".split()}
_YEAR = re.compile(r"(?<![\w.,])(?:1[5-9]|20)\d\d(?![\w]|[.,]\d)")
_CLAUSE_END = re.compile(r"[.;:,|](?=\s|$)|[—–]")
_BRACKETS = re.compile(r"\(([^()]*)\)")

_NEGATIONS = frozenset(
    "not no never without neither nor cannot none nobody nothing rarely seldom hardly unlike lack lacks".split()
)
_SCOPE_ENDS = frozenset(
    "is are was were will may can must should do does did but because although unless if when while".split()
)
_SCOPE_WORDS = 4
_IRREGULAR = dict(pair.split(":") for pair in (
    "made:make sold:sell rose:rise risen:rise fell:fall fallen:fall grew:grow grown:grow gave:give given:give saw:see seen:see began:begin "
    "begun:begin took:take taken:take came:come went:go gone:go kept:keep held:hold paid:pay said:say wrote:write written:write "
    "chose:choose chosen:choose built:build found:find lost:lose left:leave led:lead met:meet ran:run sent:send spent:spend brought:bring "
    "stood:stand lay:lie children:child men:man women:woman bought:buy became:become got:get worst:bad"
).split())  # fmt: skip

_CALENDAR = frozenset(form for day in (*MONTHS, *WEEKDAYS) for form in (day, day[:3]))
# They carry little of what a sentence says.
_LIGHT = frozenset(
    "because since also then out up off down thus while although however though like own way case come go get give make put stand "
    "lie amount call mean still just very far therefore meanwhile usual certain following namely example instance".split()
)
# A line is a group; words on one side of a stroke exclude those on its other sides.
_OPPOSITES = """
more greater larger higher bigger up upward largest highest greatest increase rise grow growth gain raise exceed faster longer above older upper / less fewer smaller lower down downward smallest lowest decrease fall drop decline reduce reduction cut shrink slower shorter below younger
all every each entire always whole both / some certain part partly sometimes / few / most mostly majority / only solely / never none
easier easy simplify simplifies simplified simple / harder hard difficult complicate complicated
significant large great big high major / little small low minor slight
favourable favorable gain / adverse unfavourable unfavorable loss
voluntary optional / mandatory required compulsory obligatory
before earlier prior / after later
first / last
right correct / wrong incorrect
avoid prevent / require need cause
accept allow permit approve / reject refuse forbid prohibit ban deny
include contain / exclude omit
success succeed / failure fail error
add insert install introduce / remove delete uninstall drop
enable / disable
valid / invalid
dominant / recessive
male man boy / female woman girl
internal / external
same identical / different
minimum / maximum
import / export
public / private
buy / sell
second / minute / hour / day daily / week weekly / month monthly / year yearly annual annually / decade / century
"""
_SIDES = defaultdict[str, set[tuple[int, int]]](set)
for _group, _line in enumerate(_OPPOSITES.strip().splitlines()):
    for _side, _words in enumerate(_line.split("/")):
        for _word in _words.split():
            _SIDES[_IRREGULAR.get(_word, _word)].add((_group, _side))


class Statement:
    """A text as far as rules can compare it, found when it is asked for. Stems are of words that carry a meaning, numbers left out.

    One of neighbouring sentences, its `parts`, denies nothing that one of them affirms.
    """

    def __init__(self, text: str, parts: Sequence[Statement] = ()) -> None:
        self.text, self._parts = text, parts

    @cached_property
    def words(self) -> tuple[str, ...]:
        return tuple(word for each in self._parts for word in each.words) or tuple(words_of(self.text))

    @cached_property
    def stems(self) -> frozenset[str]:
        return frozenset(stem(word) for word in self.words if is_content(word))

    @cached_property
    def values(self) -> tuple[tuple[int, Value], ...]:
        """With the offsets where they begin."""
        if self._parts:
            starts = accumulate((len(each.text) + 1 for each in self._parts), initial=0)
            parts = zip(starts, self._parts, strict=False)
            return tuple((at + start, value) for at, each in parts for start, value in each.values)
        twice = ((match.start(), Value(("number", "2"))) for match in _TWICE.finditer(self.text))
        return (*located_values(self.text), *twice)

    @cached_property
    def cores(self) -> frozenset[tuple[str, ...]]:
        return frozenset(value.core for _, value in self.values)

    @cached_property
    def denied(self) -> frozenset[str]:
        if self._parts:
            affirmed = (each.stems - each.denied for each in self._parts)
            return frozenset[str]().union(*(each.denied for each in self._parts)).difference(*affirmed)
        return _denied(self.text)

    @cached_property
    def sides(self) -> frozenset[tuple[int, int]]:
        """Of `_OPPOSITES`: (group, side)."""
        if self._parts:
            return frozenset[tuple[int, int]]().union(*(each.sides for each in self._parts))
        return frozenset(_sides(self.words))


def statement(text: str) -> Statement:
    return Statement(" ".join(plain(text).split()))


def joined(parts: Sequence[Statement]) -> Statement:
    """Neighbouring sentences as one."""
    return Statement(" ".join(each.text for each in parts), parts)


def plain(text: str) -> str:
    """Without what only draws: Markdown's and reStructuredText's marks, thousands separators, brackets around amounts."""
    text = _MARKUP.sub("", unicodedata.normalize("NFKC", text))
    return _RANGE.sub(r"\1 - ", _BRACKETED.sub(r"\1\2", text))


def words_of(text: str) -> list[str]:
    return [w.casefold() for w in _WORD.findall(text)]


def stems_of(text: str) -> frozenset[str]:
    return frozenset(stem(word) for word in words_of(text) if is_content(word))


@lru_cache(20_000)
def is_content(word: str) -> bool:
    """Whether a lower-case word carries a meaning that no other rule looks at."""
    if is_function_word(word) or word in _CALENDAR or word in NUMBER_WORDS or word in _NEGATIONS:
        return False
    base = _IRREGULAR.get(word, word)
    light = any(base.removesuffix(end) in _LIGHT for end in ("", "s", "ed", "ing"))
    return word != "yes" and not word[0].isdigit() and not light


@lru_cache(20_000)
def stem(word: str) -> str:
    return stemmer()(_IRREGULAR.get(word, word)) if len(word) <= 60 else word


def _denied(text: str) -> frozenset[str]:
    """Stems that are only in denials: behind a negation, up to the next verb or the end of the clause."""
    inside, outside = set[str](), set[str]()
    # A denial in brackets ends with them. One before them goes on behind them: "not (yet) sold".
    text = _BRACKETS.sub(lambda m: m[0] if _NEGATIONS.isdisjoint(words_of(m[1])) else f"; {m[1]}; ", text)
    for clause in _CLAUSE_END.split(text):
        left = 0
        for word in words_of(clause):
            if word in _NEGATIONS or word.endswith(("n't", "n\u2019t")):
                left = _SCOPE_WORDS
            elif word in _SCOPE_ENDS:
                left = 0
            elif is_content(word):
                (inside if left else outside).add(stem(word))
                left = max(0, left - 1)
    return frozenset(inside - outside)


def _sides(words: Sequence[str]) -> set[tuple[int, int]]:
    found = set[tuple[int, int]]()
    for word, following in zip(words, (*words[1:], ""), strict=False):
        if word in ("over", "under") and following[:1].isdigit():
            word = "more" if word == "over" else "less"
        for form in (_IRREGULAR.get(word, word), *map(word.removesuffix, ("", "s", "d", "ed", "ing"))):
            found |= _SIDES.get(form, set())
    return found


# --- what speaks against ----------------------------------------------------------------------------------------------


_ONLY = frozenset("only just solely exclusively except unless merely no not single".split())
_CHANGE = re.compile(
    r",? (?:and )?(?:(?:as )?compared (?:with|to)|after|versus|vs\.?|(?:up|down) from|instead of|rather than)\b"
)
_ITEM = r"[$€£]?\d[\d.]*%?(?: (?:thousand|million|billion|percent))?"
_LIST = re.compile(rf"{_ITEM}(?:,? and {_ITEM}|, {_ITEM})+")
_NUMBER = re.compile(r"\d[\d.]*\d|\d")
_DIRECTIONS = {"over": 1, "above": 1, "under": -1, "below": -1}


def contradict(claim: Statement, evidence: Statement, question: Statement) -> bool:
    """Whether two statements cannot both be true. What the question itself says is no reason: "Why did it fall?"."""
    return (
        _opposed(claim, evidence, question.sides)
        or _denies(claim, evidence)
        or _turned(claim, evidence)
        or _crossed(claim, evidence)
        or _misaligned(claim, evidence)
    )


def _opposed(claim: Statement, evidence: Statement, asked: frozenset[tuple[int, int]]) -> bool:
    """Whether the claim says `only` and the evidence nothing like it, or the one uses a word that excludes one of the other: more and less."""
    if "only" in claim.words and not _ONLY & {*evidence.words}:
        return True
    for group in {group for group, _ in claim.sides - evidence.sides}:
        mine = {side for side in claim.sides if side[0] == group}
        theirs = {side for side in evidence.sides if side[0] == group}
        if theirs and mine.isdisjoint(theirs) and not mine <= asked:
            return True
    return False


def _denies(claim: Statement, evidence: Statement) -> bool:
    """Whether one of the two denies what the other says."""
    mine, theirs = claim.denied & evidence.stems, evidence.denied & claim.stems
    return (bool(theirs) and not theirs & claim.denied) or (bool(mine) and not mine & evidence.denied)


def _turned(claim: Statement, evidence: Statement) -> bool:
    """Whether old and new changed places: from 9 to 3 against from 3 to 9."""
    mine = _old_and_new(claim)
    theirs = _old_and_new(evidence) if mine else set()
    return any(old != new and (new, old) in theirs and (old, new) not in theirs for old, new in mine)


def _old_and_new(told: Statement) -> set[tuple[str, str]]:
    """(old, new) of each change that is told: from A to B, B compared with A."""
    text, found = told.text, set[tuple[str, str]]()
    values = [(at, value) for at, value in told.values if value.detail or not _YEAR.fullmatch(value.core[-1])]
    for (at, first), (then, second) in pairwise(values):
        between = text[at:then]
        if text[max(0, at - 6) : at].lower().endswith("from ") and re.search(r"\bto $", between):
            found.add((first.core[-1], second.core[-1]))
        elif _CHANGE.search(between) or between.endswith(" from "):
            found.add((second.core[-1], first.core[-1]))
    return found


def _crossed(claim: Statement, evidence: Statement) -> bool:
    """Whether the sides of a comparison changed places: men than women against women than men."""
    mine, theirs = _than(claim), _than(evidence)
    straight = mine[0] & theirs[0] and mine[1] & theirs[1]
    return bool(mine[0] & theirs[1] and mine[1] & theirs[0] and not straight)


def _than(told: Statement) -> tuple[frozenset[str], frozenset[str]]:
    """Stems before and after the only `than`, in its clause."""
    halves = re.split(r"\bthan\b", told.text)
    if len(halves) != 2:
        return frozenset(), frozenset()
    left, right = stems_of(_CLAUSE_END.split(halves[0])[-1]), stems_of(_CLAUSE_END.split(halves[1])[0])
    return left - right, right - left


def _misaligned(claim: Statement, evidence: Statement) -> bool:
    """Whether the claim pairs numbers from different places of two lists: of "in 2024 and 2023 it was 1 and 2", 2024 with 2."""
    lists = [_NUMBER.findall(match[0]) for match in _LIST.finditer(evidence.text)]
    mine = set(_NUMBER.findall(claim.text))
    for i, one in enumerate(lists):
        for other in lists[i + 1 :]:
            n = min(len(one), len(other))  # extra numbers before the shorter list belong to something else
            places = [{at for at, item in enumerate(each[-n:]) if item in mine} for each in (one, other)]
            if n > 1 and all(places) and places[0].isdisjoint(places[1]):
                return True
    return False


def missing_values(claim: Statement, evidence: Iterable[Value], scales: Iterable[int]) -> list[Value]:
    """Values of the claim that the evidence lacks. `scales`: what its numbers are in, besides ones."""
    if not claim.values:
        return []
    evidence, scales = list(evidence), (1, *scales)
    years = {("number", str(Decimal(v.detail).normalize())) for v in evidence if v.kind == "date" and v.detail}
    return [
        value
        for _, value in claim.values
        if value.core not in years and not any(_equal(value, other, scales) for other in evidence)
    ]


def _equal(value: Value, other: Value, scales: Sequence[int]) -> bool:
    if value.kind != other.kind or not details_agree(value, other):
        return False
    if value.kind == "time":
        return value.core == other.core
    if value.kind == "date":
        return value.core[1] == other.core[1] and value.core[2] in ("0", other.core[2])
    if _DIRECTIONS.get(value.bound, 0) * _DIRECTIONS.get(other.bound, 0) < 0:
        return False
    return any(abs(Decimal(value.core[1])) == abs(Decimal(other.core[1])) * scale for scale in scales)


def scales_in(text: str) -> set[int]:
    """What a text says its numbers are in."""
    return {_SCALES[(match[1] or match[2]).lower()] for match in _SCALE.finditer(text)}


def other_column(claim: Statement, cells: Sequence[Statement], headers: Sequence[frozenset[str]]) -> bool:
    """Whether the claim gives a value of a table's row for another year than its column. `headers`: the years over each cell."""
    known = frozenset[str]().union(*headers)
    years = [(m.start(), m[0]) for m in _YEAR.finditer(claim.text) if m[0] in known]
    scales = (1, *_SCALES.values())
    for at, value in claim.values if years else ():
        over = [
            header
            for cell, header in zip(cells, headers, strict=False)
            if header and any(_equal(value, other, scales) for _, other in cell.values)
        ]
        nearest = min(years, key=lambda found: abs(found[0] - at))[1]
        if over and value.core[-1] not in known and not any(nearest in header for header in over):
            return True
    return False


def years_in(text: str) -> frozenset[str]:
    return frozenset(_YEAR.findall(text))


# --- names and code ---------------------------------------------------------------------------------------------------

_CODE = re.compile(r"``?([^`\n]{1,200})`")
_TOKEN = re.compile(r"https?://[^\s)>\]]+|(?<![\w-])--[\w-]+|[\w.]+(?:\(\))?")
_MARK = re.compile(r"https?:|--|_|\(\)|[a-z][A-Z]|\d\.?[A-Za-z]|[A-Za-z]\d|\w\w\.[A-Za-z]")
_ORDINAL = re.compile(r"\d+(?:st|nd|rd|th|s)", re.IGNORECASE)
_BEGINS = re.compile(r"[.:!?]\W*\Z")
_NAME = re.compile(r"(?<![\w])[^\W\d_a-z][\w'’&-]*")


def codes_in(text: str) -> list[str]:
    """Code and identifiers, which a quote must hold verbatim."""
    quoted = [m[1].strip() for m in _CODE.finditer(text)]
    tokens = [m[0].rstrip(".,;:!?") for m in _TOKEN.finditer(_CODE.sub(" ", text))]
    marks = [t for t in tokens if _MARK.search(t) and not _ORDINAL.fullmatch(t) and not located_values(t)]
    return [code for code in (*quoted, *marks) if code]


def has_code(text: str, code: str) -> bool:
    """Whether a text holds code as a whole word, whatever the white space in it."""
    words = r"\s+".join(map(re.escape, plain(code).split()))
    return re.search(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE) is not None


def names_of(sentence: str, common: frozenset[str]) -> list[str]:
    """Words with a capital that name something. `common`: words that the passages write in lower case."""
    sentence, found = _CODE.sub(" ", sentence), []
    matches = list(_NAME.finditer(sentence))
    first = len(sentence) - len(sentence.lstrip("#*-+•\"'“‘([ \t\n"))
    for match, following in zip(matches, (*matches[1:], None), strict=False):
        word = match[0].removesuffix("'s").removesuffix("’s")
        begins = match.start() <= first or _BEGINS.search(sentence[max(0, match.start() - 8) : match.start()])
        alone = following is None or following.start() != match.end() + 1
        one_capital = word[1:] == word[1:].lower()
        may_be_a_word = one_capital and ((begins and alone) or word.casefold() in common)
        if is_content(word.casefold()) and not may_be_a_word:
            found.append(word)
    return found
