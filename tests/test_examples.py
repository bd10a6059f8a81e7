"""The example questions and the natural ones are what they say: quotes stand in the documents, answers pass, halves are alike."""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from pathlib import Path, PurePosixPath

import pytest

from benchmarks.natural_questions import HALVES, NATURAL, OTHERS, Question, holds, judged, questions, says
from openbook.knowledge.cite.editions import DocumentInfo, find_editions
from openbook.parsers import parse_file
from tests.conftest import ROOT

HANDBOOK = ROOT / "examples" / "handbook"
QUESTIONS = [
    json.loads(line) for line in (ROOT / "examples" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
]
EDITIONS = [
    json.loads(line) for line in (ROOT / "examples" / "editions.jsonl").read_text(encoding="utf-8").splitlines()
]


def test_there_are_enough_of_each_kind_and_each_document_is_asked_about() -> None:
    kinds = Counter(q["kind"] for q in QUESTIONS)
    assert set(kinds) == {"answerable", "unanswerable", "closed-book"}
    assert len(QUESTIONS) >= 60
    assert min(kinds.values()) >= 12
    assert len({q["id"] for q in QUESTIONS}) == len(QUESTIONS)
    documents = {p.relative_to(HANDBOOK).as_posix() for p in HANDBOOK.rglob("*") if p.is_file()}
    assert len(documents) >= 20
    assert {q["gold"]["document"] for q in QUESTIONS if q["gold"]} == documents


def test_every_gold_quote_stands_once_at_its_span_and_page_and_holds_the_answer() -> None:
    for question in QUESTIONS:
        gold = question["gold"]
        assert (gold is not None) == (question["kind"] == "answerable")
        if gold is None:
            continue
        content, _ = parse_file(HANDBOOK / gold["document"], max_bytes=10_000_000)
        assert content.text[gold["start"] : gold["end"]] == gold["quote"], question["id"]
        assert content.text.count(gold["quote"]) == 1, question["id"]
        page = next((p.number for p in content.pages if p.start <= gold["start"] < p.end), None)
        assert page == gold["page"], question["id"]
        assert question["answers"][0].casefold() in gold["quote"].casefold(), question["id"]


def test_each_pair_of_editions_holds_both_values_and_the_right_documents_are_marked(tmp_path: Path) -> None:
    heads: dict[str, DocumentInfo] = {}
    for pair in EDITIONS:
        for document in pair["documents"]:
            assert 80 <= len(document["text"].split()) <= 300, document["path"]
            value = pair["answer"] if document["path"] == pair["right"] else pair["other"]
            assert value in " ".join(document["text"].split()), document["path"]
            file = tmp_path / document["path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(document["text"], encoding="utf-8")
            content, _ = parse_file(file, max_bytes=10_000_000)
            heads[document["path"]] = DocumentInfo(document["path"], content.title, content.metadata)
    assert len({pair["id"] for pair in EDITIONS}) == len(EDITIONS) >= 15
    assert len([pair for pair in EDITIONS if not pair["editions"]]) >= 8
    marks = find_editions(heads)
    assert sorted(marks) == sorted(path for pair in EDITIONS for path in pair["marked"])
    for pair in EDITIONS:
        newer = {path for marked in pair["marked"] for path in marks[marked].newer}
        assert newer == ({pair["right"]} if pair["editions"] else set()), pair["id"]


NATURAL_QUESTIONS = questions()


@pytest.fixture(scope="module")
def documents() -> dict[str, str]:
    """Name -> text, of every member of the archive."""
    texts: dict[str, str] = {}
    with tarfile.open(NATURAL / "documents.tar.xz") as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            assert member.isfile(), member.name
            assert not path.is_absolute(), member.name
            assert ".." not in path.parts, member.name
            assert path.suffix in {".md", ".rst", ".txt"}, member.name
            file = tar.extractfile(member)
            assert file is not None
            texts[member.name] = file.read().decode()
    return texts


def test_the_natural_questions_are_enough_of_each_kind_and_their_halves_alike() -> None:
    kinds = Counter(question.kind for question in NATURAL_QUESTIONS)
    assert len({question.id for question in NATURAL_QUESTIONS}) == len(NATURAL_QUESTIONS) >= 150
    assert kinds["how"] + kinds["why"] >= 40
    assert kinds["table"] + kinds["list"] >= 20
    for kind, count in (("yes-no", 15), ("two-passages", 20), ("follow-up", 10), ("unanswerable", 20)):
        assert kinds[kind] >= count, kind
    one, other = ([question for question in NATURAL_QUESTIONS if question.half == half] for half in HALVES)
    assert len(one) + len(other) == len(NATURAL_QUESTIONS)
    for kind in kinds:
        of_one, of_other = (sum(question.kind == kind for question in half) for half in (one, other))
        assert abs(of_one - of_other) <= 1, kind
    asked = [{document for question in half for document in question.documents} for half in (one, other)]
    assert not asked[0] & asked[1]


def test_documents_are_many_different_and_of_a_listed_licence(documents: dict[str, str]) -> None:
    assert 250 <= len(documents) <= 350
    assert len(set(documents.values())) == len(documents)
    licences = (NATURAL / "LICENCES.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(\w+)/` \|", licences, re.MULTILINE))
    assert {PurePosixPath(name).parts[0] for name in documents} == listed
    assert (NATURAL / "documents.tar.xz").stat().st_size < 2_000_000


def test_every_quote_stands_in_its_document_and_every_reference_answer_is_judged_right(
    documents: dict[str, str],
) -> None:
    for question in NATURAL_QUESTIONS:
        for place in question.places:
            assert place.quote in documents[place.document], question.id
        assert bool(question.places) == bool(question.facts) == (question.kind != "unanswerable"), question.id
        assert bool(question.earlier) == (question.kind == "follow-up"), question.id
        assert len(question.places) >= 2 or question.kind != "two-passages", question.id
        assert holds("\n".join(place.quote for place in question.places), question.stated), question.id
        assert judged(question, question.answer, abstained=not question.facts) in {"right", "declined"}, question.id
        assert judged(question, question.answer, abstained=bool(question.facts)) in {"wrongly declined", "wrong"}
        assert judged(question, "I have no idea what you mean.", abstained=False) == "wrong", question.id


def one(text: str) -> Question:
    return next(question for question in NATURAL_QUESTIONS if question.question == text)


@pytest.mark.parametrize(
    ("question", "answer", "verdict"),
    [
        ("newest python that works with django 5.0?", "It is **3.12**.", "right"),
        ("newest python that works with django 5.0?", "Python 3.1", "wrong"),
        ("newest python that works with django 5.0?", "3.13, or 3.12 at least", "wrong"),
        ("kpmg audit fee 2019", "KPMG billed $17,639,702 (17.6 million).", "right"),
        ("kpmg audit fee 2019", "KPMG billed 16,014,014 dollars.", "wrong"),
        ("is it ok to just use runserver for the live site?", "You should not, use a WSGI server.", "right"),
        ("is it ok to just use runserver for the live site?", "Yes, though it is not designed for that.", "wrong"),
        ("how do I stop text messages from caribou coffee", "Text `STOP` to 65017", "right"),
        ("how do I stop text messages from caribou coffee", "Write to the company.", "wrong"),
        ("how deep is lake burdur", "10 m", "wrong"),
    ],
)
def test_answers_are_judged_as_a_person_would(question: str, answer: str, verdict: str) -> None:
    assert judged(one(question), answer, abstained=False) == verdict


@pytest.mark.parametrize(
    ("text", "pattern", "there"),
    [
        ("about 11\u201313 grams", r"11-13", True),
        ("it costs 1,394.0", r"394", False),
        ("it costs 394.00", r"394", True),
        ("it costs 394.5", r"394", False),
        ("version 13.12", r"3\.12", False),
        ("It overwrites\nthe old one", r"overwrites the", True),
        ("a new value", r"alue", False),
        ("Don\u2019t", r"don't", True),
        ("They state that it may fail. Therefore, the answer is no.", r"^no\b", True),
        ("The answer is not known.", r"^no\b", False),
        ("There is no cost.", r"^no\b", False),
    ],
)
def test_a_pattern_begins_a_word_and_ends_a_number(text: str, pattern: str, there: bool) -> None:
    assert says(text, pattern) is there


def test_the_questions_about_other_documents_are_what_they_say() -> None:
    found = questions(file=OTHERS)
    assert (
        len({question.id for question in found}) == len({question.question for question in found}) == len(found) == 400
    )
    kinds = Counter(question.kind for question in found)
    for kind, count in (("unanswerable", 80), ("follow-up", 40), ("summary", 20), ("comparison", 20)):
        assert kinds[kind] >= count, kind
    halves = [
        {(each.corpus, name) for each in found if each.half == half for name in each.documents} for half in HALVES
    ]
    assert not halves[0] & halves[1]
    for question in found:
        assert bool(question.places) == bool(question.facts) == (question.kind != "unanswerable"), question.id
        assert bool(question.earlier) == (question.kind == "follow-up"), question.id
        quoted = "\n".join(place.quote for place in question.places)
        spaced = quoted.replace(",", ", ")  # in CSV a comma is not one of thousands
        assert question.kind == "yes-no" or any(holds(each, question.stated) for each in (quoted, spaced)), question.id
        assert judged(question, question.answer, abstained=not question.facts) in {"right", "declined"}, question.id
