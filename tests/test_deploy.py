"""The service unit and the image start the program with arguments that it knows, as nobody in particular."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import pytest

from openbook.cli import command
from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"


def started(words: list[str]) -> dict[str, object]:
    """The parameters of `openbook WORDS`, without running it. Raises click's errors for what it does not know."""
    verb = command.get_command(click.Context(command), words[0])
    assert verb is not None
    return verb.make_context(words[0], words[1:]).params


def unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "openbook.service").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_the_unit_starts_a_server_that_demands_a_key() -> None:
    (line,) = unit()["ExecStart"]
    program, *words = shlex.split(line)
    assert Path(program).name == "openbook"
    assert started(words)["require_key"] is True


def test_the_unit_may_write_nothing_but_the_home() -> None:
    found = unit()
    home = "/var/lib/openbook"
    assert found["Environment"] == [f"OPENBOOK_HOME={home}"]
    assert (found["ProtectSystem"], found["ReadWritePaths"]) == (["strict"], [home])
    assert (found["NoNewPrivileges"], found["User"], found["CapabilityBoundingSet"]) == (["yes"], ["openbook"], [""])


def test_the_image_starts_a_server_for_others_as_a_user_of_its_own() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    (entry,) = (json.loads(line.removeprefix("ENTRYPOINT ")) for line in lines if line.startswith("ENTRYPOINT "))
    (words,) = (json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD "))
    assert entry == ["openbook"]
    assert started(words)["host"] == "0.0.0.0"
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:10001"]
    (check,) = (line for line in lines if line.startswith("HEALTHCHECK"))
    assert re.search(r"http://127\.0\.0\.1:8000/ready", check)


@pytest.mark.parametrize("line", re.findall(r"openbook (serve [^\n]+)", (ROOT / "docs" / "operations.md").read_text()))
def test_servers_in_the_documentation_can_be_started(line: str) -> None:
    assert started(shlex.split(line))
