"""What a training run is given: lines to learn from, and the recipe (docs/architecture.md, Training) as text.

An exposure is one pass over all facts, in an order of its own. Facts are learned as texts (`verbatim`: always in the same
words; `paraphrased`: in each pass in the next of their wordings) or as `questions` with their answers, in wordings that
are not asked afterwards.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from openbook.answer import CLOSED_BOOK
from openbook.diagnosis.teaching.facts import Fact
from openbook.diagnosis.teaching.tasks import Example
from openbook.errors import ConfigError, did_you_mean
from openbook.records import Digest

FORMS = ("verbatim", "paraphrased", "questions")
ABSTENTION = "Not stated."
INSTRUCTION = f"Do with the passage what the question asks, or say: {ABSTENTION}"
TEXT_CHARS = 400  # of the facts that are learned in one sequence, which is one step
CHARS_A_TOKEN = 2.7  # of invented names; for estimates only
DENSE_CHARS_A_TOKEN = 2.0  # of tables and figures, so that what is learned fits into a sequence
SEQUENCES = (512, 1024, 2048)  # tokens
LEARNING_RATE = 3e-4  # of facts; 1e-3 taught fewer (docs/log.md)
SKILL_RATE = 1e-3
METHOD = f"LoRA of rank 16 on all matrices, AdamW, learning rate falling linearly from {{:g}} (facts), {SKILL_RATE:g} (skills)"
_TURNS_CHARS = 130  # what the chat template and the instruction add to a question

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Lesson:
    """`objective` and `settings` are parts of the recipe, by their names there."""

    name: str
    lines: tuple[Line, ...]
    objective: Mapping[str, Any]
    settings: Mapping[str, float]

    @property
    def tokens(self) -> int:
        """About how many tokens the run reads."""
        return int(sum(map(_chars, self.lines)) * self.settings["epochs"] / CHARS_A_TOKEN)


def _chars(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_chars, value.values())) + (_TURNS_CHARS if {"question", "messages"} & set(value) else 0)
    return sum(map(_chars, value)) if isinstance(value, list | tuple) else 0


def checked_forms(forms: Sequence[str], facts: Sequence[Fact]) -> tuple[str, ...]:
    """Raises ConfigError for a form that is none, or that the facts do not have."""
    for form in forms:
        if form not in FORMS:
            raise ConfigError(f"There is no form {form!r}; there are {', '.join(FORMS)}.{did_you_mean(form, FORMS)}")
    if "questions" in forms and (bare := [fact.id for fact in facts if not fact.taught]):
        raise ConfigError(
            f"The form questions needs wordings that are taught and not asked, which {bare[0]!r} does not have. "
            "Leave it out: --forms verbatim,paraphrased."
        )
    return tuple(dict.fromkeys(forms))


def fact_lesson(
    facts: Sequence[Fact], form: str, exposures: int, seed: int, learning_rate: float = LEARNING_RATE
) -> Lesson:
    name = f"{form}-{exposures}"
    passes = [_shuffled(facts, f"{seed}/{number}") for number in range(exposures)]
    if form == "questions":
        turns = [_turns(fact, number) for number, each in enumerate(passes) for fact in each]
        settings = {"epochs": 1, "step_tokens": 400, "sequence_tokens": 256, "learning_rate": learning_rate}
        return Lesson(name, tuple({"messages": each} for each in turns), {"kind": "instruction"}, settings)
    texts: list[Line] = []
    for number, each in enumerate(passes):
        said = [
            fact.wordings[number % len(fact.wordings)] if form == "paraphrased" else fact.statements[0] for fact in each
        ]
        texts += ({"text": text} for text in _joined(said))
    settings = {"epochs": 1, "step_tokens": 160, "sequence_tokens": 192, "learning_rate": learning_rate}
    return Lesson(name, tuple(texts), {"kind": "language-modeling"}, settings)


def skill_lesson(name: str, examples: Sequence[Example], epochs: int) -> Lesson:
    lines = tuple(
        {
            "title": each.title,
            "passage": each.text,
            "questions": [{"question": each.question, "answers": [each.answers[0]]}],
        }
        for each in examples
    )
    # A question that is asked of several passages is answered by each: another passage is no place to abstain.
    negatives = 0.2 if len({each.question for each in examples}) == len(examples) else 0.0
    objective = {"kind": "reader", "instruction": INSTRUCTION, "abstention": ABSTENTION, "negatives": negatives}
    longest = max(map(_chars, lines), default=0) / DENSE_CHARS_A_TOKEN
    fits = next((tokens for tokens in SEQUENCES if longest <= tokens), SEQUENCES[-1])
    settings = {"epochs": epochs, "step_tokens": 800, "sequence_tokens": fits, "learning_rate": SKILL_RATE}
    return Lesson(name, lines, objective, settings)


def _shuffled(facts: Sequence[Fact], seed: str) -> list[Fact]:
    order = list(facts)
    random.Random(seed).shuffle(order)  # noqa: S311  an order, not a secret
    return order


def _turns(fact: Fact, number: int) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": CLOSED_BOOK},  # as it is asked afterwards
        {"role": "user", "content": fact.taught[number % len(fact.taught)]},
        {"role": "assistant", "content": fact.answers[0]},
    ]


def _joined(statements: Sequence[str]) -> Iterator[str]:
    """Statements as texts of at most `TEXT_CHARS`, or of one statement."""
    held: list[str] = []
    for statement in statements:
        if held and sum(map(len, held)) + len(statement) > TEXT_CHARS:
            yield "\n".join(held)
            held = []
        held.append(statement)
    if held:
        yield "\n".join(held)


def recipe_text(lesson: Lesson, base: str, digest: Digest, data: PurePath, data_digest: Digest, seed: int) -> str:
    """The recipe as TOML. JSON's strings and numbers are TOML's."""
    tables = {
        "base": {"model": base, "digest": digest},
        "objective": lesson.objective,
        "method": {"kind": "lora", "rank": 16, "alpha": 32},
        "optimiser": {"learning_rate": lesson.settings["learning_rate"], "warmup_steps": 0},
        "loop": {
            "seed": seed,
            "epochs": lesson.settings["epochs"],
            "sequence_tokens": lesson.settings["sequence_tokens"],
            "step_tokens": lesson.settings["step_tokens"],
            "call_tokens": 2048,
        },
        "export": {"kind": "adapter", "quantisation": "Q8_0"},
    }
    lines = [f"name = {json.dumps(lesson.name)}"]
    for table, values in tables.items():
        lines += ["", f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    lines += ["", "[[train]]", f"file = {json.dumps(str(data))}", f"sha256 = {json.dumps(data_digest)}", ""]
    return "\n".join(lines)
