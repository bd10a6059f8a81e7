"""The price of a skill: the base and the reader as they are, with documents about the task, and the base after training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from openbook.diagnosis.teaching.asking import Told, documents_in_a_base, opened, tell, tell_from
from openbook.diagnosis.teaching.fact_arms import ANSWER_S, READ_S, START_S, TOKENS_A_SECOND
from openbook.diagnosis.teaching.jobs import Job
from openbook.diagnosis.teaching.lessons import skill_lesson
from openbook.diagnosis.teaching.seams import NOTHING, Cost, Meter, Seams
from openbook.diagnosis.teaching.tasks import Example, Skill, digest_of, examples
from openbook.inference import FrozenModel

# What a model is given besides the question.
GIVEN = {
    "nothing": "nothing",
    "passage": "the passage",
    "guide": "the passage and a guide to the task",
    "documents": "what it finds in the knowledge base",
}


@dataclass(frozen=True, slots=True)
class SkillPlan:
    skill: Skill
    learned: int
    measured: int
    epochs: int = 2
    seed: int = 1

    def key(self, seams: Seams) -> dict[str, Any]:
        _, measured = examples(self.skill, self.learned, self.measured, self.seed)
        return {"base": seams.base, "guide": self.skill.guide, "measured": digest_of(measured), "seed": self.seed}


@dataclass(frozen=True, slots=True)
class SkillArm:
    """`model`: base, reader or trained. `found`: of each question whether its document was among those read. `asking_mb`: as of a
    `FactArm`.
    """

    skill: str
    model: str
    given: str
    right: Sequence[float]
    said: Sequence[Told]
    cost: Cost = NOTHING
    tokens: int = 0
    found: Sequence[float] = ()
    asking_mb: float = 0.0

    @staticmethod
    def of(value: dict[str, Any]) -> SkillArm:
        said = [Told(**each) for each in value["said"]]
        return SkillArm(**{**value, "cost": Cost(**value["cost"]), "said": said})


def skill_jobs(plan: SkillPlan, seams: Seams) -> list[Job]:
    """Of each model one, with all that it is given."""
    learned, _ = examples(plan.skill, plan.learned, plan.measured, plan.seed)
    lesson = skill_lesson(f"skill-{plan.skill.name}", learned, plan.epochs)
    asking_s = plan.measured * (ANSWER_S + 4 * READ_S)
    name, key = f"skill-{plan.skill.name}", plan.key(seams)
    embedded = {**key, "embedder": seams.embedder.identity.digest}
    jobs = [Job(f"{name}-base", embedded, asking_s, lambda: _untrained(plan, "base", seams.open_base, seams))]
    if seams.open_reader is not None:
        make = seams.open_reader
        jobs.append(
            Job(
                f"{name}-reader",
                {**embedded, "reader": seams.reader},
                asking_s,
                lambda: _untrained(plan, "reader", make, seams),
            )
        )
    taught = {**embedded, "learned": digest_of(learned), "epochs": plan.epochs, "settings": lesson.settings}
    seconds = START_S + lesson.tokens / TOKENS_A_SECOND + asking_s
    return [*jobs, Job(f"{name}-trained", taught, seconds, lambda: _trained(plan, seams))]


def _untrained(plan: SkillPlan, name: str, make: Callable[[], FrozenModel], seams: Seams) -> list[dict[str, Any]]:
    _, measured = examples(plan.skill, plan.learned, plan.measured, plan.seed)
    with opened(make) as model:
        return [
            asdict(_asked(plan.skill, name, given, measured, model, seams, NOTHING, 0)) for given in _ways(plan.skill)
        ]


def _trained(plan: SkillPlan, seams: Seams) -> list[dict[str, Any]]:
    """What is found in the knowledge base then are documents that came after the training."""
    learned, measured = examples(plan.skill, plan.learned, plan.measured, plan.seed)
    lesson = skill_lesson(f"skill-{plan.skill.name}", learned, plan.epochs)
    trained = seams.trainer.train(lesson, seams.progress)
    with opened(lambda: seams.open_trained(trained.model)) as model:
        return [
            asdict(_asked(plan.skill, "trained", given, measured, model, seams, trained.cost, trained.tokens))
            for given in _ways(plan.skill)
        ]


def _ways(skill: Skill) -> list[str]:
    return [given for given in GIVEN if given != "guide" or skill.guide]


def _asked(
    skill: Skill,
    name: str,
    given: str,
    measured: Sequence[Example],
    model: FrozenModel,
    seams: Seams,
    cost: Cost,
    tokens: int,
) -> SkillArm:
    meter = Meter()
    if given == "documents":
        said, found = _with_documents(skill, measured, model, seams)
    else:
        said, found = [], []
        for example in measured:
            said.append(_given(given, skill, example, model))
            seams.progress("ask", len(said), len(measured))
    right = [told.right for told in said]
    return SkillArm(skill.name, name, given, right, said, cost, tokens, found, meter.spent().peak_mb)


def _given(given: str, skill: Skill, example: Example, model: FrozenModel) -> Told:
    if given == "nothing":
        return tell(example.question, example.answers, model)
    title, _, text = skill.guide.partition("\n")
    guide = [(title, text)] if given == "guide" else []
    return tell_from(example.question, example.answers, model, [*guide, (example.title, example.text)])


def _with_documents(
    skill: Skill, measured: Sequence[Example], model: FrozenModel, seams: Seams
) -> tuple[list[Told], list[float]]:
    names = {f"document-{number:03}": example for number, example in enumerate(measured, 1)}
    texts = {name: example.text for name, example in names.items()}
    if skill.guide:
        texts["guide"] = skill.guide
    said, found = [], []
    with documents_in_a_base(texts, seams) as base:
        for name, example in names.items():
            told = tell(example.question, example.answers, model, base, seams.embedder)
            said.append(told)
            found.append(float(any(path.endswith(f"{name}.txt") for path in told.read)))
            seams.progress("ask", len(said), len(measured))
    return said, found
