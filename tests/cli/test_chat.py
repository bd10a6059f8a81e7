"""`openbook chat`: questions that refer back, saved on request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openbook.cli.chat import FORMAT
from tests.cli.conftest import Out, TypeIn
from tests.conftest import base_with

FERRY = "The ferry to Sandhavn leaves at nine. The ferry to Sandhavn costs 4 crowns."


def test_questions_refer_back_and_the_conversation_is_saved(
    fakes: None, own_home: Path, tmp_path: Path, out: Out, type_in: TypeIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    base_with(
        tmp_path / "docs", {"ferry.md": FERRY, "bridge.md": "Lila Ortega opened it."}, place=own_home / "kb"
    ).close()
    monkeypatch.chdir(tmp_path)
    saved, log = tmp_path / "talk.jsonl", tmp_path / "log"
    type_in("When does the ferry to Sandhavn leave?", "", "What does it cost?")
    out.ok("chat", "--save", saved, "--log", log)
    head, *turns = [json.loads(line) for line in saved.read_text(encoding="utf-8").splitlines()]
    assert head == {"format": FORMAT}
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2
    assert turns[1]["citations"][0]["quote"] in FERRY
    receipts = (log / "receipts.jsonl").read_text()
    assert all(turn["receipt"] in receipts for turn in turns[1::2])
    assert saved.stat().st_mode & 0o777 == 0o600
    type_in("x" * 13_000)
    assert out("chat")[0] == 2
    assert {each.name for each in tmp_path.iterdir()} >= {"talk.jsonl", "log"}
