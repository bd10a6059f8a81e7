"""A lesson, and its training by `openbook train` in a process of its own: the model that came out, and what it took."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import jinja2

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=jinja2.select_autoescape(["svg.j2"]),
    trim_blocks=True,
    undefined=jinja2.StrictUndefined,
)


@dataclass(frozen=True, slots=True)
class Lesson:
    """`lines`: what is learned, in the form that the `objective` of a recipe reads (docs/architecture.md, Training)."""

    name: str
    objective: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]
    learning_rate: float
    epochs: int
    step_tokens: int
    sequence_tokens: int


@dataclass(frozen=True, slots=True)
class Cost:
    """`cpu_seconds`: of all threads and child processes. `peak_mb`: the most memory, in 10^6 bytes; 0: not measured."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0


NOTHING = Cost()


def cpu_seconds() -> float:
    """What this process and its children that have ended have spent."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def write_recipe(lesson: Lesson, folder: Path, base: str, digest: str, seed: int) -> Path:
    """The lesson's lines and its recipe as files in `folder`."""
    data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lesson.lines).encode()
    sha256 = hashlib.sha256(data).hexdigest()
    text = TEMPLATES.get_template("recipe.toml.j2").render(
        lesson=lesson, base=base, digest=digest, seed=seed, sha256=sha256
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lesson.jsonl").write_bytes(data)
    recipe = folder / "recipe.toml"
    recipe.write_text(text, encoding="utf-8")
    return recipe


def train(recipe: Path, home: Path) -> tuple[str, Cost]:
    """(digest of the model, which is stored in `home`; what it took). What a stopped run left is thrown away.

    Raises SystemExit with the last line of the log when the training fails.
    """
    run, log, result = (recipe.with_name(name) for name in ("run", "log.txt", "result.json"))
    shutil.rmtree(run, ignore_errors=True)
    command = [sys.executable, "-m", "openbook", "train", str(recipe), "--run", str(run), "--device", "cpu", "--json"]
    environment = {**os.environ, "OPENBOOK_HOME": str(home)}
    started = time.perf_counter()
    with (
        result.open("wb") as out,
        log.open("wb") as errors,
        Popen(command, stdin=DEVNULL, stdout=out, stderr=errors, env=environment) as child,
    ):
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:] or ["it said nothing."]
        raise SystemExit(f"The training of {recipe.parent.name} failed: {last[0]} All of it is in {log}.")
    kilobytes = used.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    cost = Cost(time.perf_counter() - started, used.ru_utime + used.ru_stime, kilobytes * 1024 / 1e6)
    return str(json.loads(result.read_bytes())["model"]), cost
