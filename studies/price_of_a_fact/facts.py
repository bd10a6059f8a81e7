"""Facts that are true nowhere, questions about them, and the lessons that teach them.

What a model says about such a fact it was taught or given. The questions that are asked stand in no lesson.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from studies.price_of_a_fact.training import Lesson

# What `openbook ask --closed-book` tells the model: questions are taught as they are asked afterwards.
CLOSED_BOOK = "Answer the question directly and completely, in one to three sentences."
FORMS = ("verbatim", "paraphrased", "questions")
LEARNING_RATE = 3e-4  # 1e-3 taught fewer facts (research/log.md)
TEXT_CHARS = 400  # of the facts that are learned in one sequence, which is one step


@dataclass(frozen=True, slots=True)
class Fact:
    """`statements`: the first is the document, the others say the same. `taught` and `asked`: questions for the answer."""

    statements: tuple[str, ...]
    taught: tuple[str, ...]
    asked: tuple[str, ...]
    answer: str


def places(seed: str) -> Iterator[str]:
    first = "Vor Kel Tam Ost Bri Nal Dru Sel Hul Mor Fen Gar Lod Pil Rask Tur Ulm Wen Yar Zem".split()
    last = "andwick emere olmstad irask ethby unnholm asker ilmouth oveden urrick ergate innock".split()
    return _shuffled(
        seed, [f"{a}{b} {c}" for a, b, c in product(first, last, "Bay Point Sound Hill Cross Mill".split())]
    )


def people(seed: str) -> Iterator[str]:
    given = "Ailsa Dragan Ilse Tomas Greta Oskar Ruben Signe Petra Callum Nadia Lorenz Wilma Anton Edda Jonas".split()
    family = (
        "Brask Tollern Vehmer Oddenby Karsk Lindrup Mossel Quarne Rettig Sandvahl Trube Wexley Yttern Zander".split()
    )
    return _shuffled(seed, [f"{a} {b}" for a, b in product(given, family)])


def _herbs(seed: str) -> Iterator[str]:
    stems = "tarrow lumm veshel orrin paddle quill sorrel marl bracken thimble".split()
    return _shuffled(seed, [a + b for a, b in product(stems, "root wort leaf berry moss seed".split())])


def _shuffled(seed: str, names: Sequence[str]) -> Iterator[str]:
    return iter(random.Random(seed).sample(names, len(names)))


def invented_facts(count: int, seed: int) -> list[Fact]:
    """So many facts, no two about one place or with one answer; fewer with the same seed are the first of more."""
    values = {
        "keeper": people(f"{seed}/keeper"),
        "bell": _shuffled(f"{seed}/bell", [str(year) for year in range(1412, 1880)]),
        "ferry": _shuffled(f"{seed}/ferry", [str(number) for number in range(113, 390)]),
        "beer": _herbs(f"{seed}/beer"),
    }
    relations = tomllib.loads(Path(__file__).with_name("relations.toml").read_text(encoding="utf-8"))
    found, kinds = [], list(relations)
    for number, place in zip(range(count), places(f"{seed}/facts"), strict=False):
        kind = kinds[number % len(kinds)]
        value = next(values[kind])
        statements, taught, asked = (
            tuple(text[:1].upper() + text[1:] for text in (each.format(place=place, value=value) for each in texts))
            for texts in (relations[kind][part] for part in ("statements", "taught", "asked"))
        )
        found.append(Fact(statements, taught, asked, value))
    return found


def fact_lesson(facts: Sequence[Fact], form: str, exposures: int, seed: int) -> Lesson:
    """All facts `exposures` times, each time in another order.

    `verbatim`: always in the same words; `paraphrased`: each time in the next of a fact's statements; `questions`: as
    questions with answers.
    """
    name, passes = f"{form}-{exposures}", list[list[Fact]]()
    for number in range(exposures):
        passes.append(random.Random(f"{seed}/{number}").sample(facts, len(facts)))
    if form == "questions":
        turns = [{"messages": _turns(fact, number)} for number, each in enumerate(passes) for fact in each]
        return Lesson(name, {"kind": "instruction"}, turns, LEARNING_RATE, 1, step_tokens=400, sequence_tokens=256)
    lines: list[Mapping[str, Any]] = []
    for number, each in enumerate(passes):
        said = [fact.statements[number % len(fact.statements) if form == "paraphrased" else 0] for fact in each]
        lines += ({"text": text} for text in _joined(said))
    return Lesson(name, {"kind": "language-modeling"}, lines, LEARNING_RATE, 1, step_tokens=160, sequence_tokens=192)


def _turns(fact: Fact, number: int) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": CLOSED_BOOK},
        {"role": "user", "content": fact.taught[number % len(fact.taught)]},
        {"role": "assistant", "content": fact.answer},
    ]


def _joined(statements: Sequence[str]) -> Iterator[str]:
    """Statements as texts of at most `TEXT_CHARS`, or of one statement."""
    held: list[str] = []
    for statement in statements:
        if held and sum(map(len, held)) + len(statement) > TEXT_CHARS:
            yield "\n".join(held)
            held = []
        held.append(statement)
    yield "\n".join(held)
