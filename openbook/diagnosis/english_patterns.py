"""What numbers, amounts, dates, times, people and places look like in English statements: parts of regular expressions."""

from __future__ import annotations

import re

from openbook.diagnosis.clauses import DETERMINERS, PREPOSITIONS
from openbook.knowledge.values import MONTHS, NUMBER_WORDS, UNITS, WEEKDAYS

_WORDS = "|".join(sorted(NUMBER_WORDS - {"zero", "one"}, key=len, reverse=True))
NUMBER = (
    r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|"
    rf"(?:a |one )?\b(?:{_WORDS})\b(?:[- ](?:and )?(?:{_WORDS}|one)\b)*)(?![\w/:-]|[.,]\d)(?: (?:million|billion)\b)?"
)
TIME_UNIT = (
    r"(?:working |calendar |full |consecutive )?(?:seconds?|minutes?|hours?|days?|weeks?|months?|years?|nights?)\b"
)
DURATION = rf"(?:an?|one|{NUMBER}) (?:and a half )?{TIME_UNIT}(?:(?: and)? {NUMBER} {TIME_UNIT})?"
PER = r"(?: (?:per|a|an|for each|for every) (?!price\b|total\b|rate\b)[a-z]+)?"
MONEY = rf"(?:[€$£] ?\d[\d.,]*\d(?: (?:million|billion)\b)?|[€$£] ?\d|{NUMBER} (?:euros?|dollars?|pounds?|cents?)\b)(?![\w/]){PER}"
MONTH = "(?:" + "|".join(month.capitalize() for month in MONTHS) + ")"
_DAY = (
    rf"(?:\d{{1,2}}(?:st|nd|rd|th)? {MONTH}(?:,? \d{{4}})?|{MONTH} \d{{1,2}}(?:st|nd|rd|th)?(?:,? \d{{4}})?)(?![\w:])"
)
DATE = rf"(?:(?:the )?(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day,? )?{_DAY}"
CLOCK = rf"(?:\d{{1,2}}:\d{{2}}(?: ?[ap]\.?m\b\.?)?|\d{{1,2}} ?[ap]\.?m\b\.?|(?:{_WORDS}|one) o.clock|noon|midnight)(?![\w:])"
QUALIFIER = (
    r"(?:(?P<bound>no later than|at least|at most|at the most|no more than|not more than|no longer than|no less than|no fewer than|up to|"
    r"more than|less than|fewer than|over) |(?:about|around|some|roughly|nearly|almost|only|just|exactly|approximately|another|"
    r"(?:a )?further|in total) )*"
)
BOUNDS = {
    "no later than": "at least ", "at least": "at least ", "no less than": "at least ", "no fewer than": "at least ", "at most": "at most ",
    "at the most": "at most ", "no more than": "at most ", "not more than": "at most ", "no longer than": "at most ",
    "up to": "at most ", "more than": "more than ", "over": "more than ", "less than": "less than ", "fewer than": "less than ",
}  # fmt: skip
NAME_WORD = r"(?:[A-ZÀ-ÖØ-Þ][\w’'-]*[a-zß-ÿ][\w’'-]*|[A-Z]{2,4})"
PERSON = rf"(?:(?:Dr|Mr|Mrs|Ms|Capt|Prof|Sir|Dame)\.? )?{NAME_WORD}(?: (?:(?:de|van|von|der) )?{NAME_WORD}){{1,3}}"
ROLES = (
    "manager officer engineer master controller director purser mate chair committee board council mayor minister president "
    "head team secretary treasurer captain owner doctor supplier contractor department office warden chief supervisor editor "
    "administrator coordinator leader dispatcher employer court commission agency ministry government"
).split()
NO_PERSON = (
    frozenset(MONTHS)
    | frozenset(WEEKDAYS)
    | frozenset(
        "port great little house island street bay lake river mount city university act north south east west new old saint "
        "part section room war battle union empire kingdom park bridge church".split()
    )
)

_NO_SYMBOL = frozenset(
    "s sec secs min mins h hr hrs t second seconds minute minutes hour hours day days week weeks month months "
    "year years € $ £ euro euros dollar dollars pound pounds cent cents eur usd gbp".split()
)
UNIT_AFTER = (
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

LEAD_VERB = r"^(?P<lead>(?:(?:be|been|have|also|now|then|always|usually|only) )*(?:[a-z]+ )?)"
ID = r"[A-Z]{0,4}-?\d[\w-]*(?<!-)|[A-Z]{1,4}-[A-Z0-9-]+|[A-Z]"
NO_NUMBERED = (
    PREPOSITIONS
    | DETERMINERS
    | NUMBER_WORDS
    | frozenset(
        "that about least most only nearly almost around spring summer autumn winter early late mid just".split()
    )
)
