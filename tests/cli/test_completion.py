"""`openbook completion`: shells complete commands and options."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_the_program(shell: str, out: Out) -> None:
    assert f"_OPENBOOK_COMPLETE={shell}_complete" in out.ok("completion", shell)


def test_another_shell_is_an_error_that_names_those_there_are(out: Out) -> None:
    out.refused(2, "'tcsh' is not one of 'bash', 'zsh', 'fish'", "completion", "tcsh")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("openbook se", ["search", "serve"]),
        ("openbook models pu", ["pull"]),
        ("openbook ask --pass", ["--passages"]),
        ("openbook completion ", ["bash", "zsh", "fish"]),
    ],
)
def test_commands_options_and_choices_are_completed(
    line: str, offered: list[str], out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_OPENBOOK_COMPLETE", "bash_complete")  # as the script does
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    code, stdout, stderr = out()
    assert (code, stderr) == (0, "")
    assert stdout.splitlines() == [f"plain,{word}" for word in offered]
