from __future__ import annotations

import json
from pathlib import Path

import pytest

from openbook.diagnosis.drafting import Drafting, draft, in_english, with_title
from openbook.diagnosis.drafts import Draft, Gold, read_questions, unreviewed, write_questions
from openbook.diagnosis.judging import leaks, needs_title, reason_against
from openbook.diagnosis.posing import INSTRUCTION, pose
from openbook.diagnosis.swapping import Names, may_be_answered, swapped
from openbook.errors import ConfigError, StorageError
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, Scope
from openbook.records import Prompt
from openbook.testing import EchoEngine
from tests.diagnosis.bases import EMBEDDER, FERRIES, GERMAN, OLD, RESERVE, base_of


class Poser(EchoEngine):
    """Poses one question for each answer that it knows."""

    def __init__(self, said: str = "Which ship has a bar for the mayor of Kilverry?", **options: int) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.said = said

    def _answer(self, prompt: Prompt) -> str:
        return self.said if prompt.system == INSTRUCTION else super()._answer(prompt)


def questions_of(found: Drafting) -> dict[str, Draft]:
    return {each.question: each for each in found.drafts}


def test_drafts_have_their_answer_in_their_quote_and_their_quote_in_the_document(tmp_path: Path) -> None:
    base = base_of(tmp_path, ferries=FERRIES, old=OLD)
    found = draft(base, EMBEDDER, 50)
    assert len(found.drafts) >= 7
    assert len({each.id for each in found.drafts}) == len(found.drafts)
    for each in found.drafts:
        assert not each.reviewed
        if each.kind == "answerable":
            assert each.gold is not None
            text = base.text(str(tmp_path / "docs" / each.gold.document))
            assert text is not None
            assert text[each.gold.start : each.gold.end] == each.gold.quote
            assert each.answers[0] in " ".join(each.gold.quote.split())
        else:
            assert (each.gold, each.answers) == (None, ())
            assert "confirm" in each.tags
    slide = questions_of(found)["How long does the evacuation slide of the Isolde Marr take to inflate?"]
    assert slide.answers == ("95 seconds", "95")
    assert {"md", "number", "by-rule"} <= set(slide.tags)


def test_what_two_documents_answer_differently_is_asked_with_the_title(tmp_path: Path) -> None:
    found = questions_of(draft(base_of(tmp_path, ferries=FERRIES, old=OLD), EMBEDDER, 50))
    assert found["According to “Ferries”, for how long are found items kept?"].answers[0] == "60 days"
    assert found["According to “Rules of 2020”, for how long are found items kept?"].answers[0] == "30 days"


def test_a_question_without_an_answer_is_asked_of_another_thing_of_the_kind(tmp_path: Path) -> None:
    found = draft(base_of(tmp_path, ferries=FERRIES, reserve=RESERVE), EMBEDDER, 10)
    without = [each.question for each in found.drafts if each.kind == "unanswerable"]
    assert without
    assert all("Petra Lindqvist" in question for question in without)


def test_the_same_seed_gives_the_same_drafts_and_documents_take_turns(tmp_path: Path) -> None:
    base = base_of(tmp_path, ferries=FERRIES, old=OLD)
    assert draft(base, EMBEDDER, 6, seed=3) == draft(base, EMBEDDER, 6, seed=3)
    two = draft(base, EMBEDDER, 2, seed=1).drafts
    assert {each.gold.document for each in two if each.gold} == {"ferries.md", "old.md"}


def test_rejections_are_counted_with_their_reason(tmp_path: Path) -> None:
    text = "# Fees\n\nThe price is €4. The ferry of 60 days is kept for 60 days. The bell rings at 09:00. A bell rings at 09:00.\n"
    found = draft(base_of(tmp_path, fees=text), EMBEDDER, 20)
    assert found.rejected["cannot be understood alone"] >= 1
    assert found.rejected["gives its answer away"] >= 1


def test_another_language_gives_none_and_says_so(tmp_path: Path) -> None:
    found = draft(base_of(tmp_path, haus=GERMAN), EMBEDDER, 20)
    assert found.drafts == ()
    assert [Path(path).name for path in found.not_english] == ["haus.md"]
    assert not in_english(GERMAN * 3)
    assert in_english(FERRIES)


def test_an_empty_knowledge_base_gives_none(tmp_path: Path) -> None:
    base = KnowledgeBase.ensure(tmp_path / "kb", EMBEDDER.identity)
    assert draft(base, EMBEDDER, 20) == Drafting((), {}, 0, ())


def test_only_documents_in_scope_are_asked_about(tmp_path: Path) -> None:
    base = base_of(tmp_path, ferries=FERRIES, old=OLD)
    found = draft(base, EMBEDDER, 50, scope=Scope(where="name = 'old.md'"))
    assert {each.gold.document for each in found.drafts if each.gold} == {"old.md"}


def test_a_model_poses_questions_where_no_rule_does(tmp_path: Path) -> None:
    base = base_of(tmp_path, ferries=FERRIES)
    assert "Which ship has a bar for the mayor of Kilverry?" not in questions_of(draft(base, EMBEDDER, 50))
    found = questions_of(draft(base, EMBEDDER, 50, model=FrozenModel(Poser())))
    posed = found["Which ship has a bar for the mayor of Kilverry?"]
    assert posed.tags[-1] == "by-model"
    assert posed.gold is not None
    assert posed.answers[0] in posed.gold.quote


def test_a_model_that_writes_none_or_cannot_read_is_counted(tmp_path: Path) -> None:
    base = base_of(tmp_path, ferries=FERRIES)
    silent = draft(base, EMBEDDER, 50, model=FrozenModel(Poser("No idea.")))
    assert silent.rejected["the model wrote no question"] >= 1
    astray = draft(base, EMBEDDER, 50, model=FrozenModel(Poser("How many zebras graze in Kilverry?")))
    assert astray.rejected["the model itself answers it otherwise"] >= 1
    small = draft(base, EMBEDDER, 50, model=FrozenModel(Poser(context_tokens=60)))
    assert small.rejected["its passage does not fit into the model's context"] >= 1


def test_a_posed_question_is_one_line_without_its_label(tmp_path: Path) -> None:
    passage = base_of(tmp_path, ferries=FERRIES).passages(str(tmp_path / "docs" / "ferries.md"))[0]
    assert pose(FrozenModel(Poser('Question: "where is the bar? On board."')), passage, "bar") == "Where is the bar?"
    assert pose(FrozenModel(Poser("")), passage, "bar") == ""


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("How many wheelchair places does the Isolde Marr have?", "14", ""),
        ("What is a fadder?", "a colleague", ""),
        ("How long does it take to inflate the slide?", "95 seconds", "cannot be understood alone"),
        ("What is the name of his deputy?", "Zoë", "cannot be understood alone"),
        ("What is the price?", "€4", "cannot be understood alone"),
        ("Where is the harbour master of Ostrevik?", "in Ostrevik", "gives its answer away"),
        ("For how long are the 60 days kept in the office?", "60 days", "gives its answer away"),
        ("Who signs?", "Ailsa", "too short or too long"),
        ("Why " + "very " * 40 + "long?", "so", "too short or too long"),
        ("Where is the red lamp (on the mast?", "aft", "not one question"),
        ("What is in the `gw1` box today?", "a router", "not plain text"),
    ],
)
def test_questions_are_judged(question: str, answer: str, reason: str) -> None:
    assert reason_against(question, answer) == reason


def test_a_unit_in_the_question_gives_nothing_away() -> None:
    assert not leaks("How many days of leave does a clerk have?", ["28", "28 days"])
    assert leaks("How long do 28 days last?", ["twenty-eight days"])


def test_a_general_question_needs_the_title() -> None:
    assert needs_title("From which date does the contract run?")
    assert not needs_title("How many wheelchair places does the Isolde Marr have?")
    assert (
        with_title("From which date does the contract run?", "Fuel")
        == "According to “Fuel”, from which date does the contract run?"
    )


def test_names_are_swapped_only_for_names_that_are_used_alike() -> None:
    names = Names()
    names.read(
        "There is soup on the Isolde Marr. The bar of the Isolde Marr is shut. On board, the Isolde Marr is warm."
    )
    names.read(
        "Dogs stay on the Petra Lindqvist. The bow of the Petra Lindqvist is red, and the Petra Lindqvist is old."
    )
    names.read("We meet in Port Brannock. Go to Port Brannock, from Port Brannock.")
    question = "How many places does the Isolde Marr have?"
    assert list(swapped(question, names)) == [("How many places does the Petra Lindqvist have?", "Petra Lindqvist")]
    assert list(swapped("How many places does the Ragnhild Voe have?", names)) == []


def test_a_passage_that_may_answer_forbids_the_swap(tmp_path: Path) -> None:
    base = base_of(tmp_path, ferries=FERRIES, reserve=RESERVE)
    question = "How large is the crew of the Petra Lindqvist?"
    hits = base.search(question, EMBEDDER)[1]
    assert may_be_answered(question, "Petra Lindqvist", hits)
    assert not may_be_answered("How many zebras graze on the Petra Lindqvist?", "Petra Lindqvist", hits)


# --- files --------------------------------------------------------------------------------------------------------------

DRAFT = Draft("d1", "Where?", "answerable", ("here",), Gold("a.md", None, 0, 4, "here"), ("md",))


def test_a_file_of_drafts_is_recognised_until_all_are_reviewed(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    write_questions(path, [DRAFT.to_json(), {"question": "By hand?", "answers": []}])
    assert unreviewed(path) == 1
    assert read_questions(path)[0] == (1, json.loads(json.dumps(DRAFT.to_json())))
    write_questions(path, [DRAFT.to_json() | {"reviewed": True}])
    assert unreviewed(path) == 0


def test_a_draft_has_the_keys_of_the_examples() -> None:
    example = json.loads((Path(__file__).parents[2] / "examples" / "questions.jsonl").read_text().splitlines()[0])
    value = DRAFT.to_json()
    assert list(value) == [*example, "reviewed"]
    assert list(value["gold"]) == list(example["gold"])


@pytest.mark.parametrize(
    "line", ["nonsense", "[]", '{"id": 1}', '{"question": 3}', '{"question": "a", "answers": [3]}', "[" * 100_000]
)
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "good"}\n\n' + line + "\n")
    with pytest.raises(ConfigError, match="line 3"):
        read_questions(path)


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        read_questions(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_bytes(b'{"question": "\xff"}\n')
    with pytest.raises(ConfigError, match="UTF-8"):
        unreviewed(tmp_path / "bad.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_questions(tmp_path / "file" / "questions.jsonl", [])
