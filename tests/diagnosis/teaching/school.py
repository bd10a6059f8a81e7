"""A trainer that learns by heart and engines that say what is wanted, so that each outcome can be forced."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from openbook.diagnosis.probes import Probe
from openbook.diagnosis.teaching.fact_arms import FactPlan
from openbook.diagnosis.teaching.facts import Fact, generated
from openbook.diagnosis.teaching.lessons import Lesson
from openbook.diagnosis.teaching.seams import Cost, Progress, Seams, Trained
from openbook.inference import FrozenModel
from openbook.records import Prompt, sha256_hex
from openbook.testing import HashEmbedder
from tests.diagnosis.table_engine import SILENT, TableEngine, question_in

FACTS = tuple(generated(4))
ANSWER = {question: fact.answers[0] for fact in FACTS for question in fact.asked}
KNOWN = {"What is the capital of France?": "Paris", "What do bees make?": "honey", "Who wrote Hamlet?": "Shakespeare"}
READING = (Probe("When does it leave?", ("09:40",), "Ferry", "The ferry leaves at 09:40."),)
Says = Callable[[Prompt], str]


def from_passages(prompt: Prompt) -> str:
    """What stands in the passages, and what everybody knows but for Hamlet."""
    asked, read = question_in(prompt), "".join(prompt.passages)
    if not read:
        return KNOWN.get(asked, "No idea.") if asked != "Who wrote Hamlet?" else "Somebody"
    wanted = ANSWER.get(asked, "09:40")
    return wanted if wanted in read else SILENT


@dataclass
class ByHeart:
    """A trained model recalls the facts whose words stand at least `needed` times in its lesson; what it `forgets` is gone."""

    needed: int = 3
    forgets: tuple[str, ...] = ()
    lessons: list[Lesson] = field(default_factory=list)
    interrupted: bool = False

    def train(self, lesson: Lesson, progress: Progress) -> Trained:
        if self.interrupted:
            self.interrupted = False
            raise KeyboardInterrupt
        progress("learn", 1, 1)
        self.lessons.append(lesson)
        return Trained(self.digest_of(lesson), Cost(8.0, 16.0, 1900.0), 1000)

    @staticmethod
    def digest_of(lesson: Lesson) -> str:
        return sha256_hex(lesson.name.encode())

    def open(self, digest: str) -> FrozenModel:
        lesson = next(each for each in self.lessons if self.digest_of(each) == digest)
        text = json.dumps(lesson.lines, ensure_ascii=False)

        def says(prompt: Prompt) -> str:
            asked = question_in(prompt)
            if prompt.passages:
                return from_passages(prompt)
            if asked in self.forgets:
                return "Forgotten"
            wanted = ANSWER.get(asked, "")
            return wanted if wanted and text.count(wanted) >= self.needed else from_passages(prompt)

        return FrozenModel(TableEngine(says, "trained"))


def seams_with(trainer: ByHeart, base: Says = from_passages, reader: Says | None = None) -> Seams:
    return Seams(
        trainer=trainer,
        base="b" * 64,
        reader=("r" if reader else "b") * 64,
        open_base=lambda: FrozenModel(TableEngine(base, "base")),
        open_reader=(lambda: FrozenModel(TableEngine(reader, "reader"))) if reader else None,
        open_trained=trainer.open,
        embedder=HashEmbedder(256),
    )


def plan_of(facts: tuple[Fact, ...] = FACTS, exposures: tuple[int, ...] = (1, 3)) -> FactPlan:
    known = tuple(Probe(question, (answer,)) for question, answer in KNOWN.items())
    return FactPlan(facts, exposures, ("verbatim", "paraphrased"), known, 2, READING)
