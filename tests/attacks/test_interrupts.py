"""Ctrl-C at moments that are not chosen."""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from openbook.cli import main
from openbook.core.records import Embedder
from openbook.knowledge import KnowledgeBase
from openbook.models import ModelReference
from tests.conftest import MODEL_HOME, ROOT

pytestmark = pytest.mark.model
FILES = 20


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for i in range(FILES):
        text = " ".join(f"Sentence {j} of document {i} is about topic {i * j}." for j in range(20))
        (folder / f"{i:02}.txt").write_text(text)
    return folder


# Says when Python has started and the command line is loaded: an interrupt before that is Python's to report.
PROGRAM = """
import sys
from openbook.cli import main
print("begun", file=sys.stderr, flush=True)
main()
"""


def adding(docs: Path, kb: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, "add", str(docs), "--kb", str(kb), "--json"]
    environment = {**os.environ, "OPENBOOK_HOME": str(MODEL_HOME)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "begun\n"
    return process


def documents(kb: Path, embedder: Embedder) -> int:
    """How many there are: none or all. The indexes agree with the truth."""
    if not (kb / "kb.sqlite3").exists():
        return 0
    with closing(KnowledgeBase.open(kb, embedder.identity)) as base:
        count = len(base.documents())
        version, hits = base.search("Sentence 3 of document 7", embedder)
    assert (version, count, bool(hits)) in ((0, 0, False), (1, FILES, True))
    return count


def test_interrupted_at_any_moment_it_is_whole_and_the_next_run_completes(
    docs: Path, tmp_path: Path, model_reference: ModelReference, real_embedder: Embedder
) -> None:
    chance = random.Random(2)
    kb = tmp_path / "kb"
    for _ in range(2):
        process = adding(docs, kb)
        time.sleep(chance.uniform(0.02, 2.5))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
        count = documents(kb, real_embedder)
        if process.returncode == 0:  # it was faster
            assert count == FILES
        else:
            assert process.returncode == 130, errors
            assert "Interrupted" in errors
            assert "Traceback" not in errors
    process = adding(docs, kb)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert documents(kb, real_embedder) == FILES
    assert {v["outcome"] for v in json.loads(output)["verdicts"]} <= {"added", "unchanged"}


def test_a_library_interrupted_while_it_loads_is_an_interrupt_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What onnxruntime does with Ctrl-C: its C part answers that it could not be initialised."""

    def load(_: str) -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise ImportError("initialization failed")

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(importlib, "import_module", load)
    try:
        with pytest.raises(SystemExit) as done:
            main(["status"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.value.code == 130
    assert "Interrupted" in capsys.readouterr().err
