"""The folder of a training run, as files: what `openbook train` writes and `openbook runs` shows.

    <home>/runs/<name>-<recipe digest>/recipe.json     the recipe as it is used, with its digest
                                       metrics.jsonl   a line for each step and each evaluation
                                       samples.json    questions of the dev data with the answers before and after
                                       checkpoints/    see openbook.training.checkpoints
                                       result.json     at the end: the model that was stored, and its numbers
                                       report.html     the same to look at

No torch here: the numbers of a run can be read where nothing is trained.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openbook.errors import StorageError, TrainingError, did_you_mean

DOCUMENTS = "knowledge-base.jsonl"  # what --from-kb learns from, until the run is done
RECIPE, METRICS, SAMPLES, RESULT, REPORT, CHECKPOINTS, LOCK = (
    "recipe.json",
    "metrics.jsonl",
    "samples.json",
    "result.json",
    "report.html",
    "checkpoints",
    ".lock",
)


LOWER_IS_BETTER = frozenset({"loss", "abstained_wrongly"})


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What the files of a run tell. `result` is None while it is not done."""

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


def reaches(metric: str, value: float | None, wanted: float) -> bool:
    """Whether a dev number is as good as a recipe asks: at least `wanted`, or where lower is better at most."""
    if value is None:
        return False
    return value <= wanted if metric in LOWER_IS_BETTER else value >= wanted


def list_runs(folder: Path) -> list[RunSummary | str]:
    """Every run, in the order of their names; of one that cannot be read a sentence."""
    found: list[RunSummary | str] = []
    try:
        paths = sorted(path for path in folder.iterdir() if (path / RECIPE).is_file()) if folder.is_dir() else []
    except OSError as error:
        raise StorageError(f"Cannot list the runs in {folder}: {error.strerror or error}.") from error
    for path in paths:
        try:
            found.append(read_run(path))
        except TrainingError as error:
            found.append(str(error))
    return found


def find_run(folder: Path, name: str) -> RunSummary:
    """The run called `name`, or whose name begins with it. Raises TrainingError."""
    names = [path.name for path in sorted(folder.iterdir()) if (path / RECIPE).is_file()] if folder.is_dir() else []
    matching = [name] if name in names else [each for each in names if each.startswith(name)]
    if len(matching) == 1:
        return read_run(folder / matching[0])
    if matching:
        raise TrainingError(f"{len(matching)} runs begin with {name!r}: {', '.join(matching)}. Give more of the name.")
    hint = did_you_mean(name, names) or (f" There are {', '.join(names)}." if names else " There is none yet.")
    raise TrainingError(f"No run is called {name[:120]!r}.{hint}")


def read_run(path: Path) -> RunSummary:
    """Raises TrainingError for a folder whose files cannot be read."""
    try:
        recipe = json.loads((path / RECIPE).read_bytes())
        lines = [json.loads(line) for line in _lines(path / METRICS)]
        result = json.loads((path / RESULT).read_bytes()) if (path / RESULT).is_file() else None
        samples = json.loads((path / SAMPLES).read_bytes()) if (path / SAMPLES).is_file() else []
        return RunSummary(
            path,
            recipe["recipe"],
            recipe["digest"],
            tuple(line for line in lines if line["kind"] == "step"),
            tuple(line for line in lines if line["kind"] == "evaluation"),
            tuple(samples),
            result,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"The run in {path} cannot be read: {error}. Remove the folder, or train again.") from error


def _lines(path: Path) -> list[bytes]:
    """Whole lines only: a process that was killed may have left half of one."""
    if not path.is_file():
        return []
    *whole, _rest = path.read_bytes().split(b"\n")
    return [line for line in whole if line]


def append_metrics(path: Path, value: Mapping[str, Any]) -> None:
    with (path / METRICS).open("ab") as stream:
        stream.write(json.dumps(dict(value)).encode() + b"\n")


def forget_after(path: Path, step: int) -> None:
    """Drop the numbers of steps that are done again after a resume from `step`, and lines that cannot be read."""
    kept = [line for line in _lines(path / METRICS) if -1 < _step_of(line) <= step]
    staged = path / f".{METRICS}"
    staged.write_bytes(b"".join(line + b"\n" for line in kept))
    staged.replace(path / METRICS)


def _step_of(line: bytes) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return -1


def documents_holding(folder: Path, texts: Iterable[str]) -> list[Path]:
    """The files of documents that stopped runs keep and that hold one of the texts. Without it a run cannot go on.

    Raises StorageError.
    """
    needles = [json.dumps(text, ensure_ascii=False)[1:-1].encode() for text in texts if text.strip()]
    found = []
    for path in sorted(folder.glob(f"*/{DOCUMENTS}")):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StorageError(f"Cannot read the documents in {path}: {error.strerror or error}.") from error
        if any(needle in content for needle in needles):
            found.append(path)
    return found


def flat(value: object, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return found


def write_json(path: Path, value: object) -> None:
    staged = path.with_name(f".{path.name}")
    staged.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    staged.replace(path)
