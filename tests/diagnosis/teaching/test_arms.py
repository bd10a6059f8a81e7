"""What is measured follows what the models do: each outcome is forced once."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator
from dataclasses import asdict, replace
from typing import Any

import pytest

from openbook.answer import reading_prompt
from openbook.diagnosis.probes import Probe
from openbook.diagnosis.teaching.asking import TOO_LONG
from openbook.diagnosis.teaching.fact_arms import FactArm, FactPlan, first_job, other_jobs
from openbook.diagnosis.teaching.seams import NOT_MEASURED, Cost, Seams
from openbook.diagnosis.teaching.skill_arms import GIVEN, SkillArm, SkillPlan, skill_jobs
from openbook.diagnosis.teaching.tasks import SKILLS, examples
from openbook.errors import ContextOverflow
from openbook.inference import FrozenModel
from openbook.inference.frozen import Cancelled, never
from openbook.records import Completion, Decoding, Prompt
from openbook.testing import EchoEngine
from tests.diagnosis.table_engine import SILENT, TableEngine, question_in
from tests.diagnosis.teaching.school import FACTS, KNOWN, ByHeart, from_passages, plan_of, seams_with

PROMPT_TOKENS = EchoEngine().count_prompt_tokens(reading_prompt("", []))  # without passages and question


def arms_of(plan: FactPlan, seams: Seams) -> dict[str, FactArm]:
    def done(value: Any) -> FactArm:
        return FactArm.of(json.loads(json.dumps(value)))

    alone = done(first_job(plan, seams).do())
    asked = [probe for probe in plan.known if probe.question in alone.known_questions]
    return {"alone": alone, **{job.name: done(job.do()) for job in other_jobs(plan, asked, seams)}}


def test_the_base_is_asked_what_it_knows_until_it_knows_enough() -> None:
    alone = arms_of(plan_of(exposures=(1,)), seams_with(ByHeart()))["alone"]
    assert list(alone.recall) == [0.0] * len(FACTS)
    assert list(alone.known_questions) == list(KNOWN)[:2]  # the third it does not know
    assert list(alone.known) == [1.0, 1.0]
    assert list(alone.reading) == [1.0]


def test_retrieval_recalls_what_the_documents_say_and_nothing_after_the_purge() -> None:
    arm = arms_of(plan_of(exposures=(1,)), seams_with(ByHeart()))["facts-retrieval-base"]
    assert list(arm.recall) == [1.0] * len(FACTS)
    assert list(arm.left) == [0.0] * len(FACTS)
    assert arm.cost.seconds is not None
    assert arm.cost.cpu_seconds is not None
    assert min(arm.cost.seconds, arm.cost.cpu_seconds) > 0
    assert (arm.known, arm.reading) == ([], [])  # the weights are those of the base


def test_a_reader_that_says_nothing_recalls_nothing() -> None:
    arms = arms_of(plan_of(exposures=(1,)), seams_with(ByHeart(), reader=lambda prompt: SILENT))
    assert list(arms["facts-retrieval-reader"].recall) == [0.0] * len(FACTS)
    assert list(arms["facts-retrieval-base"].recall) == [1.0] * len(FACTS)


def test_training_recalls_what_was_learned_often_enough_and_keeps_it() -> None:
    trainer = ByHeart(needed=3)
    arms = arms_of(plan_of(exposures=(1, 3)), seams_with(trainer))
    assert list(arms["facts-verbatim-1"].recall) == [0.0] * len(FACTS)
    arm = arms["facts-verbatim-3"]
    assert list(arm.recall) == list(arm.left) == [1.0] * len(FACTS)
    assert list(arm.known) == [1.0, 1.0]
    assert (arm.cost.seconds, arm.cost.cpu_seconds, arm.tokens, arm.exposures) == (8.0, 16.0, 1000, 3)
    assert arm.cost.peak_mb == 1900.0
    assert [lesson.name for lesson in trainer.lessons] == ["verbatim-1", "paraphrased-1", "verbatim-3", "paraphrased-3"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no ru_maxrss")
def test_memory_is_measured_and_results_from_before_it_was_are_read() -> None:
    arms = arms_of(plan_of(exposures=(1,)), seams_with(ByHeart()))
    assert all(arm.asking_mb > 10 for arm in arms.values())
    assert arms["facts-retrieval-base"].cost.peak_mb > 10
    value = json.loads(json.dumps(asdict(arms["facts-verbatim-1"])))
    del value["asking_mb"], value["cost"]["peak_mb"]
    before = FactArm.of(value)
    assert (before.asking_mb, before.cost) == (0.0, Cost(8.0, 16.0))
    assert Cost(1.0, 2.0, 500.0) + Cost(1.0, 2.0, 300.0) == Cost(2.0, 4.0, 500.0)
    assert Cost(1.0, 2.0, 500.0) + NOT_MEASURED == NOT_MEASURED + Cost(1.0, 2.0, 500.0) == NOT_MEASURED
    unknown = FactArm.of(json.loads(json.dumps(asdict(replace(before, cost=NOT_MEASURED)))))
    assert unknown.cost == NOT_MEASURED


def test_damage_is_seen() -> None:
    arms = arms_of(plan_of(exposures=(3,)), seams_with(ByHeart(forgets=("What do bees make?",))))
    assert list(arms["facts-verbatim-3"].known) == [1.0, 0.0]


def test_what_a_result_depends_on_is_in_its_key() -> None:
    plan = plan_of()
    keys = [first_job(each, seams_with(ByHeart())).key for each in (plan, plan_of(FACTS[:3]), plan_of(exposures=(7,)))]
    assert keys[0] != keys[1]
    assert keys[0] == keys[2]
    other = seams_with(ByHeart(), reader=from_passages)
    assert first_job(plan, other).key == keys[0]
    jobs = [first_job(plan, other), *other_jobs(plan, plan.known, other), *skill_jobs(SKILL, other)]
    assert len({str(job.key) + job.name for job in jobs}) == 10
    assert {job.name for job in jobs if job.trains} == {
        *(f"facts-{form}-{exposures}" for form in plan.forms for exposures in plan.exposures),
        "skill-labelling-trained",
    }


class Small(TableEngine):
    """Refuses what does not fit into its context, as engines do."""

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        if self.count_prompt_tokens(prompt) + decoding.max_tokens > self.context_tokens:
            raise ContextOverflow("It does not fit.")
        return super().generate(prompt, decoding, cancelled)


def test_what_does_not_fit_into_the_context_is_not_right_and_the_rest_is_measured() -> None:
    long = " long" * 200
    asked = [Probe("Which ferry?", ("long",), "Ferry", f"It is{long}."), *plan_of().reading]
    plan = replace(plan_of(), reading=tuple(asked), known=(Probe(f"What is{long}?", ("long",)), *plan_of().known))
    seams = replace(
        seams_with(ByHeart()), open_base=lambda: FrozenModel(Small(from_passages, "base", PROMPT_TOKENS + 96))
    )
    alone = FactArm.of(first_job(plan, seams).do())
    assert list(alone.reading) == [0.0, 1.0]
    assert list(alone.known_questions) == list(KNOWN)[:2]

    guided = replace(SKILL, skill=replace(SKILL.skill, guide=f"How to do it\nIt takes{long}."))
    seams = replace(seams, open_base=lambda: FrozenModel(Small(does_it, "base", PROMPT_TOKENS + 96)))
    base, *_ = skill_jobs(guided, seams)
    arms = {arm.given: arm for arm in map(SkillArm.of, base.do())}
    assert list(arms["guide"].right) == [0.0] * 6
    assert {told.answer for told in arms["guide"].said} == {TOO_LONG}
    assert list(arms["passage"].right) == [1.0] * 6


# --- skills -----------------------------------------------------------------------------------------------------------

SKILL = SkillPlan(SKILLS["labelling"], 5, 6)
RIGHT = {example.question: example for example in examples(SKILL.skill, 5, 6)[1]}


def does_it(prompt: Prompt) -> str:
    """Right whenever the passage is there."""
    example = RIGHT[question_in(prompt)]
    return example.answers[0] if any(example.title in passage for passage in prompt.passages) else SILENT


def copies_the_guide(prompt: Prompt) -> str:
    return "Q-04-HAL" if any("Q-04-HAL" in passage for passage in prompt.passages) else "No idea."


@pytest.fixture
def arms() -> dict[tuple[str, str], SkillArm]:
    class Teacher(ByHeart):
        def open(self, digest: str) -> FrozenModel:
            return FrozenModel(TableEngine(does_it, "trained"))

    seams = seams_with(Teacher(), base=copies_the_guide)
    found = [SkillArm.of(json.loads(json.dumps(value))) for job in skill_jobs(SKILL, seams) for value in job.do()]
    assert [asdict(arm)["skill"] for arm in found] == ["labelling"] * 8
    return {(arm.model, arm.given): arm for arm in found}


def test_a_base_that_copies_is_never_right(arms: dict[tuple[str, str], SkillArm]) -> None:
    assert all(list(arms["base", given].right) == [0.0] * 6 for given in GIVEN)
    assert {told.answer for told in arms["base", "guide"].said} == {"Q-04-HAL"}
    assert {told.answer for told in arms["base", "passage"].said} == {"No idea."}


def test_a_trained_model_does_it_with_documents_that_came_later(arms: dict[tuple[str, str], SkillArm]) -> None:
    assert list(arms["trained", "nothing"].right) == [0.0] * 6
    assert list(arms["trained", "passage"].right) == [1.0] * 6
    later = arms["trained", "documents"]
    assert list(later.right) == list(later.found) == [1.0] * 6
    assert later.cost.cpu_seconds == 16.0
