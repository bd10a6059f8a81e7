"""The files of a training run: written by `openbook train`, shown by `openbook runs`.

    <home>/runs/<name>-<recipe digest>/recipe.json     the recipe with its digest
                                       knowledge-base.jsonl  the documents of --from-kb, until the run is done
                                       knowledge-base.version  the version of the knowledge base, until then
                                       metrics.jsonl   a line for each step and each evaluation
                                       samples.json    questions of the dev data with the answers before and after
                                       checkpoints/    see openbook.training.checkpoints
                                       result.json     at the end: the stored model and its numbers
                                       report.html     all of it as a page
                                       .lock           held while a process trains in it

This module does not import torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from openbook.core.errors import TrainingError, did_you_mean
from openbook.core.files import replace_file, storage_errors

DOCUMENTS = "knowledge-base.jsonl"  # documents of --from-kb, until the run is done
RECIPE = "recipe.json"
METRICS = "metrics.jsonl"
SAMPLES = "samples.json"
RESULT = "result.json"
REPORT = "report.html"
CHECKPOINTS = "checkpoints"
LOCK = ".lock"
LOWER_IS_BETTER = frozenset({"loss", "abstained_wrongly"})


class _Recipe(TypedDict):
    recipe: dict[str, Any]
    digest: str


class _Metrics(TypedDict):
    kind: str
    step: int


class _Step(_Metrics):
    steps: int
    loss: float


class _Sample(TypedDict):
    question: str
    expected: str
    answer: str


class _Result(TypedDict):
    model: str
    missed: list[str]
    numbers: dict[str, float]


@dataclass(frozen=True, slots=True)
class RunRequest:
    """Paths of a recipe, the model store and the run, for the process that trains.

    `threads`: 0 for all cores. `documents`: a JSON Lines file of the version `knowledge_base` ("id@version") to learn
    too.
    """

    recipe: str
    store: str
    folder: str
    threads: int = 0
    device: str = "auto"
    documents: str | None = None
    knowledge_base: str | None = None
    resume: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class RunSummary:
    """`result` is None until the run is done."""

    path: Path
    recipe: Mapping[str, Any]
    recipe_digest: str
    steps: tuple[Mapping[str, Any], ...]
    evaluations: tuple[Mapping[str, Any], ...]
    samples: tuple[Mapping[str, Any], ...]
    result: Mapping[str, Any] | None

    @property
    def name(self) -> str:
        return self.path.name


def numbers_of(evaluation: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in evaluation.items() if key not in ("kind", "step")}


def reaches(metric: str, value: float | None, target: float) -> bool:
    """True if a dev number is at least `target`, or at most if lower is better."""
    if value is None:
        return False
    return value <= target if metric in LOWER_IS_BETTER else value >= target


def list_runs(folder: Path) -> list[RunSummary | str]:
    """Every run in the order of names; a sentence for one that cannot be read."""
    found: list[RunSummary | str] = []
    for path in _run_folders(folder):
        try:
            found.append(read_run(path))
        except TrainingError as error:
            found.append(str(error))
    return found


def find_run(folder: Path, name: str) -> RunSummary:
    """The run called `name`, or the only one whose name begins with it. Raises TrainingError."""
    names = [path.name for path in _run_folders(folder)]
    matching = [name] if name in names else [each for each in names if each.startswith(name)]
    if len(matching) == 1:
        return read_run(folder / matching[0])
    if matching:
        raise TrainingError(f"{len(matching)} runs begin with {name!r}: {', '.join(matching)}. Give more of the name.")
    hint = did_you_mean(name, names) or (f" There are {', '.join(names)}." if names else " There is none yet.")
    raise TrainingError(f"No run is called {name[:120]!r}.{hint}")


def _run_folders(folder: Path) -> list[Path]:
    with storage_errors(f"list the runs in {folder}"):
        return sorted(path for path in folder.iterdir() if (path / RECIPE).is_file()) if folder.is_dir() else []


def read_run(path: Path) -> RunSummary:
    """Raises TrainingError if a file cannot be read or lacks a needed key."""
    try:
        recipe = _loaded((path / RECIPE).read_bytes(), _Recipe, RECIPE)
        lines = [(_loaded(line, _Metrics, METRICS)["kind"], line) for line in _whole_lines(path / METRICS)]
        samples = _loaded((path / SAMPLES).read_bytes(), list[_Sample], SAMPLES) if (path / SAMPLES).is_file() else []
        result = _loaded((path / RESULT).read_bytes(), _Result, RESULT) if (path / RESULT).is_file() else None
        return RunSummary(
            path,
            recipe["recipe"],
            recipe["digest"],
            tuple(_loaded(line, _Step, METRICS) for kind, line in lines if kind == "step"),
            tuple(_loaded(line, dict[str, float | str], METRICS) for kind, line in lines if kind == "evaluation"),
            tuple(samples),
            result,
        )
    except (OSError, ValueError) as error:
        raise TrainingError(f"The run in {path} cannot be read: {error}. Remove the folder, or train again.") from error


def _loaded(data: bytes, kind: Any, name: str) -> Any:
    """Check the keys of `kind`; other keys stay. Raises ValueError, naming the file."""
    try:
        value = json.loads(data)
        msgspec.convert(value, kind)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: {error}") from error
    return value


def has_samples(path: Path) -> bool:
    """True if the answers before training were written whole."""
    try:
        _loaded((path / SAMPLES).read_bytes(), list[_Sample], SAMPLES)
    except (OSError, ValueError):
        return False
    return True


def append_metrics(path: Path, value: Mapping[str, Any]) -> None:
    with (path / METRICS).open("ab") as stream:
        stream.write(json.dumps(dict(value)).encode() + b"\n")


def forget_after(path: Path, step: int) -> None:
    """Drop damaged lines, and the numbers of steps after `step`, which a resumed run repeats."""

    def is_kept(line: bytes) -> bool:
        try:
            return int(json.loads(line)["step"]) <= step
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return False

    kept = [line + b"\n" for line in _whole_lines(path / METRICS) if is_kept(line)]
    replace_file(path / METRICS, b"".join(kept))


def _whole_lines(path: Path) -> list[bytes]:
    """Without an incomplete last line of a killed process."""
    if not path.is_file():
        return []
    *whole, _rest = path.read_bytes().split(b"\n")
    return [line for line in whole if line]


def write_json(path: Path, value: object) -> None:
    replace_file(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())
