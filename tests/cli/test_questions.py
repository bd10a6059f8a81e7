"""Drafting, reviewing and importing questions as a user meets them, without a model."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openbook.answers import opening
from openbook.core.errors import StorageError
from openbook.core.records import ReaderFormat
from openbook.diagnosis import questions
from openbook.diagnosis.questions import Review, load_questions, write_questions
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from tests.cli.conftest import Out, TypeIn
from tests.diagnosis.bases import EMBEDDER, FERRIES, HARBOUR, DraftEngine, base_of


@pytest.fixture
def kb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A knowledge base; models named `good`, `silent` and `reader` are there."""
    reader = ReaderFormat("Answer.", "The passages do not say.")
    models: dict[str, Callable[[], FrozenModel]] = {
        "good": lambda: FrozenModel(DraftEngine()),
        "silent": lambda: FrozenModel(DraftEngine(lambda text: "I cannot help.")),
        "reader": lambda: FrozenModel(DraftEngine(), reader),
    }
    monkeypatch.setattr(opening, "model_opener", lambda current, *_: models[current.model])
    base_of(tmp_path, ferries=FERRIES, harbour=HARBOUR).close()
    return tmp_path / "kb"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def unreviewed(path: Path) -> int:
    return sum(not question.reviewed for question in load_questions(path))


def test_draft_writes_unreviewed_questions(kb: Path, tmp_path: Path, out: Out) -> None:
    path = tmp_path / "out" / "questions.jsonl"
    command = ("questions", "draft", "--kb", kb, "--model", "good", "-o", path)
    stdout = out.ok(*command, "-n", "2")
    assert "2 drafts from 2 passages" in stdout
    assert "Review them before you use them" in stdout
    assert unreviewed(path) == len(read(path)) == 2
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    out.refused(2, "Choose another name", *command)
    path.unlink()
    assert "of 500 wanted" in out.ok(*command, "-n", "500")


def test_draft_without_questions_leaves_no_file(kb: Path, tmp_path: Path, out: Out) -> None:
    (tmp_path / "file").write_text("")
    KnowledgeBase.ensure(tmp_path / "empty", EMBEDDER.identity).close()
    for model, base, place, code, says in (
        ("silent", kb, "q.jsonl", 2, "No question could be drafted"),
        ("reader", kb, "q.jsonl", 2, "Choose a model that follows"),
        ("good", tmp_path / "empty", "q.jsonl", 4, "no document went in"),
        ("good", kb, "file/q.jsonl", 5, "Cannot write"),
    ):
        out.refused(code, says, "questions", "draft", "--kb", base, "-o", tmp_path / place, "--model", model)
    assert list(tmp_path.glob("q.jsonl*")) == []


def test_an_interrupted_draft_resumes(kb: Path, tmp_path: Path, out: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(text: str) -> str:
        if len(first.read) == 2:
            raise KeyboardInterrupt
        return second.write(text)

    first, second = DraftEngine(interrupted), DraftEngine()
    path, whole = tmp_path / "q.jsonl", tmp_path / "whole.jsonl"
    command = ("questions", "draft", "--kb", kb, "-n", "2", "-o")
    out.ok(*command, whole, "--model", "good")
    monkeypatch.setattr(opening, "model_opener", lambda current, *_: lambda: FrozenModel(first))
    assert out(*command, path)[0] == 130
    assert not path.exists()
    with (tmp_path / "q.jsonl.part").open("ab") as part:
        part.write(b'\n{"cut of')  # what a killed process leaves
    monkeypatch.setattr(opening, "model_opener", lambda current, *_: lambda: FrozenModel(second))
    out.ok(*command, path)
    assert path.read_bytes() == whole.read_bytes()
    assert len(second.read) == 1
    assert list(tmp_path.glob("q.jsonl*")) == [path]


DRAFTS: list[dict[str, Any]] = [
    {
        "id": f"d{i}",
        "question": f"How many {thing} are on the Isolde Marr?",
        "kind": "answerable",
        "answers": ["14"],
        "gold": {"document": "ferries.md", "page": None, "start": 11, "end": 77, "quote": FERRIES[11:77]},
        "tags": ["md"],
        "reviewed": False,
    }
    for i, thing in enumerate(["places", "lifts", "bars", "decks"])
]


@pytest.fixture
def drafts(tmp_path: Path) -> Path:
    path = tmp_path / "drafts.jsonl"
    write_questions(path, [*DRAFTS, {"question": "By hand?", "answers": ["yes"], "note": "mine"}])
    return path


def test_review_saves_every_decision_and_resumes(kb: Path, drafts: Path, out: Out, type_in: TypeIn) -> None:
    type_in("a")  # and the pipe ends
    code, stdout, _ = out("questions", "review", drafts, "--kb", kb)
    assert (code, "1 of 4" in stdout, "Reviewed: 2; still drafts: 3." in stdout) == (0, True, True)
    assert f"»{FERRIES[11:77]}«" in stdout
    assert "The evacuation slide" in stdout  # the passage around the quote
    type_in("r", "e", "Is there a bar?", "yes | one bar", "a", "s")
    stdout = out.ok("questions", "review", drafts, "--kb", kb)
    assert "1 of 3" in stdout
    assert "Reviewed: 3; still drafts: 1." in stdout
    lines = read(drafts)
    assert [line.get("reviewed", "by hand") for line in lines] == [True, True, False, "by hand"]
    assert (lines[1]["question"], lines[1]["answers"]) == ("Is there a bar?", ["yes", "one bar"])
    assert lines[3] == {"question": "By hand?", "answers": ["yes"], "note": "mine"}


def test_an_invalid_edit_is_refused(drafts: Path, out: Out, type_in: TypeIn) -> None:
    before = drafts.read_bytes()
    type_in("z", "e", "???", "", "x")
    _, stdout, _ = out("questions", "review", drafts)
    assert "Type a, e, r, s or x, not 'z'." in stdout
    assert "Not changed: The draft is not a valid question: The question is empty" in " ".join(stdout.split())
    assert drafts.read_bytes() == before


def test_an_edit_of_the_answers_decides_whether_it_has_any(drafts: Path, out: Out, type_in: TypeIn) -> None:
    silent: dict[str, Any] = {"answers": [], "kind": "unanswerable"}
    cases: list[tuple[dict[str, Any], tuple[str, ...], object]] = [
        ({}, ("e", "", "|", "a"), ("unanswerable", ())),
        (silent, ("a",), ("unanswerable", ())),
        (silent, ("e", "", "Ada", "a"), ("answerable", ("Ada",))),
        ({"kind": "world", "gold": None}, ("e", "", "Paris", "a"), ("world", ("Paris",))),
    ]
    for changes, typed, expected in cases:
        write_questions(drafts, [DRAFTS[0] | changes])
        type_in(*typed)
        out.ok("questions", "review", drafts)
        (question,) = load_questions(drafts)
        assert ((question.kind, question.answers), question.reviewed) == (expected, True)


def test_review_without_the_passage_says_so(kb: Path, drafts: Path, out: Out, type_in: TypeIn) -> None:
    moved = DRAFTS[0] | {"gold": DRAFTS[0]["gold"] | {"start": 12}}
    gone = DRAFTS[1] | {"gold": DRAFTS[1]["gold"] | {"document": "gone.md"}}
    write_questions(drafts, [moved, gone, DRAFTS[2] | {"gold": None}])
    type_in("s", "s", "s")
    _, stdout, _ = out("questions", "review", drafts, "--kb", kb)
    assert stdout.count("This knowledge base does not have the quote at that place") == 2
    assert "No passage is named" in stdout


def test_review_reads_what_a_diagnosis_reads_and_names_a_line_that_is_no_question(
    drafts: Path, out: Out, type_in: TypeIn
) -> None:
    line = b'\xef\xbb\xbf{"question": "When?", "answers": "09:40", "reviewed": false}\n'
    compressed = drafts.with_name("drafts.jsonl.gz")
    for path, content in ((drafts, line), (compressed, gzip.compress(line))):
        path.write_bytes(content)
        type_in("a")
        assert "Answers:  09:40\n" in out.ok("questions", "review", path)
        assert [(q.answers, q.reviewed) for q in load_questions(path)] == [(("09:40",), True)]
    bad: dict[str, Any]
    for bad in ({"mine": 1}, {"id": "d0"}, {"tags": 3}, {"answers": []}, {"question": "?"}):
        write_questions(drafts, [DRAFTS[0], {"question": "By hand?", "answers": ["yes"], "reviewed": False} | bad])
        out.refused(2, "line 2", "questions", "review", drafts)


def test_a_concurrent_change_of_the_file_is_kept(drafts: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to(drafts)
    first, second = Review.open(drafts), Review.open(link)
    second.decide(second.drafts()[1], accepted=True)
    assert link.is_symlink()
    by_another = drafts.read_bytes()
    with pytest.raises(StorageError, match="was changed by something else"):
        first.decide(first.drafts()[0], accepted=False)
    assert drafts.read_bytes() == by_another
    drafts.unlink()
    with pytest.raises(StorageError, match="was changed by something else"):
        second.decide(second.drafts()[0], accepted=True)
    assert not drafts.exists()


def test_a_change_while_a_review_opens_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "q.jsonl"
    line = '{"id": "a", "question": "When?", "answers": ["now"], "reviewed": false}\n'
    path.write_text(line)

    def read_before_a_change(path: Path) -> bytes:
        content = path.read_bytes()
        path.write_text(line + line.replace('"a"', '"b"'))
        return content

    monkeypatch.setattr(questions, "file_content", read_before_a_change)
    review = Review.open(path)
    with pytest.raises(StorageError, match="was changed by something else"):
        review.decide(review.questions[0], accepted=True)
    assert path.read_text().count("\n") == 2
