"""Options and settings stay few: each is something that a user must know about, and that must work with all others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import click
import pytest

from openbook.answer import STRATEGIES
from openbook.cli import command
from openbook.config import Settings

SHARED = {"--kb", "--json"}  # mean the same everywhere
MAX_OPTIONS = 110
MAX_SETTINGS = 16


def verbs(of: click.Command = command, name: str = "openbook") -> Iterator[tuple[str, click.Command]]:
    if not isinstance(of, click.Group):
        yield name, of
        return
    with click.Context(of) as context:
        for each in of.list_commands(context):
            found = of.get_command(context, each)
            assert found is not None
            yield from verbs(found, f"{name} {each}")


def options(verb: click.Command) -> list[click.Option]:
    return [each for each in verb.params if isinstance(each, click.Option) and not each.hidden]


def test_options_and_settings_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    names = {verb: [each.opts[-1] for each in options(found)] for verb, found in verbs()}
    own = sum(name not in SHARED for found in names.values() for name in found)
    with capsys.disabled():
        print(
            f"{own} options of {len(names)} verbs, without --kb and --json; with them {sum(map(len, names.values()))}"
        )
    assert own <= MAX_OPTIONS
    assert len(dataclasses.fields(Settings)) - 1 <= MAX_SETTINGS  # without `home`


def test_every_verb_and_option_says_what_it_is_for_and_a_question_may_name_every_strategy() -> None:
    for name, verb in verbs():
        assert verb.help, name
        assert all(each.help for each in options(verb)), name
    (choice,) = (each.type for each in options(dict(verbs())["openbook ask"]) if each.name == "strategy")
    assert isinstance(choice, click.Choice)
    assert tuple(choice.choices) == STRATEGIES
