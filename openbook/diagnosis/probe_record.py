"""What probes saw, question by question, in files that a later run of the same goes on with.

<folder>/probes-<model>.jsonl        a header as of observations, then a line for each question, in their order
         probes-<model>.leaks.json   what was found between the questions, once it was
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openbook.diagnosis.leaks import Leaks
from openbook.diagnosis.observations import Header, Recording, read_records, recording
from openbook.diagnosis.probing import Trial
from openbook.diagnosis.reading_back import record_of
from openbook.errors import ConfigError, StorageError
from openbook.models.durable import replace_file, storage_errors
from openbook.records import canonical_json


@dataclass(frozen=True, slots=True)
class Tried:
    """What was seen of one question, by the name of the probe."""

    question: str
    trials: Mapping[str, Any]


class Kept:
    """The trials of earlier runs, and those of this one. Nothing that was answered is asked twice."""

    def __init__(self, record: Recording, header: Header, before: Sequence[Tried]) -> None:
        self._record, self._header, self._before = record, header, before
        self._held_back: list[tuple[int, Tried]] = []

    def before(self, number: int, question: str, kinds: Mapping[str, type[Trial]]) -> Mapping[str, Trial] | None:
        """What was seen of the question at that place (from 0), if it was asked before and the model did not fail.

        Raises ConfigError.
        """
        if number >= len(self._before):
            return None
        seen = self._before[number]
        try:
            if seen.question != question:
                raise ValueError(f"they are of question {seen.question!r}, not of {question!r}")
            found = {name: record_of(kind, seen.trials[name]) for name, kind in kinds.items()}
            return None if any(trial.failure for trial in found.values()) else found
        except (ValueError, KeyError) as error:
            path = self._record.path
            raise ConfigError(f"{path} line {number + 2} holds no trials: {error!r}. Delete the file.") from error

    def add(self, number: int, question: str, trials: Mapping[str, Trial], *, failed: bool) -> None:
        """Where the model failed, it is written down when a later question did not, or with `finish`. Raises StorageError."""
        self._held_back.append((number, Tried(question, trials)))
        if not failed:
            self.finish()

    def finish(self) -> None:
        for number, tried in self._held_back:
            self._record.append(tried, number)
        self._held_back = []

    @property
    def _leaks_path(self) -> Path:
        return self._record.path.with_suffix(".leaks.json")

    def leaks(self, questions: Sequence[str]) -> Leaks | None:
        """What was found between these questions, if it was looked for before and all was answered.

        Raises ConfigError, StorageError.
        """
        path = self._leaks_path
        try:
            value = json.loads(path.read_bytes())
            same = value["header"] == _plain(self._header) and value["questions"] == list(questions)
            found = record_of(Leaks, value["leaks"]) if same else None
            return found if found and found.complete else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(f"{path} holds no leaks: {error!r}. Delete it.") from error

    def add_leaks(self, questions: Sequence[str], found: Leaks) -> None:
        """Raises StorageError."""
        value = {"header": _plain(self._header), "questions": list(questions), "leaks": dataclasses.asdict(found)}
        with storage_errors(f"write {self._leaks_path}"):
            replace_file(self._leaks_path, canonical_json(value))


def _plain(header: Header) -> Any:
    """As it is read from JSON."""
    return json.loads(canonical_json(dataclasses.asdict(header)))


@contextmanager
def keeping(path: Path, header: Header) -> Iterator[Kept]:
    """Go on with the trials in `path`, or begin. Raises ConfigError when they are of something else, StorageError."""
    with recording(path, header) as record:
        before = list(read_records(path, lambda value: record_of(Tried, value))[1])
        yield Kept(record, header, before)
