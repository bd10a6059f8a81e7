"""The way out of this package: who trains, who opens models, and what embeds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from openbook.diagnosis.teaching.lessons import Lesson
from openbook.inference import FrozenModel
from openbook.records import Digest, Embedder

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Cost:
    """`cpu_seconds` are those of all threads, and of the processes that were started."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)


NOTHING = Cost()


@dataclass(frozen=True, slots=True)
class Trained:
    """The stored model that a lesson ended with, what the process took from start to end, and how many tokens it read."""

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
    """What has been spent since it was made, children that have ended included."""

    def __init__(self) -> None:
        self._started, self._cpu = time.perf_counter(), _cpu_seconds()

    def spent(self) -> Cost:
        return Cost(time.perf_counter() - self._started, _cpu_seconds() - self._cpu)


def _cpu_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
