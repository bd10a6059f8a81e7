"""Values in texts (dates, times, numbers, amounts, names) and other values of the same kind to put in their place.

A new value is a function of the old one, a key and the names that stand in other texts; nothing is left to chance. It stays
valid: a date is one of the calendar and keeps its weekday, a time is one of the day, a number keeps its digits, its
separators and its round end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import count, islice
from typing import Literal, TypeAlias

from openbook.knowledge.values import MONTHS, SMALL_NUMBERS, TENS, WEEKDAYS
from openbook.knowledge.words import is_function_word
from openbook.records import sha256_hex

Kind: TypeAlias = Literal["date", "time", "amount", "number", "name"]

MOST_TRIED = 24  # other values for one
_MOST_NAMES = 500  # looked at in other texts
_NAME_WORDS = 6
_MONTHS = [month.capitalize() for month in MONTHS]
_SHORT_MONTHS = [month[:3] for month in _MONTHS]
_WEEKDAYS = [day.capitalize() for day in WEEKDAYS]
_SMALL, _TENS = list(SMALL_NUMBERS), list(TENS)
_UNITS, _TEENS = _SMALL[1:10], _SMALL[10:]
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth".split()
_CURRENCIES = ("€", "$", "£", "¥", "EUR ", "USD ", "GBP ")
_PARTICLES = frozenset("and the of de da di du la le van von der den".split())


@dataclass(frozen=True, slots=True)
class Change:
    """`old` is what stood in the text and `new` what stands there instead; `part` of `old` became `new_part`."""

    kind: Kind
    old: str
    new: str
    part: str
    new_part: str


def changes(value: str, names: Sequence[str], key: str) -> Iterator[Change]:
    """Other values of the same kind, in an order that follows from `key`; none for what is of no kind.

    `names`: of people, places and things, from which one is taken for another.
    """
    kind = kind_of(value)
    if kind == "name":
        for name in _different(value, _ranked(value, names, key)):
            yield Change("name", value, name, value, name)
    elif kind is not None:
        found, variants = _recognised(value)
        for part in _different(found.group(), variants(found, key)):
            new = value[: found.start()] + part + value[found.end() :]
            if kind_of(new) == kind:
                yield Change(kind, value, new, found.group(), part)


def kind_of(value: str) -> Kind | None:
    """What the first date in it makes it, or else the first time, or else the first number; or a name."""
    for kind, pattern, variants in _KINDS:
        if found := pattern.search(value):
            if next(variants(found, ""), None) is None:
                return None  # the 31st of April
            return "amount" if kind == "number" and _has_unit(value, found.group()) else kind
    return "name" if is_name(value) else None


def _recognised(value: str) -> tuple[re.Match[str], _Variants]:
    return next((found, variants) for _, pattern, variants in _KINDS if (found := pattern.search(value)))


def _different(old: str, variants: Iterator[str]) -> Iterator[str]:
    tried = dict.fromkeys(islice(variants, MOST_TRIED))
    return (new for new in tried if new.casefold() != old.casefold())


def _has_unit(value: str, number: str) -> bool:
    """Whether a unit stands behind the number, or a currency before it."""
    before, _, after = value.partition(number)
    return before.endswith(_CURRENCIES) or re.match(r"\s?(?:[^\W\d_]+\b|[%‰°€$£])", after) is not None


def standing(text: str, value: str) -> list[tuple[int, int]]:
    """Where the value stands in the text as a whole: "28" does not stand in "1.28" or "B28". Whatever the case."""
    words = r"\s+".join(map(re.escape, value.split()))
    if not words:
        return []
    pattern = rf"(?<!\w)(?<!\d[.,:/-]){words}(?!\w)(?![.,:/-]\d)"
    return [(m.start(), m.end()) for m in re.finditer(pattern, text, re.IGNORECASE)]


def within_another(text: str, span: tuple[int, int]) -> bool:
    """Whether a number is part of a date or a time, which would not stay one."""
    return any(
        found.start() <= span[0] and span[1] <= found.end() and found.end() - found.start() > span[1] - span[0]
        for kind, pattern, _ in _KINDS
        if kind != "number"
        for found in pattern.finditer(text)
    )


def put(text: str, change: Change) -> str:
    """The text with the new value wherever the old one stands; what stood there with a capital has one again."""
    for start, end in reversed(standing(text, change.old)):
        capital = text[start].isupper() and change.new[:1].islower()
        text = text[:start] + (change.new[0].upper() + change.new[1:] if capital else change.new) + text[end:]
    return text


def accepted_now(change: Change, answers: Iterable[str]) -> tuple[str, ...]:
    """What says the new value, in the ways that the accepted answers said the old one."""
    said = [change.new]
    for answer in answers:
        if standing(answer, change.part):
            said.append(put(answer, Change(change.kind, change.part, change.new_part, "", "")))
        elif change.kind == "name" and answer == change.old.split()[-1]:
            said.append(change.new.split()[-1])
    if other := spelled(change.new_part):
        said += [put(each, Change(change.kind, change.new_part, other, "", "")) for each in said]
    return tuple(dict.fromkeys(said))


def spelled(number: str) -> str:
    """A whole number below 100 in words, one in words as digits, and an empty text for everything else."""
    in_words = ["", *_UNITS, *_TEENS]
    in_words += [f"{ten}{'-' + unit if unit else ''}" for ten in _TENS for unit in ("", *_UNITS)]
    if re.fullmatch(r"[1-9]\d?", number):
        return in_words[int(number)]
    word = number.lower().replace(" ", "-")
    return str(in_words.index(word)) if word in in_words[1:] else ""


# --- dates and times --------------------------------------------------------------------------------------------------

_MONTH = rf"(?P<month>{'|'.join(_MONTHS)}|(?:{'|'.join(_SHORT_MONTHS)})\b\.?)"
_DAY = r"(?P<day>(?:[12]\d|3[01]|0?[1-9]))(?P<suffix>st|nd|rd|th)?"
_YEAR = r"(?P<year>[12]\d{3})"
_HOUR, _MINUTE = r"(?P<hour>[01]?\d|2[0-3])", r"(?P<minute>[0-5]\d)"
_BOUND, _END = r"(?<![\w.,:/-])", r"(?![\w]|[.,:/-]\d)"


def _digest(*parts: object) -> int:
    return int(sha256_hex(" ".join(map(str, parts)).encode())[:24], 16)


def _dates(found: re.Match[str], key: str) -> Iterator[str]:
    """Dates whole weeks before or after."""
    has = found.groupdict()
    try:
        at = date(int(has.get("year") or 2004), _month(has["month"]), int(has.get("day") or 1))
    except ValueError:
        return
    for n in count():
        weeks = 2 + _digest(key, found.group(), n) % 40
        try:
            other = at + timedelta(weeks=weeks * (1 if n % 2 else -1))
        except OverflowError:
            continue
        if has.get("year") or other.year == at.year:
            yield _written(found, other)


def _month(written: str) -> int:
    if written.isdigit():
        return int(written)
    return _SHORT_MONTHS.index(written[:3].capitalize()) + 1


def _written(found: re.Match[str], at: date) -> str:
    """The date in the form of the one that was found."""
    month = found["month"]
    if month.isdigit():
        digits = 2 if re.search(r"\b0|-", found.group()) else 1
        return _filled(
            found, {"year": f"{at.year:04d}", "month": f"{at.month:0{digits}}", "day": f"{at.day:0{digits}}"}
        )
    name = _MONTHS[at.month - 1] if month in _MONTHS else _SHORT_MONTHS[at.month - 1] + "." * month.endswith(".")
    return _filled(found, {"year": f"{at.year:04d}", "month": name, "day": str(at.day), "suffix": _suffix(at.day)})


def _suffix(number: int) -> str:
    return "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def _filled(found: re.Match[str], new: dict[str, str]) -> str:
    """What was found, with these groups in place of its own."""
    text, start = found.group(), found.start()
    spans = sorted(
        (found.span(name), value) for name, value in new.items() if (found.groupdict().get(name) is not None)
    )
    for (a, b), value in reversed(spans):
        text = text[: a - start] + value + text[b - start :]
    return text


def _months(found: re.Match[str], key: str) -> Iterator[str]:
    """Other months, the year as it is."""
    for n in count():
        at = date(2004, 1 + _digest(key, found.group(), n) % 12, 1)
        year = found.groupdict().get("year")
        yield _written(found, at.replace(year=int(year)) if year else at)


def _years(found: re.Match[str], key: str) -> Iterator[str]:
    year = int(found.group())
    for n in count():
        other = year + (1 + _digest(key, year, n) % 30) * (1 if n % 2 else -1)
        if 1500 <= other <= 2099:
            yield str(other)


def _times(found: re.Match[str], key: str) -> Iterator[str]:
    """Other times: with as many digits, in the same half of the day, at full five minutes."""
    old = found["hour"]
    first, last = next(each for each in ((0, 0), (1, 9), (10, 12), (13, 23)) if int(old) <= each[1])
    for n in count():
        draw = _digest(key, found.group(), n)
        hour = str(first + draw % (last - first + 1)).zfill(len(old))
        yield _filled(found, {"hour": hour, "minute": f"{5 * (draw // 64 % 12):02d}"})


# --- numbers ----------------------------------------------------------------------------------------------------------


def _numbers(found: re.Match[str], key: str) -> Iterator[str]:
    """Other numbers with as many digits and the same separators; small ones stay in their range, so that "14 Mai" stays one."""
    old, suffix = found["number"], found["suffix"] or ""
    for n in count():
        draw = _digest(key, old, n)
        if re.fullmatch(r"[1-9]\d?", old):
            first, last = next(each for each in ((2, 12), (13, 31), (32, 99)) if int(old) <= each[1])
            new = str(first + draw % (last - first + 1))
            yield new + (_suffix(int(new)) if suffix else "")
        else:
            yield _digits_changed(old, draw) + suffix


def _digits_changed(old: str, draw: int) -> str:
    """Every digit but zeros at the beginning and, in whole numbers, at the end."""
    body = old.rstrip("0.,") or old
    first = len(body) - len(body.lstrip("0.,"))
    new = []
    for place, char in enumerate(body):
        if not char.isdigit() or (place < first and body.strip("0.,")):
            new.append(char)
            continue
        draw, digit = divmod(draw, 9)
        new.append(str(1 + digit))
    return "".join(new) + old[len(body) :]


def _words_of(words: Sequence[str]) -> Callable[[re.Match[str], str], Iterator[str]]:
    """Other words of a list that is a cycle."""

    def variants(found: re.Match[str], key: str) -> Iterator[str]:
        old = found.group()
        for n in count():
            word = words[_digest(key, old, n) % len(words)]
            yield word.upper() if old.isupper() else word.capitalize() if old[0].isupper() else word.lower()

    return variants


def _number_words(found: re.Match[str], key: str) -> Iterator[str]:
    """Tens for tens and units for units, such as "forty-one" for "twenty-eight"; never "one" alone, which has no plural."""
    for n in count():
        draw = _digest(key, found.group(), n)
        new = {"ten": _TENS[draw % 8], "unit": _UNITS[draw // 8 % 9], "alone": _UNITS[1 + draw // 8 % 8]}
        text = _filled(found, new)
        yield text.capitalize() if found.group()[0].isupper() else text


def _any_of(words: Sequence[str]) -> str:
    return rf"(?<![\w-])(?:{'|'.join(sorted(words, key=len, reverse=True))})(?![\w-])"


_Variants: TypeAlias = Callable[[re.Match[str], str], Iterator[str]]
_TENS_AND_UNITS = rf"(?<![\w-])(?:(?P<ten>{'|'.join(_TENS)})(?:[- ](?P<unit>{'|'.join(_UNITS)}))?|(?P<alone>{'|'.join(_UNITS)}))(?![\w-])"
_PATTERNS: tuple[tuple[Kind, str, _Variants], ...] = (
    ("date", rf"{_BOUND}{_YEAR}-(?P<month>\d\d)-(?P<day>\d\d){_END}", _dates),
    ("date", rf"{_BOUND}(?P<day>\d\d?)[./](?P<month>\d\d?)[./]{_YEAR}{_END}", _dates),
    ("date", rf"{_BOUND}{_DAY}(?:\s+of)?\s+{_MONTH}(?:,?\s+{_YEAR})?{_END}", _dates),
    ("date", rf"(?<!\w){_MONTH}\s+{_DAY}(?:,?\s+{_YEAR})?{_END}", _dates),
    ("date", rf"(?<!\w){_MONTH}\s+{_YEAR}{_END}", _months),
    ("time", rf"{_BOUND}{_HOUR}:{_MINUTE}(?!\w|:\d|[.,]\d)", _times),
    ("time", rf"(?i){_BOUND}{_HOUR}(?:\.{_MINUTE})?(?=\s*(?:[ap]\.?m\b|o.clock|Uhr\b))", _times),
    ("date", r"(?:\A|(?<=in )|(?<=since )|(?<=by )|(?<=of )|(?<=year ))(?:1[5-9]|20)\d\d\Z", _years),
    ("date", rf"(?<!\w)(?:{'|'.join(_WEEKDAYS)})(?=s?(?!\w))", _words_of(_WEEKDAYS)),
    ("date", rf"\A(?:{'|'.join(_MONTHS)})\Z", _words_of(_MONTHS)),
    ("number", r"(?P<number>\d+(?:[.,]\d+)*)(?P<suffix>(?:st|nd|rd|th)\b)?", _numbers),
    ("number", f"(?i){_TENS_AND_UNITS}", _number_words),
    ("number", f"(?i){_any_of(_TEENS)}", _words_of(_TEENS)),
    ("number", f"(?i){_any_of(_ORDINALS)}", _words_of(_ORDINALS)),
)
_KINDS = tuple((kind, re.compile(pattern), variants) for kind, pattern, variants in _PATTERNS)


# --- names ------------------------------------------------------------------------------------------------------------

_NAME = re.compile(r"[^\W\d_][\w'’&-]*(?:[ ][^\W\d_][\w'’&-]*)*")
_CALENDAR = frozenset({*MONTHS, *WEEKDAYS})


def is_name(value: str) -> bool:
    """Whether it is a few words with capitals, such as "Lila Ortega" or "Bay of Biscay"."""
    words = value.split()
    return (
        0 < len(words) <= _NAME_WORDS
        and _NAME.fullmatch(value) is not None
        and words[0][0].isupper()
        and words[-1][0].isupper()
        and all(word[0].isupper() or word in _PARTICLES for word in words)
        and _CALENDAR.isdisjoint(map(str.lower, words))
    )


def names_in(texts: Iterable[str]) -> list[str]:
    """Names that stand in the texts, each once. A single word that begins a sentence may be any word and is none."""
    found: dict[str, None] = {}
    for text in texts:
        for match in _NAME.finditer(text):
            begins = (
                re.search(r"(?:\A|[.!?:;|#*\n>-])[\s\"'(]*\Z", text[max(0, match.start() - 8) : match.start()])
                is not None
            )
            for name in _runs(match.group().split(" "), begins=begins):
                found[name] = None
        if len(found) >= _MOST_NAMES:
            break
    return list(found)[:_MOST_NAMES]


def _runs(words: Sequence[str], *, begins: bool) -> Iterator[str]:
    """Words with capitals that follow each other."""
    run: list[str] = []
    first = 0
    for place, word in enumerate([*words, ""]):
        if word and word[0].isupper() and not is_function_word(word.lower()):
            first = first if run else place
            run.append(word)
            continue
        if run and is_name(" ".join(run)) and not (begins and first == 0 and len(run) == 1):
            yield " ".join(run)
        run = []


def _ranked(value: str, names: Sequence[str], key: str) -> Iterator[str]:
    """Names of as many words first, then others; one word is never put for several, nor the other way round."""
    words = len(value.split())
    like = [name for name in names if (len(name.split()) > 1) == (words > 1)]
    yield from sorted(like, key=lambda name: (abs(len(name.split()) - words), _digest(key, value, name)))
