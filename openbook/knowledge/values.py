"""The number, date or time of day that a short English text states, so that `28 days` equals `twenty-eight days`.

Conservative: what could be read in two ways is read in none. Units are kept apart and never converted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
_UNITS = {form: unit for unit, forms in _UNITS_BY_NAME.items() for form in forms.split()}

SMALL_NUMBERS = dict(zip(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen".split(), range(20), strict=True,
))  # fmt: skip
TENS = dict(zip("twenty thirty forty fifty sixty seventy eighty ninety".split(), range(20, 100, 10), strict=True))
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "dozen": 12}
_MONEY_SCALES = {**_SCALES, "k": 1000, "m": 10**6, "mn": 10**6, "bn": 10**9, "b": 10**9}
_SPELLED = {**SMALL_NUMBERS, **TENS, **_SCALES}
NUMBER_WORDS = frozenset(_SPELLED)
_MAX_CHARS = 4_000
_MAX_DIGITS = 25  # what is longer is an identifier

MONTHS = "january february march april may june july august september october november december".split()
WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
_MONTH_NUMBERS = {form: i for i, month in enumerate(MONTHS, 1) for form in (month, month[:3])} | {"sept": 9}
_MONTH = "(?P<month>" + "|".join(sorted(_MONTH_NUMBERS, key=len, reverse=True)) + r")\b\.?"
_DAY, _YEAR = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?", r"(?P<year>\d{4})"
_BEGINS = r"(?<![\w.,:/-])"
_DATES_AND_TIMES = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"{_BEGINS}{_YEAR}-(?P<month>\d\d)-(?P<day>\d\d)(?![\w-])",
        rf"{_BEGINS}{_DAY}(?: of)?[ -]{_MONTH}(?:(?:,? |-){_YEAR}(?![\w:]))?",
        rf"\b{_MONTH} {_DAY}(?![\w:])(?:,? {_YEAR}(?![\w:]))?",
        rf"\b{_MONTH} {_YEAR}(?![\w:])",
        rf"{_BEGINS}(?P<hour>\d{{1,2}})(?:[:.](?P<minute>\d\d))? ?(?P<half>[ap])\.?m\b\.?",
        rf"{_BEGINS}(?P<hour>\d{{1,2}}):(?P<minute>\d\d)(?![\w:]|\.\d)",
        r"\b(?P<hour>noon|midday|midnight)\b",
        r"\b(?P<hour>[a-z]+|\d{1,2}) o.clock\b",
    )
]
_HOURS = {**SMALL_NUMBERS, "noon": 12, "midday": 12, "midnight": 0}
_DIGITS = re.compile(
    r"([€$£])?([-−]?)(\d{1,3}(?:[,'’\u00a0\u2009\u202f]\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)(%|°[cf]?|€|[a-z]+)?"
)
_TWO_WAYS = re.compile(r"[1-9]\d{0,2}\.\d{3}")  # 1.500: one and a half, or fifteen hundred
_CHUNK = re.compile(r"(?:\d[\u00a0\u2009\u202f](?=\d{3}(?!\d))|\S)+")
_GLUE = frozenset(
    "the a an on in at by of about around approximately roughly some up to least most no more less fewer than within for "
    "until before after over under every each only just and is it was are per cost costs price".split()
)
# These words before a number change what it states.
_BOUNDS = frozenset("not never than over under above below before after until since without minus nor".split())
# After these, the words of a value do not state it. "since 1990" may be the answer to since when.
LIMITS = _BOUNDS - {"since", "until", "before", "after"}
_NOT_A_NUMBER_AFTER = frozenset("no this that the each any every some which another".split())
_NOT_A_NUMBER_BEFORE = frozenset("of can may must should could would will is was has had who that another".split())
_FRACTIONS = frozenset("half halves third thirds quarter quarters".split())


@dataclass(frozen=True, slots=True)
class Value:
    """`core` tells what kind it is and decides; `detail` (a unit or rate, a year) must agree where both sides state it.

    `known`: the unit is one of measure or money, and not just a word that follows. `bound`: the word that turns it into
    "more than", "not", "before" ...
    """

    core: tuple[str, ...]
    detail: str = ""
    known: bool = False
    bound: str = ""

    @property
    def kind(self) -> str:
        return self.core[0]


def accepted_value(text: str) -> Value | None:
    """What an accepted answer states if it states one value and nothing else."""
    values, rest = _read(text)
    found = _different(values)
    return found[0] if len(found) == 1 and rest <= _GLUE.union(WEEKDAYS) else None


def stated_values(text: str) -> list[Value]:
    """The values that an answer, which may be a sentence, states: dates and times first."""
    return _different(_read(text)[0])


def same_value(given: Value, accepted: Value) -> bool:
    """The same core and, what the accepted one says of unit, rate or year, said too or (a unit) left out."""
    if given.core != accepted.core or given.bound != accepted.bound:
        return False
    if given.kind != "number":
        return not accepted.detail or given.detail == accepted.detail
    if not accepted.detail:
        return given.known or not given.detail
    return not given.detail or _fits(given.detail, accepted.detail)


def contradicts(given: Value, accepted: Value) -> bool:
    """The same core with a unit, rate or year that cannot both be right."""
    if given.core != accepted.core or (given.kind == "number" and not (given.known and accepted.known)):
        return False
    return bool(given.detail and accepted.detail) and not _fits(given.detail, accepted.detail)


def _fits(given: str, accepted: str) -> bool:
    return given == accepted or given.startswith(f"{accepted} ") or accepted.startswith(f"{given} per ")


def _read(text: str) -> tuple[list[Value], set[str]]:
    """(values, words that are no part of them). A very long text has none."""
    if len(text) > _MAX_CHARS:
        return [], {text[:40]}
    text = " ".join(re.split(r"[ \t\n]+", text)).strip()
    found: list[Value] = []
    for pattern in _DATES_AND_TIMES:
        for match in pattern.finditer(text):
            parts = {name: written for name, written in match.groupdict().items() if written}
            if value := _time(parts) if "hour" in parts else _date(parts):
                found.append(value)
                text = text[: match.start()] + ";".center(len(match[0])) + text[match.end() :]
    numbers, rest = _numbers(list(_tokens(text)))
    return [*found, *numbers], rest


def _different(values: Iterable[Value]) -> list[Value]:
    """Each value once: dates and times, then numbers.

    "28, that is 28 days" states one number; the more telling of two that say the same stays.
    """
    kept: list[Value] = []
    for value in sorted(values, key=lambda value: value.kind == "number"):
        twin = None
        if value.kind == "number":
            twin = next((k for k in kept if k.core == value.core and not (k.detail and value.detail)), None)
        if twin and value.detail:
            kept[kept.index(twin)] = value
        elif not twin:
            kept.append(value)
    return list(dict.fromkeys(kept))


def _date(parts: Mapping[str, str]) -> Value | None:
    month = _MONTH_NUMBERS.get(parts["month"].lower()) or int(parts["month"])
    day = int(parts.get("day", 0))
    if not 1 <= month <= 12 or day > 31 or ("day" in parts and not day):
        return None
    if parts["month"] in ("may", "march", "mar") and "year" not in parts:
        return None  # "at most 12 may attend"
    return Value(("date", str(month), str(day)), parts.get("year", ""))


def _time(parts: Mapping[str, str]) -> Value | None:
    hour = int(parts["hour"]) if parts["hour"].isdecimal() else _HOURS.get(parts["hour"].lower(), 99)
    minute = int(parts.get("minute", 0))
    if "half" in parts:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if parts["half"] in "pP" else 0)
    return Value(("time", f"{hour}:{minute:02}")) if hour < 24 and minute < 60 else None


@dataclass(slots=True)
class _Token:
    """A word, or a number in digits with the unit written to it."""

    word: str
    number: Decimal | None = None
    unit: str = ""
    ends: bool = False  # punctuation after it ends the phrase


def _tokens(text: str) -> Iterator[_Token]:
    text = re.sub(r"(?<=[a-z])-(?=[a-z])", " ", text.lower().replace("per cent", "percent"))
    for match in _CHUNK.finditer(text):
        chunk = match[0].strip("()[]\"“”'‘’*_`!?;:")
        bare = chunk.rstrip(".,")
        token = _Token(bare, ends=chunk != bare or match[0][-1] in ")]!?;:")
        digits = _DIGITS.fullmatch(bare) if len(bare) <= _MAX_DIGITS else None
        if digits and not _TWO_WAYS.fullmatch(digits[3]):
            money, sign, number, unit = digits.groups(default="")
            scales = _MONEY_SCALES if money else _SCALES
            if unit in scales or not unit or (unit in _UNITS and not money):
                token.number = Decimal(re.sub(r"[,'’\s]", "", number)) * scales.get(unit, 1) * (-1 if sign else 1)
                token.unit = _UNITS.get(money or unit, "")
        if bare:
            yield token


def _numbers(tokens: list[_Token]) -> tuple[list[Value], set[str]]:
    found: list[Value] = []
    rest = set[str]()
    i = 0
    while i < len(tokens):
        number, after = _number_at(tokens, i)
        if number is None:
            rest.update(token.word for token in tokens[i:after])
        else:
            bound = tokens[i - 1].word if i and tokens[i - 1].word in _BOUNDS else ""
            unit, known, end = _unit_at(tokens, i, after)
            found.append(Value(("number", str(number.normalize())), unit, known, bound))
            after = end
        i = after
    return found, rest


def _number_at(tokens: list[_Token], i: int) -> tuple[Decimal | None, int]:
    """(the number that begins there, where what was looked at ends)."""
    token, after = tokens[i], i + 1
    number = token.number
    if number is not None:
        while after < min(i + 3, len(tokens)) and not tokens[after - 1].ends and tokens[after].word in _SCALES:
            number, after = number * _SCALES[tokens[after].word], after + 1
    elif token.word in NUMBER_WORDS and not (token.word == "one" and _is_pronoun(tokens, i)):
        while after < len(tokens) and not tokens[after - 1].ends and tokens[after].word in {*NUMBER_WORDS, "and"}:
            after += 1
        while tokens[after - 1].word == "and":
            after -= 1
        number = _number_of([each.word for each in tokens[i:after] if each.word != "and"])
    if any(each.word in _FRACTIONS for each in tokens[after : after + 3]):
        number = None
    return number, after


def _is_pronoun(tokens: list[_Token], i: int) -> bool:
    before, after = tokens[i - 1].word if i else "", tokens[i + 1].word if i + 1 < len(tokens) else ""
    return before in _NOT_A_NUMBER_AFTER or after in _NOT_A_NUMBER_BEFORE


def _number_of(words: Sequence[str]) -> Decimal | None:
    """The number that English words spell, None when they spell none or several."""
    total = group = 0
    for word in words[:12]:
        number = _SPELLED[word]
        if number >= 1000:
            if total and total < 1000 * number:
                return None
            total, group = total + max(1, group) * number, 0
        elif word in _SCALES and group < 100:
            group = max(1, group) * number
        elif group % 100 == 0 or (0 < number < 10 and group % 10 == 0 and group % 100 > 10):
            group += number
        else:
            return None
    return Decimal(total + group) if len(words) <= 12 else None


def _unit_at(tokens: list[_Token], i: int, after: int) -> tuple[str, bool, int]:
    """(unit and what it is per, whether the unit is a known one, where the phrase ends)."""
    unit = tokens[i].unit
    if not unit and not tokens[after - 1].ends and after < len(tokens) and tokens[after].word in _UNITS:
        unit = _UNITS[tokens[after].word]
        after += 1
    if unit:
        if (
            after + 1 < len(tokens)
            and not tokens[after - 1].ends
            and tokens[after].word in ("per", "a", "an", "each", "every")
        ):
            word = tokens[after + 1].word
            return f"{unit} per {_UNITS.get(word, word)}", True, after + 2
        return unit, True, after
    words: list[str] = []
    while after < len(tokens) and not tokens[after - 1].ends and len(words) < 4 and _is_noun(tokens[after]):
        words.append(tokens[after].word.removesuffix("s"))
        after += 1
    return " ".join(words), False, after


def _is_noun(token: _Token) -> bool:
    return token.number is None and token.word not in _GLUE and token.word not in NUMBER_WORDS and token.word.isalpha()
