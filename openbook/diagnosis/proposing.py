"""A proposed question, and how a clause is turned into one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from openbook.diagnosis.clauses import DETERMINERS, MODALS, PREPOSITIONS, Clause


@dataclass(frozen=True, slots=True)
class Proposal:
    """A question and where its answer stands in the document's text; `also`: other ways to say the answer."""

    question: str
    start: int
    end: int
    also: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


Voice = Callable[[str], str]  # a phrase as it stands inside a question


def voice(text: str) -> Voice:
    """Lowers the first letter of a phrase where only the beginning of a sentence of `text` made it a capital."""
    lower = frozenset(re.findall(r"(?<![\w’'-])[a-zß-ÿ][\w’'-]*", text))
    names = frozenset(re.findall(r"(?<=[a-zß-ÿ,] )[A-ZÀ-ÖØ-Þ][\w’'-]*", text))

    def inside(phrase: str) -> str:
        first, _, others = phrase.partition(" ")
        small = first[:1].lower() + first[1:]
        if small in DETERMINERS or small in PREPOSITIONS:
            return small + phrase[len(first) :]
        if re.match(r"[A-ZÀ-ÖØ-Þ][a-zß-ÿ]", others) or not re.fullmatch(r"[A-ZÀ-ÖØ-Þ][a-zß-ÿ’'-]*", first):
            return phrase
        noun = others or re.search(r"(?:s|ing|ion|ment|ness|age|er|ery|ity|ncy)$", first)
        common = small in lower or (first not in names and noun)
        return small + phrase[len(first) :] if common else phrase

    return inside


def ask(wh: str, c: Clause, inside: Voice, *parts: str) -> str:
    """`wh` auxiliary subject base parts?"""
    subject = inside(c.subject_text)
    return question_of(wh, c.auxiliary, subject, c.base, *parts, c.fronted)


def question_of(*parts: str) -> str:
    text = re.sub(r"[\s.,;]+$|(?<=\s)[.,;]+(?=\s|$)", " ", " ".join(part for part in parts if part))
    text = " ".join(text.split())
    return text[:1].upper() + text[1:] + "?"


def at(c: Clause, start: int, end: int, question: str, *also: str, tags: tuple[str, ...] = ()) -> Proposal:
    """The answer is `rest[start:end]`."""
    first, last = c.plain.span(c.rest[0] + start, c.rest[0] + end)
    return Proposal(question, first, last, also, tags)


def verb_lead(c: Clause, lead: str) -> bool:
    """Whether only the verb stands before the value: nothing, or after `may` the infinitive."""
    words = lead.split()
    if c.base or c.auxiliary not in MODALS:
        return not words
    return len(words) == 1 and words[0] not in PREPOSITIONS and words[0] not in ("be", "not")
