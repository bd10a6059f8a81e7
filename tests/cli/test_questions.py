"""Drafting, reviewing and importing questions as a user meets them, without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openbook.answers import opening
from openbook.core.errors import StorageError
from openbook.diagnosis import questions
from openbook.diagnosis.questions import Review, load_questions, write_questions
from openbook.inference import FrozenModel
from tests.cli.conftest import Out, TypeIn
from tests.diagnosis.bases import FERRIES, HARBOUR, DraftEngine, base_of


@pytest.fixture
def kb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(opening, "model_opener", lambda *_: lambda: FrozenModel(DraftEngine()))
    base_of(tmp_path, ferries=FERRIES, harbour=HARBOUR).close()
    return tmp_path / "kb"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


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


def test_review_names_a_line_that_is_no_question(drafts: Path, out: Out) -> None:
    bad: dict[str, Any]
    for bad in ({"mine": 1}, {"id": "d0"}, {"tags": 3}, {"answers": []}, {"question": "?"}):
        write_questions(drafts, [DRAFTS[0], {"question": "By hand?", "answers": ["yes"], "reviewed": False} | bad])
        out.refused(2, "line 2", "questions", "review", drafts)


def test_a_concurrent_change_of_the_file_is_kept(drafts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to(drafts)
    first, second = Review.open(drafts), Review.open(link)
    second.decide(second.drafts()[1], accepted=True)
    assert link.is_symlink()
    by_another = drafts.read_bytes()
    with pytest.raises(StorageError, match="was changed by something else"):
        first.decide(first.drafts()[0], accepted=False)
    assert drafts.read_bytes() == by_another

    def read_before_a_change(path: Path) -> bytes:
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        return content

    monkeypatch.setattr(questions, "file_content", read_before_a_change)
    third = Review.open(drafts)
    with pytest.raises(StorageError, match="was changed by something else"):
        third.decide(third.drafts()[0], accepted=True)
    assert drafts.read_bytes() == by_another + b"\n"
    drafts.unlink()
    with pytest.raises(StorageError, match="was changed by something else"):
        second.decide(second.drafts()[0], accepted=True)
    assert not drafts.exists()
