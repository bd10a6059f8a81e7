"""Probes: how the answer changes when the passage that holds it is altered or withheld.

- counterfactual: a value in a copy of the passage is altered. Does the answer follow the passage or the weights?
- abstention: every passage that holds an accepted answer is withheld. Does the model abstain, or invent an answer?

The knowledge base never changes.

<folder>/probes-<model>.jsonl   a header like that of observations, then a line for each question
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from openbook.answers.retrieval import near_enough
from openbook.core.parallel import Cancelled, Progress
from openbook.core.records import Hit
from openbook.diagnosis.gold_passages import LOOKED_THROUGH, GoldFinder, states_any
from openbook.diagnosis.perturb import AlteredPassage, altered, names_in, value_spans
from openbook.diagnosis.questions import Question
from openbook.diagnosis.run_log import Reply, open_run_log
from openbook.diagnosis.runner import Bench, PassageReply, ask_alone, ask_due, ask_with
from openbook.diagnosis.scoring import Share, is_right, same_answer, share, share_of, text_holds_any
from openbook.diagnosis.verdicts import reply_is_right


@dataclass(frozen=True, slots=True)
class Case:
    """`gold` holds the answer; `rest`, the other passages found, best first, do not."""

    question: Question
    gold: Hit
    rest: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """`outcome`: the result, or why there is none. `failure`: why the model gave no answer.

    Counterfactual: the answer `before`, and `after` from the copy in which `old`, of this `kind`, became `new`.
    Abstention: the `answer` without the passage; `cited` if it cites a passage that does not hold it.
    """

    id: str
    outcome: str = ""
    failure: str = ""
    kind: str = ""
    old: str = ""
    new: str = ""
    before: str = ""
    after: str = ""
    answer: str = ""
    cited: bool = False


class _RequestFailed(Exception):
    """The model gave no answer; the message says why."""


def _ask(case: Case, bench: Bench, hits: Sequence[Hit], cancelled: Cancelled) -> PassageReply:
    answer = ask_with(bench, case.question.question, hits, cancelled)
    if answer.reply.failure:
        raise _RequestFailed(answer.reply.failure)
    return answer


def _altered_passage(case: Case, bench: Bench, cancelled: Cancelled) -> Trial:
    question = case.question
    copy = altered(case.gold.passage, question, names_in(hit.passage.text for hit in case.rest))
    if copy is None:
        return Trial(question.id, "no value that can be altered")
    change = copy.change
    before = _ask(case, bench, [case.gold], cancelled).reply
    trial = Trial(question.id, "", "", change.kind, change.old, change.new, before.text)
    if not reply_is_right(before, question):
        return replace(trial, outcome="not read right as it is")
    after = _ask(case, bench, [Hit(copy.passage, 0.0, None, None, None)], cancelled).reply
    return replace(trial, after=after.text, outcome=_followed(after, copy, question, bench, cancelled))


def _followed(after: Reply, copy: AlteredPassage, question: Question, bench: Bench, cancelled: Cancelled) -> str:
    if after.abstained:
        return "abstained"
    new, old = is_right(after.text, replace(question, answers=copy.answers)), is_right(after.text, question)
    if new and old:  # most words of an accepted sentence match both: the altered ones decide
        new, old = bool(value_spans(after.text, copy.change.new_part)), bool(value_spans(after.text, copy.change.part))
    if new != old:
        return "passage" if new else "weights"
    if not new and not states_any(copy.passage, [after.text]):
        alone = ask_alone(bench, question.question, cancelled)
        if not (alone.failure or alone.abstained) and same_answer(after.text, alone.text):
            return "weights"
    return "neither"


def _withheld_passage(case: Case, bench: Bench, cancelled: Cancelled) -> Trial:
    rest = near_enough(case.rest[: bench.passages], bench.options)
    if not rest:
        return Trial(case.question.id, "no other passage is near the question")
    answer = _ask(case, bench, rest, cancelled)
    outcome = "abstained" if answer.reply.abstained else "invented"
    if reply_is_right(answer.reply, case.question):
        outcome = "recalled"
    return Trial(case.question.id, outcome, answer=answer.reply.text, cited=bool(answer.cited))


# --- results ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Result:
    """`shares`: of the outcomes that the probe counts. `left_out`: trials with other outcomes, by reason.

    `cited`: of invented answers, those with a citation.
    """

    left_out: Mapping[str, int]
    shares: Mapping[str, Share]
    cited: Share
    trials: tuple[Trial, ...]


def _followed_in_words(found: Result) -> str:
    passage, weights = found.shares["passage"], found.shares["weights"]
    if not passage.of:
        return "No question has an answer that the model reads right and whose value could be altered."
    text = f"When a value in the passage is altered, the answer follows the passage in {passage} and the weights in {weights}."
    if weights.count > passage.count:
        return text + " It is the model's memory that answers: changing a document would not change what it says."
    if weights.count:
        return f"{text} Some answers come from memory against the passage, so changing a document is not sure to change them."
    return text + " No answer came from memory against the passage."


def _abstained_in_words(found: Result) -> str:
    abstained, invented = found.shares["abstained"], found.shares["invented"]
    if not abstained.of:
        return "No question has a passage that could be withheld while others are left to read."
    text = f"Without the passage that holds the answer, the model abstains in {abstained} and invents an answer in {invented}."
    if found.cited.count:
        text += f" {found.cited.count} of the invented answers even carry a citation."
    if invented.count > abstained.count:
        return text + " Where the documents do not hold an answer, do not rely on it to say so."
    return text


@dataclass(frozen=True, slots=True)
class Probe:
    """`outcomes`: those that count, and their names. `meaning`: a result in words. `columns`: fields to show."""

    title: str
    trial: Callable[[Case, Bench, Cancelled], Trial]
    meaning: Callable[[Result], str]
    outcomes: Mapping[str, str]
    columns: tuple[str, ...]

    def result(self, trials: Sequence[Trial]) -> Result:
        found = Counter("the model failed" if trial.failure else trial.outcome for trial in trials)
        shown = {outcome: found.pop(outcome, 0) for outcome in self.outcomes}
        shares = {outcome: share(count, sum(shown.values())) for outcome, count in shown.items()}
        cited = share_of([trial.cited for trial in trials if trial.outcome == "invented"])
        return Result(dict(sorted(found.items())), shares, cited, tuple(trials))

    def rows(self, found: Result) -> list[tuple[str, Share]]:
        rows = [(name, found.shares[outcome]) for outcome, name in self.outcomes.items()]
        return [*rows, ("of the invented ones, with a citation", found.cited)] if "invented" in self.outcomes else rows


PROBES = {
    "counterfactual": Probe(
        "Counterfactual: does the answer follow the passage or the weights?",
        _altered_passage,
        _followed_in_words,
        {
            "passage": "followed the altered passage",
            "weights": "followed the weights",
            "neither": "neither",
            "abstained": "abstained",
        },
        ("id", "outcome", "failure", "old", "new", "before", "after"),
    ),
    "abstention": Probe(
        "Abstention: what does it say when the passage is withheld?",
        _withheld_passage,
        _abstained_in_words,
        {"abstained": "abstained", "invented": "invented an answer", "recalled": "answered right, from memory"},
        ("id", "outcome", "failure", "answer", "cited"),
    ),
}


@dataclass(frozen=True, slots=True)
class ProbeRun:
    """`questions`: how many were probed. `results`: by probe."""

    questions: int
    results: Mapping[str, Result]

    def to_json(self) -> dict[str, Any]:
        found = {name: {"meaning": PROBES[name].meaning(each), **asdict(each)} for name, each in self.results.items()}
        return {"questions": self.questions, "probes": found}


@dataclass(frozen=True, slots=True)
class ProbeLine:
    """The trials of one question (its id), by probe."""

    question: str
    trials: Mapping[str, Trial]


def run_probes(
    questions: Sequence[Question],
    bench: Bench,
    questions_digest: str,
    *,
    path: Path,
    progress: Progress = lambda done, total: None,
) -> ProbeRun:
    """Put both probes to each question. The file at `path` keeps trials; failed ones are repeated.

    Raises as `runner.ask_due` does, and ConfigError if the file belongs to another run.
    """
    bench = bench.pinned()
    finder = GoldFinder(bench.base, bench.embedder, bench.scope)

    def is_due(question: Question, line: ProbeLine) -> bool:
        return any(trial.failure for trial in line.trials.values())

    def failures(line: ProbeLine) -> list[str]:
        shown = ((PROBES[name], trial) for name, trial in line.trials.items())
        return [trial.failure for probe, trial in shown if trial.failure or trial.outcome in probe.outcomes]

    with open_run_log(path, bench.header(questions_digest), ProbeLine) as log:
        ask_due(log, questions, bench, partial(_probe, bench, finder), is_due, failures, progress)
        lines = [line.trials for question in questions if (line := log.find(question.id))]
    return ProbeRun(len(lines), {name: probe.result([each[name] for each in lines]) for name, probe in PROBES.items()})


def _probe(bench: Bench, finder: GoldFinder, question: Question, cancelled: Cancelled) -> ProbeLine:
    gold = finder.find(question)
    if not gold.hits:
        return ProbeLine(question.id, dict.fromkeys(PROBES, Trial(question.id, "no passage holds the answer")))
    ranked = bench.retrieve(question.question, LOOKED_THROUGH)
    rest = [hit for hit in ranked if not (gold.spans_in(hit.passage) or states_any(hit.passage, question.answers))]
    whole = (hit for hit in gold.hits if text_holds_any(hit.passage.text, question.answers))
    case = Case(question, next(whole, gold.hits[0]), tuple(rest))
    found: dict[str, Trial] = {}
    for name, probe in PROBES.items():
        try:
            found[name] = probe.trial(case, bench, cancelled)
        except _RequestFailed as failure:
            found[name] = Trial(question.id, failure=str(failure))
    return ProbeLine(question.id, found)
