"""`openbook replay` finds the knowledge base that the receipt names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openbook.cli import context, receipts, run
from openbook.config import Settings
from openbook.knowledge import KnowledgeBase, add
from openbook.receipts import parse_receipt
from openbook.records import Receipt
from openbook.replay import knowledge_base_of
from openbook.testing import HashEmbedder


@pytest.fixture
def elsewhere(fakes: None, own_home: Path, tmp_path: Path) -> KnowledgeBase:
    """A knowledge base that is not one's own, over fakes."""
    (tmp_path / "ferry.md").write_text("The ferry to Sandhavn leaves at nine.")
    for place in (own_home / "kb", tmp_path / "elsewhere"):
        base = KnowledgeBase.ensure(place, HashEmbedder().identity)
        add(base, [tmp_path / "ferry.md"], HashEmbedder())
    return base


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> Receipt:
    assert run(["ask", "When does the ferry to Sandhavn leave?", "--json", *arguments]) == 0
    return parse_receipt(json.dumps(json.loads(capsys.readouterr().out)["receipt"]).encode())


def test_the_knowledge_base_that_was_asked_is_found_again(
    elsewhere: KnowledgeBase, own_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(home=own_home)
    for arguments, place in (
        (["--kb", str(elsewhere.folder)], elsewhere.folder),
        ([], own_home / "kb"),
        (["--docs", str(tmp_path / "ferry.md")], own_home / "cache" / "docs"),
    ):
        receipt = asked(capsys, *arguments)
        base = knowledge_base_of(receipt, receipts.candidates(settings, receipt, None))
        assert base is not None
        assert base.id == receipt.knowledge_base
        assert base.folder.is_relative_to(place)


def test_one_that_was_moved_is_found_when_it_was_asked_again_and_else_asked_for(
    elsewhere: KnowledgeBase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    receipt = asked(capsys, "--kb", str(elsewhere.folder))
    elsewhere.close()
    moved = elsewhere.folder.rename(tmp_path / "moved")
    settings = context.settings()
    assert [base.id for base in receipts.candidates(settings, receipt, None)] != [receipt.knowledge_base]
    asked(capsys, "--kb", str(moved))
    assert receipts.candidates(settings, receipt, None)[-1].id == receipt.knowledge_base


def test_a_home_that_cannot_be_written_still_answers(
    elsewhere: KnowledgeBase, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_home / "bases").write_text("a file where the folder should be")
    asked(capsys, "--kb", str(elsewhere.folder))
