"""Questions made from English statements by rules: `Found items are kept for 60 days.` asks `For how long are found items kept?`

Each rule looks for one kind of answer in a clause. What it proposes still goes through the filters of `drafting`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from openbook.diagnosis.clauses import (
    AUXILIARIES,
    DETERMINERS,
    MODALS,
    PREPOSITIONS,
    Clause,
    Plain,
    clause,
    participle,
)
from openbook.diagnosis.values import MONTHS, NUMBER_WORDS, UNITS


@dataclass(frozen=True, slots=True)
class Proposal:
    """A question and where its answer stands in the document's text; `also`: other ways to say the answer."""

    question: str
    start: int
    end: int
    also: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


_WORDS = "|".join(sorted(NUMBER_WORDS - {"zero", "one"}, key=len, reverse=True))
_NUMBER = (
    r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|"
    rf"(?:a |one )?\b(?:{_WORDS})\b(?:[- ](?:and )?(?:{_WORDS}|one)\b)*)(?![\w/:-]|[.,]\d)(?: (?:million|billion)\b)?"
)
_TIME_UNIT = (
    r"(?:working |calendar |full |consecutive )?(?:seconds?|minutes?|hours?|days?|weeks?|months?|years?|nights?)\b"
)
_DURATION = rf"(?:an?|one|{_NUMBER}) (?:and a half )?{_TIME_UNIT}(?:(?: and)? {_NUMBER} {_TIME_UNIT})?"
_PER = r"(?: (?:per|a|an|for each|for every) (?!price\b|total\b|rate\b)[a-z]+)?"
_MONEY = rf"(?:[€$£] ?\d[\d.,]*\d(?: (?:million|billion)\b)?|[€$£] ?\d|{_NUMBER} (?:euros?|dollars?|pounds?|cents?)\b)(?![\w/]){_PER}"
_MONTH = "(?:" + "|".join(month.capitalize() for month in MONTHS) + ")"
_DAY = (
    rf"(?:\d{{1,2}}(?:st|nd|rd|th)? {_MONTH}(?:,? \d{{4}})?|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?(?:,? \d{{4}})?)(?![\w:])"
)
_DATE = rf"(?:(?:the )?(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day,? )?{_DAY}"
_CLOCK = rf"(?:\d{{1,2}}:\d{{2}}(?: ?[ap]\.?m\b\.?)?|\d{{1,2}} ?[ap]\.?m\b\.?|(?:{_WORDS}|one) o.clock|noon|midnight)(?![\w:])"
_QUALIFIER = (
    r"(?:(?P<bound>no later than|at least|at most|at the most|no more than|not more than|no longer than|no less than|no fewer than|up to|"
    r"more than|less than|fewer than|over) |(?:about|around|some|roughly|nearly|almost|only|just|exactly|approximately|another|"
    r"(?:a )?further|in total) )*"
)
_BOUNDS = {
    "no later than": "at least ", "at least": "at least ", "no less than": "at least ", "no fewer than": "at least ", "at most": "at most ",
    "at the most": "at most ", "no more than": "at most ", "not more than": "at most ", "no longer than": "at most ",
    "up to": "at most ", "more than": "more than ", "over": "more than ", "less than": "less than ", "fewer than": "less than ",
}  # fmt: skip
_NAME_WORD = r"(?:[A-ZÀ-ÖØ-Þ][\w’'-]*[a-zß-ÿ][\w’'-]*|[A-Z]{2,4})"
_PERSON = rf"(?:(?:Dr|Mr|Mrs|Ms|Capt|Prof|Sir|Dame)\.? )?{_NAME_WORD}(?: (?:(?:de|van|von|der) )?{_NAME_WORD}){{1,3}}"
_ROLES = (
    "manager officer engineer master controller director purser mate chair committee board council mayor minister president "
    "head team secretary treasurer captain owner doctor supplier contractor department office warden chief supervisor editor "
    "administrator coordinator leader dispatcher employer court commission agency ministry government"
).split()
_NO_PERSON = frozenset(
    "port great little house island street bay lake river mount city university act north south east west new old saint "
    "january february march april may june july august september october november december monday tuesday wednesday "
    "thursday friday saturday sunday part section room war battle union empire kingdom park bridge church".split()
)

_NO_SYMBOL = frozenset(
    "s sec secs min mins h hr hrs t second seconds minute minutes hour hours day days week weeks month months "
    "year years € $ £ euro euros dollar dollars pound pounds cent cents eur usd gbp".split()
)
_UNIT_AFTER = (
    "(?:"
    + "|".join(
        sorted(
            map(re.escape, [*(set(UNITS) - _NO_SYMBOL), "per cent", "kW", "MW", "GB", "MB", "V", "W"]),
            key=len,
            reverse=True,
        )
    )
    + r"|[A-Z]bit/s|km/h)(?![\w/])(?: per [a-z]+)?"
)

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


def proposals(sentence: Plain, inside: Voice) -> Iterator[Proposal]:
    """All that the rules find in one sentence, surest first."""
    yield from _there_are(sentence)
    found = clause(sentence)
    if found is None:
        return
    for rule in (
        _counted_subject,
        _direct,
        _measured,
        _prepositional,
        _by_whom,
        _named,
        _identified,
        _defined,
        _placed,
        _who,
    ):
        yield from rule(found, inside)


def _ask(wh: str, c: Clause, inside: Voice, *parts: str) -> str:
    """`wh` auxiliary subject base parts?"""
    subject = inside(c.subject_text)
    return _question(wh, c.auxiliary, subject, c.base, *parts, c.fronted)


def _question(*parts: str) -> str:
    text = re.sub(r"[\s.,;]+$|(?<=\s)[.,;]+(?=\s|$)", " ", " ".join(part for part in parts if part))
    text = " ".join(text.split())
    return text[:1].upper() + text[1:] + "?"


def _at(c: Clause, start: int, end: int, question: str, *also: str, tags: tuple[str, ...] = ()) -> Proposal:
    """The answer is `rest[start:end]`."""
    first, last = c.plain.span(c.rest[0] + start, c.rest[0] + end)
    return Proposal(question, first, last, also, tags)


# --- numbers of things --------------------------------------------------------------------------------------------------

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


_LEAD_VERB = r"^(?P<lead>(?:(?:be|been|have|also|now|then|always|usually|only) )*(?:[a-z]+ )?)"
_COUNT = re.compile(rf"{_LEAD_VERB}{_QUALIFIER}(?P<number>{_NUMBER}) (?=[^\W\d])")


def _direct(c: Clause, inside: Voice) -> Iterator[Proposal]:
    """`has 28 days of leave`, `may take at most 12 days`, `takes 95 seconds`: what stands right after the verb."""
    match = _COUNT.match(c.rest_text)
    if not match or not _verb_lead(c, match["lead"]):
        return
    after = c.rest_text[match.end() :]
    noun, bound = _noun_phrase(after), _BOUNDS.get(match["bound"] or "", "")
    if not noun or re.match(r"(?:half|thirds?|quarters?)\b", noun):
        return
    lead, tail = match["lead"].strip(), after[len(noun) :].strip().removesuffix("each")
    number = match.span("number")
    if re.match(r"(?:euros?|dollars?|pounds?|cents?)\b", noun) or re.match(
        r"(?:before|after|ahead|in advance|later)\b", tail
    ):
        return
    unit = re.match(rf"{_TIME_UNIT}", noun)
    if unit and " of " not in noun and (c.base or lead) in ("take", "last", "require"):
        end = match.start("number") + len(match["number"]) + 1 + len(noun)
        question = _ask(f"{bound}how long", c, inside, lead, tail)
        also = (match["number"],) if len(noun.split()) == 1 else ()
        yield _at(c, number[0], end, question, *also, tags=("number",))
    elif c.base or c.auxiliary in MODALS:
        head = noun.split(" of ")[0]
        question = _ask(f"{bound}how many {noun}", c, inside, lead, tail)
        yield _at(c, *number, question, f"{match['number']} {head}", tags=("number",))


def _verb_lead(c: Clause, lead: str) -> bool:
    """Whether only the verb stands before the value: nothing, or after `may` the infinitive."""
    words = lead.split()
    if c.base or c.auxiliary not in MODALS:
        return not words
    return len(words) == 1 and words[0] not in PREPOSITIONS and words[0] not in ("be", "not")


_SUBJECT_COUNT = re.compile(rf"{_QUALIFIER}(?P<number>{_NUMBER}) (?=[^\W\d])", re.IGNORECASE)


def _counted_subject(c: Clause, inside: Voice) -> Iterator[Proposal]:
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
    bound = _BOUNDS.get((match["bound"] or "").lower(), "")
    question = _question(f"{bound}how many", said, c.fronted)
    yield Proposal(question, first, last, (f"{match['number']} {noun.split(' of ')[0]}",), ("number",))


_MONTH_START = re.compile(_MONTH)
_THERE = re.compile(
    rf"(?:(?P<front>[A-Z][^,;]{{1,40}}?),? t|T)here (?P<verb>are|were) {_QUALIFIER}(?P<number>{_NUMBER}) (?=[^\W\d])"
)


def _there_are(sentence: Plain) -> Iterator[Proposal]:
    match = _THERE.match(sentence.text)
    if not match:
        return
    after = re.split(r"[,;:(]| and | which | who | because ", sentence.text[match.end() :])[0]
    noun = _noun_phrase(after)
    if noun:
        front = (match["front"] or "")[:1].lower() + (match["front"] or "")[1:]
        bound = _BOUNDS.get(match["bound"] or "", "")
        question = _question(f"{bound}how many {noun} {match['verb']} there", after[len(noun) :], front)
        yield Proposal(
            question,
            *sentence.span(*match.span("number")),
            (f"{match['number']} {noun.split(' of ')[0]}",),
            ("number",),
        )


# --- amounts and measures -----------------------------------------------------------------------------------------------

_MEASURE = rf"{_NUMBER} ?{_UNIT_AFTER}"
_AMOUNT = re.compile(rf"{_LEAD_VERB}{_QUALIFIER}(?P<value>{_MONEY}|{_MEASURE})(?P<tail>.*)$")


def _measured(c: Clause, inside: Voice) -> Iterator[Proposal]:
    """`costs €3.50`, `is 38 cents per kilometre`, `must be at least 20.8 per cent`."""
    match = _AMOUNT.match(c.rest_text)
    if not match:
        return
    words, tail, bound = match["lead"].split(), match["tail"].strip(), _BOUNDS.get(match["bound"] or "", "")
    money = re.match(_MONEY, match["value"]) is not None
    is_be = (not c.base and c.auxiliary in ("is", "are", "was", "were") and not words) or words == ["be"]
    if is_be and re.match(r"(?:(?:on|for|in|from) |$)", tail):
        named = re.search(r"\b(?:price|rate|fee|limit|cost|allowance|margin|fare|budget|grant)\b", c.subject_text)
        wh = f"{bound}how much" if bound or (money and not named) else "what"
        question = _ask(wh, c, inside, *words, tail)
    elif money and (_verb_lead(c, match["lead"]) and (c.base or words)):
        if re.match(r"(?:of|less|more|plus)\b", tail):
            return
        question = _ask(f"{bound}how much", c, inside, *words, tail)
    else:
        return
    yield _at(c, *match.span("value"), question, *_bare(match["value"]), tags=("number",))


def _bare(value: str) -> tuple[str, ...]:
    """The value without its rate."""
    short = re.sub(rf"{_PER[:-1]}$", "", value)
    return (short,) if short and short != value else ()


# --- when, how long, how often, which -------------------------------------------------------------------------------------


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
_ID = r"[A-Z]{0,4}-?\d[\w-]*(?<!-)|[A-Z]{1,4}-[A-Z0-9-]+|[A-Z]"
_ORDINAL = "first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth"
_KINDS = (
    _Kind(
        re.compile(rf"\b(?:from|between) (?P<value>{_CLOCK} (?:to|and|until) {_CLOCK})"),
        lambda m: "during which hours",
        "time",
    ),
    _Kind(
        re.compile(rf"\b(?P<prep>at|by|before|after|from) (?P<value>{_CLOCK})(?! to| until)"),
        lambda m: _CLOCK_WH[m["prep"]],
        "time",
    ),
    _Kind(
        re.compile(rf"\b(?P<prep>on|by|from|until|to|before|after|since) (?P<value>{_DATE})(?! and)"),
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
        re.compile(rf"\b(?P<prep>in|for) (?P<value>{_MONTH} \d{{4}})(?!\w)"),
        lambda m: f"{m['prep']} which month and year",
        "date",
    ),
    _Kind(
        re.compile(rf"\bin (?P<value>{_MONTH})(?![\w ]*\d{{4}})(?! (?:and|or)\b)"), lambda m: "in which month", "date"
    ),
    _Kind(
        re.compile(r"\b(?P<prep>in|since) (?P<value>1[0-9]\d\d|20\d\d)(?![\w/-])"),
        lambda m: f"{m['prep']} which year",
        "date",
    ),
    _Kind(
        re.compile(
            rf"\b{_QUALIFIER}(?P<value>{_DURATION}) (?P<side>before|after) (?P<of>(?!that\b|it\b|this\b)[^,;]+?)(?= and |$)"
        ),
        lambda m: f"{_BOUNDS.get(m['bound'] or '', '')}how long {m['side']} {m['of']}",
        "number",
    ),
    _Kind(
        re.compile(rf"\b{_QUALIFIER}(?P<value>{_DURATION}) (?:ahead|in advance|beforehand)\b"),
        lambda m: f"{_BOUNDS.get(m['bound'] or '', '')}how long in advance",
        "number",
    ),
    _Kind(
        re.compile(rf"\b(?:for|lasts?) {_QUALIFIER}(?P<value>{_DURATION})(?! (?:of|after|before)\b)(?=\s|$)"),
        lambda m: f"for {_BOUNDS.get(m['bound'] or '', '')}how long",
        "number",
    ),
    _Kind(
        re.compile(rf"\bwithin {_QUALIFIER}(?P<value>{_DURATION})(?P<of> of (?:the |a |an )?[\w -]+)?"),
        lambda m: f"within what time{m['of'] or ''}",
        "number",
    ),
    _Kind(
        re.compile(
            rf"(?P<value>\bevery (?:{_NUMBER} )?(?:second |other )?(?:minutes?|hours?|days?|weeks?|months?|years?|[A-Z][a-z]+day)\b(?! of)"
            rf"|\b(?:once|twice|(?:{_NUMBER}) times) (?:a|per|each|every) (?:day|week|month|quarter|year)\b)"
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
            rf"\b(?P<prep>at|above|below|by|to|under) {_QUALIFIER}(?P<value>(?P<amount>{_NUMBER}) ?(?P<unit>{_UNIT_AFTER}))"
            rf"(?! (?:to|and|or) \d)"
        ),
        lambda m: f"{m['prep']} {_BOUNDS.get(m['bound'] or '', '')}how many {m['unit']}",
        "number",
    ),
    _Kind(
        re.compile(
            rf"\b(?P<prep>on|in|at|from|under|with|to|by|behind|near|through) (?P<noun>(?!the\b)[a-z][a-z-]{{2,}}) "
            rf"(?P<value>{_ID})(?![\w:/]|[.,]\d| (?:to|and|or) [\dA-Z])(?P<of> of the [A-Z]\w+(?: [A-Z]\w+)*)?"
        ),
        lambda m: f"{m['prep']} which {m['noun']}{m['of'] or ''}",
        "identifier",
    ),
)
_NO_NUMBERED = (
    PREPOSITIONS
    | DETERMINERS
    | NUMBER_WORDS
    | frozenset(
        "that about least most only nearly almost around spring summer autumn winter early late mid just".split()
    )
)


def _prepositional(c: Clause, inside: Voice) -> Iterator[Proposal]:
    rest = c.rest_text
    for kind in _KINDS:
        for match in kind.pattern.finditer(rest):
            groups = match.groupdict()
            if groups.get("noun") in _NO_NUMBERED or not _asks_of_verb(c, rest[: match.start()]):
                continue
            before, tail = rest[: match.start()].rstrip(), rest[match.end() :]
            if kind.tag == "date":
                before = re.sub(rf" ?\bfrom (?:{_DATE}|{_MONTH}(?: \d{{4}})?)$", "", before)
                tail = re.sub(rf"^ (?:to|until) (?:{_DATE}|{_MONTH}(?: \d{{4}})?)", "", tail)
            if (before.split() or [""])[-1] in PREPOSITIONS or re.match(r" of\b", tail) or " and " in before:
                continue
            if kind.tag == "time" and tail.startswith((" to ", " until ")):
                continue
            question = _ask(kind.wh(match), c, inside, before, tail)
            also = (f"{groups['noun']} {match['value']}",) if groups.get("noun") else ()
            yield _at(c, *match.span("value"), question, *also, tags=(kind.tag,))


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


# --- who, what, where -----------------------------------------------------------------------------------------------------

_BY = re.compile(
    rf"^(?P<lead>(?:be |been |\w+ly )?(?P<verb>[a-z]+)(?:(?! by | and ) [^ ,;]+){{0,10}}) by (?P<value>(?:(?:the|our|your|an?) )?"
    rf"(?:{_PERSON}|(?:[a-z-]+ ){{0,3}}(?:{'|'.join(_ROLES)})(?: of the [a-z]+)?))(?= |$)(?P<tail>.*)$"
)


def _by_whom(c: Clause, inside: Voice) -> Iterator[Proposal]:
    match = _BY.match(c.rest_text)
    if match and not c.base and participle(match["verb"]) and not _no_person(match["value"]):
        question = _ask("by whom", c, inside, match["lead"], match["tail"].partition(" and ")[0])
        yield _at(c, *match.span("value"), question, *_without_article(match["value"]), tags=("person",))


_IS_NAME = re.compile(rf"^(?P<value>{_PERSON}(?: (?:AS|Ltd|Inc|GmbH|plc)\b)?)(?P<tail>.*)$")


def _named(c: Clause, inside: Voice) -> Iterator[Proposal]:
    """`The supplier is Østlund Bunker AS of Haugmoen.`, `The largest of them is called Vega.`"""
    called = re.match(
        rf"^(?P<lead>called|named|nicknamed) (?P<value>(?:the )?{_NAME_WORD}(?: {_NAME_WORD}){{0,3}})$", c.rest_text
    )
    if called and not c.base and c.auxiliary in ("is", "are", "was", "were"):
        yield _at(c, *called.span("value"), _ask("what", c, inside, called["lead"]), tags=("name",))
    match = _IS_NAME.match(c.rest_text)
    if not match or c.base or c.auxiliary not in ("is", "was") or _no_person(match["value"]):
        return
    first = c.subject_text.split()[0].lower()
    if first in ("the", "our", "your", "its", "his", "her") and not re.match(r" (?!of |at |in )\w", match["tail"]):
        question = _question("what", c.auxiliary, "the name of", inside(c.subject_text), c.fronted)
        yield _at(c, *match.span("value"), question, tags=("name",))


def _no_person(name: str) -> bool:
    return any(word.lower().strip(".") in _NO_PERSON for word in name.split()) and not name[:1].islower()


def _without_article(phrase: str) -> tuple[str, ...]:
    short = re.sub(r"^(?:the|an?|our|your) ", "", phrase, flags=re.IGNORECASE)
    return (short,) if short != phrase else ()


_WHICH = re.compile(
    rf"{_LEAD_VERB}(?:the )?(?P<noun>(?!the\b|be\b)[a-z][a-z-]{{2,}}) (?P<value>\d+\.\d[\d.]*\d|{_ID})(?P<tail> (?!to |and )[^,;]*)?$"
)


def _identified(c: Clause, inside: Voice) -> Iterator[Proposal]:
    """`Our customer number is 770-41286.`, `All access points must run firmware 7.3.2.`"""
    match = re.match(r"^(?P<value>[A-Z#]{0,4}[-#]?\d[\dA-Z]*(?:-[\dA-Z]+)*)$", c.rest_text)
    if match and not c.base and c.auxiliary in ("is", "was") and len(match["value"]) > 2:
        yield _at(c, *match.span("value"), _ask("what", c, inside), tags=("identifier",))
    match = _WHICH.match(c.rest_text)
    if match and match["noun"] not in _NO_NUMBERED and _verb_lead(c, match["lead"]) and (c.base or match["lead"]):
        question = _ask(f"which {match['noun']}", c, inside, match["lead"], match["tail"] or "")
        yield _at(c, *match.span("value"), question, f"{match['noun']} {match['value']}", tags=("identifier",))


def _defined(c: Clause, inside: Voice) -> Iterator[Proposal]:
    """`A fadder is a colleague from another department who answers all the questions.`"""
    words = c.subject_text.split()
    if c.base or c.auxiliary not in ("is", "are", "was", "were") or len(words) > 4 or c.fronted:
        return
    first = words[0].lower()
    definite = first in ("the", "our", "your", "all", "each", "every", "some", "most")
    match = re.match(r"(?:an?|our|the name of|the process of|the study of) [a-z-]+", c.rest_text)
    if definite or not match or not (first in ("a", "an") or words[-1][:1].isupper() or len(words) == 1):
        return
    text = c.plain.text
    stop = re.compile(r"[;:(]|, (?!and |or )|\.$|\.(?= )").search(text, c.rest[0])
    end = stop.start() if stop else len(text)
    if 3 <= len(text[c.rest[0] : end].split()) <= 24:
        first_at, last_at = c.plain.span(c.rest[0], end)
        question = _question("what", c.auxiliary, inside(c.subject_text))
        yield Proposal(question, first_at, last_at, _without_article(text[c.rest[0] : end]), ("definition",))


_PLACE = re.compile(
    r"^(?P<lead>(?:be |usually |always |now )?(?:kept|held|stored|located|situated|built|born|based|buried|found|parked|served|"
    r"made|place|sold|hung|placed)?) ?(?P<value>(?:in|at|behind|beside|under|near|on board) (?:the|our|an?|[A-Z])[^,;:()]*)$"
)
_PLACE_BASES = frozenset("lie stand hang live take".split())
_NO_PLACE = re.compile(
    r"\b(?:in|at) (?:the (?:end|beginning|start|case|event|first|last|next|future|past|same|morning|afternoon|evening|night|price|\w*teen\w*|"
    rf"early|late|\d|spring|summer|autumn|winter|\w+ century)|a (?:year|week|day|row|price)|{_MONTH}|{_NUMBER})\b"
)


def _placed(c: Clause, inside: Voice) -> Iterator[Proposal]:
    """`The small snow plough lives in the freight shed.`"""
    match = _PLACE.match(c.rest_text)
    if (
        not match
        or _NO_PLACE.search(match["value"])
        or match["lead"].strip() == "be"
        or len(match["value"].split()) > 9
    ):
        return
    lead = match["lead"].strip()
    passive = not c.base and c.auxiliary in ("is", "are", "was", "were", "must", "will") and lead not in ("", "place")
    if passive or (c.base in _PLACE_BASES and (lead == "place") == (c.base == "take")):
        yield _at(c, *match.span("value"), _ask("where", c, inside, lead), tags=("place",))


_ACTS = frozenset(
    "approve sign lead command decide write report order issue check inform organize organise manage operate invoice answer "
    "build found invent discover design win release direct publish establish create record introduce offer grant require "
    "replace conquer defeat write teach play study produce launch capture".split()
)


def _who(c: Clause, inside: Voice) -> Iterator[Proposal]:
    """`Your line manager approves claims up to €750.`"""
    if c.base not in _ACTS or not c.rest_text or re.match(r"(?:that|how|whether)\b", c.rest_text):
        return
    subject = c.subject_text
    role = re.fullmatch(rf"(?:The|Our|Your|A|An) (?:[a-z-]+ ){{0,3}}(?:{'|'.join(_ROLES)})(?: of the [a-z]+)?", subject)
    person = re.fullmatch(_PERSON, subject) and not _no_person(subject)
    listed = c.plain.text[c.rest[1] :].lstrip().startswith(",")  # names, times and pressures
    if not (role or person) or len(c.rest_text.split()) < 2 or listed:
        return
    verb = c.plain.text[c.subject[1] : c.rest[0]].strip()
    question = _question("who", verb, c.rest_text, c.fronted)
    yield Proposal(question, *c.plain.span(*c.subject), _without_article(subject), ("person",))
