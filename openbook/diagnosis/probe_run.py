"""Put probes to questions, one question after the other, and keep what was seen in a file that a later run goes on with.

<folder>/probes-<model>.jsonl   a header as of observations, then a line for each question, in their order
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openbook import __version__
from openbook.diagnosis.examining import Bench, Failing, Progress, Stopped, header_for
from openbook.diagnosis.holding import Finder
from openbook.diagnosis.observations import Header, Recording, read_records, recording
from openbook.diagnosis.passage_probes import PROBES, Result, Trial, case_of
from openbook.diagnosis.questions import Question
from openbook.diagnosis.reading_back import record_of
from openbook.errors import ConfigError, EngineError, did_you_mean
from openbook.inference.frozen import Cancelled, never

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Probed:
    """`questions`: how many were probed; `stopped`: before all were. A probe that did not come to its turn has no result."""

    header: Header
    questions: int
    stopped: bool
    results: Mapping[str, Result]


@dataclass(frozen=True, slots=True)
class ProbeLine:
    """A line of the file: what was seen of one question, whose id is `question`, by the name of the probe."""

    question: str
    trials: Mapping[str, Any]


class ProbeRecord:
    """The trials of earlier runs, and those of this one. Nothing that was answered is asked twice."""

    def __init__(self, record: Recording, before: Sequence[ProbeLine]) -> None:
        self._record, self._before = record, before

    def before(self, number: int, question: str, names: Sequence[str]) -> dict[str, Trial] | None:
        """What was seen of the question at that place (from 0), if it was asked before and the model did not fail.

        Raises ConfigError.
        """
        if number >= len(self._before):
            return None
        seen = self._before[number]
        try:
            if seen.question != question:
                raise ValueError(f"they are of question {seen.question!r}, not of {question!r}")
            found = {name: record_of(PROBES[name].trial_type, seen.trials[name]) for name in names}
        except (ValueError, KeyError) as error:
            path = self._record.path
            raise ConfigError(f"{path} line {number + 2} holds no trials: {error!r}. Delete the file.") from error
        return None if any(trial.failure for trial in found.values()) else found

    def add(self, number: int, question: str, trials: Mapping[str, Trial]) -> None:
        """Raises StorageError."""
        self._record.append(ProbeLine(question, trials), number)


@contextmanager
def keeping(path: Path, header: Header) -> Iterator[ProbeRecord]:
    """Go on with the trials in `path`, or begin. Raises ConfigError when they are of something else, StorageError."""
    with recording(path, header) as record:
        yield ProbeRecord(record, list(read_records(path, lambda value: record_of(ProbeLine, value))[1]))


def probe(
    questions: Iterable[Question],
    bench: Bench,
    questions_digest: str = "",
    probes: Iterable[str] = tuple(PROBES),
    *,
    kept: ProbeRecord | None = None,
    total: int = 0,
    progress: Progress = lambda done, total: None,
    cancelled: Cancelled = never,
) -> Probed:
    """When `cancelled`, the result is of what was measured so far. What `kept` has is not asked again; all else goes into it.

    A request on which the model fails is counted apart. Raises ConfigError for a probe that is none, EngineError when the
    model fails on many questions in a row, KnowledgeError, StorageError.
    """
    names = checked(probes)
    bench = bench.pinned()
    finder = Finder(bench.base, bench.embedder, bench.scope)
    trials: dict[str, list[Trial]] = {name: [] for name in names}
    failing, done, stopped = Failing(), 0, False
    try:
        for question in questions:
            found = kept.before(done, question.id, names) if kept else None
            if found is None:
                case = case_of(question, bench, finder)
                found = {name: PROBES[name].trial(case, bench, cancelled) for name in names}
                _must_answer(failing, done, found, bench)
                if kept:
                    kept.add(done, question.id, found)
            for name, trial in found.items():
                trials[name].append(trial)
            done += 1
            progress(done, total)
    except Stopped:
        stopped = True
    results = {name: PROBES[name].result(tried) for name, tried in trials.items() if tried or not stopped}
    return Probed(header_for(bench, questions_digest), done, stopped, results)


def checked(probes: Iterable[str]) -> tuple[str, ...]:
    """The probes, each once, in their order. Raises ConfigError."""
    wanted = set(probes)
    for name in sorted(wanted.difference(PROBES)):
        raise ConfigError(f"{name!r} is no probe.{did_you_mean(name, PROBES)} There are {', '.join(PROBES)}.")
    return tuple(name for name in PROBES if name in wanted)


def _must_answer(failing: Failing, place: int, trials: Mapping[str, Trial], bench: Bench) -> None:
    """Raises EngineError when the model failed on too many questions in a row."""
    failures = [trial.failure for trial in trials.values() if trial.failure]
    answered = any(trial.outcome in PROBES[name].outcomes and not trial.failure for name, trial in trials.items())
    failed = False if answered else True if failures else None
    if failing.saw(place, failed):
        raise EngineError(
            f"{bench.model.identity.name} failed on {failing.questions} questions in a row, so the probes stop here: {failures[0]}"
        )


def to_json(probed: Probed) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "openbook_version": __version__,
        "header": asdict(probed.header),
        "questions": probed.questions,
        "stopped": probed.stopped,
        "probes": {name: {"meaning": result.meaning(), **asdict(result)} for name, result in probed.results.items()},
    }
