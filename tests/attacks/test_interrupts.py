"""Ctrl-C at moments that are not chosen."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest

from openbook.cli import main, run
from openbook.core.records import Embedder
from openbook.knowledge import KnowledgeBase
from tests.conftest import MODEL_HOME, ROOT
from tests.knowledge.conftest import Interrupted

FILES = 20


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for i in range(FILES):
        text = " ".join(f"Sentence {j} of document {i} is about topic {i * j}." for j in range(20))
        (folder / f"{i:02}.txt").write_text(text)
    return folder


# An interrupt before the command line is loaded is Python's to report. The moments are counted in calls of built-in functions.
PROGRAM = """
import os, signal, sys
from openbook.cli import main
calls, last = 0, int(sys.argv.pop(1))
def count(frame, event, argument):
    global calls
    if event == "c_call":
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGINT)
sys.setprofile(count)
try:
    main()
finally:
    sys.setprofile(None)
    print(f"{calls} calls", file=sys.stderr)
"""


def adding(docs: Path, kb: Path, last: int = 0) -> subprocess.CompletedProcess[str]:
    """The command, interrupted at its call `last`."""
    command = [sys.executable, "-c", PROGRAM, str(last), "add", str(docs), "--kb", str(kb), "--json"]
    environment = {**os.environ, "OPENBOOK_HOME": str(MODEL_HOME)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def documents(kb: Path, embedder: Embedder) -> int:
    """How many there are: none or all. The indexes agree with the truth."""
    if not (kb / "kb.sqlite3").exists():
        return 0
    with closing(KnowledgeBase.open(kb, embedder.identity)) as base:
        count = len(base.documents())
        version, hits = base.search("Sentence 3 of document 7", embedder)
    assert (version, count, bool(hits)) in ((0, 0, False), (1, FILES, True))
    return count


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.usefixtures("embedder_reference")
def test_interrupted_at_any_moment_it_is_whole_and_the_next_run_completes(
    docs: Path, tmp_path: Path, real_embedder: Embedder
) -> None:
    whole = adding(docs, tmp_path / "other")
    calls = int(whole.stderr.split()[-2])
    kb = tmp_path / "kb"
    for share in (0.05, 0.4, 0.7, 0.95):
        done = adding(docs, kb, int(calls * share))
        assert done.returncode == 130, done.stderr
        assert "Interrupted" in done.stderr
        assert "Traceback" not in done.stderr
        documents(kb, real_embedder)
    done = adding(docs, kb)
    assert done.returncode == 0, done.stderr
    assert documents(kb, real_embedder) == FILES
    assert {v["outcome"] for v in json.loads(done.stdout)["verdicts"]} <= {"added", "unchanged"}


def test_an_interrupted_command_leaves_a_whole_base_and_the_next_one_completes_it(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    embedder, kb = Interrupted(lambda: signal.raise_signal(signal.SIGINT)), tmp_path / "kb"
    monkeypatch.setattr("openbook.answers.opening.open_embedder", lambda *_, **__: embedder)
    command, before = ["add", str(docs), "--kb", str(kb)], signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit, match="130"):
            main(command)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "Interrupted" in capsys.readouterr().err
    assert documents(kb, embedder) == 0
    assert run(command) == 0
    assert documents(kb, embedder) == FILES


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
