"""`openbook replay` finds the knowledge base that the receipt names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openbook.cli import context, receipts
from openbook.knowledge import KnowledgeBase
from openbook.receipts import parse_receipt
from openbook.records import Receipt
from openbook.replay import knowledge_base_of
from tests.cli.conftest import Out
from tests.conftest import MODEL_HOME, ROOT, base_with


@pytest.fixture
def elsewhere(fakes: None, own_home: Path, tmp_path: Path) -> KnowledgeBase:
    """A knowledge base that is not one's own, over fakes."""
    for folder in (own_home, tmp_path):
        base = base_with(folder, {"ferry.md": "The ferry to Sandhavn leaves at nine."})
    return base


def asked(out: Out, *arguments: object) -> Receipt:
    stdout = out.ok("ask", "When does the ferry to Sandhavn leave?", "--json", *arguments)
    return parse_receipt(json.dumps(json.loads(stdout)["receipt"]).encode())


def test_the_knowledge_base_that_was_asked_is_found_again(
    elsewhere: KnowledgeBase, own_home: Path, tmp_path: Path, out: Out
) -> None:
    settings = context.settings()
    for arguments, place in (
        (["--kb", elsewhere.folder], elsewhere.folder),
        ([], own_home / "kb"),
        (["--docs", tmp_path / "ferry.md"], own_home / "cache" / "docs"),
    ):
        receipt = asked(out, *arguments)
        base = knowledge_base_of(receipt, receipts.candidates(settings, receipt, None))
        assert base is not None
        assert base.id == receipt.knowledge_base
        assert base.folder.is_relative_to(place)
    # One that was moved is found when it was asked again, and else asked for.
    receipt = asked(out, "--kb", elsewhere.folder)
    elsewhere.close()
    moved = elsewhere.folder.rename(tmp_path / "moved")
    assert receipt.knowledge_base not in [base.id for base in receipts.candidates(settings, receipt, None)]
    asked(out, "--kb", moved)
    assert receipts.candidates(settings, receipt, None)[-1].id == receipt.knowledge_base


def test_a_home_that_cannot_be_written_still_answers(elsewhere: KnowledgeBase, own_home: Path, out: Out) -> None:
    (own_home / "bases").write_text("a file where the folder should be")
    asked(out, "--kb", elsewhere.folder)


@pytest.mark.model
@pytest.mark.usefixtures("reader_reference", "embedder_reference")
def test_an_answer_of_a_real_model_is_replayed_from_itself_from_a_log_and_from_its_receipt(
    tmp_path: Path, out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENBOOK_HOME", str(MODEL_HOME))
    monkeypatch.setenv("OPENBOOK_KV_DISK", "0")
    log, file = tmp_path / "log", tmp_path / "answer.json"
    question = "When does the nightly backup start?"
    text = out.ok("ask", question, "--docs", ROOT / "examples" / "handbook", "--json", "--log", log)
    file.write_text(text)
    assert out("replay", file)[:2] == (0, "Identical: 01:40\n")
    out.ok("log", "verify", log)
    assert out("replay", log)[:2] == (0, "1 of 1 answers are identical.\n")
    receipt = json.loads(text)["receipt"]
    assert receipt["strategy"] == "each"
    file.write_text(json.dumps(receipt | {"answer_digest": "0" * 64}))
    code, text, _ = out("replay", file, "--json")
    assert code == 1
    assert json.loads(text)["differences"] == ["The receipt was altered after it was written.", "The answer differs."]
    file.write_text(json.dumps(receipt | {"model": receipt["model"] | {"digest": "0" * 64}}))
    assert out("replay", file)[0] == 3
