"""Folders as BEIR has them, and the contexts of RAGAS records."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("queries.jsonl", '{"_id": "q1", "text": 3}\n', "line 1 is no BEIR query"),
        ("queries.jsonl", "[]\n", "line 1 is no JSON object"),
        ("queries.jsonl", '{"_id": "q1", "text": "Why?"}\n', "None of the 1 queries in beir has accepted answers"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\n", "line 2 is no judgement"),
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
