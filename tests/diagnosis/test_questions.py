"""Files of questions: what is read, and errors that name the line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from openbook.core.errors import ConfigError, StorageError
from openbook.diagnosis import questions
from openbook.diagnosis.questions import Gold, Question, load_questions, questions_digest
from tests.conftest import ROOT


def write(path: Path, *lines: object) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def test_the_examples_load_as_they_are() -> None:
    found = load_questions(ROOT / "examples" / "questions.jsonl")
    assert {q.kind for q in found} == {"answerable", "unanswerable", "world"}
    assert found[0].gold is not None
    assert found[0].gold.document == "policies/leave-policy.md"
    assert all(bool(q.answers) == (q.kind != "unanswerable") for q in found)


def test_everything_a_line_may_say(tmp_path: Path) -> None:
    path = write(
        tmp_path / "q.jsonl",
        {
            "id": 7,
            "question": " When does it leave? ",
            "answers": ["09:40", "9.40", "09:40"],
            "phrasings": ["At what time?", "When does it leave?"],
            "gold": {"document": "a.md", "start": 3, "end": 9, "quote": "at nine", "page": None},
            "tags": ["time"],
            "note": "ask Ada",
        },
        "",
        {"question": "Who built it?", "unanswerable": True},
        {"id": "w", "question": "Capital of France?", "answers": "Paris", "kind": "closed-book"},
    )
    first, second, third = load_questions(path)
    assert first == Question(
        "7",
        "When does it leave?",
        ("09:40", "9.40"),
        "answerable",
        ("At what time?",),
        Gold("a.md", 3, 9, "at nine"),
        ("time",),
    )
    assert first.wordings == ("When does it leave?", "At what time?")
    assert (second.id, second.kind, second.answers) == ("line-3", "unanswerable", ())
    assert (third.kind, third.answers) == ("world", ("Paris",))


GOOD = {"id": "a", "question": "Where?", "answers": ["here"]}
BAD = {"id": "b", "question": "Where?", "answers": ["x"]}  # with another key


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "is not a JSON document"),
        ({"id": "b", "question": "Where?"}, "no answers and is not marked unanswerable"),
        ({"id": "b", "question": "Where?", "answers": [""]}, "is empty"),
        ({**BAD, "unanswerable": True}, "drop one of the two"),
        ({**BAD, "kind": "odd"}, "must be one of"),
        ({**BAD, "kind": ""}, "closed-book, not ''"),
        ({"id": "b", "question": "Where?", "kind": "world", "unanswerable": True}, "marked unanswerable"),
        ({"id": "b", "question": "???", "answers": ["x"]}, "empty"),
        ({"id": "b", "question": "x" * 13_000, "answers": ["x"]}, "at most 12,000"),
        ({"id": "b", "answers": ["x"]}, "lacks the key 'question'"),
        ({"id": "", "question": "Where?", "answers": ["x"]}, "'id' must be a text"),
        ({**BAD, "anwsers": []}, "Did you mean 'answers'"),
        ({**BAD, "gold": {"document": "a", "start": 5, "end": 2}}, "'start' and"),
        ({**BAD, "gold": {"document": "a"}}, "needs a document with start"),
        ({**BAD, "phrasings": [f"Where {n}?" for n in range(20)]}, "it has 20 phrasings"),
        ('{"id": "b", "question": "Where?", "answers": ["\\ud800"]}', "half a character"),
        ({"id": "a", "question": "Where else?", "answers": ["x"]}, "used twice"),
        ({"id": "b", "question": "Where?", "answers": ["x" * (1 << 20)]}, "shorten it"),
        ("[]", "line 2 must be an object"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: object, says: str) -> None:
    path = write(tmp_path / "q.jsonl", GOOD, line)
    with pytest.raises(ConfigError, match=r"q\.jsonl line 2") as caught:
        load_questions(path)
    assert says in str(caught.value)
    path.write_bytes(b"\n \n")
    with pytest.raises(ConfigError, match="holds no questions"):
        load_questions(path)


def test_damaged_missing_and_too_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "q.jsonl.gz"
    for content in (gzip.compress(json.dumps(GOOD).encode() * 100)[:-20], b"plain"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="decompressed"):
            load_questions(path)
    with pytest.raises(StorageError, match="Cannot read"):
        load_questions(tmp_path / "missing.jsonl")
    monkeypatch.setattr(questions, "MAX_FILE_BYTES", 50)
    path.write_bytes(gzip.compress(json.dumps(GOOD).encode() + b" " * 1000))
    with pytest.raises(ConfigError, match="more than 50 bytes"):
        load_questions(path)


def test_the_digest_is_over_the_questions_and_not_the_bytes(tmp_path: Path) -> None:
    one = questions_digest(load_questions(write(tmp_path / "a.jsonl", GOOD)))
    assert one == questions_digest(
        load_questions(write(tmp_path / "b.jsonl", "", json.dumps(GOOD).replace(": ", " : ")))
    )
    assert one != questions_digest(load_questions(write(tmp_path / "c.jsonl", {**GOOD, "question": "Whence?"})))
