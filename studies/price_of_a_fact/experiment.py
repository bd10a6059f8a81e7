"""What is compared: the base as it is, the same facts as documents and as lessons, a task with documents and after training.

Each arm is measured once and kept in a file, so that a run that was stopped continues with the next one.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import openbook
from studies.price_of_a_fact.facts import FORMS, Fact, fact_lesson, invented_facts
from studies.price_of_a_fact.skills import Skill
from studies.price_of_a_fact.training import NOTHING, Cost, Lesson, cpu_seconds, train, write_recipe

HERE = Path(__file__).parent
BASE, READER, EMBEDDER = "smollm2-135m-instruct", "reader", "minilm-l6-int8"
READING = HERE.parent.parent / "recipes" / "data" / "reader-dev.jsonl.gz"
MAX_TOKENS = 40  # of an answer, of which the first line counts
GIVEN = ("nothing", "passage", "guide", "documents")  # what a model is given of a task, besides the question


@dataclass(frozen=True, slots=True)
class Plan:
    """`known`: so many facts that the base answers. `reading`: so many passages. `learned`, `tests`: examples of a skill."""

    facts: int = 16
    exposures: tuple[int, ...] = (1, 3, 10, 30, 100)
    known: int = 30
    reading: int = 20
    learned: int = 160
    tests: int = 25
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Question:
    """`document`: where the answer stands, if the model may read nothing else."""

    text: str
    answers: tuple[str, ...]
    document: str = ""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to give one model the facts, or a skill.

    `subject`: facts, or the skill. `model`: base, reader or trained. `given`: what it read, or the form of its lesson.
    `scores`: (right answers, questions) of what was measured; what is not in it is as with the base, whose weights it has.
    """

    subject: str
    model: str
    given: str
    scores: Mapping[str, tuple[int, int]]
    exposures: int = 0
    cost: Cost = NOTHING
    said: Mapping[str, Sequence[tuple[str, str, bool]]] = field(default_factory=dict)

    @staticmethod
    def of(value: dict[str, Any]) -> Arm:
        scores = {name: (right, of) for name, (right, of) in value["scores"].items()}
        return Arm(**{**value, "scores": scores, "cost": Cost(**value["cost"])})


Model: TypeAlias = str | openbook.FrozenModel  # a name or digest, or an open model


@dataclass(frozen=True, slots=True)
class Lab:
    """What the experiment works with: the models `base` and `reader`, and `teach`, which trains the base."""

    models: Mapping[str, Model]
    teach: Callable[[Lesson], tuple[Model, Cost]]
    embedder: Any = EMBEDDER


def lab_in(folder: Path, seed: int) -> Lab:
    """The real one: models in a home of its own below `folder`, fetched where they are missing."""
    home = folder / "home"
    os.environ["OPENBOOK_HOME"] = str(home)
    with openbook.open(model=BASE) as library:
        digest = library.model.identity.digest

    def teach(lesson: Lesson) -> tuple[Model, Cost]:
        recipe = write_recipe(lesson, folder / "training" / lesson.name, BASE, digest, seed)
        return train(recipe, home)

    return Lab({"base": BASE, "reader": READER}, teach)


# --- asking -----------------------------------------------------------------------------------------------------------


def holds(answer: str, accepted: Sequence[str]) -> bool:
    """Whether the words of an accepted answer stand in the answer one after the other."""
    text = f" {_words(answer)} "
    return any(f" {_words(each)} " in text for each in accepted)


def _words(text: str) -> str:
    return " ".join(re.findall(r"\d+\.\d+|\w+", re.sub(r"(?<=\d),(?=\d)", "", text.casefold())))


class Answers:
    """Questions put to one model, and how many of its answers were right, by what they measure."""

    def __init__(self, library: openbook.Library) -> None:
        self._library = library
        self.said: dict[str, list[tuple[str, str, bool]]] = {}

    def ask(self, name: str, questions: Sequence[Question], *, closed_book: bool = False, guide: str = "") -> None:
        """`guide`: a document that may be read with a question's own. A declined answer is not right."""
        said = []
        for question in questions:
            documents = ", ".join(f"'{each}'" for each in (question.document, guide) if each)
            view = self._library.where(f"name in ({documents})") if question.document else self._library
            found = view.ask(question.text, closed_book=closed_book)
            text = found.answer.partition("\n")[0]
            said.append((question.text, text, not found.declined and holds(text, question.answers)))
        self.said[name] = said

    @property
    def scores(self) -> dict[str, tuple[int, int]]:
        return {name: (sum(right for *_, right in said), len(said)) for name, said in self.said.items()}


@contextmanager
def opened(model: Model, lab: Lab, texts: Mapping[str, str]) -> Iterator[tuple[openbook.Library, Cost]]:
    """A library of documents (text by file name), and what adding them took. It is gone afterwards."""
    with TemporaryDirectory() as scrap:
        folder = Path(scrap) / "documents"
        folder.mkdir()
        for name, text in texts.items():
            (folder / name).write_text(text + "\n", encoding="utf-8")
        place = Path(scrap) / "base"
        with openbook.open(place, model=model, embedder=lab.embedder, max_tokens=MAX_TOKENS) as library:
            started, cpu = time.perf_counter(), cpu_seconds()
            library.add(folder)
            yield library, Cost(time.perf_counter() - started, cpu_seconds() - cpu)


# --- facts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FactQuestions:
    """`known`: facts that the base answers. `passages` (by file name) are what `reading` is about."""

    facts: Sequence[Fact]
    known: Sequence[Question]
    reading: Sequence[Question]
    passages: Mapping[str, str]

    @property
    def recall(self) -> list[Question]:
        return [Question(text, (fact.answer,)) for fact in self.facts for text in fact.asked]


def fact_questions(plan: Plan) -> FactQuestions:
    """What the base may know is in `known` before it was asked."""
    lines = (HERE / "known.jsonl").read_text(encoding="utf-8").splitlines()
    known = [Question(value["question"], tuple(value["answers"])) for value in map(json.loads, lines)]
    reading, passages = list[Question](), dict[str, str]()
    for value in map(json.loads, gzip.decompress(READING.read_bytes()).splitlines()):
        answered = [each for each in value["questions"] if each["answers"]]
        if answered and len(reading) < plan.reading:
            name = f"passage-{len(reading):03}.txt"
            passages[name] = f"{value['title']}\n\n{value['passage']}"
            reading.append(Question(answered[0]["question"], tuple(answered[0]["answers"]), name))
    return FactQuestions(invented_facts(plan.facts, plan.seed), known, reading, passages)


def _weights(form: str, exposures: int, lesson: Lesson | None, questions: FactQuestions, lab: Lab) -> list[Arm]:
    """What the weights hold, of the base or after a lesson: the facts, with no document anywhere; what it knew; how it reads."""
    model, cost = lab.teach(lesson) if lesson else (lab.models["base"], NOTHING)
    with opened(model, lab, questions.passages) as (library, _):
        answers = Answers(library)
        answers.ask("recall", questions.recall, closed_book=True)
        answers.ask("known", questions.known, closed_book=True)
        answers.ask("reading", questions.reading)
    scores = {**answers.scores, "left": answers.scores["recall"]}
    return [Arm("facts", "trained" if lesson else "base", form, scores, exposures, cost, answers.said)]


def _documents(name: str, questions: FactQuestions, lab: Lab) -> list[Arm]:
    """Each fact as a document; asked again once all of them are deleted."""
    texts = {f"fact-{number:03}.txt": fact.statements[0] for number, fact in enumerate(questions.facts, 1)}
    with opened(lab.models[name], lab, texts) as (library, cost):
        answers = Answers(library)
        answers.ask("recall", questions.recall)
        library.purge(library.documents())
        answers.ask("left", questions.recall)
    return [Arm("facts", name, "documents", answers.scores, 1, cost, answers.said)]


# --- skills -----------------------------------------------------------------------------------------------------------


def _skill(skill: Skill, name: str, lab: Lab) -> list[Arm]:
    """With nothing, the example's own document, that and the guide, and what is found among all of them.

    For the trained model these are documents that were added after its training.
    """
    model, cost = lab.teach(skill.lesson) if name == "trained" else (lab.models[name], NOTHING)
    names = [f"document-{number:03}.txt" for number in range(1, len(skill.tests) + 1)]
    texts = {name: each.text for name, each in zip(names, skill.tests, strict=True)}
    alone = [Question(each.question, each.answers) for each in skill.tests]
    own = [Question(each.question, each.answers, name) for name, each in zip(names, skill.tests, strict=True)]
    with opened(model, lab, {**texts, "guide.txt": skill.guide}) as (library, _):
        answers = Answers(library)
        answers.ask("nothing", alone, closed_book=True)
        answers.ask("passage", own)
        answers.ask("guide", own, guide="guide.txt")
        answers.ask("documents", alone)
    return [
        Arm(skill.name, name, given, {"right": answers.scores[given]}, 0, cost, {"right": answers.said[given]})
        for given in GIVEN
    ]


# --- all of it --------------------------------------------------------------------------------------------------------


def run(folder: Path, plan: Plan, skills: Sequence[Skill], lab: Lab) -> list[Arm]:
    """All arms, in order. What `folder` holds of them is not measured again. Raises SystemExit for those of another plan."""
    held, stated = folder / "plan.json", json.dumps({**asdict(plan), "openbook": openbook.__version__}, indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    if held.is_file() and held.read_text(encoding="utf-8") != stated:
        raise SystemExit(f"{held} is another plan, or of another version. Choose another folder, or delete this one.")
    held.write_text(stated, encoding="utf-8")

    def measured(name: str, measure: Callable[..., list[Arm]], *arguments: object) -> list[Arm]:
        path, started = folder / "arms" / f"{name}.json", time.monotonic()
        if not path.is_file():
            content = json.dumps([asdict(arm) for arm in measure(*arguments)], indent=1, ensure_ascii=False)
            path.parent.mkdir(exist_ok=True)
            path.with_suffix(".part").write_text(content, encoding="utf-8")
            path.with_suffix(".part").replace(path)
            print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        return [Arm.of(value) for value in json.loads(path.read_bytes())]

    questions = fact_questions(plan)
    (base,) = measured("facts-nothing", _weights, "nothing", 0, None, questions, lab)
    answered = {text for text, _, right in base.said["known"] if right}
    known = [each for each in questions.known if each.text in answered][: plan.known]
    questions = replace(questions, known=known)
    arms = [replace(base, scores={**base.scores, "known": (len(known), len(known))})]
    for name in ("base", "reader"):
        arms += measured(f"facts-documents-{name}", _documents, name, questions, lab)
    for form in FORMS:
        for exposures in plan.exposures:
            lesson = fact_lesson(questions.facts, form, exposures, plan.seed)
            arms += measured(f"facts-{lesson.name}", _weights, form, exposures, lesson, questions, lab)
    for skill in skills:
        for name in ("base", "reader", "trained"):
            arms += measured(f"{skill.name}-{name}", _skill, skill, name, lab)
    return arms
