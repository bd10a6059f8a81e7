"""A newcomer follows docs/cluster.md: its commands, in one shell, one after the other.

With --all, since it takes a minute: PostgreSQL and Ray are real.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from openbook.cluster import local
from openbook.models import ModelReference
from tests.conftest import MODEL_HOME, ROOT, link_models

KILL = "kill -9 WORKER"
A_WORKER = """kill -9 "$(openbook cluster up --local 2 --json | python -c 'import json, sys; print(json.load(sys.stdin)["workers"][0])')\""""


@pytest.fixture
def desk(embedder_reference: ModelReference, reader_reference: ModelReference) -> Iterator[Path]:
    """A folder with the examples, a program `openbook`, and a home with links to the session's models, on their disk."""
    with tempfile.TemporaryDirectory(dir=MODEL_HOME.parent) as folder:
        desk = Path(folder)
        shutil.copytree(ROOT / "examples", desk / "examples")
        link_models(desk / "home")
        program = desk / "bin" / "openbook"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m openbook "$@"\n')
        program.chmod(0o755)
        try:
            yield desk
        finally:
            if local.read_state(desk / "home"):
                local.stop(desk / "home", delete=True)


def followed(lines: list[str], desk: Path) -> dict[str, list[str]]:
    """What each of the commands printed, each time."""
    marked = [f"echo '@@ {number}'\n{line.replace(KILL, A_WORKER)}" for number, line in enumerate(lines)]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "OPENBOOK_"))},
        "PATH": f"{desk / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OPENBOOK_HOME": str(desk / "home"),
        "OPENBOOK_MODEL": "reader",
    }
    script = "set -e\n" + "\n".join(marked)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=desk, env=environment)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    printed: dict[str, list[str]] = {}
    for number, text in re.findall(r"@@ (\d+)\n(.*?)(?=@@ \d+\n|\Z)", done.stdout, re.DOTALL):
        printed.setdefault(lines[int(number)], []).append(text)
    return printed


def page() -> list[str]:
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("python3 -m venv")]


def test_the_page_says_what_this_runs() -> None:
    lines = page()
    assert KILL in lines
    assert lines[0] == "openbook cluster up --local 2"
    verbs = ("sync", "ask", "search", "cluster status", "purge", "cluster move", "cluster down")
    assert all(any(line.startswith(f"openbook {verb}") for line in lines) for verb in verbs)


@pytest.mark.slow
@pytest.mark.model
def test_all_of_it(desk: Path) -> None:
    printed = followed(page(), desk)
    for line, texts in printed.items():
        if line.startswith("openbook ask"):
            assert all("28 days" in text for text in texts), line
            assert len({re.sub(r" · \d+\.\d s|version \d+", "", text) for text in texts}) == 1
    (before, after) = printed['openbook search "bow thruster serial number" --cluster auto']
    assert before == after
    assert "behind        nothing" in printed["openbook cluster status"][0]
    assert sorted(each.name for each in (desk / "home").glob("cluster*")) == []
    assert not (desk / "home-cluster").exists()
