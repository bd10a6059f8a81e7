"""A knowledge base over fakes, and the programs of docs/integrations.md.

These libraries are no dependency for development: `scripts/integrations.py` tests them in an environment of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import openbook
from openbook.answers import opening
from openbook.testing import HashEmbedder, echo_model
from tests.conftest import ROOT

QUESTION = "Who approves an expense?"
FOLLOW_UP = "And who approves it above 5,000 euros?"


def programs() -> dict[str, str]:
    """Title of a section -> its program."""
    page = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^## (.+?)\n.*?```\w+\n(.*?)```", page, re.DOTALL | re.MULTILINE))


@pytest.fixture
def kb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[openbook.Library]:
    """`kb` in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENBOOK_KB", str(tmp_path / "kb"))
    monkeypatch.setattr(opening, "model_opener", lambda *_: echo_model)
    monkeypatch.setattr(opening, "open_embedder", lambda *_: HashEmbedder())
    with openbook.open("kb") as kb:
        kb.sync(ROOT / "examples" / "handbook")
        yield kb


def cited(answer: openbook.Answer) -> list[dict[str, Any]]:
    """What each library must show for the same question."""
    assert answer.citations
    return [asdict(each) for each in answer.citations]


def places(kb: openbook.View, limit: int) -> list[dict[str, Any]]:
    version = kb.ask(QUESTION).receipt.knowledge_base_version
    return [
        {
            "document": hit.passage.document,
            "page": hit.passage.page,
            "start": hit.passage.start,
            "end": hit.passage.end,
            "passage_id": hit.passage.id,
            "version": version,
            "score": hit.score,
        }
        for hit in kb.search(QUESTION, limit)
    ]
