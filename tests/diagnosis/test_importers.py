"""Questions from files of other makers, with the words that answer them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openbook.diagnosis.gold_passages import sentence_at
from openbook.diagnosis.questions import Gold, Question, load_questions
from openbook.errors import ConfigError


def load(path: Path, text: str) -> list[Question]:
    path.write_text(text)
    return load_questions(path)


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
    assert sentence_at("=====\n-----", 2) == ""


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
