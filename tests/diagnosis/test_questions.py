"""Files of questions: what is read, and that what is wrong is said with its line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from openbook.diagnosis import questions
from openbook.diagnosis.gold_passages import sentence_at
from openbook.diagnosis.importers import load_questions
from openbook.diagnosis.questions import Gold, Question, questions_digest
from openbook.errors import ConfigError, StorageError
from tests.conftest import ROOT


def write(path: Path, *lines: object) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def load(path: Path, text: str) -> list[Question]:
    path.write_text(text)
    return load_questions(path)


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
        ("[1]", "must be an object"),
        ({"id": "b", "question": "Where?"}, "no answers and is not marked unanswerable"),
        ({"id": "b", "question": "Where?", "answers": [""]}, "is empty"),
        ({"id": "b", "question": "Where?", "answers": [3]}, ": answers[0] must be text, not 3"),
        ({**BAD, "unanswerable": True}, "drop one of the two"),
        ({**BAD, "kind": "odd"}, "must be one of"),
        ({**BAD, "kind": ""}, "closed-book, not ''"),
        ({"id": "b", "question": "Where?", "kind": "world", "unanswerable": True}, "marked unanswerable"),
        ({"id": "b", "question": "???", "answers": ["x"]}, "empty"),
        ({"id": "b", "question": "x" * 9000, "answers": ["x"]}, "at most 8,000"),
        ({"id": "b", "answers": ["x"]}, "lacks the key 'question'"),
        ({"id": "", "question": "Where?", "answers": ["x"]}, "'id' must be a text"),
        ({**BAD, "anwsers": []}, "Did you mean 'answers'"),
        ({**BAD, "gold": {"document": "a", "start": 5, "end": 2}}, "'start' and"),
        ({**BAD, "gold": {"document": "a"}}, "needs a document with start"),
        ({**BAD, "phrasings": [f"Where {n}?" for n in range(20)]}, "it has 20 phrasings"),
        ('{"id": "b", "question": "Where?", "answers": ["\\ud800"]}', "half a character"),
        ({"id": "a", "question": "Where else?", "answers": ["x"]}, "used twice"),
        ({"id": "b", "question": "Where?", "answers": ["x" * (1 << 20)]}, "shorten it"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, line: object, says: str) -> None:
    path = write(tmp_path / "q.jsonl", GOOD, line)
    with pytest.raises(ConfigError, match=r"q\.jsonl line 2") as caught:
        load_questions(path)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\n \n", "holds no questions"),
        (b'{"id": "a", "question": "caf\xe9?", "answers": ["x"]}', "'utf-8' codec can't decode"),
        (b"[1, 2", "is not a JSON document"),
        (b"[" * 100_000, "is not a JSON document"),
        (b"[]", "holds no questions"),
        (b'{\n"a": 1\n}', "neither a list of questions"),
        (b'{"data": [{"paragraphs": 3}]}', "is not a SQuAD file: each article"),
        (
            b'{"data": [{"paragraphs": [{"context": "A b.", "qas": [{"id": "x", "question": "W?"}]}]}]}',
            "missing required field `answers`",
        ),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "q.jsonl").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_questions(tmp_path / "q.jsonl")
    assert says in str(caught.value)


def test_damaged_missing_and_too_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gzip.compress(json.dumps(GOOD).encode() * 100)
    (tmp_path / "q.jsonl.gz").write_bytes(whole[:-20])
    with pytest.raises(ConfigError, match="decompressed"):
        load_questions(tmp_path / "q.jsonl.gz")
    (tmp_path / "p.jsonl.gz").write_bytes(b"plain")
    with pytest.raises(ConfigError, match="decompressed"):
        load_questions(tmp_path / "p.jsonl.gz")
    with pytest.raises(StorageError, match="Cannot read"):
        load_questions(tmp_path / "missing.jsonl")
    monkeypatch.setattr(questions, "MAX_FILE_BYTES", 50)
    (tmp_path / "q.jsonl.gz").write_bytes(gzip.compress(json.dumps(GOOD).encode() + b" " * 1000))
    with pytest.raises(ConfigError, match="more than 50 bytes"):
        load_questions(tmp_path / "q.jsonl.gz")


def test_the_digest_is_over_the_questions_and_not_the_bytes(tmp_path: Path) -> None:
    one = questions_digest(load_questions(write(tmp_path / "a.jsonl", GOOD)))
    assert one == questions_digest(
        load_questions(write(tmp_path / "b.jsonl", "", json.dumps(GOOD).replace(": ", " : ")))
    )
    assert one != questions_digest(load_questions(write(tmp_path / "c.jsonl", {**GOOD, "question": "Whence?"})))


def squad(context: str, answer: str, place: int | None = None) -> dict[str, Any]:
    """A record as the hub has it."""
    given = {"text": [answer], "answer_start": [context.index(answer) if place is None else place]}
    return {"id": "s1", "title": "W", "context": context, "question": "What?", "answers": given}


def test_squad_files(tmp_path: Path) -> None:
    context = "Warsaw lies on the Vistula. It became the capital in 1611! Nobody minded."
    answer = {"text": "1611", "answer_start": context.index("1611")}
    qas = [
        {"id": "s1", "question": "When did it become the capital?", "answers": [answer], "is_impossible": False},
        {"id": "s2", "question": "Who minded?", "answers": [], "is_impossible": True},
    ]
    data = {"version": "v2.0", "data": [{"title": "Warsaw", "paragraphs": [{"context": context, "qas": qas}]}]}
    for text in (json.dumps(data), json.dumps(data, indent=1)):
        first, second = load(tmp_path / "squad.json", text)
        assert (first.answers, first.tags) == (("1611",), ("Warsaw",))
        assert first.gold == Gold("", quote="It became the capital in 1611!")
        assert (second.kind, second.gold) == ("unanswerable", None)
    with pytest.raises(ConfigError, match="is not in the context"):
        load(tmp_path / "bad.jsonl", json.dumps(squad(context, "1611", 5200)))


@pytest.mark.parametrize(
    ("context", "answer", "quote"),
    [
        ("It was built by Dr. J. Smith. He died young.", "Smith", "It was built by Dr. J. Smith."),
        ("Tickets are sold on board. The fare is 3.50. Dogs pay half.", "3.50", "The fare is 3.50. Dogs pay half."),
        ("It is small. It runs on Microsoft .NET. Nobody minds.", ".NET", "It runs on Microsoft .NET."),
        ("The ferry is fast.\n\nIt is red. Nobody minds the colour.", "red", "It is red. Nobody minds the colour."),
        ("Nobody minds the colour. It is red.\n\nIt is fast.", "red", "Nobody minds the colour. It is red."),
        ("It rains. The mayor was Ada Brandl. She left.", "Brandl. She", "The mayor was Ada Brandl. She left."),
        ("It is red.", "red", None),  # shorter than a quote that could be looked for
    ],
)
def test_a_squad_answer_is_quoted_with_its_sentence(
    tmp_path: Path, context: str, answer: str, quote: str | None
) -> None:
    (question,) = load(tmp_path / "squad.jsonl", json.dumps(squad(context, answer)))
    assert (question.answers, question.gold) == ((answer,), None if quote is None else Gold("", quote=quote))


def test_no_quote_is_better_than_one_without_the_answer(tmp_path: Path) -> None:
    record = squad("It is red. Nobody minds the colour at all.", "red", 30)
    assert load(tmp_path / "squad.jsonl", json.dumps(record))[0].gold is None
    assert sentence_at("=====\n-----", 2, 1) == ""


def test_ragas_records(tmp_path: Path) -> None:
    records = [
        {"user_input": "Where?", "reference": "In the harbour.", "retrieved_contexts": ["x"]},
        {"question": "When?", "ground_truth": "At nine.", "contexts": []},
        {"question": "Who?", "ground_truths": ["Ada", "Ada Brandl"]},
    ]
    found = load(tmp_path / "r.json", json.dumps(records))
    assert [q.answers for q in found] == [("In the harbour.",), ("At nine.",), ("Ada", "Ada Brandl")]
    assert [q.id for q in found] == ["line-1", "line-2", "line-3"]
    assert load(tmp_path / "r.jsonl", "\n".join(map(json.dumps, records))) == found
    with pytest.raises(ConfigError, match="no reference answer"):
        load(tmp_path / "n.jsonl", json.dumps({"user_input": "Where?", "reference": None}))


LONG = "The harbour has a café, a shop and a museum. " * 20 + "It opens at noon."


@pytest.mark.parametrize(
    ("reference", "contexts", "quote"),
    [
        (
            "At nine.",
            ["Dogs may not enter.", "It is early. It leaves from pier 3 At nine. Ho."],
            "It leaves from pier 3 At nine.",
        ),
        ("At Noon", ["It leaves early. There is no bar on board.", LONG], LONG),  # in other words
        ("Somebody else.", ["It leaves early. There is no bar.", LONG], "It leaves early. There is no bar."),
        ("art", ["The party was loud. He studied law."], "The party was loud. He studied law."),
        ("So.", [], None),
    ],
)
def test_a_ragas_record_names_the_sentence_or_the_context_that_answers(
    tmp_path: Path, reference: str, contexts: list[str], quote: str | None
) -> None:
    record = {"user_input": "When?", "reference": reference, "reference_contexts": contexts}
    (question,) = load(tmp_path / "ragas.json", json.dumps([record]))
    assert question.gold == (None if quote is None else Gold("", quote=quote))
