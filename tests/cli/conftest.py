"""What the tests of verbs share: a verb that is run, its output, and fakes for models."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from openbook.cli import context, run
from openbook.testing import HashEmbedder, echo_model

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
    monkeypatch.setattr(context, "open_embedder", lambda *_, **__: HashEmbedder())
    monkeypatch.setattr(context, "model_opener", lambda *_, **__: echo_model)
