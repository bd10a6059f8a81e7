"""The way out of this package: who trains, who opens models, and what embeds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from openbook.diagnosis.teaching.lessons import Lesson
from openbook.inference import FrozenModel
from openbook.records import Digest, Embedder

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Cost:
    """`cpu_seconds` are those of all threads, and of the processes that were started. Both seconds are None where they
    were not measured, because the process that does so was killed. `peak_mb`: the most memory that the process which
    did the work held, in MB of 10^6 bytes; 0: not measured (then, by an older version, or on Windows).
    """

    seconds: float | None = 0.0
    cpu_seconds: float | None = 0.0
    peak_mb: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """One after the other. With a part that was not measured, the whole was not."""
        if self.seconds is None or self.cpu_seconds is None or other.seconds is None or other.cpu_seconds is None:
            return NOT_MEASURED
        return Cost(
            self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds, max(self.peak_mb, other.peak_mb)
        )


NOTHING = Cost()
NOT_MEASURED = Cost(None, None)


@dataclass(frozen=True, slots=True)
class Trained:
    """The stored model that a lesson ended with, what all processes for it took, and how many tokens were read."""

    model: Digest
    cost: Cost
    tokens: int


class Trainer(Protocol):
    def train(self, lesson: Lesson, progress: Progress) -> Trained:
        """Teach the base the lesson, in another process. Done before, it is not done again.

        Raises TrainingError, ConfigError, StorageError, KeyboardInterrupt; then it can go on later.
        """
        ...


@dataclass(frozen=True, slots=True)
class Seams:
    """`open_reader` is None where the base itself reads. The caller closes what it opens."""

    trainer: Trainer
    base: Digest
    reader: Digest
    open_base: Callable[[], FrozenModel]
    open_reader: Callable[[], FrozenModel] | None
    open_trained: Callable[[Digest], FrozenModel]
    embedder: Embedder
    progress: Progress = lambda stage, done, total: None


class Meter:
    """What has been spent since it was made, children that have ended included; but the memory is that of this process alone."""

    def __init__(self) -> None:
        with suppress(OSError):  # Linux counts the most memory from here on; others from the beginning of the process
            Path("/proc/self/clear_refs").write_text("5")
        self._started, self._cpu = time.perf_counter(), _cpu_seconds()

    def spent(self) -> Cost:
        return Cost(time.perf_counter() - self._started, _cpu_seconds() - self._cpu, _own_peak_mb())


def _own_peak_mb() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return peak_mb(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def peak_mb(maxrss: int) -> float:
    """Of `ru_maxrss`, which macOS gives in bytes and others in KiB."""
    return maxrss / 1e6 if sys.platform == "darwin" else maxrss * 1024 / 1e6


def _cpu_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
