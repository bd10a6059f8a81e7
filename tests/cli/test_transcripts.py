"""What commands print, to the letter: each file of golden/ is a session in a shell, over fakes.

A line that begins with `$` is a command; its output follows: standard output, lines of standard error after `! `, and the
exit code unless it is 0. What differs from run to run has a name, as `<id 1>`, which later commands may use.
To write the transcripts again, from their commands: UPDATE_GOLDEN=1 pytest -n 0 tests/cli/test_transcripts.py
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from openbook.answers import opening
from openbook.core.config import Settings
from openbook.core.records import ReaderFormat
from openbook.inference import FrozenModel
from openbook.testing import echo_model
from tests.cli.conftest import Out
from tests.diagnosis.bases import DraftEngine
from tests.diagnosis.table_engine import TableEngine
from tests.diagnosis.test_runner import good

GOLDEN = Path(__file__).parent / "golden"
MODELS: dict[str, Callable[[], FrozenModel]] = {
    "good": lambda: FrozenModel(TableEngine(good, "good")),
    "bad": lambda: FrozenModel(TableEngine(lambda _: "Somebody.", "bad")),
    "drafter": lambda: FrozenModel(DraftEngine()),
    "abstainer": lambda: FrozenModel(DraftEngine(), ReaderFormat("Answer.", "The passages do not say.")),
    "silent": lambda: FrozenModel(DraftEngine(lambda _: "I cannot help.")),
}
VARIABLE = [  # texts that differ from run to run
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(\+00:00|Z)?"), "<time>"),
    (re.compile(r"(On disk +)[\d,.]+ MB"), r"\1<size> MB"),
    (re.compile(r"\b\d+\.\d+ s\b"), "<seconds> s"),
    (re.compile(r"[\d,]+ files, [\d,]+ bytes scanned|\d+ \([\d,]+ bytes\)|(?<=from byte )\d+"), "<count>"),
    (re.compile(r"(?<=OpenBook )\d[\w.]+"), "<version>"),
    (re.compile(r"\S+/openbook-\w{8}/(?=standard input)"), "<folder>/"),
]
ID = re.compile(r"\bob-[0-9a-f]{8}-[\w-]{43}|\b[0-9a-f]{8,}\b")


class Shell:
    """Runs `openbook` in the process and all else in `sh`."""

    def __init__(self, out: Out, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._out, self._folder, self._monkeypatch = out, folder, monkeypatch
        self._ids: dict[str, str] = {}

    def run(self, line: str) -> str:
        for real, name in self._ids.items():
            line = line.replace(name, real)
        before, _, command = line.rpartition(" | ")
        if not command.startswith("openbook "):
            before, command = line, ""
        typed = self._sh(before) if before else b""
        if not command:
            return self._named(typed.decode())
        self._monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(typed)))
        code, stdout, stderr = self._out(*shlex.split(command)[1:])
        said = stdout + ("" if stdout.endswith("\n") or not stdout else "\n")
        said += "".join(f"! {each}".rstrip() + "\n" for each in stderr.splitlines())
        return self._named(said + (f"[exit code {code}]\n" if code else ""))

    def _sh(self, line: str) -> bytes:
        return subprocess.run(["sh", "-ec", line], cwd=self._folder, check=True, stdout=subprocess.PIPE).stdout

    def _named(self, text: str) -> str:
        text = text.replace(str(self._folder), "/here").replace(sys.executable, "python")
        for pattern, name in VARIABLE:
            text = pattern.sub(name, text)
        return ID.sub(lambda found: self._ids.setdefault(found[0], f"<id {len(self._ids) + 1}>"), text)


@pytest.mark.parametrize("name", [each.stem for each in sorted(GOLDEN.glob("*.txt"))])
def test_commands_print_what_the_transcript_shows(
    name: str, fakes: None, tmp_path: Path, out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opener(current: Settings, *_: object) -> Callable[[], FrozenModel]:
        return MODELS.get(current.model, echo_model)

    monkeypatch.setattr(opening, "model_opener", opener)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    shell, file = Shell(out, tmp_path, monkeypatch), GOLDEN / f"{name}.txt"
    expected = file.read_text(encoding="utf-8")
    commands = [line for line in expected.splitlines() if line.startswith("$ ")]
    found = "".join(f"{line}\n{shell.run(line[2:])}" for line in commands)
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(found, encoding="utf-8")
    else:
        assert found == expected
