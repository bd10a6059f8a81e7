"""What the tests of verbs share: a verb that is run, its output, and fakes for models."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import httpx
import pytest

from openbook.answers import opening
from openbook.cli import run
from openbook.testing import HashEmbedder, echo_model
from tests.conftest import ROOT

TypeIn: TypeAlias = Callable[..., None]


class Out:
    """Runs commands, all of which begin so: (exit code, standard output, standard error) of each."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *begin: object) -> None:
        self._capsys, self._begin = capsys, begin

    def of(self, *begin: object) -> Out:
        return Out(self._capsys, *begin)

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        code = run([str(each) for each in (*self._begin, *arguments)])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    def ok(self, *arguments: object) -> str:
        """The standard output of a command that ends well."""
        code, stdout, stderr = self(*arguments)
        assert code == 0, stderr
        return stdout

    def json(self, *arguments: object) -> Any:
        return json.loads(self.ok(*arguments, "--json"))

    def refused(self, code: int, says: str, *arguments: object) -> None:
        """A command that prints no result, and says why."""
        found, stdout, stderr = self(*arguments)
        assert (found, stdout, says in " ".join(stderr.split())) == (code, "", True), stderr


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str]) -> Out:
    return Out(capsys)


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch) -> TypeIn:
    """Puts these lines on standard input, and then its end."""
    return lambda *lines: monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model echoes a passage; the embedder hashes words."""
    monkeypatch.setattr(opening, "open_embedder", lambda *_, **__: HashEmbedder())
    monkeypatch.setattr(opening, "model_opener", lambda *_, **__: echo_model)


@contextmanager
def running(until: str, *words: object, umask: int = -1) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """(`openbook` over fakes in a process of its own, what it said until then on standard error). Ctrl-C ends it, well."""
    command = [sys.executable, str(ROOT / "tests" / "serving" / "fake_serve.py"), *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, umask=umask, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        assert process.stderr is not None
        said = ""
        try:
            while until not in said:
                line = process.stderr.readline()
                assert line, said
                said += line
            yield process, said
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()  # until it has said all, for it fails if nobody reads what it writes at its end
    assert process.returncode == 0


@contextmanager
def served(*words: object, umask: int = -1) -> Iterator[tuple[httpx.Client, str, subprocess.Popen[str]]]:
    """(a client of `openbook serve`, what that said before it listened, its process)."""
    with running("Listening on", "serve", "--port", 0, *words, umask=umask) as (process, said):
        (address,) = re.findall(r"Listening on (http://[^/]*)/", said)
        with httpx.Client(base_url=address, trust_env=False, timeout=600) as client:
            yield client, said, process
