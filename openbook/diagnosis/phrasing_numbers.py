"""Questions for numbers of things, amounts and measures."""

from __future__ import annotations

import re
from collections.abc import Iterator

from openbook.diagnosis.clauses import AUXILIARIES, DETERMINERS, MODALS, PREPOSITIONS, Clause, Plain
from openbook.diagnosis.english_patterns import (
    BOUNDS,
    LEAD_VERB,
    MONEY,
    MONTH,
    NUMBER,
    PER,
    QUALIFIER,
    TIME_UNIT,
    UNIT_AFTER,
)
from openbook.diagnosis.proposing import Proposal, Voice, ask, at, question_of, verb_lead

_MONTH_START = re.compile(MONTH)
_NOUN_STOPS = (PREPOSITIONS - {"of"}) | (DETERMINERS - {"one", "two"}) | AUXILIARIES | frozenset(
    "that which who and or but ahead later ago long old high wide deep more less up down each so than times".split()
)  # fmt: skip


def _noun_phrase(text: str) -> str:
    """The plural nouns at the beginning of `text` with what `of` adds; empty if there are none."""
    words: list[str] = []
    for match in re.finditer(r"(?:[^\s,;:.()]|\.(?=\w))+", text):
        word = match[0]
        gap = text[len(" ".join(words)) : match.start()].strip()
        if gap or word.lower() in _NOUN_STOPS or len(words) == 8:
            break
        words.append(word)
    head = words[: words.index("of")] if "of" in words else words
    if "of" in words:
        return " ".join(words) if head and _plural(head[-1]) and words[-1] != "of" else ""
    while head and not _plural(head[-1]):
        head = head[:-1]
    return " ".join(head)


def _plural(word: str) -> bool:
    word = word.lower()
    ends = word.endswith("s") and not word.endswith(("ss", "us", "is", "less"))
    return (ends and word not in ("kilos",)) or word in (
        "people",
        "men",
        "women",
        "children",
        "percent",
        "feet",
        "staff",
    )


_COUNT = re.compile(rf"{LEAD_VERB}{QUALIFIER}(?P<number>{NUMBER}) (?=[^\W\d])")


def direct(c: Clause, inside: Voice) -> Iterator[Proposal]:
    """`has 28 days of leave`, `may take at most 12 days`, `takes 95 seconds`: what stands right after the verb."""
    match = _COUNT.match(c.rest_text)
    if not match or not verb_lead(c, match["lead"]):
        return
    after = c.rest_text[match.end() :]
    noun, bound = _noun_phrase(after), BOUNDS.get(match["bound"] or "", "")
    if not noun or re.match(r"(?:half|thirds?|quarters?)\b", noun):
        return
    lead, tail = match["lead"].strip(), after[len(noun) :].strip().removesuffix("each")
    number = match.span("number")
    if re.match(r"(?:euros?|dollars?|pounds?|cents?)\b", noun) or re.match(
        r"(?:before|after|ahead|in advance|later)\b", tail
    ):
        return
    unit = re.match(rf"{TIME_UNIT}", noun)
    if unit and " of " not in noun and (c.base or lead) in ("take", "last", "require"):
        end = match.start("number") + len(match["number"]) + 1 + len(noun)
        question = ask(f"{bound}how long", c, inside, lead, tail)
        also = (match["number"],) if len(noun.split()) == 1 else ()
        yield at(c, number[0], end, question, *also, tags=("number",))
    elif c.base or c.auxiliary in MODALS:
        head = noun.split(" of ")[0]
        question = ask(f"{bound}how many {noun}", c, inside, lead, tail)
        yield at(c, *number, question, f"{match['number']} {head}", tags=("number",))


_SUBJECT_COUNT = re.compile(rf"{QUALIFIER}(?P<number>{NUMBER}) (?=[^\W\d])", re.IGNORECASE)


def counted_subject(c: Clause, inside: Voice) -> Iterator[Proposal]:
    """`212 passengers have had their money back.`"""
    match = _SUBJECT_COUNT.match(c.subject_text)
    if (
        not match
        or c.auxiliary in ("is", "was", "does")
        or re.match(r"(?:half|thirds?|quarters?)\b", c.subject_text[match.end() :])
    ):
        return
    noun = _noun_phrase(c.subject_text[match.end() :])
    if not noun or _MONTH_START.match(noun):
        return
    start = c.subject[0]
    said = c.plain.text[start + match.end() : c.rest[1]]
    first, last = c.plain.span(start + match.start("number"), start + match.end("number"))
    bound = BOUNDS.get((match["bound"] or "").lower(), "")
    question = question_of(f"{bound}how many", said, c.fronted)
    yield Proposal(question, first, last, (f"{match['number']} {noun.split(' of ')[0]}",), ("number",))


_THERE = re.compile(
    rf"(?:(?P<front>[A-Z][^,;]{{1,40}}?),? t|T)here (?P<verb>are|were) {QUALIFIER}(?P<number>{NUMBER}) (?=[^\W\d])"
)


def there_are(sentence: Plain) -> Iterator[Proposal]:
    match = _THERE.match(sentence.text)
    if not match:
        return
    after = re.split(r"[,;:(]| and | which | who | because ", sentence.text[match.end() :])[0]
    noun = _noun_phrase(after)
    if noun:
        front = (match["front"] or "")[:1].lower() + (match["front"] or "")[1:]
        bound = BOUNDS.get(match["bound"] or "", "")
        question = question_of(f"{bound}how many {noun} {match['verb']} there", after[len(noun) :], front)
        yield Proposal(
            question,
            *sentence.span(*match.span("number")),
            (f"{match['number']} {noun.split(' of ')[0]}",),
            ("number",),
        )


# --- amounts and measures ----------------------------------------------------------------------------------------------

_MEASURE = rf"{NUMBER} ?{UNIT_AFTER}"
_AMOUNT = re.compile(rf"{LEAD_VERB}{QUALIFIER}(?P<value>{MONEY}|{_MEASURE})(?P<tail>.*)$")


def measured(c: Clause, inside: Voice) -> Iterator[Proposal]:
    """`costs €3.50`, `is 38 cents per kilometre`, `must be at least 20.8 per cent`."""
    match = _AMOUNT.match(c.rest_text)
    if not match:
        return
    words, tail, bound = match["lead"].split(), match["tail"].strip(), BOUNDS.get(match["bound"] or "", "")
    money = re.match(MONEY, match["value"]) is not None
    is_be = (not c.base and c.auxiliary in ("is", "are", "was", "were") and not words) or words == ["be"]
    if is_be and re.match(r"(?:(?:on|for|in|from) |$)", tail):
        named = re.search(r"\b(?:price|rate|fee|limit|cost|allowance|margin|fare|budget|grant)\b", c.subject_text)
        wh = f"{bound}how much" if bound or (money and not named) else "what"
        question = ask(wh, c, inside, *words, tail)
    elif money and (verb_lead(c, match["lead"]) and (c.base or words)):
        if re.match(r"(?:of|less|more|plus)\b", tail):
            return
        question = ask(f"{bound}how much", c, inside, *words, tail)
    else:
        return
    yield at(c, *match.span("value"), question, *_bare(match["value"]), tags=("number",))


def _bare(value: str) -> tuple[str, ...]:
    """The value without its rate."""
    short = re.sub(rf"{PER[:-1]}$", "", value)
    return (short,) if short and short != value else ()
