"""The work in parts, each kept in a file when it is done: a run that was stopped goes on, and one that is asked for more does
only what is new. A part is known by its key, which names all that its result depends on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openbook.errors import ConfigError
from openbook.models.durable import replace_file, storage_errors
from openbook.records import canonical_json, sha256_hex

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Job:
    """`seconds`: what it is estimated to take. `do` gives a result that JSON can hold."""

    name: str
    key: Mapping[str, Any]
    seconds: float
    do: Callable[[], Any]

    @property
    def trains(self) -> bool:
        """Whether a lesson is learned: then its key names the recipe's settings."""
        return "settings" in self.key

    def path(self, folder: Path) -> Path:
        return folder / "parts" / f"{self.name}-{sha256_hex(canonical_json([FORMAT, self.name, self.key]))[:12]}.json"


@dataclass(slots=True)
class Budget:
    """How long a whole run may take; None: as long as it does.

    Estimates are corrected by what was done: those of training by trainings, those of asking alone by such.
    """

    seconds: float | None = None
    clock: Callable[[], float] = time.monotonic
    _estimated: dict[bool, float] = field(default_factory=dict)  # by whether they train
    _took: dict[bool, float] = field(default_factory=dict)
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self._started = self.clock()

    def allows(self, job: Job) -> bool:
        if self.seconds is None:
            return True
        return self.clock() - self._started + self._factor(job.trains) * job.seconds <= self.seconds

    def _factor(self, trains: bool) -> float:
        """Before one of the kind was done, the other kind tells that a machine is slow, but not that it is fast."""
        if self._estimated.get(trains):
            return self._took[trains] / self._estimated[trains]
        other = not trains
        return max(1.0, self._took[other] / self._estimated[other]) if self._estimated.get(other) else 1.0

    def note(self, job: Job, seconds: float) -> None:
        self._estimated[job.trains] = self._estimated.get(job.trains, 0.0) + job.seconds
        self._took[job.trains] = self._took.get(job.trains, 0.0) + seconds


def kept(job: Job, folder: Path) -> Any | None:
    """The result of a job that was done, or None. Raises ConfigError for a file that is damaged."""
    path = job.path(folder)
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_bytes())
        return value["result"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged: {error!r}. Delete it, and it is measured again.") from error


def done(job: Job, folder: Path) -> Any:
    """Do it, unless it was done. The result as JSON has it. Raises what the job raises, StorageError."""
    found = kept(job, folder)
    if found is not None:
        return found
    content = json.dumps({"name": job.name, "key": job.key, "result": job.do()}, indent=1, ensure_ascii=False)
    with storage_errors(f"write to {folder}"):
        replace_file(job.path(folder), content.encode("utf-8", "replace"))
    return json.loads(content)["result"]


def done_within(
    jobs: Sequence[Job], folder: Path, budget: Budget, say: Callable[[str, float], None]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(results by name, the names that the budget left out), in order. What was done before costs nothing.

    `say` gets the name of each that is there, and the seconds that it took now.
    """
    results: dict[str, Any] = {}
    left_out = []
    for job in jobs:
        if kept(job, folder) is not None:
            results[job.name] = done(job, folder)
            say(job.name, 0.0)
        elif budget.allows(job):
            started = budget.clock()
            results[job.name] = done(job, folder)
            took = budget.clock() - started
            budget.note(job, took)
            say(job.name, took)
        else:
            left_out.append(job.name)
    return results, tuple(left_out)
