"""The test that a trained model must pass to take over a name: no worse than the present holder at reading and known
facts, and its recipe's targets reached.

Non-inferiority by a paired bootstrap over questions: the lower end of the one-sided 95 % interval of the difference
must be above minus the margin. Sets of questions are JSON Lines, plain or gzip:

    {"title": "Warsaw", "passage": "...", "questions": [{"question": "...", "answers": ["1611"]}, ...]}   reading
    {"question": "What is the capital of France?", "answers": ["Paris"]}                                 known facts

`answers` is one text or a list; an empty list means that the passage does not hold the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from openbook.answers.answer_text import says_nothing_found, tidy
from openbook.answers.prompts import closed_book_prompt, reading_prompt
from openbook.core.codec import convert
from openbook.core.errors import ConfigError, InvalidModelFile, UnknownModel
from openbook.core.parallel import Progress
from openbook.core.records import Decoding, Digest
from openbook.diagnosis.questions import file_content, json_lines, texts
from openbook.diagnosis.scoring import squad_contains, token_f1
from openbook.inference import FrozenModel
from openbook.inference.trial import check_usable
from openbook.models import CATALOGUE, ModelReference, ModelStore
from openbook.models.aliases import checked_name
from openbook.models.lineage import training_record_of
from openbook.models.runs import reaches

MARGIN = 0.02
RESAMPLES = 4000
DATA = Path(__file__).parent.parent / "models" / "data"
READING, KNOWN = DATA / "gate-reading.jsonl.gz", DATA / "gate-known.jsonl"  # part of OpenBook
DECODING = Decoding(max_tokens=64, stop=("\n",))


# --- sets of questions ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EvalQuestion:
    """`passage` empty: answer from memory. `answers` empty: the passage holds none."""

    question: str
    answers: tuple[str, ...]
    title: str = ""
    passage: str = ""


@dataclass(frozen=True, slots=True)
class EvalOutcome:
    """`f1` and `holds` of an abstention are 1 if there is no answer, else 0."""

    asked: EvalQuestion
    answer: str
    abstained: bool
    f1: float
    holds: float


@dataclass(frozen=True, slots=True)
class _Asked:
    question: str
    answers: tuple[str, ...] | str

    def __post_init__(self) -> None:
        if not self.question.strip() or not all(answer.strip() for answer in texts(self.answers)):
            raise ValueError("a question or an answer is empty")


@dataclass(frozen=True, slots=True)
class _Passage:
    passage: str
    questions: tuple[_Asked, ...]
    title: str = ""


def load_eval_set(path: Path) -> list[EvalQuestion]:
    """Raises ConfigError with the number of a wrong line."""
    found: list[EvalQuestion] = []
    for _, where, value in json_lines(file_content(path), path.name):
        if isinstance(value, dict) and "passage" in value:
            on = convert(value, _Passage, where, ConfigError)
        else:
            on = _Passage("", (convert(value, _Asked, where, ConfigError),))
        found += [EvalQuestion(each.question, texts(each.answers), on.title, on.passage) for each in on.questions]
    if not found:
        raise ConfigError(f"{path.name} holds no questions.")
    return found


def ask_eval_set(
    model: FrozenModel,
    questions: Sequence[EvalQuestion],
    *,
    progress: Progress = lambda done, total: None,
) -> list[EvalOutcome]:
    """Greedy answers, in order. Put questions on one passage next to each other, so that it is read once.

    A prompt that exceeds the context counts as a wrong answer.
    """
    room = model.context_tokens - DECODING.max_tokens
    found: list[EvalOutcome] = []
    for asked in questions:
        if asked.passage:
            prompt = reading_prompt(asked.question, [(asked.title, asked.passage)], model.reader)
        else:
            prompt = closed_book_prompt(asked.question)
        if model.count_prompt_tokens(prompt) > room:
            found.append(EvalOutcome(asked, "", abstained=False, f1=0.0, holds=0.0))
        else:
            text = tidy(model.complete(prompt, DECODING).text)
            abstained = not text or says_nothing_found(text, model.reader)
            if abstained or not asked.answers:
                f1 = holds = float(abstained and not asked.answers)
            else:
                f1, holds = token_f1(text, asked.answers), squad_contains(text, asked.answers)
            found.append(EvalOutcome(asked, text, abstained, f1, holds))
        progress(len(found), len(questions))
    return found


# --- the gate ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Check:
    """`holder` and `candidate`: mean scores from 0 to 1. `low`: the lower end of their difference."""

    name: str
    passed: bool
    candidate: float | None
    holder: float | None = None
    low: float | None = None
    questions: int = 0

    def __str__(self) -> str:
        if self.holder is None or self.low is None:
            return self.name
        return (
            f"{self.name}: {self.candidate:.3f}, present holder {self.holder:.3f} on {self.questions} questions; "
            f"difference at least {self.low:+.3f}"
        )


@dataclass(frozen=True, slots=True)
class Promotion:
    """`holder`: the digest of the model that the candidate was compared with, if any."""

    model: Digest
    holder: Digest | None
    checks: list[Check]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def promote(
    store: ModelStore,
    name: str,
    digest: str,
    fetch: Callable[[str], ModelReference],
    open_model: Callable[[ModelReference], FrozenModel],
    progress: Progress,
    *,
    sets: tuple[Path, Path] | None = (READING, KNOWN),
) -> Promotion:
    """Point `name` at the model `digest` if it passes. It is compared with the present holder, or else with the
    catalogue's model of that name, or else with its base. `fetch`: a verified model, by name or digest. `sets` None: no gate.

    Raises UnknownModel if the model to compare with left the store; ConfigError, ModelError, EngineError.
    """
    checked_name(name)
    candidate = store.resolve(digest)
    store.check_fast(candidate)
    check_usable(candidate)
    holder, checks = None, list[Check]()
    if sets is not None:
        holder, checks = _holder(store, name, candidate, fetch), target_checks(candidate)
    if holder is not None and sets is not None:
        reading, known = (load_eval_set(path) for path in sets)
        new, old = (open_model(fetch(each)) for each in (candidate.digest, holder))
        with closing(new), closing(old):
            checks += compare(new, old, reading, known, progress)
    promotion = Promotion(candidate.digest, holder, checks)
    if promotion.passed:
        store.set_name(name, candidate.digest)
    return promotion


def _holder(
    store: ModelStore, name: str, candidate: ModelReference, fetch: Callable[[str], ModelReference]
) -> Digest | None:
    history = store.history(name)
    held = history[-1] if history else candidate.manifest.lineage
    if not history and name in CATALOGUE:
        held = fetch(name).digest
    if not held or held == candidate.digest:
        return None
    try:
        return store.resolve(held).digest
    except UnknownModel as error:
        hint = f"Without a comparison: openbook models promote {name} {candidate.digest[:12]} --without-gate"
        raise UnknownModel(f"There is nothing to compare with: {error} {hint}") from error


def compare(
    candidate: FrozenModel,
    holder: FrozenModel,
    reading: Sequence[EvalQuestion],
    known: Sequence[EvalQuestion],
    progress: Progress,
) -> list[Check]:
    """Reading is scored by F1, abstentions included; from memory, an answer that contains the fact is right."""
    models, counted = (candidate, holder), _counted(progress, 2 * (len(reading) + len(known)))
    read = [[each.f1 for each in ask_eval_set(model, reading, progress=counted)] for model in models]
    knew = [[each.holds for each in ask_eval_set(model, known, progress=counted)] for model in models]
    return [non_inferior("reading", *read), non_inferior("known facts", *knew)]


def flips(one: FrozenModel, other: FrozenModel, questions: Sequence[EvalQuestion], progress: Progress) -> int:
    """The number of questions whose greedy answers differ."""
    counted = _counted(progress, 2 * len(questions))
    first, second = (ask_eval_set(model, questions, progress=counted) for model in (one, other))
    return sum(a.answer != b.answer for a, b in zip(first, second, strict=True))


def _counted(progress: Progress, total: int) -> Progress:
    done = count(1)
    return lambda _done, _total: progress(next(done), total)


def non_inferior(name: str, candidate: Sequence[float], holder: Sequence[float]) -> Check:
    """Scores are paired: of the same questions, in the same order."""
    difference = np.asarray(candidate, dtype=float) - np.asarray(holder, dtype=float)
    chance = np.random.default_rng(0)
    means = [difference[chance.integers(0, len(difference), size=len(difference))].mean() for _ in range(RESAMPLES)]
    low = float(np.quantile(means, 0.05))
    return Check(name, low > -MARGIN, float(np.mean(candidate)), float(np.mean(holder)), low, len(difference))


def target_checks(reference: ModelReference) -> list[Check]:
    """A check for each target of the model's recipe; none without a training record."""
    record = training_record_of(reference)
    if record is None:
        return []
    gate: Any = record.recipe.get("gate") or {}
    try:
        targets = {str(metric): float(wanted) for metric, wanted in (gate.get("target") or {}).items()}
        metrics = {metric: float(value) for metric, value in record.metrics.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidModelFile(
            f"training.json of {reference.name}: targets or metrics are not numbers: {error}."
        ) from error
    checks = []
    for metric, wanted in sorted(targets.items()):
        measured = metrics.get(metric)
        name = f"target {metric}: {'not measured' if measured is None else measured}, the recipe asks for {wanted}"
        checks.append(Check(name, reaches(metric, measured, wanted), measured))
    return checks
