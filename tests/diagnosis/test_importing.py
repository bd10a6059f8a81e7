"""Folders as BEIR has them, and the contexts of RAGAS records."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from openbook.diagnosis.gold_quotes import sentence_at
from openbook.diagnosis.importing_beir import document_name, write_corpus
from openbook.diagnosis.questions import Gold, load_questions
from openbook.errors import ConfigError

QUERIES = [
    {"_id": "q1", "text": "Who opened the bridge?", "answers": ["Lila Ortega"]},
    {"_id": "q2", "text": "When does the ferry leave?", "metadata": {"answers": ["09:40"]}},
    {"_id": "q3", "text": "Is it far?"},
    {"_id": "q4", "text": "Who is not judged?", "answers": ["Nobody"]},
]
CORPUS = [
    {"_id": "d1", "title": "The  bridge", "text": "It has four lanes. It was opened by Lila Ortega! Nobody minded."},
    {"_id": "a/b 2", "title": "", "text": "Dogs may not enter."},
    {"_id": "d3", "text": "The ferry leaves at 09:40."},
]
QRELS = "query-id\tcorpus-id\tscore\nq1\ta/b 2\t1\nq1\td1\t2\nq2\td3\t0\nq2\ta/b 2\t1\nq3\td1\t1\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "beir" / "qrels").mkdir(parents=True)
    (tmp_path / "beir" / "queries.jsonl").write_text("".join(json.dumps(q) + "\n" for q in QUERIES))
    with gzip.open(tmp_path / "beir" / "corpus.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps(d) + "\n" for d in CORPUS)
    (tmp_path / "beir" / "qrels" / "test.tsv").write_text(QRELS)
    (tmp_path / "beir" / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq4\td1\t1\n")
    return tmp_path / "beir"


def test_queries_with_answers_become_questions_with_the_sentence_that_answers(folder: Path) -> None:
    first, second = load_questions(folder)
    assert (first.id, first.answers) == ("q1", ("Lila Ortega",))
    assert first.gold == Gold("d1.md", quote="It was opened by Lila Ortega!")
    assert (second.id, second.answers, second.gold) == ("q2", ("09:40",), None)  # what is judged 0 is not relevant


def test_the_sentence_that_answers_is_whole(folder: Path) -> None:
    text = "It has four lanes. It was opened by Dr. Lila Ortega for 3.50 a car. Nobody minded."
    (folder / "corpus.jsonl").write_text(json.dumps({"_id": "d1", "text": text}) + "\n")
    first = next(iter(load_questions(folder)))
    assert first.gold == Gold("d1.md", quote="It was opened by Dr. Lila Ortega for 3.50 a car.")


def test_judgements_as_trec_has_them_are_read_too(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").write_text("q1 0 d1 1\n")
    assert [q.id for q in load_questions(folder, "beir")] == ["q1"]


def test_documents_are_written_one_each(folder: Path, tmp_path: Path) -> None:
    assert write_corpus(folder, tmp_path / "docs") == 3
    assert (tmp_path / "docs" / "d1.md").read_text().startswith("# The bridge\n\nIt has four lanes.")
    assert {path.name for path in (tmp_path / "docs").iterdir()} == {"d1.md", "d3.md", document_name("a/b 2")}
    assert document_name("a/b 2") != document_name("a_b_2")
    assert "/" not in document_name("../../etc/passwd")
    assert len(document_name("x" * 300)) < 100


def test_judgements_may_be_compressed(folder: Path) -> None:
    for path in (folder / "qrels").iterdir():
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert [q.id for q in load_questions(folder)] == ["q1", "q2"]
    (folder / "qrels" / "train.tsv.gz").rename(folder / "qrels_test.tsv.gz")
    assert [q.id for q in load_questions(folder)] == ["q1", "q2"]
    (folder / "qrels_test.tsv.gz").rename(folder / "qrels" / "test.tsv")  # plain again, and no gzip
    with pytest.raises(ConfigError, match=r"test\.tsv line 1 is not UTF-8"):
        list(load_questions(folder))


def test_scores_may_be_decimal_and_ids_may_hold_spaces(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").write_text("q1\ta/b 2\t1.0\nq1\td1\t0.5\nq2\td1\t-1\n")
    with gzip.open(folder / "corpus.jsonl.gz", "wt") as stream:
        stream.write(json.dumps({"_id": "a/b 2", "title": "", "text": "Lila Ortega may not enter."}))
    (question,) = load_questions(folder)
    assert question.gold == Gold(document_name("a/b 2"), quote="Lila Ortega may not enter.")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("queries.jsonl", '{"_id": "q1", "text": 3}\n', "line 1 is no BEIR query"),
        ("queries.jsonl", "[]\n", "line 1 is no JSON object"),
        ("queries.jsonl", '{"_id": "q1", "text": "Why?"}\n', "None of the 1 queries in beir has accepted answers"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\n", "line 2 is no judgement"),
        ("qrels/test.tsv", "q1\td1\t--1\n", "line 1 is no judgement"),
        ("qrels/test.tsv", "q1\td1\t1\nq1\td1\t²\n", "line 2 is no judgement"),
        ("corpus.jsonl", '{"_id": "d1"}\n', "line 1 is no BEIR document"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, name: str, content: str, says: str) -> None:
    (folder / "corpus.jsonl.gz").unlink(missing_ok=name == "corpus.jsonl")
    (folder / "corpus.jsonl").write_text(json.dumps(CORPUS[0]))
    (folder / name).write_text(content)
    with pytest.raises(ConfigError, match=says):
        list(load_questions(folder))


def test_what_is_missing_is_named(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").unlink()
    assert [q.id for q in load_questions(folder)] == ["q4"]
    (folder / "qrels" / "train.tsv").unlink()
    with pytest.raises(ConfigError, match="has no judgements"):
        list(load_questions(folder))
    (folder / "corpus.jsonl.gz").unlink()
    (folder / "qrels_dev.tsv").write_text(QRELS)
    with pytest.raises(ConfigError, match=r"has no corpus\.jsonl"):
        list(load_questions(folder))


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
