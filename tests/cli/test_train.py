"""`openbook train` as a user meets it: in a process of its own, stopped, killed and resumed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import click
import pytest

from openbook.cli.train import _documents
from openbook.core.config import load_settings
from openbook.core.errors import StorageError, TrainingError
from openbook.knowledge import KnowledgeBase, remove
from openbook.models import ModelStore
from openbook.models.runs import RunRequest, read_run
from tests.cli.conftest import Out
from tests.conftest import ROOT, base_with
from tests.serving.conftest import eventually

RECIPE = """
name = "tiny"
licence = "MIT"
architecture = {{ vocabulary = 500, width = 32, layers = 2, heads = 4, feed_forward = 64 }}
objective.kind = "language-modeling"
train = [{{ file = "text.md", sha256 = "{digest}" }}]
dev = [{{ file = "text.md", sha256 = "{digest}" }}]
method.kind = "full"
optimiser = {{ learning_rate = 3e-3, warmup_steps = 2, schedule = "constant" }}
evaluation.every_steps = 5
gate.target.loss = 0.1
export.quantisation = "F32"
[loop]
seed = 1
steps = {steps}
sequence_tokens = 64
step_tokens = 512
call_tokens = 512
precision = "f32"
"""


@pytest.fixture
def home(own_home: Path) -> Path:
    own_home.mkdir()
    return own_home


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path, steps=10)


def write_recipe(folder: Path, *, steps: int) -> Path:
    text = (ROOT / "docs" / "architecture.md").read_bytes()
    (folder / "text.md").write_bytes(text)
    path = folder / "tiny.toml"
    path.write_text(RECIPE.format(digest=hashlib.sha256(text).hexdigest(), steps=steps), encoding="utf-8")
    return path


def start(*arguments: object, cwd: Path = ROOT) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-m", "openbook", "train", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd)


def done(*arguments: object, cwd: Path = ROOT) -> tuple[int, str, str]:
    with start(*arguments, cwd=cwd) as child:
        stdout, stderr = child.communicate(timeout=300)
    return child.returncode, stdout, stderr


def wait_for_step(folder: Path, step: int, child: subprocess.Popen[str]) -> None:
    metrics = folder / "metrics.jsonl"
    while child.poll() is None:
        if metrics.is_file() and metrics.read_bytes().count(b'"kind": "step"') >= step:
            return
        time.sleep(0.01)


def children_of(process: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def model_of(folder: Path) -> str:
    result = read_run(folder).result
    assert result is not None
    return str(result["model"])


@pytest.mark.laws
@pytest.mark.usefixtures("fakes")
def test_a_run_from_beginning_to_end(home: Path, tmp_path: Path, recipe: Path, out: Out) -> None:
    """It learns a file and a knowledge base, and what it learned is known when that is purged."""
    store = ModelStore(home / "models")
    docs = tmp_path / "docs"
    docs.mkdir()
    for page in ("docs/security.md", "research/log.md"):
        (docs / Path(page).name).write_bytes((ROOT / page).read_bytes())
    out.ok("add", docs)
    (tmp_path / "random.py").write_text("raise SystemExit('not that of Python')")
    begun = home / "runs" / "given"
    begun.mkdir(parents=True)
    for name in ("knowledge-base.jsonl", "knowledge-base.version"):
        (begun / name).write_text("of a run that did not begin")
    code, stdout, stderr = done(recipe, "--from-kb", "--run", begun, cwd=tmp_path)
    assert code == 0, stderr
    assert "tiny-candidate is here: " in stdout
    assert "Short of its target: loss" in stdout
    assert "step 10: loss" in stderr
    stored = store.resolve("tiny-candidate")
    assert store.findings(stored) == ()
    (folder,) = (home / "runs").iterdir()
    assert "<svg" in (folder / "report.html").read_text(encoding="utf-8")
    assert not list(folder.glob("knowledge-base*"))

    assert f"done, model {stored.digest[:12]}; short of its target" in out.ok("runs", "list")
    shown = out.ok("runs", "show", folder.name[:6])
    assert "step     10  loss" in shown
    assert out.json("runs", "show", folder.name)["result"]["model"] == stored.digest
    lineage = out.ok("models", "lineage", "tiny-candidate")
    assert "recipe " in lineage
    assert "knowledge base " in lineage
    assert "yes." in out.ok("models", "learned", "tiny-candidate", recipe.parent / "text.md")
    assert "no." in out.ok("models", "learned", "tiny-candidate", ROOT / "LICENSE")
    learned = out.json("purge", docs / "log.md", "--yes")["models_that_learned_it"]
    assert [each["model"] for each in learned] == [stored.digest]
    assert learned[0]["found"] > 10

    exported = recipe.parent / "out"
    assert "is in " in out.ok("models", "export", "tiny-candidate", exported)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in exported.iterdir()}
    assert out("models", "export", "tiny-candidate", exported)[0] == StorageError.exit_code

    # Its target was not met, so it takes no name, unless one insists.
    code, stdout, _ = out("models", "promote", "tiny", stored.digest)
    assert (code, "FAILED  target loss" in stdout) == (3, True)
    assert "tiny now points to" in out.ok("models", "promote", "tiny", stored.digest, "--without-gate")
    assert out("models", "rollback", "tiny")[0] == 3

    recipe.write_text(recipe.read_text().replace("steps = 10", "steps = 10\nstep = 2"))
    code, _, stderr = done(recipe)
    assert (code, "Traceback" in stderr) == (2, False)
    assert "unknown key 'loop.step'. Did you mean 'step_tokens'?" in stderr


def test_the_named_version_is_learned(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process changes the documents while they are read."""
    base_with(tmp_path, {"a.txt": "The ferry leaves at nine.", "b.txt": "The bridge was opened in 1926."}).close()
    read = KnowledgeBase.text

    def text(base: KnowledgeBase, document: str, version: int | None = None) -> str | None:
        monkeypatch.undo()
        found = read(base, document, version)
        with closing(KnowledgeBase.open(base.store.place)) as other:
            remove(other, ["a.txt"])
        return found

    monkeypatch.setattr(KnowledgeBase, "text", text)
    content, version = _documents(load_settings({"OPENBOOK_HOME": str(home), "OPENBOOK_KB": str(tmp_path / "kb")}))
    assert (content.count(b"\n"), version.partition("@")[2]) == (2, "1")


@pytest.mark.laws
@pytest.mark.usefixtures("fakes")
def test_a_run_keeps_the_documents_that_it_began_with(
    home: Path, tmp_path: Path, recipe: Path, out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[RunRequest] = []

    def stop(request: RunRequest) -> None:
        asked.append(request)
        raise click.exceptions.Exit(130)

    monkeypatch.setattr("openbook.cli.train._run_apart", stop)
    note = tmp_path / "note.txt"
    for text, words in [("The ferry leaves at nine.", ()), ("The ferry leaves at ten.", ("--resume",))]:
        note.write_text(text)
        out.ok("add", note)
        assert out("train", recipe, "--from-kb", *words)[0] == 130
    first, again = asked
    assert again == replace(first, resume=True)
    assert str(first.knowledge_base).endswith("@1")
    (Path(first.folder) / "metrics.jsonl").touch()
    out.refused(TrainingError.exit_code, "already holds a run", "train", recipe, "--from-kb")


@pytest.mark.laws
def test_a_killed_dry_run_cannot_be_resumed(home: Path, recipe: Path) -> None:
    child = start(recipe, "--dry-run")
    eventually(lambda: bool(children_of(child.pid)))
    (training,) = children_of(child.pid)
    os.kill(training, signal.SIGKILL)
    _, stderr = child.communicate(timeout=60)
    assert "ended by signal 9" in stderr
    assert "lower loop.call_tokens" in stderr
    assert "--resume" not in stderr


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "interrupted", "terminated"])
def test_a_resumed_run_ends_with_the_same_model(how: str, home: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, steps=40)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert done(recipe, "--run", whole)[0] == 0
    step = random.Random().randint(1, 30)
    child = start(recipe, "--run", parts)
    wait_for_step(parts, step, child)
    if how == "killed":
        for pid in [*children_of(child.pid), child.pid]:
            os.kill(pid, signal.SIGKILL)
        child.communicate(timeout=60)
    else:
        child.send_signal(signal.SIGINT if how == "interrupted" else signal.SIGTERM)
        _, stderr = child.communicate(timeout=60)
        assert child.returncode == 130
        assert "To continue: openbook train RECIPE --resume" in stderr
        assert list((parts / "checkpoints").glob("step-*"))
    code, _, stderr = done(recipe, "--run", parts, "--resume")
    assert code == 0, stderr
    assert model_of(parts) == model_of(whole), f"stopped at step {step}"
    assert [s["loss"] for s in read_run(parts).steps] == [s["loss"] for s in read_run(whole).steps]


@pytest.mark.slow
def test_a_dry_run_measures_and_writes_nothing(home: Path, recipe: Path) -> None:
    code, stdout, stderr = done(recipe, "--dry-run", "--json")
    assert code == 0, stderr
    found = json.loads(stdout)
    assert (found["steps"], found["tokens_per_second"] > 0, found["estimated_seconds"] > 0) == (10, True, True)
    assert [*home.glob("runs"), *home.glob("models/[0-9a-f]*")] == []


def test_without_pytorch_it_says_what_to_install(
    home: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, out: Out
) -> None:
    monkeypatch.setattr("openbook.cli.train.NEEDED", ("torch_of_another_name",))
    out.refused(2, "pip install 'openbook[train]'", "train", recipe)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("recipe.json", "{}"),
        ("recipe.json", '{"recipe": [], "digest": "12"}'),
        ("metrics.jsonl", '{"kind": "step", "step": 1, "steps": 2}\n'),
        ("metrics.jsonl", '{"kind": "evaluation", "step": 1, "loss": null}\n'),
        ("samples.json", "[1]"),
        ("result.json", '{"model": 1, "missed": [], "numbers": {}}'),
        ("result.json", "[" * 100_000),
    ],
)
def test_a_damaged_run_is_named_and_hides_no_other(home: Path, out: Out, name: str, content: str) -> None:
    for run in ("good", "torn"):
        (home / "runs" / run).mkdir(parents=True)
        (home / "runs" / run / "recipe.json").write_text('{"recipe": {}, "digest": "12"}')
    (home / "runs" / "torn" / name).write_text(content)
    good, torn = out.ok("runs", "list").splitlines()
    assert (good.split(), f"cannot be read: {name}: " in torn) == (["good", "begun"], True)
    out.refused(6, "cannot be read", "runs", "show", "torn")
