"""Whether a proposed question can be asked: it gives nothing away and names what it is about."""

from __future__ import annotations

import re
from collections.abc import Sequence

from openbook.diagnosis.clauses import PREPOSITIONS
from openbook.diagnosis.scoring import equal_value, normalised
from openbook.knowledge.values import UNITS, stated_values
from openbook.knowledge.words import is_function_word

MIN_WORDS, MAX_WORDS = 4, 32
MAX_ANSWER_CHARS = 120

_WORD = re.compile(r"\w+(?:[.,:/-]\w+)*")
# What a question says without naming what it is about.
_GENERAL = frozenset(
    "name names date time times year years month months day days week weeks hour hours minute minutes long often least most "
    "much price limit rate number amount total thing things item items list given table according use used per cent percent "
    "called place target version part take takes get gets make makes need needs last lasts cost costs advance other same case "
    "place places paid must shall might also been being according document".split()
)
_POINTING = re.compile(
    r"\b(?:it|its|this|these|those|they|them|their|he|him|his|she|her|hers|here|there(?!\b.*\?$)|above|below|the following|"
    r"the former|the latter|the other|the others|the same|such|the first|the second|another|one of (?:them|these|those)|"
    r"that (?:day|year|time|date|month))\b(?! (?:\d|[a-z]+ of\b))",
    re.IGNORECASE,
)
_UNIT_WORDS = frozenset(UNITS) | {"per", "cent", "working", "euro", "half"}


def reason_against(question: str, answer: str, also: Sequence[str] = ()) -> str:
    """Why not to ask; empty when nothing speaks against it."""
    words = question.split()
    if len(words) > MAX_WORDS or (
        len(words) < MIN_WORDS and not question.startswith(("What is", "What are", "What was"))
    ):
        return "too short or too long"
    if len(answer) > MAX_ANSWER_CHARS or re.search(r"[*`|{}<>\\]", question + answer) or not re.search(r"\w", answer):
        return "not plain text"
    if not question.endswith("?") or question.count("?") > 1 or _odd(question):
        return "not one question"
    if points_elsewhere(question) or asks_too_little(question):
        return "cannot be understood alone"
    if leaks(question, [answer, *also]):
        return "gives its answer away"
    return ""


def _odd(question: str) -> bool:
    """Brackets or quotes that do not close, an auxiliary without a subject, a preposition before nothing."""
    unbalanced = any(question.count(a) != question.count(b) for a, b in ("()", "“”", "[]")) or question.count('"') % 2
    return bool(unbalanced) or bool(re.search(r" (?:a|an|the|and|or|than|with the|to the)\?$", question))


def points_elsewhere(question: str) -> bool:
    """Whether it speaks of something that only its passage names: it, this, the following."""
    inner = re.sub(r"“[^”]*”", "", question)
    inner = re.sub(r"^how many (.*?) (?:are|were) there\b", r"\1", inner, flags=re.IGNORECASE)
    match = _POINTING.search(inner)
    if not match:
        return False
    # "How many days does a fadder have for its ...": the word refers to what the question itself names before.
    own = (
        match[0].lower() in ("its", "their", "his", "her", "them", "there")
        and len(content(inner[: match.start()])) >= 2
    )
    return not own or match[0].lower() in ("his", "her")


def content(question: str) -> list[str]:
    """The words that say what it is about, in lower case."""
    words = [word.lower() for word in _WORD.findall(question)]
    return [word for word in words if not is_function_word(word) and word not in _GENERAL and word not in PREPOSITIONS]


def asks_too_little(question: str) -> bool:
    found = content(question)
    defined = re.fullmatch(r"What (?:is|are|was|were) (?:an? )?[\w’' -]+\?", question) and not re.search(
        r"\bthe\b", question
    )
    return len(found) < (1 if defined else 2)


def needs_title(question: str) -> bool:
    """Whether only the title of the document makes clear which one is meant."""
    named = re.search(r"(?<=[a-z,] )(?![A-Z][a-z]+ \d{4})[A-ZÀ-ÖØ-Þ]", question)
    defined = re.match(r"What (?:is|are|was|were) (?:an? )?[\w’'-]+\?$", question)
    return not named and not defined and len(content(question)) < 4


def leaks(question: str, answers: Sequence[str]) -> bool:
    """Whether a word of an answer, other than a unit, stands in the question, or the same value."""
    asked = {word.lower().removesuffix("s") for word in _WORD.findall(question)}
    for answer in answers:
        words = [word.lower() for word in _WORD.findall(answer)]
        telling = [w for w in words if not is_function_word(w) and w not in _UNIT_WORDS and not w.isalpha()]
        valued = bool(stated_values(answer))
        if not valued:
            telling = [w for w in words if not is_function_word(w)]
        if any(word.removesuffix("s") in asked for word in telling):
            return True
        if equal_value(question, [answer]):
            return True
    return False


def same_question(one: str, other: str) -> bool:
    return normalised(one) == normalised(other)
