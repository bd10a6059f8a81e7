"""The price of a fact: the base as it is, the facts as documents, and the facts learned so and so often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from openbook.diagnosis.probes import Probe
from openbook.diagnosis.teaching import asking
from openbook.diagnosis.teaching.asking import Told, documents_in_a_base, opened
from openbook.diagnosis.teaching.facts import Fact, digest_of
from openbook.diagnosis.teaching.jobs import Job
from openbook.diagnosis.teaching.lessons import LEARNING_RATE, fact_lesson
from openbook.diagnosis.teaching.seams import NOTHING, Cost, Meter, Seams
from openbook.knowledge.forgetting import purge
from openbook.records import canonical_json, sha256_hex

ALONE = "facts-alone"
START_S, TOKENS_A_SECOND, ANSWER_S, READ_S = (
    20.0,
    300.0,
    0.4,
    0.8,
)  # on two cores, with a model of 135 million parameters


@dataclass(frozen=True, slots=True)
class FactPlan:
    """`known`: questions that the base may know; it is measured with the first `most_known` that it does answer."""

    facts: tuple[Fact, ...]
    exposures: tuple[int, ...]
    forms: tuple[str, ...]
    known: tuple[Probe, ...]
    most_known: int
    reading: tuple[Probe, ...]
    seed: int = 1
    learning_rate: float = LEARNING_RATE

    def key(self, seams: Seams) -> dict[str, Any]:
        asked = [[p.question, p.answers, p.passage] for p in (*self.known, *self.reading)]
        return {
            "base": seams.base,
            "facts": digest_of(list(self.facts)),
            "asked": sha256_hex(canonical_json([asked, self.most_known])),
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True)
class FactArm:
    """What became of the facts. `recall`: of each, the share of its questions answered right; `left`: the same after every
    document that states them is gone. `known` and `reading`: of each question whether it was answered right; empty: the
    weights are those of the base. `cost`: of teaching, not of asking. `asking_mb`: the most
    memory that the process held which asked; 0: not measured.
    """

    remedy: str  # none, retrieval, training
    model: str
    recall: Sequence[float]
    left: Sequence[float]
    known: Sequence[float]
    reading: Sequence[float]
    cost: Cost
    seconds_each: float
    said: Sequence[Told]
    form: str = ""
    exposures: int = 0
    tokens: int = 0
    known_questions: Sequence[str] = ()
    asking_mb: float = 0.0

    @staticmethod
    def of(value: dict[str, Any]) -> FactArm:
        said = [Told(**each) for each in value["said"]]
        return FactArm(**{**value, "cost": Cost(**value["cost"]), "said": said})


def first_job(plan: FactPlan, seams: Seams) -> Job:
    """The base alone, which says what it knows: all others are measured against it."""
    asked = 2 * len(plan.facts) + min(len(plan.known), 2 * plan.most_known)  # about every second one is known
    seconds = 3 + ANSWER_S * asked + READ_S * len(plan.reading)
    return Job(ALONE, plan.key(seams), seconds, lambda: asdict(_alone(plan, seams)))


def other_jobs(plan: FactPlan, asked: Sequence[Probe], seams: Seams) -> list[Job]:
    """Retrieval, then training, the cheap ones first. `asked`: the known facts that the base answers."""
    jobs = []
    for model, digest in _readers(seams):
        key = {**plan.key(seams), "model": digest, "embedder": seams.embedder.identity.digest, "cost": "adding alone"}
        seconds = 5 + READ_S * len(plan.facts) * len(plan.facts[0].asked)
        jobs.append(Job(f"facts-retrieval-{model}", key, seconds, _retrieving(plan, model, seams)))
    trained = []
    for form in plan.forms:
        for exposures in plan.exposures:
            lesson = fact_lesson(plan.facts, form, exposures, plan.seed, plan.learning_rate)
            questions = sum(len(fact.asked) for fact in plan.facts) + len(asked)
            measuring = ANSWER_S * questions + READ_S * len(plan.reading)
            seconds = START_S + lesson.tokens / TOKENS_A_SECOND + measuring
            do = _training(plan, asked, form, exposures, seams)
            trained.append(Job(f"facts-{lesson.name}", {**plan.key(seams), "settings": lesson.settings}, seconds, do))
    return [*jobs, *sorted(trained, key=lambda job: job.seconds)]


def _readers(seams: Seams) -> list[tuple[str, str]]:
    return [("base", seams.base), *([("reader", seams.reader)] if seams.open_reader else [])]


def _alone(plan: FactPlan, seams: Seams) -> FactArm:
    meter = Meter()
    with opened(seams.open_base) as model:
        recall, said = asking.recall(plan.facts, model, None, seams)
        answered: list[Probe] = []
        for number, probe in enumerate(plan.known, 1):
            if len(answered) < plan.most_known and asking.known([probe], model, seams) == [1.0]:
                answered.append(probe)
            seams.progress("ask", number, len(plan.known))
        reading = asking.read(plan.reading, model, seams)
    ones = [1.0] * len(answered)
    questions = [probe.question for probe in answered]
    peak_mb = meter.spent().peak_mb
    return FactArm(
        *("none", "base", recall, recall, ones, reading, NOTHING, _each(said), said),
        known_questions=questions,
        asking_mb=peak_mb,
    )


def _retrieving(plan: FactPlan, model_name: str, seams: Seams) -> Any:
    def do() -> dict[str, Any]:
        make = seams.open_base if model_name == "base" or seams.open_reader is None else seams.open_reader
        texts = {f"fact-{number:03}": fact.statements[0] for number, fact in enumerate(plan.facts, 1)}
        meter = Meter()
        with documents_in_a_base(texts, seams) as base:
            cost, asked = meter.spent(), Meter()  # of adding alone: the model is not there yet
            with opened(make) as model:
                recall, said = asking.recall(plan.facts, model, base, seams)
                purge(base, base.documents())
                left, _ = asking.recall(plan.facts, model, base, seams)
            peak_mb = asked.spent().peak_mb
        arm = FactArm("retrieval", model_name, recall, left, (), (), cost, _each(said), said, exposures=1)
        return asdict(replace(arm, asking_mb=peak_mb))

    return do


def _training(plan: FactPlan, asked: Sequence[Probe], form: str, exposures: int, seams: Seams) -> Any:
    def do() -> dict[str, Any]:
        trained = seams.trainer.train(
            fact_lesson(plan.facts, form, exposures, plan.seed, plan.learning_rate), seams.progress
        )
        meter = Meter()
        with opened(lambda: seams.open_trained(trained.model)) as model:
            # No document is there: what it recalls is also what is left when all are deleted.
            recall, said = asking.recall(plan.facts, model, None, seams)
            known, reading = asking.known(asked, model, seams), asking.read(plan.reading, model, seams)
        cost, each, tokens = trained.cost, _each(said), trained.tokens
        arm = FactArm("training", "base", recall, recall, known, reading, cost, each, said, form, exposures, tokens)
        return asdict(replace(arm, asking_mb=meter.spent().peak_mb))

    return do


def _each(said: Sequence[Told]) -> float:
    return sum(told.seconds for told in said) / max(1, len(said))
