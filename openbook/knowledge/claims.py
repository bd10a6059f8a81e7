"""What a sentence claims, and whether a text says otherwise: another number, date, name or code, a denial, an opposite.

Rules over words, so that each refusal has a reason that can be read. They find what contradicts; whether the rest means the
same is for `quotes` to judge.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise

from openbook.knowledge.values import MONTHS, NUMBER_WORDS, WEEKDAYS, Value, located_values
from openbook.knowledge.words import is_function_word, stemmer

_WORD = re.compile(r"\d+(?:[.,:/-]\d+)*|\w+n['\u2019]t|\w+(?:['\u2019](?!s\b)\w+)*")
_MARKUP = re.compile(r"\]\((?!https?:)[^)\s]*\)|\*\*|[`\\!]|(?<=[$€£(]) +|(?<=\d),(?=\d{3}\b)|(?<=\d)\+")
_RANGE = re.compile(r"(?<![\w.-])(\d+(?:\.\d+)?)[-–](?=\d+(?:\.\d+)?(?![\w-]))")
_BRACKETED = re.compile(r"([$€£]?)\((\d[\d.]*)\)")  # negative, in accounts
_SCALE = re.compile(r"\bin (thousand|million|billion)s\b|(?<!\w)[€$£](m|bn|k)\b", re.IGNORECASE)
_SCALES = {"thousand": Decimal(1000), "million": Decimal(10**6), "billion": Decimal(10**9)}
_SCALES |= {"k": _SCALES["thousand"], "m": _SCALES["million"], "bn": _SCALES["billion"]}
_YEAR = re.compile(r"(?<![\w.,])(?:1[5-9]|20)\d\d(?![\w]|[.,]\d)")

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
# Words of one line exclude the words of the other lines of their group.
_OPPOSITES = tuple(
    tuple(frozenset(line.split()) for line in group.strip().splitlines())
    for group in """
    more greater larger higher bigger up upward largest highest greatest increase rise grow growth gain raise exceed faster longer above older upper
    less fewer smaller lower down downward smallest lowest decrease fall drop decline reduce reduction cut shrink slower shorter below younger
--
    easier easy simplify simplifies simplified simple
    harder hard difficult complicate complicated
--
    significant large great big high major
    little small low minor slight
--
    before earlier prior
    after later
--
    avoid prevent
    require need cause
--
    right correct
    wrong incorrect
--
    voluntary optional
    mandatory required compulsory obligatory
--
    accept allow permit approve
    reject refuse forbid prohibit ban deny
--
    include contain
    exclude omit
--
    enable
    disable
--
    valid
    invalid
--
    dominant
    recessive
--
    male man boy
    female woman girl
--
    favourable favorable gain
    adverse unfavourable unfavorable loss
--
    internal
    external
--
    same identical
    different
--
    minimum
    maximum
--
    import
    export
--
    public
    private
--
    success succeed
    failure fail error
--
    first
    last
--
    add insert install introduce
    remove delete uninstall drop
--
    buy
    sell
--
    all every each entire always whole both
    some certain part partly sometimes
    few
    most mostly majority
    only solely
    never none
--
    second
    minute
    hour
    day daily
    week weekly
    month monthly
    year yearly annual annually
    decade
    century
""".split("--")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Statement:
    """A text as far as rules can compare it. Stems are of words that carry a meaning, numbers left out."""

    text: str
    words: tuple[str, ...]
    stems: frozenset[str]
    values: tuple[tuple[int, Value], ...]
    denied: frozenset[str]
    sides: frozenset[tuple[int, int]]  # of `_OPPOSITES`: (group, line)


def statement(text: str) -> Statement:
    text = plain(text)
    words = words_of(text)
    stems = frozenset(stem(w) for w in words if is_content(w))
    return Statement(text, tuple(words), stems, tuple(_values(text)), _denied(text), _sides(words))


def plain(text: str) -> str:
    """Without what only draws: Markdown's and reStructuredText's marks, thousands separators, brackets around amounts."""
    text = _MARKUP.sub("", unicodedata.normalize("NFKC", text))
    return _RANGE.sub(r"\1 - ", _BRACKETED.sub(r"\1\2", text))


def words_of(text: str) -> list[str]:
    return [w.casefold() for w in _WORD.findall(text)]


def is_content(word: str) -> bool:
    """Whether a lower-case word carries a meaning that no other rule looks at."""
    if (
        is_function_word(word)
        or word in _CALENDAR
        or word in NUMBER_WORDS
        or word in _NEGATIONS
        or word == "yes"
        or word[0].isdigit()
    ):
        return False
    base = _IRREGULAR.get(word, word)
    return not any(base.removesuffix(end) in _LIGHT for end in ("", "s", "ed", "ing"))


@lru_cache(20_000)
def stem(word: str) -> str:
    return stemmer()(_IRREGULAR.get(word, word)) if len(word) <= 60 else word


def _values(text: str) -> Iterator[tuple[int, Value]]:
    yield from located_values(text)
    for match in re.finditer(r"\b(?:both|twice)\b", text, re.IGNORECASE):
        yield match.start(), Value(("number", "2"))


def _denied(text: str) -> frozenset[str]:
    """Stems that stand only where something is denied: behind a negation, up to the next verb or the end of the clause."""
    inside, outside = set[str](), set[str]()
    left = 0
    for clause in re.split(r"[.;:,|](?=\s|$)|[—–]", text):
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


_SIDES: dict[str, set[tuple[int, int]]] = {}
for _group, _lines in enumerate(_OPPOSITES):
    for _line, _members in enumerate(_lines):
        for _word in _members:
            _SIDES.setdefault(_IRREGULAR.get(_word, _word), set()).add((_group, _line))


def _sides(words: Sequence[str]) -> frozenset[tuple[int, int]]:
    found = set[tuple[int, int]]()
    for word, following in zip(words, (*words[1:], ""), strict=False):
        if word in ("over", "under") and following[:1].isdigit():
            word = "more" if word == "over" else "less"
        elif (word, following) == ("up", "to"):
            continue
        forms = (
            word,
            word.removesuffix("s"),
            _IRREGULAR.get(word, word),
            word.removesuffix("d"),
            word.removesuffix("ed"),
            word.removesuffix("ing"),
        )
        for form in forms:
            found.update(_SIDES.get(form, ()))
    return frozenset(found)


# --- what speaks against ----------------------------------------------------------------------------------------------


_ONLY = frozenset("only just solely exclusively except unless merely no not single".split())


def opposed(said: Statement, there: Statement, asked: frozenset[tuple[int, int]] = frozenset()) -> bool:
    """Whether the one uses a word that excludes one of the other: more and less, all and some, days and weeks."""
    if "only" in said.words and not _ONLY & {*there.words}:
        return True
    for group in {g for g, _ in said.sides - there.sides}:
        mine = {side for side in said.sides if side[0] == group}
        theirs = {side for side in there.sides if side[0] == group}
        if mine and theirs and mine.isdisjoint(theirs) and not mine <= asked:
            return True
    return False


def denies(said: Statement, there: Statement) -> bool:
    """Whether one of the two denies what the other says."""
    mine, theirs = said.denied & there.stems, there.denied & said.stems
    return (bool(theirs) and not theirs & said.denied) or (bool(mine) and not mine & there.denied)


def missing_values(said: Statement, there: Iterable[Value], scales: Iterable[Decimal]) -> list[Value]:
    """Values of the sentence that do not stand there. `scales`: what numbers there are in, besides ones."""
    there, scales = list(there), (Decimal(1), *scales)
    years = {v.detail for v in there if v.kind == "date" and v.detail}
    return [
        value
        for _, value in said.values
        if not any(_equal(value, other, scales) for other in there)
        and not (value.kind == "number" and value.core[1] in {str(Decimal(y).normalize()) for y in years})
    ]


def _equal(value: Value, other: Value, scales: Sequence[Decimal]) -> bool:
    if value.kind != other.kind:
        return False
    if value.kind == "time":
        return value.core == other.core
    if value.kind == "date":
        same = value.core[1] == other.core[1] and (value.core[2] in ("0", other.core[2]))
        return same and (not value.detail or not other.detail or value.detail == other.detail)
    if value.known and other.known and value.detail != other.detail:
        return False
    return any(abs(Decimal(value.core[1])) == abs(Decimal(other.core[1])) * scale for scale in scales)


_ANY_SCALE = (Decimal(1), *sorted({*_SCALES.values()}))


def scales(text: str) -> tuple[Decimal, ...]:
    """What a text says its numbers are in."""
    found = {_SCALES[(m[1] or m[2]).lower()] for m in _SCALE.finditer(text)}
    return tuple(sorted(found))


_CHANGE = re.compile(
    r",? (?:and )?(?:(?:as )?compared (?:with|to)|after|versus|vs\.?|(?:up|down) from|instead of|rather than)\b"
)


def _old_and_new(statement: Statement) -> set[tuple[str, str]]:
    """(new, old) of each change that is told: from A to B, A compared with B."""
    text, found = " ".join(statement.text.split()), set[tuple[str, str]]()
    values = [(at, value) for at, value in statement.values if value.detail or not _YEAR.fullmatch(value.core[-1])]
    for (at, first), (then, second) in pairwise(values):
        between = text[at:then]
        if text[max(0, at - 6) : at].lower().endswith("from ") and re.search(r"\bto $", between):
            found.add((second.core[-1], first.core[-1]))
        elif _CHANGE.search(between) or between.endswith(" from "):
            found.add((first.core[-1], second.core[-1]))
    return found


def reversed_roles(said: Statement, there: Statement) -> bool:
    """Whether two sides changed places: from 9 to 3 against from 3 to 9, men than women against women than men."""
    changes = _old_and_new(there)
    if any((old, new) in changes and new != old and (new, old) not in changes for new, old in _old_and_new(said)):
        return True
    mine, theirs = _than(said), _than(there)
    if mine and theirs:
        crossed = bool(mine[0] & theirs[1]) and bool(mine[1] & theirs[0])
        return crossed and not (mine[0] & theirs[0] and mine[1] & theirs[1])
    return False


def _than(statement: Statement) -> tuple[set[str], set[str]] | None:
    """Stems before and after the only `than`, in its clause."""
    clauses = [clause for clause in re.split(r"[,;:.](?=\s|$)", statement.text) if re.search(r"\bthan\b", clause)]
    halves = re.split(r"\bthan\b", clauses[0]) if len(clauses) == 1 else []
    if len(halves) != 2:
        return None
    left, right = ({stem(w) for w in words_of(half) if is_content(w)} for half in halves)
    return left - right, right - left


_ITEM = r"[$€£]?\d[\d.]*%?(?: (?:thousand|million|billion|percent))?"
_LIST = re.compile(rf"{_ITEM}(?:,? and {_ITEM}|, {_ITEM})+")


def misaligned(said: Statement, there: Statement) -> bool:
    """Whether the sentence pairs what `respectively` keeps apart: A and B were 1 and 2, respectively."""
    if "respectively" not in there.words and len(_LIST.findall(there.text)) < 2:
        return False
    lists = [re.findall(r"\d[\d.]*\d|\d", m[0]) for m in _LIST.finditer(there.text)]
    mine = set(re.findall(r"\d[\d.]*\d|\d", said.text))
    for i, one in enumerate(lists):
        for other in lists[i + 1 :]:
            if (n := min(len(one), len(other))) > 1:  # what stands before one of them belongs to something else
                places = [{i for i, item in enumerate(each[-n:]) if item in mine} for each in (one, other)]
                if all(places) and places[0].isdisjoint(places[1]):
                    return True
    return False


def other_column(said: Statement, cells: Sequence[Statement], headers: Sequence[frozenset[str]]) -> bool:
    """Whether a value of a table's row is said of another year than that of its column. `headers`: the years over each cell."""
    known = frozenset[str]().union(*headers)
    years = [(m.start(), m[0]) for m in _YEAR.finditer(" ".join(said.text.split())) if m[0] in known]
    for place, value in said.values if years else ():
        over = [
            header
            for cell, header in zip(cells, headers, strict=False)
            if header and any(_equal(value, other, _ANY_SCALE) for _, other in cell.values)
        ]
        nearest = min(years, key=lambda found: abs(found[0] - place))[1]
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
    """Code and identifiers, which stand verbatim or not at all."""
    quoted = [m[1].strip() for m in _CODE.finditer(text)]
    tokens = [m[0].rstrip(".,;:!?") for m in _TOKEN.finditer(_CODE.sub(" ", text))]
    marks = [t for t in tokens if _MARK.search(t) and not _ORDINAL.fullmatch(t) and not located_values(t)]
    return [code for code in (*quoted, *marks) if code]


def stands(code: str, text: str) -> bool:
    """Whether code stands in a text as a whole, whatever the white space in it."""
    words = r"\s+".join(map(re.escape, plain(code).split()))
    return re.search(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE) is not None


def names_of(sentence: str, common: frozenset[str]) -> list[str]:
    """Words with a capital that name something. `common`: words that the passages write in lower case."""
    sentence, found = _CODE.sub(" ", sentence), []
    matches = list(_NAME.finditer(sentence))
    first = len(sentence) - len(sentence.lstrip("#*-+•\"'“‘([ \t\n"))
    for i, match in enumerate(matches):
        word = match[0].removesuffix("'s").removesuffix("’s")
        begins = (
            match.start() <= first or _BEGINS.search(sentence, max(0, match.start() - 8), match.start()) is not None
        )
        if not is_content(word.casefold()):
            continue
        follows = i + 1 < len(matches) and matches[i + 1].start() == match.end() + 1
        if begins and not follows and (word[1:] == word[1:].lower()):
            continue
        if word.casefold() in common and word[1:] == word[1:].lower():
            continue
        found.append(word)
    return found
