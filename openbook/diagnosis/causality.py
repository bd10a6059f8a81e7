"""Is a citation the cause of its answer? What is cited is taken away, and then something that is not.

Taken away as if it were not in the knowledge base: what is found next moves up. Without what it cites, an answer should
change, unless another passage holds the same; without a passage that it does not cite, it should stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from openbook.diagnosis.examining import Bench
from openbook.diagnosis.probing import Case, Read, given, left_out, read, shares
from openbook.diagnosis.summary import Share, share
from openbook.diagnosis.verdicts import same_answer
from openbook.inference.frozen import Cancelled

OUTCOMES = ("changed", "supported", "kept")
_ROWS = (
    "without what it cites: changed",
    "without what it cites: cited from another",
    "without what it cites: kept without support",
)


@dataclass(frozen=True, slots=True)
class CausalityTrial:
    """`outcome`: what became of the answer without the passages that it cites. `uncited_kept`: it stayed the same without
    the best passage that was read and not cited; None where there was none.
    """

    id: str
    outcome: str
    answer: str = ""
    without_cited: str = ""
    without_uncited: str = ""
    uncited_kept: bool | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Causality:
    """Over the answers that carry a citation."""

    cited: Mapping[str, Share]
    uncited_kept: Share
    left_out: Mapping[str, int]
    trials: tuple[CausalityTrial, ...]

    def rows(self) -> list[tuple[str, Share]]:
        rows = [(name, self.cited[outcome]) for name, outcome in zip(_ROWS, OUTCOMES, strict=True)]
        return [*rows, ("without what it does not cite: kept", self.uncited_kept)]

    def meaning(self) -> str:
        changed, kept = self.cited["changed"], self.cited["kept"]
        if not changed.of:
            return "No answer carries a citation, so there is nothing to remove."
        text = f"Without the passage that it cites, the answer changes in {changed}"
        text += f", and stays without any support in {kept}." if kept.count else "; no answer stays without support."
        if self.uncited_kept.of:
            text += f" Without a passage that it does not cite, it stays the same in {self.uncited_kept}."
        if kept.low and kept.low > 0.1:
            text += " Those citations decorate what the model says from memory."
        return text


def trial(case: Case, bench: Bench, cancelled: Cancelled) -> CausalityTrial:
    """Raises Stopped."""
    question, found = case.question, given(bench, case.ranked)
    if not found:
        return CausalityTrial(question.id, "nothing was found")
    whole = read(bench, question.question, found, cancelled)
    if whole.said.failure:
        return CausalityTrial(question.id, "", failure=whole.said.failure)
    if whole.silent or not whole.cited:
        return CausalityTrial(question.id, "abstained" if whole.silent else "no citation", whole.text)
    less = _without(whole.cited, case, bench, cancelled)
    seen = CausalityTrial(question.id, _effect(whole, less), whole.text, less.text, failure=less.said.failure)
    uncited = next((each for each in whole.read if each not in whole.cited), None)
    if uncited is None or less.said.failure:
        return seen
    other = _without(frozenset({uncited}), case, bench, cancelled)
    return replace(seen, without_uncited=other.text, uncited_kept=_same(whole, other), failure=other.said.failure)


def _without(passages: frozenset[str], case: Case, bench: Bench, cancelled: Cancelled) -> Read:
    left = [hit for hit in case.ranked if hit.passage.id not in passages]
    return read(bench, case.question.question, given(bench, left), cancelled)


def _effect(whole: Read, less: Read) -> str:
    if not _same(whole, less):
        return "changed"
    return "supported" if less.cited else "kept"


def _same(one: Read, other: Read) -> bool:
    return not other.silent and same_answer(one.text, other.text)


def result(trials: Sequence[CausalityTrial]) -> Causality:
    uncited = [trial.uncited_kept for trial in trials if not trial.failure and trial.uncited_kept is not None]
    return Causality(
        shares(trials, OUTCOMES), share(sum(uncited), len(uncited)), left_out(trials, OUTCOMES), tuple(trials)
    )
