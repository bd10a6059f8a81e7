"""Every command in the README and in the pages of `docs/` works: those in `sh` blocks are run here, the two long ones by hand and by CI.

The quick suite runs the README's with fakes, --laws with the models, and --all those of `docs/`.
"""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import fields
from pathlib import Path

import pytest

from openbook.answers import opening
from openbook.cli import run
from openbook.core.config import Settings
from openbook.parsers.sandbox.pool import ParserPool
from openbook.testing import HashEmbedder, echo_model
from tests.conftest import ROOT, parse_here

README = ROOT / "README.md"
JOURNEYS = (  # the pages of each are followed one after the other, as by one user
    pytest.param(("README",), id="README", marks=pytest.mark.laws),
    pytest.param(("docs/knowledge-base", "docs/asking", "docs/diagnosis"), id="asking", marks=pytest.mark.slow),
    pytest.param(("docs/training", "docs/models"), id="training", marks=pytest.mark.slow),
)
IN_TRAINING = ("openbook train", "openbook models lineage")  # take a minute, and stand on the page of training too
WITH_A_MODEL = ("openbook diagnose", "openbook replay", "openbook verify")  # name a model, of which there are no fakes
LONG = ("python3 -m venv",)  # set up an environment: the second is what CI runs, and this test runs inside it


@pytest.fixture(autouse=True)
def parsers() -> None:
    """In processes of their own, as the program does."""


def commands(*pages: str) -> list[str]:
    """Those of the pages in their order, each once."""
    texts = [(ROOT / f"{page}.md").read_text(encoding="utf-8") for page in pages]
    blocks = [block for text in texts for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]
    return list(dict.fromkeys(line for block in blocks for line in block.splitlines() if line.strip()))


def test_the_readme_is_short_links_lead_somewhere_and_every_setting_stands_on_its_page() -> None:
    assert len(re.findall(r"[^\s|-]\S*", README.read_text(encoding="utf-8"))) <= 1_200
    for page in (README, *(ROOT / "docs").glob("*.md"), *(ROOT / "research").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        targets = [page.parent / target for target in re.findall(r"\]\((?!http)([^)#]+)", text)]
        if page.parent.name == "docs":  # where a promise names the test that holds it
            targets += [ROOT / target for target in re.findall(r"`(tests/[\w/.]+)`", text)]
        assert [str(each) for each in targets if not each.exists()] == [], page.name
    settings = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    named = {each.name for each in fields(Settings)} - {"home"}
    assert set(re.findall(r"^\| `(\w+)` \|", settings, re.MULTILINE)) == named


def test_the_readme_opens_with_the_two_commands_of_one_line_each() -> None:
    first, second = commands("README")[:2]
    assert first.startswith(LONG)
    assert " ask " in first
    assert second.startswith(LONG)
    assert second.endswith("scripts/check.py")
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "README.md" in ci


def run_all(lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for line in lines:
        for command in line.split(" && "):
            program, *arguments = shlex.split(command, comments=True)
            if not command.startswith(LONG) and program == "openbook":
                assert run(arguments) == 0, f"{command}\n{capsys.readouterr().err}"
            else:
                assert line.startswith(LONG), command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder, with what the commands name."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shutil.copy(README, tmp_path)  # one command adds it
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("folder")
def test_the_commands_of_the_readme_run_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(opening, "model_opener", lambda *_, **__: echo_model)
    monkeypatch.setattr(opening, "open_embedder", lambda *_, **__: HashEmbedder())
    monkeypatch.setattr(ParserPool, "parse_all", parse_here)
    run_all([line for line in commands("README") if not line.startswith((*IN_TRAINING, *WITH_A_MODEL))], capsys)
    assert "paid annual leave" in capsys.readouterr().out


@pytest.mark.model
@pytest.mark.usefixtures("folder", "model_reference", "embedder_reference", "instruct_reference", "home_of_models")
@pytest.mark.parametrize("pages", JOURNEYS)
def test_every_command_does_what_it_says(
    pages: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("openbook.cli.models.ANSWERS_COMPARED", 5)  # `models merge` asks two models 100 questions
    lines = commands(*pages)
    if pages == ("README",):
        assert {line for line in lines if line.startswith(IN_TRAINING)} <= {*commands("docs/training")}
        lines = [line for line in lines if not line.startswith(IN_TRAINING)]
    run_all(lines, capsys)
    if pages == ("README",):  # its first command, which shows an answer of the default model
        monkeypatch.delenv("OPENBOOK_MODEL")
        capsys.readouterr()
        assert run(["ask", *shlex.split(commands("README")[0].partition("openbook ask ")[2])]) == 0
        assert "€750" in capsys.readouterr().out
