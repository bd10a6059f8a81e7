"""Options and settings stay few: each is something that a user must know about, and that must work with all others."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from openbook.answers.opening import run_options
from openbook.cli import command
from openbook.core.config import Settings
from openbook.core.errors import OpenBookError
from tests.cli.conftest import Out

SHARED = {"--kb", "--json", "--as-of", "--where", "--label", "--lenient"}  # mean the same everywhere
MAX_OPTIONS = 91
MAX_SETTINGS = 20


def verbs(of: click.Command = command, name: str = "openbook") -> Iterator[tuple[str, click.Command]]:
    if not isinstance(of, click.Group):
        yield name, of
        return
    with click.Context(of) as context:
        for each in of.list_commands(context):
            found = of.get_command(context, each)
            assert found is not None
            yield from verbs(found, f"{name} {each}")


def test_no_line_of_a_list_of_commands_is_cut(out: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    groups = {tuple(name.split()[1:-1]) for name, _ in verbs()}
    shown = [line for group in groups for line in out.ok(*group, "--help").partition("Commands:")[2].splitlines()]
    assert len(shown) > 50
    assert [line for line in shown if line.endswith("...")] == []


def options(verb: click.Command) -> list[click.Option]:
    return [each for each in verb.params if isinstance(each, click.Option) and not each.hidden]


def test_options_and_settings_are_few() -> None:
    names = [each.opts[-1] for _, verb in verbs() for each in options(verb)]
    assert sum(name not in SHARED for name in names) <= MAX_OPTIONS
    assert len(dataclasses.fields(Settings)) - 1 <= MAX_SETTINGS  # without `home`


def test_every_verb_and_option_says_what_it_is_for() -> None:
    for name, verb in verbs():
        assert verb.help, name
        assert all(each.help for each in options(verb)), name


def test_the_help_names_every_exit_code(out: Out) -> None:
    listed = out.ok("--help").partition("Exit codes:")[2].partition("Options:")[0]

    def codes(of: type[OpenBookError]) -> set[int]:
        return {of.exit_code}.union(*map(codes, of.__subclasses__()))

    assert {int(each) for each in re.findall(r"(?:^ *|; )(\d+) ", listed, re.MULTILINE)} == codes(OpenBookError) | {
        0,
        130,
    }


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_the_program(shell: str, out: Out) -> None:
    assert f"_OPENBOOK_COMPLETE={shell}_complete" in out.ok("completion", shell)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("openbook se", ["search", "serve"]),
        ("openbook models pu", ["pull"]),
        ("openbook ask --clo", ["--closed-book"]),
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


@pytest.mark.parametrize(("max_file_mb", "memory_mb"), [(1, 2048), (100, 2048), (200, 4000)])
def test_a_larger_file_may_take_more_memory(max_file_mb: int, memory_mb: int, tmp_path: Path) -> None:
    assert run_options(Settings(tmp_path, max_file_mb=max_file_mb)).limits.memory_mb == memory_mb
