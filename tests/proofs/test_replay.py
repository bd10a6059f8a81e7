from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from openbook.answers.ask import ask
from openbook.answers.retrieval import Corpus, Options
from openbook.core.errors import KnowledgeError, QuestionError
from openbook.core.records import Answer, ReaderFormat
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, RunOptions, add, purge
from openbook.proofs.receipts import parse_receipt
from openbook.proofs.replay import knowledge_base_of, passage_of, replay
from openbook.testing import EchoEngine, HashEmbedder, echo_model
from tests.conftest import base_with

MODEL = echo_model(reader=ReaderFormat("Answer from the passage.", "The passages do not say."))


@pytest.fixture
def base(tmp_path: Path) -> KnowledgeBase:
    texts = {
        "bridge.txt": "The bridge was opened on 14 March 2026 by mayor Lila Ortega.",
        "library.txt": "The library holds 2.3 million books. It is closed on Mondays.",
    }
    return base_with(tmp_path, texts)


@pytest.fixture
def answer(base: KnowledgeBase, embedder: HashEmbedder) -> Answer:
    return ask("Who opened the bridge?", MODEL, Corpus(base, embedder), Options(min_similarity=-1.0))


def test_an_answer_is_replayed_from_its_receipt_alone_after_other_documents_changed_until_its_own_is_purged(
    base: KnowledgeBase, answer: Answer, tmp_path: Path, embedder: HashEmbedder
) -> None:
    receipt = parse_receipt(json.dumps(answer.to_json()))
    found = replay(receipt, MODEL, knowledge_base_of(receipt, [base]))
    assert found.identical
    assert found.answer == answer.answer
    (tmp_path / "more.txt").write_text("The bridge was closed again by nobody.")
    add(base, [tmp_path / "more.txt"], embedder)
    assert replay(answer.receipt, MODEL, base).identical
    purge(base, [str(tmp_path / "bridge.txt")])
    found = replay(answer.receipt, MODEL, KnowledgeBase.open(base.folder))
    assert found.answer is None
    assert "bridge.txt is not in the knowledge base any more" in found.differences[0]


def test_closed_book_and_abstentions_are_replayed_too(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    silent = ask("Which colour has the zeppelin?", MODEL, Corpus(base, embedder), Options(min_similarity=-1.0))
    far = ask("zeppelin", MODEL, Corpus(base, embedder), Options(min_similarity=0.99))
    for each in (silent, far, ask("Why?", MODEL)):
        assert replay(each.receipt, MODEL, base).identical


def test_a_passage_whose_named_document_was_closed_is_read_through_an_open_copy(
    tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder, answer: Answer
) -> None:
    copy = tmp_path / "copy" / "bridge.txt"
    copy.parent.mkdir()
    copy.write_bytes((tmp_path / "bridge.txt").read_bytes())
    add(base, [copy], embedder)
    add(base, [tmp_path / "bridge.txt"], embedder, RunOptions(labels=frozenset({"board"})))
    found = passage_of(base, answer.receipt.passages[0], answer.receipt.knowledge_base_version, ())
    assert found is not None
    assert found.document == str(copy)
    assert replay(answer.receipt, MODEL, base).identical
    add(base, [copy], embedder, RunOptions(labels=frozenset({"board"})))
    closed = replay(answer.receipt, MODEL, base)
    assert closed.answer is None
    assert "closed by an access label" in closed.differences[0]
    assert replay(answer.receipt, MODEL, base, ["board"]).identical


class Otherwise(EchoEngine):
    numeric_class = "another machine"

    def _answer(self, prompt: object) -> str:
        return "Somebody else opened it."


def test_what_differs_is_said_and_the_new_answer_given(base: KnowledgeBase, answer: Answer) -> None:
    found = replay(answer.receipt, FrozenModel(Otherwise(), MODEL.reader), base)
    assert found.answer == "Somebody else opened it."
    assert "another machine" in found.differences[0]
    assert found.differences[1] == "The answer differs."
    altered = replace(answer.receipt, labels=("board",))
    assert replay(altered, MODEL, base).differences == ("The receipt was altered after it was written.",)
    forged = replace(answer.receipt, question="Who closed the library?").sealed()
    assert not replay(forged, MODEL, base).identical


def test_receipts_that_cannot_be_compared_are_refused_by_name(base: KnowledgeBase, answer: Answer) -> None:
    server = replace(answer.receipt.model, name="qwen3:8b", digest="", evidence="claimed")
    found = replay(replace(answer.receipt, model=server).sealed(), MODEL, base)
    assert found.differences == ("The receipt has no digest of qwen3:8b, so no model can be shown to be the same.",)
    with pytest.raises(KnowledgeError, match=f"{base.id}.*the right one"):
        knowledge_base_of(replace(answer.receipt, knowledge_base="another"), [base])
    with pytest.raises(QuestionError, match="unknown strategy 'guess'; there are closed-book, each, parallel"):
        replay(replace(answer.receipt, strategy="guess").sealed(), MODEL, base)
    with pytest.raises(QuestionError, match="cannot read passages side by side"):
        replay(replace(answer.receipt, strategy="parallel").sealed(), MODEL, base)
