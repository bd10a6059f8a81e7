"""`openbook completion`: shells complete commands and options."""

from __future__ import annotations

import subprocess
import sys

import pytest

from openbook.cli import run
from tests.conftest import ROOT


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_the_program(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert f"_OPENBOOK_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_another_shell_is_an_error_that_names_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "tcsh"]) == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("openbook se", ["search", "serve"]),
        ("openbook models pu", ["pull"]),
        ("openbook ask --pass", ["--passages"]),
        ("openbook completion ", ["bash", "zsh", "fish"]),
    ],
)
def test_commands_options_and_choices_are_completed(line: str, offered: list[str]) -> None:
    words = line.split(" ")
    environment = {"_OPENBOOK_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "openbook"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"plain,{word}" for word in offered]
