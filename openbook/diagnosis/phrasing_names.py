"""Questions for who, what and where."""

from __future__ import annotations

import re
from collections.abc import Iterator

from openbook.diagnosis.clauses import Clause, participle
from openbook.diagnosis.english_patterns import (
    ID,
    LEAD_VERB,
    MONTH,
    NAME_WORD,
    NO_NUMBERED,
    NO_PERSON,
    NUMBER,
    PERSON,
    ROLES,
)
from openbook.diagnosis.proposing import Proposal, Voice, ask, at, question_of, verb_lead

_BY = re.compile(
    rf"^(?P<lead>(?:be |been |\w+ly )?(?P<verb>[a-z]+)(?:(?! by | and ) [^ ,;]+){{0,10}}) by (?P<value>(?:(?:the|our|your|an?) )?"
    rf"(?:{PERSON}|(?:[a-z-]+ ){{0,3}}(?:{'|'.join(ROLES)})(?: of the [a-z]+)?))(?= |$)(?P<tail>.*)$"
)


def by_whom(c: Clause, inside: Voice) -> Iterator[Proposal]:
    match = _BY.match(c.rest_text)
    if match and not c.base and participle(match["verb"]) and not _no_person(match["value"]):
        question = ask("by whom", c, inside, match["lead"], match["tail"].partition(" and ")[0])
        yield at(c, *match.span("value"), question, *_without_article(match["value"]), tags=("person",))


_IS_NAME = re.compile(rf"^(?P<value>{PERSON}(?: (?:AS|Ltd|Inc|GmbH|plc)\b)?)(?P<tail>.*)$")


def named(c: Clause, inside: Voice) -> Iterator[Proposal]:
    """`The supplier is Østlund Bunker AS of Haugmoen.`, `The largest of them is called Vega.`"""
    called = re.match(
        rf"^(?P<lead>called|named|nicknamed) (?P<value>(?:the )?{NAME_WORD}(?: {NAME_WORD}){{0,3}})$", c.rest_text
    )
    if called and not c.base and c.auxiliary in ("is", "are", "was", "were"):
        yield at(c, *called.span("value"), ask("what", c, inside, called["lead"]), tags=("name",))
    match = _IS_NAME.match(c.rest_text)
    if not match or c.base or c.auxiliary not in ("is", "was") or _no_person(match["value"]):
        return
    first = c.subject_text.split()[0].lower()
    if first in ("the", "our", "your", "its", "his", "her") and not re.match(r" (?!of |at |in )\w", match["tail"]):
        question = question_of("what", c.auxiliary, "the name of", inside(c.subject_text), c.fronted)
        yield at(c, *match.span("value"), question, tags=("name",))


def _no_person(name: str) -> bool:
    return any(word.lower().strip(".") in NO_PERSON for word in name.split()) and not name[:1].islower()


def _without_article(phrase: str) -> tuple[str, ...]:
    short = re.sub(r"^(?:the|an?|our|your) ", "", phrase, flags=re.IGNORECASE)
    return (short,) if short != phrase else ()


_WHICH = re.compile(
    rf"{LEAD_VERB}(?:the )?(?P<noun>(?!the\b|be\b)[a-z][a-z-]{{2,}}) (?P<value>\d+\.\d[\d.]*\d|{ID})(?P<tail> (?!to |and )[^,;]*)?$"
)


def identified(c: Clause, inside: Voice) -> Iterator[Proposal]:
    """`Our customer number is 770-41286.`, `All access points must run firmware 7.3.2.`"""
    match = re.match(r"^(?P<value>[A-Z#]{0,4}[-#]?\d[\dA-Z]*(?:-[\dA-Z]+)*)$", c.rest_text)
    if match and not c.base and c.auxiliary in ("is", "was") and len(match["value"]) > 2:
        yield at(c, *match.span("value"), ask("what", c, inside), tags=("identifier",))
    match = _WHICH.match(c.rest_text)
    if match and match["noun"] not in NO_NUMBERED and verb_lead(c, match["lead"]) and (c.base or match["lead"]):
        question = ask(f"which {match['noun']}", c, inside, match["lead"], match["tail"] or "")
        yield at(c, *match.span("value"), question, f"{match['noun']} {match['value']}", tags=("identifier",))


def defined(c: Clause, inside: Voice) -> Iterator[Proposal]:
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
        question = question_of("what", c.auxiliary, inside(c.subject_text))
        yield Proposal(question, first_at, last_at, _without_article(text[c.rest[0] : end]), ("definition",))


_PLACE = re.compile(
    r"^(?P<lead>(?:be |usually |always |now )?(?:kept|held|stored|located|situated|built|born|based|buried|found|parked|served|"
    r"made|place|sold|hung|placed)?) ?(?P<value>(?:in|at|behind|beside|under|near|on board) (?:the|our|an?|[A-Z])[^,;:()]*)$"
)
_PLACE_BASES = frozenset("lie stand hang live take".split())
_NO_PLACE = re.compile(
    r"\b(?:in|at) (?:the (?:end|beginning|start|case|event|first|last|next|future|past|same|morning|afternoon|evening|night|price|\w*teen\w*|"
    rf"early|late|\d|spring|summer|autumn|winter|\w+ century)|a (?:year|week|day|row|price)|{MONTH}|{NUMBER})\b"
)


def placed(c: Clause, inside: Voice) -> Iterator[Proposal]:
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
        yield at(c, *match.span("value"), ask("where", c, inside, lead), tags=("place",))


_ACTS = frozenset(
    "approve sign lead command decide write report order issue check inform organize organise manage operate invoice answer "
    "build found invent discover design win release direct publish establish create record introduce offer grant require "
    "replace conquer defeat write teach play study produce launch capture".split()
)


def who(c: Clause, inside: Voice) -> Iterator[Proposal]:
    """`Your line manager approves claims up to €750.`"""
    if c.base not in _ACTS or not c.rest_text or re.match(r"(?:that|how|whether)\b", c.rest_text):
        return
    subject = c.subject_text
    role = re.fullmatch(rf"(?:The|Our|Your|A|An) (?:[a-z-]+ ){{0,3}}(?:{'|'.join(ROLES)})(?: of the [a-z]+)?", subject)
    person = re.fullmatch(PERSON, subject) and not _no_person(subject)
    listed = c.plain.text[c.rest[1] :].lstrip().startswith(",")  # names, times and pressures
    if not (role or person) or len(c.rest_text.split()) < 2 or listed:
        return
    verb = c.plain.text[c.subject[1] : c.rest[0]].strip()
    question = question_of("who", verb, c.rest_text, c.fronted)
    yield Proposal(question, *c.plain.span(*c.subject), _without_article(subject), ("person",))
