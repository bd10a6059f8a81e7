"""Drafts: what a model may propose, that nothing is asked twice, and why a draft is rejected."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from openbook.diagnosis.question_drafts import (
    TRIED_FOR_EACH,
    Drafts,
    draft,
    reason_against,
)
from openbook.diagnosis.questions import load_questions, write_questions
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from tests.diagnosis.bases import FERRIES, HARBOUR, OLD, DraftEngine, base_of

FILES = {"ferries": FERRIES, "old": OLD, "harbour": HARBOUR}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    """Read only: no test of this module changes it."""
    return base_of(tmp_path_factory.mktemp("base"), **FILES)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def drafted(base: KnowledgeBase, log: Path, engine: DraftEngine | None = None, count: int = 20) -> Drafts:
    return draft(base, FrozenModel(engine or DraftEngine()), count, log)


def test_each_draft_has_its_answer_in_its_quote_and_its_quote_in_the_document(
    base: KnowledgeBase, log: Path, tmp_path: Path
) -> None:
    found = drafted(base, log)
    path = tmp_path / "questions.jsonl"
    write_questions(path, found.questions)
    questions = load_questions(path)
    paths = {Path(document).name: document for document in base.documents()}
    assert {each.gold.document for each in questions if each.gold} == set(paths)
    for each in questions:
        assert each.gold is not None
        text = base.text(paths[each.gold.document]) or ""
        assert text[each.gold.start : each.gold.end] == each.gold.quote
        assert each.answers[0] in " ".join(each.gold.quote.split())
        assert not each.reviewed
    assert "Found items are kept for 30 days." in {each.gold.quote for each in questions if each.gold}
    examples = Path(__file__).parents[2] / "examples" / "questions.jsonl"
    example = json.loads(examples.read_text(encoding="utf-8").splitlines()[0])
    assert list(found.questions[0]) == [*example, "reviewed"]
    assert list(found.questions[0]["gold"]) == list(example["gold"])


def test_texts_and_model_decide_the_drafts_and_documents_take_turns(
    base: KnowledgeBase, log: Path, tmp_path: Path
) -> None:
    three = drafted(base, log, count=3).questions
    assert {each["gold"]["document"] for each in three} == {"ferries.md", "harbour.md", "old.md"}
    again = base_of(tmp_path / "b" / "c", **FILES)
    assert drafted(again, log) == drafted(base, tmp_path / "other.log")
    twice = base_of(tmp_path, one=OLD, two=OLD)
    assert drafted(twice, log).passages == 1  # a text that stands in two documents is read once


def always(reply: str) -> Callable[[str], str]:
    return lambda text: reply


def test_rejected_drafts_are_counted_with_the_reason(tmp_path: Path, log: Path) -> None:
    base = base_of(tmp_path, one=FERRIES, two=f"{FERRIES}\nAll else is thrown away.\n", three=HARBOUR)
    found = drafted(base, log, DraftEngine(always("Question: How many days are found items kept?\nAnswer: 60 days")))
    assert len(found.questions) == 1
    assert found.rejected["the same question came before"] == 1
    assert found.rejected["the answer does not stand in the passage"] == found.passages - 2


def test_a_model_that_writes_no_question_reads_a_bounded_number_of_passages(tmp_path: Path, log: Path) -> None:
    parts = [
        f"## Part {i}\n\nThe quay of part {i} has {i} cranes, and {i} lamps hang on its longest wall.\n"
        for i in range(9)
    ]
    base = base_of(tmp_path, many="\n".join(parts))
    found = drafted(base, log, DraftEngine(always("I cannot help.")), count=1)
    assert found == Drafts((), {"no question with an answer was written": TRIED_FOR_EACH}, TRIED_FOR_EACH)
    assert drafted(base, log, DraftEngine(context_tokens=100)).questions == ()  # no passage fits

    class Other(DraftEngine):
        numeric_class = "other"

    other = Other()
    assert drafted(base, log, other).passages == len(other.read)  # another model does not take over the log


def test_of_two_places_the_one_most_like_the_question_is_gold(tmp_path: Path, log: Path) -> None:
    text = "# Fees\n\nA boat waits for 60\ndays at the outer pier. Found items are kept for 60\ndays in the office.\n"
    reply = "Question: How long are found items kept in the office?\nAnswer: 60 days"
    (found,) = drafted(base_of(tmp_path, fees=text), log, DraftEngine(always(reply))).questions
    assert found["gold"]["quote"] == "Found items are kept for 60\ndays in the office."
    assert found["answers"] == ["60 days"]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Question: Who signs?\nAnswer: Ada Brandl", ("Who signs?", "Ada Brandl")),
        ("**Question:** Who\nsigns?\n\n**Answer:** “Ada Brandl.”\nIt is so.", ("Who signs?", "Ada Brandl")),
        ('question: "Who signs?" answer: `Ada Brandl`', ("Who signs?", "Ada Brandl")),
        ("Who signs? Ada Brandl.", None),
    ],
)
def test_a_reply_is_taken_apart(tmp_path: Path, log: Path, reply: str, expected: tuple[str, str] | None) -> None:
    base = base_of(
        tmp_path, one="# Letters\n\nEvery letter of the harbour is signed by Ada Brandl, the harbour master.\n"
    )
    found = drafted(base, log, DraftEngine(always(reply))).questions
    assert [(each["question"], each["answers"][0]) for each in found] == ([expected] if expected else [])


TEXT = (
    "The harbour master of Kilverry, Ada Brandl, keeps found items\nfor 60 days in the red house. 港は九時に開きます。"
)


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("Who is the harbour master of Kilverry?", "Ada Brandl", ""),
        ("Where does the harbour master keep found items?", "items for 60 days in the red house", ""),
        ("港はいつ開きますか？", "九時", ""),
        ("Who is the harbour master of Kilverry?", "Ad", "does not stand in the passage"),
        ("Who is the harbour master of Kilverry?", "ada brandl", "does not stand in the passage"),
        ("Whose?", "The harbour master of Kilverry, Ada Brandl, keeps found items for 60 days in the red house", "too long"),
        ("Who is the harbour master, Ada Brandl?", "Ada Brandl", "gives the answer away"),
        ("Name the harbour master of Kilverry.", "Ada Brandl", "not one question"),
        ("Who is it? And where?", "Ada Brandl", "not one question"),
        ("Who, " + "very " * 50 + "briefly, is it?", "Ada Brandl", "too long"),
        ("Who is the harbour master in the passage?", "Ada Brandl", "points at its passage"),
        ("According to the given text, who is the master?", "Ada Brandl", "points at its passage"),
        ("?", "Ada Brandl", "no question"),
        ("How many days does the master of Kilverry keep found items?", "60 days", ""),
        ("Who is the harbour master of Kilverry?", "—", "no question"),
    ],
)  # fmt: skip
def test_drafts_are_checked(question: str, answer: str, reason: str) -> None:
    said = reason_against(question, answer, TEXT)
    assert reason in said
    assert bool(reason) == bool(said)
