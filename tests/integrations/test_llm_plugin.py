from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import openbook
from tests.integrations.conftest import FOLLOW_UP, QUESTION, cited, programs

pytest.importorskip("llm")
import llm
from llm.cli import cli

from openbook.integrations import llm_plugin


class Repeats(llm.Model):  # type: ignore[misc]
    """Another model, which says what it reads."""

    model_id = "repeats"

    def execute(self, prompt: Any, **_: Any) -> Iterator[str]:
        yield prompt.prompt


class Other:
    @staticmethod
    @llm.hookimpl  # type: ignore[untyped-decorator]
    def register_models(register: Any) -> None:
        register(Repeats())


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
    llm.plugins.load_plugins()
    llm.plugins.pm.register(Other, "repeats")
    llm_plugin.library.cache_clear()
    yield
    llm.plugins.pm.unregister(Other)
    llm_plugin.library.cache_clear()


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli, list(arguments))
    assert done.exit_code == 0, done.output
    return done.output


def test_the_model_answers_with_its_quotes_also_in_a_conversation(kb: openbook.Library) -> None:
    answer = kb.ask(QUESTION)
    shown = run("-m", "openbook", QUESTION)
    assert shown.startswith(answer.answer)
    for each in cited(answer):
        assert f"> {' '.join(each['quote'].split())}\n> ({each['document']}" in shown
    response = llm.get_model("openbook").prompt(QUESTION)
    assert len(list(response)) > 2
    assert list(response.response_json["citations"]) == cited(answer)
    assert json.loads(json.dumps(response.response_json))["receipt"]["digest"] == answer.receipt.digest
    conversation = llm.get_model("openbook").conversation()
    conversation.prompt(QUESTION, system="In German.").text()
    second = conversation.prompt(FOLLOW_UP)
    second.text()
    answer = kb.ask(FOLLOW_UP, earlier=[QUESTION], instruction="In German.")
    assert second.response_json["receipt"]["digest"] == answer.receipt.digest


def test_what_a_document_holds_cannot_steer_the_terminal(kb: openbook.Library) -> None:
    Path("gates.md").write_text("The gate is opened by \x1b[31mOkoro\x1b[0m.")
    kb.add("gates.md")
    for shown in (run("-m", "openbook", "Who opens the gate?"), llm_plugin.passages("Who opens the gate?")[0]):
        assert "Okoro" in shown
        assert "\x1b" not in shown


def test_fragments_are_passages_with_their_source(kb: openbook.Library) -> None:
    found = llm_plugin.passages(QUESTION)
    hits = kb.search(QUESTION, 5)
    assert [each.source for each in found] == [f"openbook:{hit.passage.id}" for hit in hits]
    for each, hit in zip(found, hits, strict=True):
        assert each.startswith(hit.passage.document)
        assert each.endswith(hit.passage.text)
    llm.set_default_model("repeats")
    shown = [run(*shlex.split(line)[1:]) for line in programs()["llm"].splitlines()]
    assert shown[0].startswith(kb.ask(QUESTION).answer)
    assert hits[0].passage.text in shown[1]


def test_an_error_is_one_sentence(kb: openbook.Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBOOK_KB", "none")
    for arguments in (["-m", "openbook", QUESTION], ["-m", "repeats", "-f", "openbook:expense", QUESTION]):
        done = CliRunner().invoke(cli, arguments)
        assert (done.exit_code, done.output.count("\n")) == (1, 1)
        assert "none" in done.output
