"""What the tests of verbs share: a verb that is run, its output, and fakes for models."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest

from openbook.cli import context, run
from openbook.testing import HashEmbedder, echo_model

Out: TypeAlias = Callable[..., tuple[int, str, str]]


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str]) -> Out:
    """Runs one command: (its exit code, standard output, standard error)."""

    def run_verb(*arguments: object) -> tuple[int, str, str]:
        code = run([str(each) for each in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_verb


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model echoes a passage; the embedder hashes words."""
    monkeypatch.setattr(context, "open_embedder", lambda *_: HashEmbedder())
    monkeypatch.setattr(context, "model_opener", lambda *_: echo_model)
