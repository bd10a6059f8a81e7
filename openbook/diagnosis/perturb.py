"""Values in texts (dates, times, numbers, names), other values of the same kind to put in their place, and passages altered so.

A new value is a function of the old one, a key and the names that stand in other texts; nothing is left to chance. It is
written like the old one and stays valid: a date is one of the calendar, a time is one of the day, a number keeps its digits,
its separators and its round end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from random import Random
from typing import Literal, TypeAlias

from openbook.diagnosis.gold_passages import states_any
from openbook.diagnosis.questions import Question
from openbook.diagnosis.scoring import text_holds_any
from openbook.knowledge.words import is_function_word
from openbook.records import Passage

Kind: TypeAlias = Literal["date", "time", "number", "name"]

MAX_TRIED = 24  # other values for one
_MAX_NAMES = 500  # looked at in other texts
_NAME_WORDS = 6
_PARTICLES = frozenset("and the of de da di du la le van von der den".split())
_MONTHS = "january february march april may june july august september october november december".split()
_WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
_SPELLED = "two three four five six seven eight nine ten eleven twelve".split()


@dataclass(frozen=True, slots=True)
class Alteration:
    """`old` is what stood in the text and `new` what stands there instead; `part` of `old` became `new_part`."""

    kind: Kind
    old: str
    new: str
    part: str
    new_part: str


def changes(value: str, names: Sequence[str], key: str) -> Iterator[Alteration]:
    """Other values of the same kind, in an order that follows from `key`; none if it is of no kind.

    `names`: of people, places and things, from which one is taken for another.
    """
    random = Random(f"{key}\0{value}")  # noqa: S311  no secret
    if recognised := _recognise(value):
        kind, found = recognised
        for part in dict.fromkeys(_varied(found, random) for _ in range(MAX_TRIED)):
            new = value[: found.start()] + part + value[found.end() :]
            if new.casefold() != value.casefold() and kind_of(new) == kind:
                yield Alteration(kind, value, new, found.group(), part)
    elif is_name(value):
        like = [name for name in names if (" " in name) == (" " in value) and name.casefold() != value.casefold()]
        random.shuffle(like)
        words = len(value.split())
        for name in sorted(like, key=lambda name: abs(len(name.split()) - words))[:MAX_TRIED]:
            yield Alteration("name", value, name, value, name)


def kind_of(value: str) -> Kind | None:
    """The kind of what is recognised in it, dates and times before numbers; or a name, if it is one."""
    recognised = _recognise(value)
    return recognised[0] if recognised else "name" if is_name(value) else None


def _recognise(value: str) -> tuple[Kind, re.Match[str]] | None:
    for kind, pattern in _PATTERNS:
        if found := pattern.search(value):
            return kind, found
    return None


def value_spans(text: str, value: str) -> list[tuple[int, int]]:
    """Where the value stands in the text as a whole: "28" does not stand in "1.28" or "B28". Whatever the case."""
    words = r"\s+".join(map(re.escape, value.split()))
    pattern = rf"(?<!\w)(?<!\d[.,:/-]){words}(?!\w)(?![.,:/-]\d)"
    return [found.span() for found in re.finditer(pattern, text, re.IGNORECASE)] if words else []


def within_another(text: str, span: tuple[int, int]) -> bool:
    """Whether the span is only a part of a date or time. If that part changed alone, it might be no date or time any more."""
    spans = [found.span() for kind, p in _PATTERNS if kind != "number" for found in p.finditer(text)]
    return any(start <= span[0] and span[1] <= end and (start, end) != span for start, end in spans)


def replaced(text: str, old: str, new: str) -> str:
    """The text with the new value wherever the old one stands; what stood there with a capital has one again."""
    for start, end in reversed(value_spans(text, old)):
        text = text[:start] + (_capitalised(new) if text[start].isupper() else new) + text[end:]
    return text


def accepted_after(change: Alteration, answers: Iterable[str]) -> tuple[str, ...]:
    """What says the new value, in the ways that the accepted answers said the old one."""
    accepted = [change.new]
    for answer in answers:
        if value_spans(answer, change.part):
            accepted.append(replaced(answer, change.part, change.new_part))
        elif change.kind == "name" and answer == change.old.split()[-1]:
            accepted.append(change.new.split()[-1])
    return tuple(dict.fromkeys(accepted))


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


# --- passages ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AlteredPassage:
    """A copy of a passage with another value in the answer's place, and what says that value."""

    passage: Passage
    change: Alteration
    answers: tuple[str, ...]


def altered(passage: Passage, question: Question, names: Sequence[str]) -> AlteredPassage | None:
    """A copy in which no accepted answer is left, and whose new value did not stand there before; None if there is no such copy.

    So an answer with the new value can only come from the passage, and one with an accepted answer only from memory.
    """
    if text_holds_any(question.question, question.answers):
        return None  # an answer that repeats the question would look like one from memory
    for answer in sorted(question.answers, key=len, reverse=True):
        spans = value_spans(passage.text, answer)
        if not spans or any(within_another(passage.text, span) for span in spans):
            continue
        start, end = spans[0]
        for change in changes(passage.text[start:end], names, question.id):
            answers = accepted_after(change, question.answers)
            text, title, *headings = (
                replaced(each, change.old, change.new) for each in (passage.text, passage.title, *passage.headings)
            )
            copy = replace(passage, text=text, end=passage.start + len(text), title=title, headings=tuple(headings))
            ambiguous = states_any(copy, question.answers) or states_any(passage, answers)
            if not (ambiguous or text_holds_any(question.question, answers)):
                return AlteredPassage(copy, change, answers)
    return None


# --- other values -----------------------------------------------------------------------------------------------------


def _varied(found: re.Match[str], random: Random) -> str:
    """What was found, with another value in place of each of its groups."""
    groups = {name: old for name, old in found.groupdict().items() if old}
    new = {name: _OTHER[name](old, random) for name, old in groups.items() if name != "suffix"}
    if "suffix" in groups:
        number = int(re.sub(r"\D", "", new.get("day") or new["digits"]))
        is_teen = number % 100 in (11, 12, 13)
        new["suffix"] = "th" if is_teen else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    text, offset = found.group(), found.start()
    for name in sorted(new, key=found.start, reverse=True):
        text = text[: found.start(name) - offset] + new[name] + text[found.end(name) - offset :]
    return text


def _other_day(old: str, random: Random) -> str:
    """One that every month has."""
    return str(random.randint(2, 9) if len(old) == 1 else random.randint(10, 28))


def _other_month(old: str, random: Random) -> str:
    new = random.choice(_MONTHS)
    if old.lower() not in _MONTHS:  # in short
        new = new[:3] + "." * old.endswith(".")
    return _same_case(old, new)


def _other_hour(old: str, random: Random) -> str:
    """One of about the same time, written with as many digits; 10 to 12 are one group, and 0 stays 0."""
    first, last = next(each for each in ((0, 0), (1, 9), (10, 12), (13, 23)) if int(old) <= each[1])
    return str(random.randint(first, last)).zfill(len(old))


def _other_digits(old: str, random: Random) -> str:
    """With as many digits and the same separators; a small one stays in its range, so that "14 Mai" stays a date."""
    if re.fullmatch(r"[1-9]\d?", old):
        return str(_similar_number(int(old), random))
    body = old.rstrip("0.,") or old  # every digit changes, but zeros at the beginning and at the end of a whole number
    first = len(body) - len(body.lstrip("0.,")) if body.strip("0.,") else 0
    digits = [c if i < first or not c.isdigit() else str(random.randint(1, 9)) for i, c in enumerate(body)]
    return "".join(digits) + old[len(body) :]


def _similar_number(number: int, random: Random) -> int:
    """A number of about the same size; never 1, which has no plural."""
    first, last = next(each for each in ((2, 12), (13, 31), (32, 99)) if number <= each[1])
    return random.randint(first, last)


def _same_case(old: str, new: str) -> str:
    return _capitalised(new) if old[0].isupper() else new


_OTHER: Mapping[str, Callable[[str, Random], str]] = {
    "day": _other_day,
    "month": _other_month,
    "month_number": lambda old, random: str(random.randint(1, 9 if len(old) == 1 else 12)).zfill(len(old)),
    "year": lambda old, random: str(int(old) + random.choice((-1, 1)) * random.randint(1, 30)),
    "weekday": lambda old, random: _same_case(old, random.choice(_WEEKDAYS)),
    "hour": _other_hour,
    "minute": lambda old, random: f"{5 * random.randrange(12):02d}",
    "digits": _other_digits,
    "words": lambda old, random: _same_case(old, random.choice(_SPELLED)),
}

_WHOLE_MONTHS = "|".join(month.capitalize() for month in _MONTHS)
_MONTH = rf"(?P<month>{_WHOLE_MONTHS}|(?:{'|'.join(month[:3].capitalize() for month in _MONTHS)})\b\.?)"
_DAY = r"(?P<day>(?:[12]\d|3[01]|0?[1-9]))(?P<suffix>st|nd|rd|th)?"
_YEAR = r"(?P<year>[12]\d{3})"
_HOUR, _MINUTE = r"(?P<hour>[01]?\d|2[0-3])", r"(?P<minute>[0-5]\d)"
_BOUND, _END = r"(?<![\w.,:/-])", r"(?![\w]|[.,:/-]\d)"
_PATTERNS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("date", re.compile(rf"{_BOUND}{_YEAR}-(?P<month_number>\d\d)-(?P<day>\d\d){_END}")),
    ("date", re.compile(rf"{_BOUND}(?P<day>\d\d?)[./](?P<month_number>\d\d?)[./]{_YEAR}{_END}")),
    ("date", re.compile(rf"{_BOUND}{_DAY}(?:\s+of)?\s+{_MONTH}(?:,?\s+{_YEAR})?{_END}")),
    ("date", re.compile(rf"(?<!\w){_MONTH}\s+{_DAY}(?:,?\s+{_YEAR})?{_END}")),
    ("date", re.compile(rf"(?<!\w){_MONTH}\s+{_YEAR}{_END}")),
    ("time", re.compile(rf"{_BOUND}{_HOUR}:{_MINUTE}(?!\w|:\d|[.,]\d)")),
    ("time", re.compile(rf"(?i){_BOUND}{_HOUR}(?:\.{_MINUTE})?(?=\s*(?:[ap]\.?m\b|o.clock))")),
    ("date", re.compile(r"(?:\A|(?<=in )|(?<=since )|(?<=by )|(?<=of ))(?P<year>(?:1[5-9]|20)\d\d)\Z")),
    ("date", re.compile(rf"(?i)(?<!\w)(?P<weekday>{'|'.join(_WEEKDAYS)})(?=s?(?!\w))")),
    ("date", re.compile(rf"\A(?P<month>{_WHOLE_MONTHS})\Z")),
    ("number", re.compile(r"(?P<digits>\d+(?:[.,]\d+)*)(?P<suffix>(?:st|nd|rd|th)\b)?")),
    ("number", re.compile(rf"(?i)(?<![\w-])(?P<words>{'|'.join(_SPELLED)})(?![\w-])")),
)


# --- names ------------------------------------------------------------------------------------------------------------

_NAME = re.compile(r"[^\W\d_][\w'’&-]*(?:[ ][^\W\d_][\w'’&-]*)*")
_BEGINS_SENTENCE = re.compile(r"(?:\A|[.!?:;|#*\n>-])[\s\"'(]*\Z")
_CALENDAR = frozenset({*_MONTHS, *_WEEKDAYS})


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
    """Names that stand in the texts, each once. A single word that begins a sentence may be any word, so it is left out."""
    found: dict[str, None] = {}
    for text in texts:
        for match in _NAME.finditer(text):
            begins = _BEGINS_SENTENCE.search(text[max(0, match.start() - 8) : match.start()])
            runs = groupby(
                match.group().split(" "), lambda word: word[0].isupper() and not is_function_word(word.lower())
            )
            for at, (capitals, run) in enumerate(runs):
                words = list(run)
                if capitals and is_name(" ".join(words)) and not (begins and at == 0 and len(words) == 1):
                    found[" ".join(words)] = None
        if len(found) >= _MAX_NAMES:
            break
    return list(found)[:_MAX_NAMES]
