"""The same run on one process and on two: the same curve, and a run resumes with another number of processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from openbook.models.runs import RunRequest, RunSummary, read_run
from tests.cli.test_train import write_recipe
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

ONE = [sys.executable, "-m"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]


def start(launcher: list[str], recipe: Path, run: Path, *, resume: bool = False) -> subprocess.Popen[str]:
    request = RunRequest(str(recipe), str(recipe.parent / "store"), str(run), resume=resume)
    command = [*launcher, "openbook.training", json.dumps(asdict(request))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment, start_new_session=True
    )


def done(launcher: list[str], recipe: Path, run: Path, *, resume: bool = False) -> RunSummary:
    child = start(launcher, recipe, run, resume=resume)
    _, stderr = child.communicate(timeout=300)
    assert child.returncode == 0, stderr
    return read_run(run)


def losses(run: RunSummary) -> list[float]:
    return [float(step["loss"]) for step in run.steps]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def alone(folder: Path) -> RunSummary:
    return done(ONE, write_recipe(folder, steps=60), folder / "alone")


def test_two_processes_learn_the_same(folder: Path, alone: RunSummary) -> None:
    together = done(TWO, folder / "tiny.toml", folder / "together")
    assert losses(together) == pytest.approx(losses(alone), rel=1e-3)
    assert [s["tokens"] for s in together.steps] == [s["tokens"] for s in alone.steps]
    assert [e["loss"] for e in together.evaluations] == pytest.approx([e["loss"] for e in alone.evaluations], rel=1e-3)
    assert together.result is not None
    assert together.result["numeric_class"].endswith("2 processes")


@pytest.mark.parametrize(("before", "after"), [(TWO, ONE), (ONE, TWO)])
def test_a_run_resumes_with_another_number_of_processes(
    before: list[str], after: list[str], folder: Path, alone: RunSummary
) -> None:
    run = folder / f"resumed-by-{len(after)}"
    child = start(before, folder / "tiny.toml", run)
    while child.poll() is None and not list(run.glob("checkpoints/step-*")):
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate(timeout=60)
    resumed = done(after, folder / "tiny.toml", run, resume=True)
    assert len(resumed.steps) == 60
    assert losses(resumed) == pytest.approx(losses(alone), rel=1e-3)


def test_two_processes_learn_the_same_updates_of_a_stored_base(folder: Path, alone: RunSummary) -> None:
    assert alone.result is not None
    recipe = folder / "updates.toml"
    text = (folder / "tiny.toml").read_text(encoding="utf-8")
    before, rest = text.split("[architecture]")
    _, rest = rest.split("[objective]")
    base = f'[base]\nmodel = "tiny-candidate"\ndigest = "{alone.result["model"]}"\n[objective]'
    text = before.replace('"tiny"', '"updates"') + base + rest
    text = text.replace('kind = "full"', 'kind = "lora"\nrank = 4').replace("steps = 60", "steps = 12")
    recipe.write_text(text.replace('precision = "f32"', 'precision = "bf16"'), encoding="utf-8")
    one, two = (done(launcher, recipe, folder / f"updates-{len(launcher)}") for launcher in (ONE, TWO))
    assert losses(two) == pytest.approx(losses(one), rel=1e-2)
    for run in (one, two):
        assert run.result is not None
        assert run.result["parent"] == alone.result["model"] != run.result["model"]
