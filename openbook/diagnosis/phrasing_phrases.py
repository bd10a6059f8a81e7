"""Questions for what follows a preposition: when, how long, how often, which."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from openbook.diagnosis.clauses import PREPOSITIONS, Clause, participle
from openbook.diagnosis.english_patterns import (
    BOUNDS,
    CLOCK,
    DATE,
    DURATION,
    ID,
    MONTH,
    NO_NUMBERED,
    NUMBER,
    QUALIFIER,
    UNIT_AFTER,
)
from openbook.diagnosis.proposing import Proposal, Voice, ask, at


@dataclass(frozen=True, slots=True)
class _Kind:
    pattern: re.Pattern[str]
    wh: Callable[[re.Match[str]], str]
    tag: str


_CLOCK_WH = {
    "at": "at what time",
    "by": "by what time",
    "before": "before what time",
    "after": "after what time",
    "from": "from what time",
}
_DATE_WH = {
    "on": "on which date", "by": "by which date", "from": "from which date", "until": "until which date",
    "to": "until which date", "before": "before which date", "after": "after which date", "since": "since which date",
}  # fmt: skip
_ORDINAL = "first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth"
_KINDS = (
    _Kind(
        re.compile(rf"\b(?:from|between) (?P<value>{CLOCK} (?:to|and|until) {CLOCK})"),
        lambda m: "during which hours",
        "time",
    ),
    _Kind(
        re.compile(rf"\b(?P<prep>at|by|before|after|from) (?P<value>{CLOCK})(?! to| until)"),
        lambda m: _CLOCK_WH[m["prep"]],
        "time",
    ),
    _Kind(
        re.compile(rf"\b(?P<prep>on|by|from|until|to|before|after|since) (?P<value>{DATE})(?! and)"),
        lambda m: _DATE_WH[m["prep"]],
        "date",
    ),
    _Kind(
        re.compile(
            r"(?:\bon |^)(?P<value>the \d{1,2}(?:st|nd|rd|th)) of (?P<of>each|every|the) (?P<unit>month|year)\b"
        ),
        lambda m: f"on which day of {m['of']} {m['unit']}",
        "date",
    ),
    _Kind(
        re.compile(rf"\b(?P<prep>in|for) (?P<value>{MONTH} \d{{4}})(?!\w)"),
        lambda m: f"{m['prep']} which month and year",
        "date",
    ),
    _Kind(
        re.compile(rf"\bin (?P<value>{MONTH})(?![\w ]*\d{{4}})(?! (?:and|or)\b)"), lambda m: "in which month", "date"
    ),
    _Kind(
        re.compile(r"\b(?P<prep>in|since) (?P<value>1[0-9]\d\d|20\d\d)(?![\w/-])"),
        lambda m: f"{m['prep']} which year",
        "date",
    ),
    _Kind(
        re.compile(
            rf"\b{QUALIFIER}(?P<value>{DURATION}) (?P<side>before|after) (?P<of>(?!that\b|it\b|this\b)[^,;]+?)(?= and |$)"
        ),
        lambda m: f"{BOUNDS.get(m['bound'] or '', '')}how long {m['side']} {m['of']}",
        "number",
    ),
    _Kind(
        re.compile(rf"\b{QUALIFIER}(?P<value>{DURATION}) (?:ahead|in advance|beforehand)\b"),
        lambda m: f"{BOUNDS.get(m['bound'] or '', '')}how long in advance",
        "number",
    ),
    _Kind(
        re.compile(rf"\b(?:for|lasts?) {QUALIFIER}(?P<value>{DURATION})(?! (?:of|after|before)\b)(?=\s|$)"),
        lambda m: f"for {BOUNDS.get(m['bound'] or '', '')}how long",
        "number",
    ),
    _Kind(
        re.compile(rf"\bwithin {QUALIFIER}(?P<value>{DURATION})(?P<of> of (?:the |a |an )?[\w -]+)?"),
        lambda m: f"within what time{m['of'] or ''}",
        "number",
    ),
    _Kind(
        re.compile(
            rf"(?P<value>\bevery (?:{NUMBER} )?(?:second |other )?(?:minutes?|hours?|days?|weeks?|months?|years?|[A-Z][a-z]+day)\b(?! of)"
            rf"|\b(?:once|twice|(?:{NUMBER}) times) (?:a|per|each|every) (?:day|week|month|quarter|year)\b)"
        ),
        lambda m: "how often",
        "number",
    ),
    _Kind(
        re.compile(
            rf"\b(?P<prep>from|on|in|by) the (?P<value>{_ORDINAL}) (?P<noun>day|week|month|year|floor|deck|storey|grade)\b"
        ),
        lambda m: f"{m['prep']} which {m['noun']}",
        "number",
    ),
    _Kind(
        re.compile(
            rf"\b(?P<prep>at|above|below|by|to|under) {QUALIFIER}(?P<value>(?P<amount>{NUMBER}) ?(?P<unit>{UNIT_AFTER}))"
            rf"(?! (?:to|and|or) \d)"
        ),
        lambda m: f"{m['prep']} {BOUNDS.get(m['bound'] or '', '')}how many {m['unit']}",
        "number",
    ),
    _Kind(
        re.compile(
            rf"\b(?P<prep>on|in|at|from|under|with|to|by|behind|near|through) (?P<noun>(?!the\b)[a-z][a-z-]{{2,}}) "
            rf"(?P<value>{ID})(?![\w:/]|[.,]\d| (?:to|and|or) [\dA-Z])(?P<of> of the [A-Z]\w+(?: [A-Z]\w+)*)?"
        ),
        lambda m: f"{m['prep']} which {m['noun']}{m['of'] or ''}",
        "identifier",
    ),
)


def prepositional(c: Clause, inside: Voice) -> Iterator[Proposal]:
    rest = c.rest_text
    for kind in _KINDS:
        for match in kind.pattern.finditer(rest):
            groups = match.groupdict()
            if groups.get("noun") in NO_NUMBERED or not _asks_of_verb(c, rest[: match.start()]):
                continue
            before, tail = rest[: match.start()].rstrip(), rest[match.end() :]
            if kind.tag == "date":
                before = re.sub(rf" ?\bfrom (?:{DATE}|{MONTH}(?: \d{{4}})?)$", "", before)
                tail = re.sub(rf"^ (?:to|until) (?:{DATE}|{MONTH}(?: \d{{4}})?)", "", tail)
            if (before.split() or [""])[-1] in PREPOSITIONS or re.match(r" of\b", tail) or " and " in before:
                continue
            if kind.tag == "time" and tail.startswith((" to ", " until ")):
                continue
            question = ask(kind.wh(match), c, inside, before, tail)
            also = (f"{groups['noun']} {match['value']}",) if groups.get("noun") else ()
            yield at(c, *match.span("value"), question, *also, tags=(kind.tag,))


def _asks_of_verb(c: Clause, before: str) -> bool:
    """Whether a phrase after `before` belongs to the verb, and not to a noun of a further clause."""
    words = before.split()
    if (
        not c.base
        and c.auxiliary in ("is", "are", "was", "were")
        and words
        and words[0] in ("a", "an", "the", "not", "no")
    ):
        return False
    return len(words) <= 14 and not any(w in ("that", "to") and participle(words[-1]) for w in words)
