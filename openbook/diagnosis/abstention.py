"""Does the model abstain when the passage that holds the answer is not there, or does it invent an answer?

Every passage that holds an accepted answer is withheld. The best of the rest are read, as many as `openbook ask` reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openbook.diagnosis.examining import Bench
from openbook.diagnosis.probing import Case, given, left_out, read, right, shares
from openbook.diagnosis.summary import Share, share
from openbook.inference.frozen import Cancelled

OUTCOMES = ("abstained", "invented", "recalled")
_ROWS = ("abstained", "invented an answer", "answered right, from memory")


@dataclass(frozen=True, slots=True)
class AbstentionTrial:
    """`cited`: the answer was cited from a passage that does not hold it."""

    id: str
    outcome: str
    answer: str = ""
    cited: bool = False
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Abstention:
    """Over the questions of which a passage is known to hold the answer. `cited` is over what was invented."""

    outcomes: Mapping[str, Share]
    cited: Share
    left_out: Mapping[str, int]
    trials: tuple[AbstentionTrial, ...]

    def rows(self) -> list[tuple[str, Share]]:
        rows = [(name, self.outcomes[outcome]) for name, outcome in zip(_ROWS, OUTCOMES, strict=True)]
        return [*rows, ("of the invented ones, with a citation", self.cited)]

    def meaning(self) -> str:
        abstained, invented = self.outcomes["abstained"], self.outcomes["invented"]
        if not abstained.of:
            return "No question has a passage that could be withheld while others are left to read."
        text = f"Without the passage that holds the answer, the model abstains in {abstained} and invents an answer in {invented}."
        if self.cited.count:
            text += f" {self.cited.count} of the invented answers even carry a citation."
        if invented.count > abstained.count:
            return text + " Where the documents do not hold an answer, do not rely on it to say so."
        return text


def trial(case: Case, bench: Bench, cancelled: Cancelled) -> AbstentionTrial:
    """Raises Stopped."""
    question = case.question
    if case.gold is None:
        return AbstentionTrial(question.id, "no passage holds the answer")
    rest = given(bench, case.rest)
    if not rest:
        return AbstentionTrial(question.id, "no other passage is near the question")
    found = read(bench, question.question, rest, cancelled)
    if found.said.failure:
        return AbstentionTrial(question.id, "", failure=found.said.failure)
    if found.silent:
        return AbstentionTrial(question.id, "abstained", found.text)
    outcome = "recalled" if right(found, question) else "invented"
    return AbstentionTrial(question.id, outcome, found.text, bool(found.cited))


def result(trials: Sequence[AbstentionTrial]) -> Abstention:
    invented = [trial for trial in trials if trial.outcome == "invented" and not trial.failure]
    return Abstention(
        shares(trials, OUTCOMES),
        share(sum(t.cited for t in invented), len(invented)),
        left_out(trials, OUTCOMES),
        tuple(trials),
    )
