"""Put probes to questions, one question after the other, and say what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from openbook import __version__
from openbook.diagnosis import abstention, causality, counterfactual, noise
from openbook.diagnosis.examining import Bench, Progress, Stopped, header_for
from openbook.diagnosis.holding import Finder
from openbook.diagnosis.leaks import MOST_CASES, leaks
from openbook.diagnosis.observations import Header
from openbook.diagnosis.probing import Case, Result, Trial, case_of
from openbook.diagnosis.questions import Question
from openbook.errors import ConfigError, EngineError, did_you_mean
from openbook.inference.frozen import Cancelled, never

FORMAT = 1
MOST_FAILED = 16  # questions in a row on which the model failed


@dataclass(frozen=True, slots=True)
class _Probe:
    """What is done with one question, what all of it comes to, and the outcomes that count."""

    trial: Callable[[Case, Bench, Cancelled], Trial]
    result: Callable[[Sequence[Any]], Result]
    outcomes: Sequence[str]


_OF_A_QUESTION = {
    "counterfactual": _Probe(counterfactual.trial, counterfactual.result, counterfactual.OUTCOMES),
    "abstention": _Probe(abstention.trial, abstention.result, abstention.OUTCOMES),
    "noise": _Probe(noise.trial, noise.result, noise.OUTCOMES),
    "causality": _Probe(causality.trial, causality.result, causality.OUTCOMES),
}
_BETWEEN_QUESTIONS = "leaks"
PROBES = (*_OF_A_QUESTION, _BETWEEN_QUESTIONS)


@dataclass(frozen=True, slots=True)
class Probed:
    """`questions`: how many were probed; `stopped`: before all were. A probe that did not come to its turn has no result."""

    header: Header
    questions: int
    stopped: bool
    results: Mapping[str, Result]


def probe(
    questions: Iterable[Question],
    bench: Bench,
    questions_digest: str = "",
    probes: Iterable[str] = PROBES,
    *,
    total: int = 0,
    progress: Progress = lambda done, total: None,
    cancelled: Cancelled = never,
) -> Probed:
    """When `cancelled`, the result is of what was measured so far.

    A request on which the model fails is counted apart. Raises ConfigError for a probe that is none, EngineError when the
    model fails on many questions in a row, KnowledgeError.
    """
    names = checked(probes)
    bench = bench.pinned()
    finder = Finder(bench.base, bench.embedder, bench.scope)
    trials: dict[str, list[Trial]] = {name: [] for name in _OF_A_QUESTION if name in names}
    results: dict[str, Result] = {}
    kept: list[Case] = []
    done, failed, stopped = 0, 0, False
    try:
        for question in questions:
            case = case_of(question, bench, finder)
            for name, found in trials.items():
                found.append(_OF_A_QUESTION[name].trial(case, bench, cancelled))
            done += 1
            failed = _failed_in_a_row(failed, {name: found[-1] for name, found in trials.items()}, bench)
            if _BETWEEN_QUESTIONS in names and len(kept) < MOST_CASES:
                kept.append(case)
            progress(done, total)
        if _BETWEEN_QUESTIONS in names:
            results[_BETWEEN_QUESTIONS] = leaks(kept, bench, cancelled)
    except Stopped:
        stopped = True
    results = {name: _OF_A_QUESTION[name].result(found) for name, found in trials.items()} | results
    return Probed(header_for(bench, questions_digest), done, stopped, results)


def checked(probes: Iterable[str]) -> tuple[str, ...]:
    """The probes, each once, in their order. Raises ConfigError."""
    wanted = set(probes)
    for name in sorted(wanted.difference(PROBES)):
        raise ConfigError(f"{name!r} is no probe.{did_you_mean(name, PROBES)} There are {', '.join(PROBES)}.")
    return tuple(name for name in PROBES if name in wanted)


def _failed_in_a_row(before: int, last: Mapping[str, Trial], bench: Bench) -> int:
    """Questions since the model last answered. Raises EngineError when they are too many to be a matter of the questions."""
    if any(trial.outcome in _OF_A_QUESTION[name].outcomes and not trial.failure for name, trial in last.items()):
        return 0
    failures = [trial.failure for trial in last.values() if trial.failure]
    now = before + bool(failures)
    if now >= MOST_FAILED and failures:
        raise EngineError(
            f"{bench.model.identity.name} failed on {now} questions in a row, so the probes stop here: {failures[0]}"
        )
    return now


def to_json(probed: Probed) -> dict[str, Any]:
    results: dict[str, Any] = dict(probed.results)
    return {
        "format": FORMAT,
        "openbook_version": __version__,
        "header": asdict(probed.header),
        "questions": probed.questions,
        "stopped": probed.stopped,
        "probes": {name: {"meaning": result.meaning(), **asdict(result)} for name, result in results.items()},
    }
