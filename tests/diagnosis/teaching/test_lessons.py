"""What a training run is given."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any

import pytest

from openbook.diagnosis.teaching.facts import Fact, generated
from openbook.diagnosis.teaching.lessons import (
    FORMS,
    Lesson,
    checked_forms,
    fact_lesson,
    recipe_text,
    skill_lesson,
)
from openbook.diagnosis.teaching.tasks import SKILLS, chosen, examples
from openbook.errors import ConfigError
from openbook.training.instruction import ConversationLine
from openbook.training.language import DocumentLine
from openbook.training.reader import PassageLine
from openbook.training.recipe import load_recipe
from tests.diagnosis.teaching.school import FACTS


def said(lesson: Lesson) -> Counter[str]:
    return Counter(line for each in lesson.lines for line in each["text"].split("\n"))


def test_verbatim_says_the_same_words_in_every_pass_and_paraphrased_the_next() -> None:
    assert said(fact_lesson(FACTS, "verbatim", 3, 1)) == {fact.statements[0]: 3 for fact in FACTS}
    assert said(fact_lesson(FACTS, "paraphrased", 10, 1)) == {
        statement: 2 if i < 2 else 1 for fact in FACTS for i, statement in enumerate(fact.statements)
    }
    assert said(fact_lesson(FACTS, "paraphrased", 1, 1)) == said(fact_lesson(FACTS, "verbatim", 1, 1))


def test_a_pass_has_its_own_order_and_long_ones_are_cut_between_facts() -> None:
    facts = generated(40)
    lines = fact_lesson(facts, "verbatim", 2, 1).lines
    assert len(lines) > 4
    assert all(len(line["text"]) <= 460 for line in lines)
    assert lines[0] != lines[len(lines) // 2]


def test_questions_are_never_those_that_are_asked() -> None:
    lesson = fact_lesson(FACTS, "questions", 4, 1)
    turns = [line["messages"] for line in lesson.lines]
    assert len(turns) == 4 * len(FACTS)
    asked = {question for fact in FACTS for question in fact.asked}
    assert {turn[1]["content"] for turn in turns} == {question for fact in FACTS for question in fact.taught}
    assert not {turn[1]["content"] for turn in turns} & asked


def test_forms_are_checked() -> None:
    assert checked_forms(["verbatim", "verbatim"], FACTS) == ("verbatim",)
    with pytest.raises(ConfigError, match=r"no form 'verbtim'.*Did you mean 'verbatim'"):
        checked_forms(["verbtim"], FACTS)
    with pytest.raises(ConfigError, match="which 'bare' does not have"):
        checked_forms(["questions"], [Fact("bare", ("It rains.",), ("Does it?",), ("yes",))])


@pytest.mark.parametrize("form", [*FORMS, "skill"])
def test_training_understands_the_lesson(form: str, tmp_path: Path) -> None:
    learned, _ = examples(SKILLS["adding"], 3, 2)
    lesson = skill_lesson("skill-adding", learned, 2) if form == "skill" else fact_lesson(FACTS, form, 2, 1)
    path = tmp_path / "recipe.toml"
    path.write_text(recipe_text(lesson, 'a "model"', "0" * 64, PurePath("lesson.jsonl"), "1" * 64, 7), encoding="utf-8")
    recipe = load_recipe(path)
    assert recipe.base is not None
    assert (recipe.base.model, recipe.loop.seed, recipe.exports_adapter) == ('a "model"', 7, True)
    line: Any = {"instruction": ConversationLine, "language-modeling": DocumentLine, "reader": PassageLine}
    for each in lesson.lines:
        line[recipe.objective.kind].model_validate(each)
    assert lesson.tokens > 0


def test_examples_to_learn_and_to_measure_are_apart_and_the_same_again() -> None:
    for skill in SKILLS.values():
        learned, measured = examples(skill, 60, 20)
        assert (len(learned), len(measured)) == (60, 20)
        assert not {e.text for e in learned} & {e.text for e in measured}
        assert not {e.question for e in learned} & {e.question for e in measured}
        assert examples(skill, 90, 20)[1] == measured
        assert examples(skill, 60, 20, seed=2)[1] != measured


def test_answers_are_what_the_passages_say() -> None:
    for example in examples(SKILLS["ordering"], 1, 20)[1]:
        lines = [line.split(": ") for line in example.text.splitlines()[1:]]
        in_order = sorted(lines, key=lambda line: datetime.strptime(line[1], "%d %B %Y"))  # noqa: DTZ007
        assert example.answers[0] == ", ".join(event for event, _ in in_order)
    for example in examples(SKILLS["adding"], 1, 20)[1]:
        cells = [line.split("|")[2] for line in example.text.splitlines() if line.startswith("|")]
        assert example.answers == (str(sum(int(cell) for cell in cells[2:])),)
    for example in examples(SKILLS["labelling"], 1, 20)[1]:
        shelf, day, sender = (line.split(": ")[1] for line in example.text.splitlines()[1:])
        assert example.answers == (f"{shelf}-{int(day):02}-{sender[:3].upper()}",)


def test_the_guides_show_what_is_right() -> None:
    for skill in SKILLS.values():
        (example,) = examples(skill, 1, 0)[0]
        assert example.answers[0] not in skill.guide
    assert "Q-04-HAL" in SKILLS["labelling"].guide


def test_skills_that_are_none() -> None:
    with pytest.raises(ConfigError, match=r"no skill 'addin'.*Did you mean 'adding'"):
        chosen(("addin",))
    with pytest.raises(ConfigError, match="at most"):
        examples(SKILLS["adding"], 990, 20)
