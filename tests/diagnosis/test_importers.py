"""Questions from files of other makers, with the words that answer them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openbook.diagnosis.gold_passages import sentence_at
from openbook.diagnosis.questions import Gold, Question, load_questions
from openbook.errors import ConfigError


def _write(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def _load(path: Path, file_format: str = "") -> list[Question]:
    return list(load_questions(path, file_format))


def test_squad_files(tmp_path: Path) -> None:
    context = "Warsaw lies on the Vistula. It became the capital in 1611! Nobody minded."
    answer = {"text": "1611", "answer_start": context.index("1611")}
    qas = [
        {"id": "s1", "question": "When did it become the capital?", "answers": [answer], "is_impossible": False},
        {"id": "s2", "question": "Who minded?", "answers": [], "is_impossible": True},
    ]
    data = {"version": "v2.0", "data": [{"title": "Warsaw", "paragraphs": [{"context": context, "qas": qas}]}]}
    for text in (json.dumps(data), json.dumps(data, indent=1), json.dumps(data, separators=(",", ":"))):
        (tmp_path / "squad.json").write_text(text)
        first, second = _load(tmp_path / "squad.json")
        assert (first.answers, first.tags) == (("1611",), ("Warsaw",))
        assert first.gold == Gold("", quote="It became the capital in 1611!")
        assert (second.kind, second.gold) == ("unanswerable", None)
    flat = {
        "id": "s1",
        "title": "W",
        "context": context,
        "question": "When?",
        "answers": {"text": ["1611"], "answer_start": [52]},
    }
    assert _load(_write(tmp_path / "hub.jsonl", flat))[0].answers == ("1611",)
    bad = {**flat, "answers": {"text": ["1611"], "answer_start": [5200]}}
    with pytest.raises(ConfigError, match="is not in the context"):
        _load(_write(tmp_path / "bad.jsonl", bad))


def test_ragas_records(tmp_path: Path) -> None:
    records = [
        {"user_input": "Where?", "reference": "In the harbour.", "retrieved_contexts": ["x"]},
        {"question": "When?", "ground_truth": "At nine.", "contexts": []},
        {"question": "Who?", "ground_truths": ["Ada", "Ada Brandl"]},
    ]
    (tmp_path / "r.json").write_text(json.dumps(records))
    found = _load(tmp_path / "r.json")
    assert [q.answers for q in found] == [("In the harbour.",), ("At nine.",), ("Ada", "Ada Brandl")]
    assert [q.id for q in found] == ["line-1", "line-2", "line-3"]
    assert _load(_write(tmp_path / "r.jsonl", *records)) == found
    assert _load(_write(tmp_path / "s.jsonl", "", " ", records[0]))[0].id == "line-3"  # the line's number, as in errors
    with pytest.raises(ConfigError, match="no reference answer"):
        _load(_write(tmp_path / "n.jsonl", {"user_input": "Where?", "reference": None}), "ragas")


def test_a_ragas_record_names_the_sentence_that_answers(tmp_path: Path) -> None:
    contexts = ["Dogs may not enter.", "It leaves early. It leaves at 09:40 from pier 3. Be there."]
    record = {"user_input": "When?", "reference": "It leaves at 09:40 from pier 3.", "reference_contexts": contexts}
    other = {"user_input": "Who?", "reference": "Somebody else.", "reference_contexts": contexts[:1]}
    path = tmp_path / "ragas.json"
    path.write_text(json.dumps([record, other, {"user_input": "Why?", "reference": "So."}]))
    assert [q.gold for q in load_questions(path)] == [
        Gold("", quote="It leaves at 09:40 from pier 3."),
        Gold("", quote="Dogs may not enter."),
        None,
    ]


def test_a_ragas_reference_in_other_words_names_the_context_that_holds_it(tmp_path: Path) -> None:
    long = "The harbour has a café, a shop and a museum. " * 20 + "It opens at noon."
    contexts = ["It leaves early. There is no bar on board.", long]
    record = {"user_input": "When?", "reference": "At Noon", "reference_contexts": contexts}
    part = {"user_input": "Who?", "reference": "art", "reference_contexts": ["The party was loud. He studied law."]}
    path = tmp_path / "ragas.json"
    path.write_text(json.dumps([record, record | {"reference": "Somebody else."}, part]))
    assert [q.gold and q.gold.quote for q in load_questions(path)] == [long, contexts[0], part["reference_contexts"][0]]


@pytest.mark.parametrize(
    ("context", "answer", "quote"),
    [
        ("It was built by Dr. J. Smith. He died young.", "Smith", "It was built by Dr. J. Smith."),
        ("Tickets are sold on board. The fare is 3.50. Dogs pay half.", "3.50", "The fare is 3.50. Dogs pay half."),
        ("It is small. It runs on Microsoft .NET. Nobody minds.", ".NET", "It runs on Microsoft .NET."),
        ("The ferry is fast.\n\nIt is red. Nobody minds the colour.", "red", "It is red. Nobody minds the colour."),
        ("Nobody minds the colour. It is red.\n\nIt is fast.", "red", "Nobody minds the colour. It is red."),
        (
            "It rains. The mayor was Ada Brandl. She left. It rains.",
            "Brandl. She",
            "The mayor was Ada Brandl. She left.",
        ),
    ],
)
def test_a_squad_answer_is_quoted_with_its_sentence(tmp_path: Path, context: str, answer: str, quote: str) -> None:
    given = {"text": [answer], "answer_start": [context.index(answer)]}
    path = tmp_path / "squad.jsonl"
    path.write_text(json.dumps({"id": "s1", "context": context, "question": "What?", "answers": given}))
    (question,) = load_questions(path)
    assert question.gold == Gold("", quote=quote)


@pytest.mark.parametrize(("context", "place"), [("It is red. Nobody minds the colour at all.", 30), ("It is red.", 6)])
def test_no_quote_is_better_than_one_without_the_answer(tmp_path: Path, context: str, place: int) -> None:
    given = {"text": ["red"], "answer_start": [place]}
    path = tmp_path / "squad.jsonl"
    path.write_text(json.dumps({"id": "s1", "context": context, "question": "What?", "answers": given}))
    assert [q.gold for q in load_questions(path)] == [None]


def test_there_is_no_sentence_in_lines_that_only_draw() -> None:
    assert sentence_at("=====\n-----", 2) == ""
