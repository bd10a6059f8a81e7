"""Copies of a passage with the answer's value (number, weekday, month, name) changed.

A new value depends only on the old one, a key and names from other texts. It has the form and about the size of the old
one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from openbook.core.records import Passage
from openbook.diagnosis.gold_passages import states_any
from openbook.diagnosis.questions import Question
from openbook.diagnosis.scoring import text_holds_any

MAX_TRIED = 24  # other values tried for each
_SERIES = (
    "January February March April May June July August September October November December".split(),
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "two three four five six seven eight nine ten eleven twelve".split(),
    "Two Three Four Five Six Seven Eight Nine Ten Eleven Twelve".split(),
)
_NUMBER = re.compile(r"(?<!\d)\d++(?:[.,:/-]\d++)*+(?!(?:st|nd|rd|th)\b)")
_MEMBER = re.compile(rf"(?<![\w-])(?:{'|'.join(word for series in _SERIES for word in series)})(?=s?(?![\w-]))")
_RANGES = (
    (12, 2, 12),
    (23, 13, 23),
    (31, 24, 28),
    (59, 32, 59),
    (99, 60, 99),
)  # (numbers up to this, become one from, to)
_CAPITAL = r"[^\W\d_a-zß-öø-ÿ][\w'’&-]+"
_NAME = re.compile(rf"{_CAPITAL}(?: (?:(?:of the|of|de|da|di|du|la|le|van|von|der|den) ){{0,2}}{_CAPITAL}){{0,5}}")
_NAME_INSIDE = re.compile(rf"(?<=[\w,;] ){_NAME.pattern}")


@dataclass(frozen=True, slots=True)
class Alteration:
    """`old` in the text became `new`, because its `part` became `new_part`."""

    kind: str  # "number", "word" or "name"
    old: str
    new: str
    part: str
    new_part: str


@dataclass(frozen=True, slots=True)
class AlteredPassage:
    passage: Passage
    change: Alteration
    answers: tuple[str, ...]


def altered(passage: Passage, question: Question, names: Sequence[str]) -> AlteredPassage | None:
    """A copy without any accepted answer, with a new value that was not in the passage; None if there is none.

    So the new value can only come from the passage, and an accepted answer only from memory.
    """
    if text_holds_any(question.question, question.answers):
        return None  # an answer that repeats the question would look like one from memory
    longest_first = sorted(question.answers, key=len, reverse=True)
    values = (passage.text[slice(*span)] for each in longest_first for span in value_spans(passage.text, each)[:1])
    for change in (change for value in values for change in changes(value, names, question.id)):
        answers = accepted_after(change, question.answers)
        texts = (passage.text, passage.title, *passage.headings)
        text, title, *headings = (replaced(each, change.old, change.new) for each in texts)
        copy = replace(passage, text=text, end=passage.start + len(text), title=title, headings=tuple(headings))
        ambiguous = states_any(copy, question.answers) or states_any(passage, answers)
        if not (ambiguous or text_holds_any(question.question, answers)):
            return AlteredPassage(copy, change, answers)
    return None


def changes(value: str, names: Sequence[str], key: str) -> Iterator[Alteration]:
    """Other values of the same kind, in an order that depends on `key`; none for a value of no kind.

    The first number changes, or the first month, weekday or number word; a name becomes one of `names`.
    """
    random = Random(f"{key}\0{value}")  # noqa: S311  no secret
    if found := _NUMBER.search(value) or _MEMBER.search(value):
        kind = "number" if found[0][0].isdigit() else "word"
        for part in dict.fromkeys(_other(found[0], random) for _ in range(MAX_TRIED)):
            if part != found[0]:
                new = value[: found.start()] + part + value[found.end() :]
                yield Alteration(kind, value, new, found[0], part)
    elif is_name(value):
        like = [name for name in names if (" " in name) == (" " in value) and name.casefold() != value.casefold()]
        random.shuffle(like)
        words = len(value.split())
        for name in sorted(like, key=lambda name: abs(len(name.split()) - words))[:MAX_TRIED]:
            yield Alteration("name", value, name, value, name)


def _other(old: str, random: Random) -> str:
    for series in _SERIES:
        if old in series:
            return random.choice(series)
    return re.sub(r"\d+", lambda digits: _other_digits(digits[0], random), old)


def _other_digits(old: str, random: Random) -> str:
    """Numbers of up to two digits stay in their range, years stay near. In others each digit changes, except final zeros."""
    number = int(old)
    if not number:
        return old
    if len(old) <= 2:
        first, last = next(each[1:] for each in _RANGES if number <= each[0])
        return str(random.randint(first, last)).zfill(len(old))
    if len(old) == 4 and 1000 <= number < 2100:
        return str(number + random.choice((-1, 1)) * random.randint(1, 30))
    body = old.rstrip("0")
    return "".join(str(random.randint(1, 9)) for _ in body) + old[len(body) :]


def value_spans(text: str, value: str) -> list[tuple[int, int]]:
    """Spans of the whole value, in any case: "28" is not in "1.28" or "B28"."""
    words = r"\s+".join(map(re.escape, value.split()))
    pattern = rf"(?<!\w)(?<!\d[.,:/-]){words}(?!\w)(?![.,:/-]\d)"
    return [found.span() for found in re.finditer(pattern, text, re.IGNORECASE)] if words else []


def replaced(text: str, old: str, new: str) -> str:
    """Replace `old` by `new` everywhere, with a capital where `old` has one."""
    for start, end in reversed(value_spans(text, old)):
        text = text[:start] + (new[:1].upper() + new[1:] if text[start].isupper() else new) + text[end:]
    return text


def accepted_after(change: Alteration, answers: Iterable[str]) -> tuple[str, ...]:
    accepted = [change.new]
    for answer in answers:
        if value_spans(answer, change.part):
            accepted.append(replaced(answer, change.part, change.new_part))
        elif change.kind == "name" and answer == change.old.split()[-1]:
            accepted.append(change.new.split()[-1])
    return tuple(dict.fromkeys(accepted))


def is_name(value: str) -> bool:
    """True for a few capitalized words, such as "Lila Ortega" or "Bay of Biscay"."""
    return value[:1].isupper() and _NAME.fullmatch(value) is not None and _MEMBER.search(value) is None


def names_in(texts: Iterable[str]) -> list[str]:
    """Names inside sentences, each once. The first word of a sentence may be any word, so it does not count."""
    return list(dict.fromkeys(name for text in texts for name in _NAME_INSIDE.findall(text) if is_name(name)))
