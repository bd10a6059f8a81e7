"""`openbook ask` over fakes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from openbook.answers import opening
from openbook.answers.opening import model_opener
from openbook.cli import run
from tests.cli.conftest import Out
from tests.conftest import DecliningEngine, base_with, named_model

OPENED = "Who opened the bridge of Lund?"


@pytest.fixture(autouse=True)
def home(fakes: None, own_home: Path) -> None:
    base_with(own_home, {"bridge.md": "The bridge of Lund was opened in 2026 by Lila Ortega."}).close()


def test_an_answer_that_is_less_certain_than_was_asked_for_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", OPENED, "--json"]) == 0
    certainty = json.loads(capsys.readouterr().out)["certainty"]
    for limit, code in ((certainty, 0), (certainty + 0.001, 1)):
        for extra in ([], ["--json"]):
            assert run(["ask", OPENED, "--at-least", str(limit), *extra]) == code
            shown = capsys.readouterr()
            assert ("Lila Ortega" in shown.out) == (code == 0)
            assert "Lila Ortega" not in shown.err
            assert (f"a certainty of {certainty:.2f}" in " ".join(shown.err.split())) == (code == 1)


def test_the_word_is_by_the_limits_of_the_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for low, high, word in (("0", "0", "supported"), ("0", "1", "likely"), ("1", "1", "check it")):
        monkeypatch.setenv("OPENBOOK_LIKELY_FROM", low)
        monkeypatch.setenv("OPENBOOK_SUPPORTED_FROM", high)
        assert run(["ask", OPENED, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["confidence"] == word


def test_without_documents_an_answer_has_no_certainty_and_an_abstention_needs_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["ask", OPENED, "--closed-book", "--at-least", "0.1"]) == 1
    assert "has no certainty" in " ".join(capsys.readouterr().err.split())
    assert run(["ask", "Zebras graze where?", "--at-least", "1"]) == 0
    assert "Not found" in capsys.readouterr().out


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


def test_markdown_has_numbered_sources(out: Out) -> None:
    said = "The bridge of Lund was opened in 2026 by Lila Ortega."
    assert out.ok("ask", OPENED, "--output", "md") == f"{said} [1]\n\n1. “{said}” (bridge.md)\n"
    assert out.ok("ask", "Zebras graze where?", "--output", "md") == "The passages do not say.\n"
    (by_output, by_json) = (json.loads(out.ok("ask", OPENED, *words)) for words in (["--output", "json"], ["--json"]))
    assert by_output["receipt"] == by_json["receipt"]


def give(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_the_question_or_a_document_comes_from_standard_input(out: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, f"{OPENED}\n".encode())
    assert out.json("ask", "-")["receipt"]["question"] == OPENED

    give(monkeypatch, "The tower of Malmö was opened by Kim Åberg.".encode())
    answer = out.json("ask", "Who opened the tower of Malmö?", "--docs", "-")
    assert "Kim Åberg" in answer["answer"]
    (document,) = {each["document"] for each in answer["citations"]}
    assert document.endswith("/standard input.txt")
    assert not Path(document).exists()

    give(monkeypatch, b"")
    out.refused(2, "The question is empty", "ask", "-", "--kb", "none")  # before it looks for a knowledge base
    out.refused(4, "Nothing readable in", "ask", OPENED, "--docs", "-")
    out.refused(2, "cannot hold both the question and a document", "ask", "-", "--docs", "-")
    out.refused(4, "Standard input (-) is not read here", "add", "-")


def test_a_document_on_standard_input_may_be_as_long_as_a_file(out: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBOOK_MAX_FILE_MB", "1")
    give(monkeypatch, b"word " * 200_001)
    code, _, stderr = out("ask", OPENED, "--docs", "-")
    assert (code, "Nothing readable" in stderr) == (4, True)
    give(monkeypatch, b"word " * 200_000)
    out.ok("ask", OPENED, "--docs", "-")
