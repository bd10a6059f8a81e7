"""The study of prices, over models that say what is wanted and a training that learns by heart."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from openbook.answers.prompts import CLOSED_BOOK_SYSTEM
from openbook.core.records import Prompt
from openbook.inference import FrozenModel
from openbook.testing import HashEmbedder
from openbook.training.datasets import ConversationLine, DocumentLine, read_lines
from openbook.training.reader_objective import PassageLine
from openbook.training.recipe import load_recipe
from studies.price_of_a_fact import facts
from studies.price_of_a_fact.experiment import GIVEN, Arm, Lab, Plan, fact_questions, holds, run
from studies.price_of_a_fact.facts import FORMS, fact_lesson, invented_facts
from studies.price_of_a_fact.report import figure, share, tables
from studies.price_of_a_fact.skills import invented_skills
from studies.price_of_a_fact.training import Cost, Lesson, write_recipe
from tests.conftest import ROOT
from tests.diagnosis.table_engine import SILENT, TableEngine, question_in

STUDY = ROOT / "studies" / "price_of_a_fact"
PLAN = Plan(facts=4, exposures=(1, 3), known=2, reading=2, learned=6, tests=3)
FACTS = invented_facts(PLAN.facts, PLAN.seed)
ANSWERS = {question: fact.answer for fact in FACTS for question in fact.asked}
KNOWN = {"What is the capital of France?": "It is Paris.", "What do bees make?": "honey", "Who wrote Faust?": "Goethe"}
READING = {each.text: each.answers[0] for each in fact_questions(PLAN).reading}
SKILLS = invented_skills(PLAN.learned, PLAN.tests, PLAN.seed)
DONE = {each.question: each.answers[0] for skill in SKILLS for each in skill.tests}


def base(prompt: Prompt) -> str:
    """Says what everybody knows, and of passages what stands in them; it can do no task."""
    asked, read = question_in(prompt), "".join(prompt.passages)
    wanted = KNOWN.get(asked) if not read else (ANSWERS | READING).get(asked)
    return wanted if wanted and (not read or wanted in read) else SILENT


class Teacher:
    """What it teaches is recalled if its words stand at least three times in the lesson; Faust is forgotten."""

    def teach(self, lesson: Lesson) -> tuple[FrozenModel, Cost]:
        text = json.dumps(lesson.lines, ensure_ascii=False).casefold()

        def says(prompt: Prompt) -> str:
            asked = question_in(prompt)
            if prompt.passages:
                return DONE.get(asked, SILENT) if lesson.objective["kind"] == "reader" else base(prompt)
            answer = ANSWERS.get(asked, "")
            if answer and text.count(answer.casefold()) >= 3:
                return answer
            return SILENT if "Faust" in asked else base(prompt)

        return FrozenModel(TableEngine(says, "trained")), Cost(4.0, 8.0, 1900.0)

    @property
    def lab(self) -> Lab:
        models = {name: FrozenModel(TableEngine(base)) for name in ("base", "reader")}
        return Lab(models, self.teach, HashEmbedder(256))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBOOK_HOME", str(tmp_path / "openbook-home"))


def test_what_documents_and_lessons_give_and_cost(tmp_path: Path) -> None:
    arms = run(tmp_path, PLAN, SKILLS[:1], Teacher().lab)
    found = {(each.subject, each.model, each.given, each.exposures): each for each in arms}
    # The base says what it knows, and no more is asked of others; documents are recalled until they are deleted.
    known = {"recall": (0, 8), "left": (0, 8), "known": (2, 2), "reading": (2, 2)}
    assert found["facts", "base", "nothing", 0].scores == known
    assert found["facts", "reader", "documents", 1].scores == {"recall": (8, 8), "left": (0, 8)}
    assert found["facts", "reader", "documents", 1].cost.cpu_seconds > 0
    # Lessons are recalled once they were repeated, and cost what was known.
    for form in FORMS:
        assert found["facts", "trained", form, 1].scores["recall"] == (0, 8)
        taught = found["facts", "trained", form, 3]
        assert taught.scores == {"recall": (8, 8), "left": (8, 8), "known": (1, 2), "reading": (2, 2)}
        assert taught.cost == Cost(4.0, 8.0, 1900.0)
    # A skill is what documents do not teach.
    skill = {(each.model, each.given): each.scores["right"][0] for each in arms if each.subject == SKILLS[0].name}
    assert skill == {
        (model, given): PLAN.tests if model == "trained" and given != "nothing" else 0
        for model in ("base", "reader", "trained")
        for given in GIVEN
    }


@pytest.mark.parametrize("form", FORMS)
def test_no_question_that_is_asked_stands_in_a_lesson(form: str) -> None:
    told = json.dumps(fact_lesson(FACTS, form, 9, 1).lines, ensure_ascii=False).casefold()
    assert all(told.count(fact.answer.casefold()) == 9 for fact in FACTS)
    assert not any(question.casefold() in told for question in ANSWERS)
    assert facts.CLOSED_BOOK == CLOSED_BOOK_SYSTEM  # questions are taught as they are asked
    assert invented_facts(40, 1)[:4] == FACTS != invented_facts(4, 2)


@pytest.mark.parametrize(
    ("lesson", "line"),
    [
        (fact_lesson(FACTS, "paraphrased", 3, 1), DocumentLine),
        (fact_lesson(FACTS, "questions", 3, 1), ConversationLine),
        (SKILLS[0].lesson, PassageLine),
        (SKILLS[1].lesson, PassageLine),
    ],
)
def test_training_reads_a_lesson_and_its_recipe(lesson: Lesson, line: type, tmp_path: Path) -> None:
    path = write_recipe(lesson, tmp_path / "lesson", "small", "b" * 64, 7)
    recipe = load_recipe(path)
    assert (recipe.name, recipe.loop.seed, recipe.optimiser.learning_rate) == (lesson.name, 7, lesson.learning_rate)
    assert len(list(read_lines(recipe.train[0], path.parent, line))) == len(lesson.lines)


@pytest.mark.parametrize(
    ("answer", "accepted", "right"),
    [
        ("It takes 1,250 of them.", "1250", True),
        ("It takes 125.5 of them.", "125", False),
        ("Q-04-HAL", "q-04-hal", True),
        ("launch, repair, survey", "launch, survey, repair", False),
        ("Parisian", "Paris", False),
    ],
)
def test_an_answer_is_right_that_holds_the_words(answer: str, accepted: str, right: bool) -> None:
    assert holds(answer, [accepted]) is right


def test_the_readme_shows_the_finished_numbers() -> None:
    found = [Arm.of(value) for value in json.loads((STUDY / "results.json").read_bytes())]
    drawn = figure(found, ["labelling", "ordering"])
    assert tables(found) in (STUDY / "README.md").read_text(encoding="utf-8")
    assert drawn == (STUDY / "price.svg").read_text(encoding="utf-8")
    marks = [element.tag.rpartition("}")[2] for element in ElementTree.fromstring(drawn).iter()]
    assert (marks.count("polyline"), marks.count("circle"), marks.count("rect")) == (3, 15 + 2 + 3, 12 + 1)
    assert (str(share((0, 0))), str(share((0, 4)))) == ("no data", "0 % [0, 49]")


def test_the_study_uses_only_the_public_package() -> None:
    imports = re.findall(r"^ *(?:from|import) (openbook[.\w]*)", "".join(map(Path.read_text, STUDY.glob("*.py"))), re.M)
    assert set(imports) == {"openbook"}
