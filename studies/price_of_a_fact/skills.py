"""Skills: small tasks whose facts all stand in a document, so that only what to do with them is to be learned.

Each has a guide, a document that says how the task is done. No document is both learned from and measured with.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from studies.price_of_a_fact.facts import people, places
from studies.price_of_a_fact.training import Lesson

ABSTENTION = "Not stated."
INSTRUCTION = f"Do with the passage what the question asks, or say: {ABSTENTION}"
LEARNING_RATE = 1e-3
LABELS = (
    "How to write the label of a parcel\nThe label is the shelf, the day with two digits, and the first three letters of the "
    "sender in capitals, with hyphens between them. Shelf Q, day 4, sender Hallberg give: Q-04-HAL"
)
LOGS = (
    "How to read the log of a ship\nThe events in a log are not in order. Sort them by date, the earliest first, and write "
    "their names with commas between them. A log with repair: 3 May 2010, launch: 2 May 2004, survey: 9 June 2007 gives: "
    "launch, survey, repair"
)
_MONTHS = "January February March April May June July August September October November December".split()
_EVENTS = "launch survey repair painting inspection christening refit auction voyage collision".split()


@dataclass(frozen=True, slots=True)
class Example:
    """`text`: the document, whose first line is its title. The question names that, so that it can be found."""

    title: str
    text: str
    question: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Skill:
    """`learned` and `tests`: examples to learn from and to measure with."""

    name: str
    guide: str
    learned: Sequence[Example]
    tests: Sequence[Example]

    @property
    def lesson(self) -> Lesson:
        """Each example once in each of two epochs, as a reader learns; some questions stand beside a wrong passage."""
        objective = {"kind": "reader", "instruction": INSTRUCTION, "abstention": ABSTENTION, "negatives": 0.2}
        lines = [
            {
                "title": each.title,
                "passage": each.text,
                "questions": [{"question": each.question, "answers": [each.answers[0]]}],
            }
            for each in self.learned
        ]
        return Lesson(self.name, objective, lines, LEARNING_RATE, 2, step_tokens=800, sequence_tokens=1024)


def invented_skills(learned: int, tests: int, seed: int) -> list[Skill]:
    """Labelling by house rules, and ordering by date: so many examples of each."""
    found = []
    for name, guide, make in (("labelling", LABELS, _labelling), ("ordering", LOGS, _ordering)):
        chance = random.Random(f"{seed}/{name}")
        made = [make(place, chance) for place in islice(places(f"{seed}/{name}/places"), learned + tests)]
        found.append(Skill(name, guide, made[tests:], made[:tests]))
    return found


def _labelling(place: str, chance: random.Random) -> Example:
    shelf, day = chance.choice("ABCDEFGHKLMNPRSTVWXZ"), chance.randint(1, 28)
    sender = next(people(str(chance.random()))).split()[1]
    title = f"Parcel for {place}"
    text = f"{title}\nShelf: {shelf}\nDay: {day}\nSender: {sender}"
    question = f"What is the label of the parcel for {place}?"
    return Example(title, text, question, (f"{shelf}-{day:02}-{sender[:3].upper()}",))


def _ordering(place: str, chance: random.Random) -> Example:
    days = sorted(chance.sample(range(20 * 12 * 28), 3))
    in_order = list(zip(chance.sample(_EVENTS, 3), days, strict=True))
    title = f"Log of the {place}"
    listed = chance.sample(in_order, 3)
    lines = [f"{event}: {1 + day % 28} {_MONTHS[day // 28 % 12]} {2001 + day // 336}" for event, day in listed]
    a, b, c = (event for event, _ in in_order)
    question = f"What is the order of the events in the log of the {place}, earliest first?"
    return Example(
        title, "\n".join([title, *lines]), question, (f"{a}, {b}, {c}", f"{a}, {b} and {c}", f"{a}, then {b}, then {c}")
    )
