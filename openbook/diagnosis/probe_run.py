"""Put probes to questions, one question after the other, and say what was found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openbook import __version__
from openbook.diagnosis import abstention, causality, counterfactual, noise
from openbook.diagnosis.examining import Bench, Progress, Stopped, header_for
from openbook.diagnosis.holding import Finder
from openbook.diagnosis.leaks import MOST_CASES, Leaks, leaks
from openbook.diagnosis.observations import Header, header_of
from openbook.diagnosis.probe_record import Kept
from openbook.diagnosis.probing import Case, Result, Trial, case_of
from openbook.diagnosis.questions import Question, shown
from openbook.diagnosis.reading_back import record_of
from openbook.errors import ConfigError, EngineError, StorageError, did_you_mean
from openbook.inference.frozen import Cancelled, never

FORMAT = 1
MOST_FAILED = 16  # questions in a row on which the model failed


@dataclass(frozen=True, slots=True)
class _Probe:
    """What is done with one question, what is seen then, what all of it comes to, and the outcomes that count."""

    trial: Callable[[Case, Bench, Cancelled], Trial]
    seen: type[Trial]
    result: Callable[[Sequence[Any]], Result]
    found: type[Result]
    outcomes: Sequence[str]


_OF_A_QUESTION = {
    "counterfactual": _Probe(
        counterfactual.trial,
        counterfactual.CounterfactualTrial,
        counterfactual.result,
        counterfactual.Counterfactual,
        counterfactual.OUTCOMES,
    ),
    "abstention": _Probe(
        abstention.trial, abstention.AbstentionTrial, abstention.result, abstention.Abstention, abstention.OUTCOMES
    ),
    "noise": _Probe(noise.trial, noise.NoiseTrial, noise.result, noise.Noise, noise.OUTCOMES),
    "causality": _Probe(
        causality.trial, causality.CausalityTrial, causality.result, causality.Causality, causality.OUTCOMES
    ),
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
    kept: Kept | None = None,
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
    kinds = {name: each.seen for name, each in _OF_A_QUESTION.items() if name in names}
    trials: dict[str, list[Trial]] = {name: [] for name in kinds}
    results: dict[str, Result] = {}
    first: list[Question] = []
    done, failed, stopped = 0, 0, False
    try:
        for question in questions:
            found = kept.before(done, question.id, kinds) if kept else None
            if found is None:
                case = case_of(question, bench, finder)
                found = {name: _OF_A_QUESTION[name].trial(case, bench, cancelled) for name in kinds}
                failed = _failed_in_a_row(failed, found, bench)
                if kept:
                    kept.add(done, question.id, found, failed=failed > 0)
            for name, trial in found.items():
                trials[name].append(trial)
            first += [question] if len(first) < MOST_CASES else []
            done += 1
            progress(done, total)
        if kept:
            kept.finish()
        if _BETWEEN_QUESTIONS in names:
            results[_BETWEEN_QUESTIONS] = _leaks(first, bench, finder, kept, cancelled)
    except Stopped:
        stopped = True
    tried = {name: found for name, found in trials.items() if found or not stopped}
    results = {name: _OF_A_QUESTION[name].result(found) for name, found in tried.items()} | results
    return Probed(header_for(bench, questions_digest), done, stopped, results)


def _leaks(asked: Sequence[Question], bench: Bench, finder: Finder, kept: Kept | None, cancelled: Cancelled) -> Leaks:
    """Raises Stopped."""
    ids = [question.id for question in asked]
    before = kept.leaks(ids) if kept else None
    if before is not None:
        return before
    found = leaks([case_of(question, bench, finder) for question in asked], bench, cancelled)
    if kept and found.complete:
        kept.add_leaks(ids, found)
    return found


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


def probed_of(value: object) -> Probed:
    """What `to_json` wrote. Law: `to_json(probed_of(to_json(x))) == to_json(x)`. Raises ValueError, KeyError, TypeError."""
    if not isinstance(value, Mapping) or value["format"] != FORMAT or not isinstance(value["probes"], Mapping):
        raise ValueError(f"it is no result of openbook probe in format {FORMAT}")
    kinds = {name: each.found for name, each in _OF_A_QUESTION.items()} | {_BETWEEN_QUESTIONS: Leaks}
    results = {}
    for name in PROBES:
        if name in value["probes"]:
            results[name] = record_of(kinds[name], _without_meaning(value["probes"][name]))
    questions, stopped = value["questions"], value["stopped"]
    if type(questions) is not int or type(stopped) is not bool:
        raise ValueError(f"'questions' and 'stopped' cannot be {shown([questions, stopped])}")
    return Probed(header_of(value["header"]), questions, stopped, results)


def _without_meaning(value: object) -> object:
    return {key: each for key, each in value.items() if key != "meaning"} if isinstance(value, Mapping) else value


def read_probed(path: Path) -> Probed:
    """What `openbook probe --json` printed into a file. Raises ConfigError, StorageError."""
    try:
        return probed_of(json.loads(path.read_bytes()))
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} is no result of openbook probe --json: {error!r}.") from error
