"""`openbook ask` over fakes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from openbook.answers import opening
from openbook.answers.opening import model_opener
from tests.cli.conftest import Out
from tests.conftest import DecliningEngine, base_with, named_model

OPENED = "Who opened the bridge of Lund?"


@pytest.fixture(autouse=True)
def home(fakes: None, own_home: Path) -> None:
    base_with(own_home, {"bridge.md": "The bridge of Lund was opened in 2026 by Lila Ortega."}).close()


def test_the_word_is_by_the_limits_of_the_settings(out: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    for low, high, word in (("0", "0", "supported"), ("0", "1", "likely"), ("1", "1", "check it")):
        monkeypatch.setenv("OPENBOOK_LIKELY_FROM", low)
        monkeypatch.setenv("OPENBOOK_SUPPORTED_FROM", high)
        assert json.loads(out.ok("ask", OPENED, "--output", "json"))["confidence"] == word


def test_a_limit_holds_for_the_answer_of_the_fallback_model(out: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    openers = {"reader": lambda: named_model("reader", DecliningEngine()), "large": lambda: named_model("large")}
    monkeypatch.setattr(opening, "model_opener", lambda own, *more: openers.get(own.model) or model_opener(own, *more))
    assert "Two models" not in out.ok("ask", OPENED)
    monkeypatch.setenv("OPENBOOK_FALLBACK_MODEL", "large")
    certainty = out.json("ask", OPENED, "--at-least", "0.1")["certainty"]
    shown = " ".join(out.ok("ask", OPENED, "--at-least", certainty).split())
    assert f"reader (not found) and large (likely, {certainty:.2f}). This is the answer of large." in shown
    out.refused(1, "so it is not shown", "ask", OPENED, "--at-least", certainty + 0.001)
    monkeypatch.setenv("OPENBOOK_FALLBACK_MODEL", "larg")
    for verb in (["ask", OPENED], ["chat"], ["mcp"]):
        out.refused(3, "'larg'", *verb)
    out.ok("ask", OPENED, "--closed-book")


def give(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_a_document_on_standard_input_may_be_as_long_as_a_file(out: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBOOK_MAX_FILE_MB", "1")
    give(monkeypatch, b"word " * 200_001)
    code, _, stderr = out("ask", OPENED, "--docs", "-")
    assert (code, "Nothing readable" in stderr) == (4, True)
    give(monkeypatch, b"bridge, " * 125_000)
    (document,) = {hit["passage"]["document"] for hit in out.json("ask", OPENED, "--docs", "-")["passages"]}
    assert not Path(document).exists()
