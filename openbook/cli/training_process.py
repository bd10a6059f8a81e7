"""Training lessons in a process of its own, as `openbook train` does: this process never loads what could change a weight."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from openbook.errors import TrainingError
from openbook.runs import CHECKPOINTS, METRICS, RESULT

if TYPE_CHECKING:
    from openbook.diagnosis.teaching.lessons import Lesson
    from openbook.diagnosis.teaching.seams import Cost, Progress, Trained
    from openbook.models import ModelReference, ModelStore

LESSON, RECIPE, SPENT, LOG, RUN = "lesson.jsonl", "recipe.toml", "spent.json", "log.txt", "run"
POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class ProcessTrainer:
    """Trains `base`, whose files are linked into `store`, where what comes out goes as well. What was begun goes on."""

    store: ModelStore
    base: ModelReference
    folder: Path
    threads: int
    seed: int = 1
    program: Sequence[str] = (sys.executable, "-m", "openbook.training")

    def train(self, lesson: Lesson, progress: Progress) -> Trained:
        """As `Trainer.train`."""
        from openbook.diagnosis.teaching.lessons import recipe_text
        from openbook.diagnosis.teaching.seams import Trained
        from openbook.models.durable import replace_file, storage_errors
        from openbook.records import sha256_hex

        data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lesson.lines).encode("utf-8", "replace")
        recipe = recipe_text(lesson, self.base.name, self.base.digest, PurePath(LESSON), sha256_hex(data), self.seed)
        place = self.folder / f"{lesson.name}-{sha256_hex(recipe.encode())[:8]}"
        with storage_errors(f"write to {place}"):
            replace_file(place / LESSON, data)
            replace_file(place / RECIPE, recipe.encode())
        if not (place / RUN / RESULT).is_file():
            _link(self.base.path, self.store.root / self.base.digest)
            self._run(place, progress)
        result = json.loads((place / RUN / RESULT).read_bytes())
        shutil.rmtree(place / RUN / CHECKPOINTS, ignore_errors=True)
        return Trained(str(result["model"]), _spent(place), int(result["tokens"]))

    def _run(self, place: Path, progress: Progress) -> None:
        from openbook.diagnosis.teaching.seams import NOT_MEASURED, Meter
        from openbook.models.durable import storage_errors

        command = [*self.program, str(place / RECIPE), "--store", str(self.store.root)]
        command += ["--folder", str(place / RUN), "--threads", str(self.threads), "--resume", "--json"]
        before = _spent(place)
        with storage_errors(f"write to {place}"):
            _write_spent(place, NOT_MEASURED)  # should this process be killed, nobody knows what the child takes
        meter, child = Meter(), _Child()
        try:
            code = _followed(command, place, progress, child)
        finally:
            if not child.alive:
                with storage_errors(f"write to {place}"):
                    _write_spent(place, before + replace(meter.spent(), peak_mb=child.peak_mb))
        if code:
            raise TrainingError(
                f"Training {place.name} failed: {_last_line(place / LOG)} All of it is in {place / LOG}."
            )


def _link(folder: Path, target: Path) -> None:
    """The folder of a model in another store, without a copy where the file system can do that."""
    from openbook.models.durable import storage_errors

    if target.is_dir():
        return
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    with storage_errors(f"put the base into {target.parent}"):
        shutil.copytree(folder, staged, copy_function=_linked)
        staged.rename(target)


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


@dataclass(slots=True)
class _Child:
    """`peak_mb`: the most memory that the process held, at least that of this one when it was started; 0: not known.

    `alive`: it was started, and its end has not been seen, so what it takes is not counted.
    """

    peak_mb: float = 0.0
    alive: bool = False

    def wait(self, process: subprocess.Popen[bytes], timeout_s: float | None = None) -> int:
        """The exit code, as `Popen.wait`. Raises subprocess.TimeoutExpired."""
        if not hasattr(os, "wait4"):  # Windows
            code = process.wait(timeout_s)
            self.alive = False
            return code
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while process.returncode is None:
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                from openbook.diagnosis.teaching.seams import peak_mb

                process.returncode = os.waitstatus_to_exitcode(status)
                self.peak_mb, self.alive = peak_mb(used.ru_maxrss), False
            elif deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(process.args, timeout_s or 0.0)
            else:
                time.sleep(0.05)
        return process.returncode


def _followed(command: Sequence[str], place: Path, progress: Progress, told: _Child) -> int:
    """The exit code. Ctrl-C is passed on, and the child ends its step and writes a checkpoint before this one ends."""
    with (place / LOG).open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as child:
        told.alive = True
        try:
            while True:
                try:
                    return told.wait(child, POLL_S)
                except subprocess.TimeoutExpired:
                    if step := _last_step(place / RUN / METRICS):
                        progress("learn", step["step"], step["steps"])
        except KeyboardInterrupt:
            child.send_signal(signal.SIGINT)
            told.wait(child)
            raise


def _last_step(metrics: Path) -> dict[str, Any] | None:
    try:
        with metrics.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - 4096))
            lines = stream.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            value = json.loads(line)
        except ValueError:  # the last one is being written, the first one is cut
            continue
        if isinstance(value, dict) and value.get("kind") == "step":
            return value
    return None


def _spent(place: Path) -> Cost:
    """In all processes so far."""
    from openbook.diagnosis.teaching.seams import NOT_MEASURED, NOTHING, Cost

    try:
        return Cost(**json.loads((place / SPENT).read_bytes()))
    except FileNotFoundError:  # of a run that was begun, if an older version was killed
        return NOT_MEASURED if (place / RUN).exists() else NOTHING


def _write_spent(place: Path, cost: Cost) -> None:
    from openbook.models.durable import replace_file

    replace_file(place / SPENT, json.dumps(asdict(cost)).encode())


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("Error: ") if lines else "it said nothing."
