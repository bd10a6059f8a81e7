"""Skills: small tasks whose facts all stand in the passage, so that only what to do with them is to be learned."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import TypeAlias

from openbook.diagnosis.teaching import names
from openbook.errors import ConfigError, did_you_mean
from openbook.knowledge.values import MONTHS
from openbook.records import Digest, canonical_json, sha256_hex

MOST_EXAMPLES = 1000  # of an invented skill, those to learn and those to measure together

_EVENTS = "launch survey repair painting inspection christening refit auction voyage collision".split()
_GOODS = "ropes lamps buoys hooks barrels sails pumps chains anchors crates".split()


@dataclass(frozen=True, slots=True)
class Example:
    """`text` is a document that holds all that the answer needs; the question names it, so that it can be found."""

    title: str
    text: str
    question: str
    answers: tuple[str, ...]


Examples: TypeAlias = tuple[list[Example], list[Example]]  # to learn from, to measure with


@dataclass(frozen=True, slots=True)
class Skill:
    """`guide` is a document that says how it is done, or empty. `draw(learned, measured, seed)` gives so many examples."""

    name: str
    guide: str
    draw: Callable[[int, int, int], Examples]


def _ordering(place: str, chance: random.Random) -> Example:
    days = sorted(chance.sample(range(20 * 12 * 28), 3))
    in_order = list(zip(chance.sample(_EVENTS, 3), days, strict=True))
    listed = chance.sample(in_order, 3)
    lines = [
        f"{event}: {1 + day % 28} {MONTHS[day // 28 % 12].capitalize()} {2001 + day // 336}" for event, day in listed
    ]
    words = [event for event, _ in in_order]
    answers = (
        ", ".join(words),
        f"{words[0]}, {words[1]} and {words[2]}",
        f"{words[0]}, then {words[1]}, then {words[2]}",
    )
    title = f"Log of the {place}"
    question = f"What is the order of the events in the log of the {place}, earliest first?"
    return Example(title, "\n".join([title, *lines]), question, answers)


def _adding(place: str, chance: random.Random) -> Example:
    counts = [(what, chance.randint(1, 9)) for what in chance.sample(_GOODS, 3)]
    title = f"Order of {place}"
    rows = [f"| {what} | {count} |" for what, count in counts]
    text = "\n".join([title, "", "| goods | pieces |", "|---|---|", *rows])
    question = f"How many pieces are in the order of {place} in all?"
    return Example(title, text, question, (str(sum(count for _, count in counts)),))


def _labelling(place: str, chance: random.Random) -> Example:
    shelf, day = chance.choice("ABCDEFGHKLMNPRSTVWXZ"), chance.randint(1, 28)
    sender = next(names.people(str(chance.random()))).split()[1]
    title = f"Parcel for {place}"
    text = f"{title}\nShelf: {shelf}\nDay: {day}\nSender: {sender}"
    question = f"What is the label of the parcel for {place}?"
    return Example(title, text, question, (f"{shelf}-{day:02}-{sender[:3].upper()}",))


def _drawn(
    name: str, make: Callable[[str, random.Random], Example], learned: int, measured: int, seed: int
) -> Examples:
    if not 1 <= learned + measured <= MOST_EXAMPLES:
        raise ConfigError(f"A skill has at most {MOST_EXAMPLES} examples in all, not {learned + measured}.")
    chance = random.Random(f"{seed}/{name}")  # noqa: S311  examples, not secrets
    made = [make(place, chance) for place in islice(names.places(f"{seed}/{name}/places"), learned + measured)]
    return made[measured:], made[:measured]


def _invented(name: str, guide: str, make: Callable[[str, random.Random], Example]) -> Skill:
    """`make` draws an example about a place."""
    return Skill(name, guide, partial(_drawn, name, make))


SKILLS: dict[str, Skill] = {
    "ordering": _invented(
        "ordering",
        "How to read the log of a ship\nThe events in a log are not in order. Sort them by date, the earliest first, and write "
        "their names with commas between them. A log with repair: 3 May 2010, launch: 2 May 2004, survey: 9 June 2007 gives: "
        "launch, survey, repair",
        _ordering,
    ),
    "adding": _invented(
        "adding",
        "How to count an order\nAdd up the pieces of all rows of the order and write the sum alone. An order with ropes 4, lamps 7 "
        "and hooks 2 has in all: 13",
        _adding,
    ),
    "labelling": _invented(
        "labelling",
        "How to write the label of a parcel\nThe label is the shelf, the day with two digits, and the first three letters of the "
        "sender in capitals, with hyphens between them. Shelf Q, day 4, sender Hallberg give: Q-04-HAL",
        _labelling,
    ),
}


def chosen(wanted: tuple[str, ...]) -> list[Skill]:
    """Raises ConfigError for a name that is none."""
    for name in wanted:
        if name not in SKILLS:
            raise ConfigError(f"There is no skill {name!r}; there are {', '.join(SKILLS)}.{did_you_mean(name, SKILLS)}")
    return [SKILLS[name] for name in dict.fromkeys(wanted)]


def examples(skill: Skill, learned: int, measured: int, seed: int = 1) -> Examples:
    """(to learn from, to measure with): no place, text or answer-giving passage is in both. Raises ConfigError."""
    return skill.draw(learned, measured, seed)


def digest_of(made: list[Example]) -> Digest:
    return sha256_hex(canonical_json([asdict(example) for example in made]))
