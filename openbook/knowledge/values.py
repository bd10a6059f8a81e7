"""The number, date or time of day that a short English text states, so that `28 days` equals `twenty-eight days`.

Conservative: what could be read in two ways is read in none. Units are kept apart and never converted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

_UNITS_BY_NAME = {
    "second": "second seconds sec secs s", "minute": "minute minutes min mins", "hour": "hour hours h hr hrs",
    "day": "day days", "week": "week weeks", "month": "month months", "year": "year years yr yrs",
    "euro": "euro euros eur €", "dollar": "dollar dollars usd $", "pound": "pound pounds gbp £",
    "cent": "cent cents", "percent": "% percent pct", "millimetre": "mm millimetre millimetres millimeter millimeters",
    "centimetre": "cm centimetre centimetres centimeter centimeters", "metre": "m metre metres meter meters",
    "kilometre": "km kilometre kilometres kilometer kilometers", "mile": "mile miles", "foot": "foot feet ft",
    "gram": "g gram grams", "kilogram": "kg kilogram kilograms kilo kilos", "tonne": "t tonne tonnes",
    "litre": "l litre litres liter liters", "kilowatt": "kw kilowatt kilowatts", "megawatt": "mw megawatt megawatts",
    "watt": "w watt watts", "volt": "v volt volts", "bar": "bar bars", "knot": "knot knots", "degree": "degree degrees °",
    "celsius": "°c", "fahrenheit": "°f", "kilobyte": "kb kilobyte kilobytes", "megabyte": "mb megabyte megabytes",
    "gigabyte": "gb gigabyte gigabytes", "terabyte": "tb terabyte terabytes",
}  # fmt: skip
UNITS = {form: unit for unit, forms in _UNITS_BY_NAME.items() for form in forms.split()}

SMALL_NUMBERS = dict(zip(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen".split(), range(20), strict=True,
))  # fmt: skip
TENS = dict(zip("twenty thirty forty fifty sixty seventy eighty ninety".split(), range(20, 100, 10), strict=True))
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "dozen": 12}
MOST_CHARS = 4_000
MOST_DIGITS = 25  # what is longer is an identifier
_MONEY_SCALES = {**_SCALES, "k": 1000, "m": 10**6, "mn": 10**6, "bn": 10**9, "b": 10**9}
_TWO_WAYS = re.compile(r"[1-9]\d{0,2}\.\d{3}")  # 1.500: one and a half, or fifteen hundred
NUMBER_WORDS = frozenset({*SMALL_NUMBERS, *TENS, *_SCALES})

MONTHS = "january february march april may june july august september october november december".split()
WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
_MONTH_NUMBERS = {form: i for i, month in enumerate(MONTHS, 1) for form in (month, month[:3])} | {"sept": 9}
_MONTH = "(?P<month>" + "|".join(sorted(_MONTH_NUMBERS, key=len, reverse=True)) + r")\b\.?"
_DAY, _YEAR = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?", r"(?P<year>\d{4})"
_DATES = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?<![\w.,:/-]){_YEAR}-(?P<number>\d\d)-(?P<day>\d\d)(?![\w-])",
        rf"(?<![\w.,:/-]){_DAY}(?: of)?[ -]{_MONTH}(?:(?:,? |-){_YEAR}(?![\w:]))?",
        rf"\b{_MONTH} {_DAY}(?![\w:])(?:,? {_YEAR}(?![\w:]))?",
        rf"\b{_MONTH} {_YEAR}(?![\w:])",
    )
]
_TIME = re.compile(
    r"(?<![\w.,:/-])(?P<hour>\d{1,2})(?:[:.](?P<minute>\d\d))? ?(?P<half>[ap])\.?m\b\.?"
    r"|(?<![\w.,:/-])(?P<hour2>\d{1,2}):(?P<minute2>\d\d)(?![\w:]|\.\d)"
    r"|\b(?P<word>noon|midday|midnight)\b|\b(?P<spoken>[a-z]+|\d{1,2}) o.clock\b",
    re.IGNORECASE,
)
_DIGITS = re.compile(
    r"([€$£])?([-−]?)(\d{1,3}(?:[,'’\u00a0\u2009\u202f]\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)(%|°[cf]?|€|[a-z]+)?"
)
_CHUNK = re.compile(r"(?:\d[\u00a0\u2009\u202f](?=\d{3}(?!\d))|\S)+")
_GLUE = frozenset(
    "the a an on in at by of about around approximately roughly some up to least most no more less fewer than within for "
    "until before after over under every each only just and is it was are per cost costs price".split()
)
# Before a number, these make another statement of it.
_BOUNDS = frozenset("not never than over under above below before after until since without minus nor".split())
# Of those, the ones after which the words of a value do not say it. "since 1990" may be the answer to since when.
LIMITS = _BOUNDS - {"since", "until", "before", "after"}
_NOT_A_NUMBER_AFTER = frozenset("no this that the each any every some which another".split())
_NOT_A_NUMBER_BEFORE = frozenset("of can may must should could would will is was has had who that another".split())
_WEEKDAY = re.compile(rf"\b(?:{'|'.join(WEEKDAYS)})\b,?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Value:
    """`core` tells what kind it is and decides; `detail` (a unit, a year) must agree where both sides state it.

    `known`: the unit is one of measure or money, and not just a word that follows. `bound`: the word that turns it into
    "more than", "not", "before" ...
    """

    core: tuple[str, ...]
    detail: str = ""
    per: str = ""
    known: bool = False
    bound: str = ""

    @property
    def kind(self) -> str:
        return self.core[0]


def accepted_value(text: str) -> Value | None:
    """What an accepted answer states if it states one value and nothing else."""
    located, rest = _read(text)
    found = _different(located)
    return found[0] if len(found) == 1 and rest <= _GLUE else None


def stated_values(text: str) -> list[Value]:
    """The values that an answer, which may be a sentence, states: dates and times first."""
    return _different(_read(text)[0])


def located_values(text: str) -> list[tuple[int, Value]]:
    """Every value with the place where it begins, in order. Places count in the text with single spaces, about."""
    return sorted(_read(text)[0], key=lambda found: found[0])


def same_value(stated: Value, accepted: Value) -> bool:
    """The same core and, what the accepted one says of unit, rate or year, said too or (a unit) left out."""
    if stated.core != accepted.core or stated.bound != accepted.bound:
        return False
    if stated.kind == "number":
        return _agree(stated.detail, accepted.detail, stated.known) and not (
            stated.per and accepted.per and stated.per != accepted.per
        )
    return not accepted.detail or stated.detail == accepted.detail


def contradicts(stated: Value, accepted: Value) -> bool:
    """The same core with a unit, rate or year that cannot both be right."""
    if stated.core != accepted.core:
        return False
    if stated.kind == "number" and not (stated.known and accepted.known):
        return False
    return (bool(stated.detail and accepted.detail) and stated.detail != accepted.detail) or (
        bool(stated.per and accepted.per) and stated.per != accepted.per
    )


def _agree(stated: str, accepted: str, known: bool) -> bool:
    """Whether the word after the stated number fits. A unit of measure that only one side has is let pass."""
    if not accepted:
        return known or not stated
    return not stated or stated == accepted or stated.startswith(accepted + " ")


def _read(text: str) -> tuple[list[tuple[int, Value]], set[str]]:
    """(values with their places, words that are no part of them). Of a very long text none."""
    if len(text) > MOST_CHARS:
        return [], {text[:40]}
    text = _WEEKDAY.sub(" ", " ".join(re.split(r"[ \t\n]+", text)).strip())
    found: list[tuple[int, Value]] = []
    for pattern, read in (*((pattern, _date) for pattern in _DATES), (_TIME, _time)):

        def blank(match: re.Match[str], read: Callable[[re.Match[str]], Value | None] = read) -> str:
            value = read(match)
            if value is None:
                return match[0]
            found.append((match.start(), value))
            return ";".center(len(match[0]))

        text = pattern.sub(blank, text)
    numbers, rest = _numbers(text)
    return [*found, *numbers], rest


def _different(located: Sequence[tuple[int, Value]]) -> list[Value]:
    """Each value once: dates and times, then numbers."""
    values = [value for _, value in located]
    return list(
        dict.fromkeys([*(v for v in values if v.kind != "number"), *_joined(v for v in values if v.kind == "number")])
    )


def _date(match: re.Match[str]) -> Value | None:
    groups = match.groupdict()
    month = int(groups.get("number") or 0) or _MONTH_NUMBERS.get((groups.get("month") or "").lower(), 0)
    day = int(groups.get("day") or 0)
    if not 1 <= month <= 12 or day > 31 or ("day" in groups and not day):
        return None
    if groups.get("month") in ("may", "march", "mar") and not groups.get("year"):
        return None  # "at most 12 may attend"
    return Value(("date", str(month), str(day)), groups.get("year") or "")


def _time(match: re.Match[str]) -> Value | None:
    if match["word"]:
        return Value(("time", "0:00" if match["word"].lower() == "midnight" else "12:00"))
    if match["spoken"]:
        word = match["spoken"].lower()
        hour, minute = int(word) if word.isdigit() else SMALL_NUMBERS.get(word, 99), 0
    else:
        hour, minute = int(match["hour"] or match["hour2"]), int(match["minute"] or match["minute2"] or 0)
    if match["half"]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if match["half"].lower() == "p" else 0)
    return Value(("time", f"{hour}:{minute:02}")) if hour < 24 and minute < 60 else None


@dataclass(slots=True)
class _Token:
    """A word, or a number in digits with the unit written to it."""

    word: str
    start: int
    number: Decimal | None = None
    unit: str = ""
    ends: bool = False  # punctuation after it ends the phrase


def _tokens(text: str) -> Iterator[_Token]:
    text = re.sub(r"(?<=[a-z])-(?=[a-z])", " ", text.lower().replace("per cent", "percent"))
    for match in _CHUNK.finditer(text):
        chunk = match[0].strip("()[]\"“”'‘’*_`!?;:")
        bare = chunk.rstrip(".,")
        ends = chunk != bare or match[0][-1] in ")]!?;:"
        digits = _DIGITS.fullmatch(bare) if len(bare) <= MOST_DIGITS else None
        if digits and not _TWO_WAYS.fullmatch(digits[3]) and _is_unit(digits[4], money=bool(digits[1])):
            number = Decimal(re.sub(r"[,'’\s]", "", digits[3])) * (-1 if digits[2] else 1)
            number *= _MONEY_SCALES.get(digits[4] or "", 1) if digits[1] else _SCALES.get(digits[4] or "", 1)
            yield _Token(bare, match.start(), number, UNITS.get(digits[1] or digits[4] or "", ""), ends)
        elif bare:
            yield _Token(bare, match.start(), None, "", ends)


def _is_unit(word: str | None, *, money: bool) -> bool:
    return word is None or word in _SCALES or (word in _MONEY_SCALES if money else word in UNITS)


def _numbers(text: str) -> tuple[list[tuple[int, Value]], set[str]]:
    tokens, found, rest, i = list(_tokens(text)), [], set[str](), 0
    while i < len(tokens):
        number, after = _number_at(tokens, i)
        if number is None:
            after = max(after, i + 1)
            rest.update(token.word for token in tokens[i:after])
            i = after
            continue
        bound = next((t.word for t in reversed(tokens[max(0, i - 1) : i]) if t.word in _BOUNDS), "")
        unit, known, after = _unit_at(tokens, i, after)
        per, after = _per_at(tokens, after) if known else ("", after)
        found.append((tokens[i].start, Value(("number", str(number.normalize())), unit, per, known, bound)))
        i = after
    return found, rest


def _joined(values: Iterable[Value]) -> list[Value]:
    """`28 (twenty-eight) days` states one number; the more telling of two that say the same stays."""
    kept: list[Value] = []
    for value in values:
        twin = next((k for k in kept if k.core == value.core and not (k.detail and value.detail)), None)
        if twin is None:
            kept.append(value)
        elif value.detail:
            kept[kept.index(twin)] = value
    return kept


def _number_at(tokens: list[_Token], i: int) -> tuple[Decimal | None, int]:
    token = tokens[i]
    if token.number is not None:
        number, after = token.number, i + 1
        while after < min(i + 3, len(tokens)) and not tokens[after - 1].ends and tokens[after].word in _SCALES:
            number, after = number * _SCALES[tokens[after].word], after + 1
        return (None, i + 1) if _fraction_follows(tokens, after) else (number, after)
    if token.word == "one" and _is_pronoun(tokens, i):
        return None, i + 1
    words: list[str] = []
    after = i
    while after < len(tokens) and (tokens[after].word in NUMBER_WORDS or (words and tokens[after].word == "and")):
        words.append(tokens[after].word)
        after += 1
        if tokens[after - 1].ends:
            break
    while words and words[-1] == "and":
        words, after = words[:-1], after - 1
    spelled = _spelled(words)
    return (None, after) if spelled is None or _fraction_follows(tokens, after) else (Decimal(spelled), after)


def _is_pronoun(tokens: list[_Token], i: int) -> bool:
    before, after = tokens[i - 1].word if i else "", tokens[i + 1].word if i + 1 < len(tokens) else ""
    return before in _NOT_A_NUMBER_AFTER or after in _NOT_A_NUMBER_BEFORE


def _fraction_follows(tokens: list[_Token], i: int) -> bool:
    words = {t.word for t in tokens[i : i + 3]}
    return bool(words & {"half", "halves", "third", "thirds", "quarter", "quarters"})


def _spelled(words: list[str]) -> int | None:
    """The number that English words spell, None when they spell none or several."""
    if not words or len(words) > 12:
        return None
    total, group, last = 0, 0, 10**12
    for word in words:
        if word == "and":
            continue
        if word in SMALL_NUMBERS or word in TENS:
            size, value = (10, SMALL_NUMBERS[word]) if word in SMALL_NUMBERS else (100, TENS[word])
            if last < size or (last == size) or (last == 100 and not 0 < value < 10):
                return None
            group, last = group + value, size
        elif word in ("hundred", "dozen"):
            if last == 100 and word == "hundred":
                return None
            group, last = max(1, group) * _SCALES[word], 1000
        else:
            scale = _SCALES[word]
            if total and total < scale:
                return None
            total, group, last = total + max(1, group) * scale, 0, 10**12
    return total + group


def _unit_at(tokens: list[_Token], i: int, after: int) -> tuple[str, bool, int]:
    """(unit, whether it is a known one, where the phrase ends)."""
    if tokens[i].unit:
        return tokens[i].unit, True, after
    if tokens[after - 1].ends or after >= len(tokens):
        return "", False, after
    word = tokens[after].word
    if word in UNITS:
        return UNITS[word], True, after + 1
    words: list[str] = []
    while after < len(tokens) and len(words) < 4 and _is_noun(tokens[after]):
        words.append(tokens[after].word.removesuffix("s"))
        after += 1
        if tokens[after - 1].ends:
            break
    return " ".join(words), False, after


def _is_noun(token: _Token) -> bool:
    return token.number is None and token.word not in _GLUE and token.word not in NUMBER_WORDS and token.word.isalpha()


def _per_at(tokens: list[_Token], i: int) -> tuple[str, int]:
    if i + 1 < len(tokens) and not tokens[i - 1].ends and tokens[i].word in ("per", "a", "an", "each", "every"):
        word = tokens[i + 1].word
        return UNITS.get(word, word), i + 2
    return "", i
