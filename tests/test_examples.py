"""The example questions are what they say: gold spans stand in the documents as the readers read them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from openbook.knowledge.editions import marked
from openbook.knowledge.imprint import BEGINNING_CHARS, DocumentHead, imprint
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
    heads: dict[str, DocumentHead] = {}
    for pair in EDITIONS:
        for document in pair["documents"]:
            assert 80 <= len(document["text"].split()) <= 300, document["path"]
            value = pair["answer"] if document["path"] == pair["right"] else pair["other"]
            assert value in " ".join(document["text"].split()), document["path"]
            file = tmp_path / document["path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(document["text"], encoding="utf-8")
            content, _ = parse_file(file, max_bytes=10_000_000)
            metadata = tuple(sorted({**dict(content.metadata), "type": file.suffix[1:]}.items()))
            heads[document["path"]] = DocumentHead(
                document["path"], content.title, metadata, content.text[:BEGINNING_CHARS]
            )
    assert len({pair["id"] for pair in EDITIONS}) == len(EDITIONS) >= 30
    assert len([pair for pair in EDITIONS if not pair["editions"]]) >= 10
    assert sorted(marked({path: imprint(head) for path, head in heads.items()})) == sorted(
        path for pair in EDITIONS for path in pair["marked"]
    )
