"""What the measurements say, in sentences with their numbers, and how that relates to what others have found.

Facts are the unit: intervals are over facts, whose questions stand or fall together. All are 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from openbook.diagnosis.scoring import Interval, interval
from openbook.diagnosis.teaching.fact_arms import FactArm
from openbook.diagnosis.teaching.seams import NOT_MEASURED, Cost
from openbook.diagnosis.teaching.skill_arms import SkillArm

Outcome: TypeAlias = Literal["confirmed", "contradicted", "not decided", "no data"]

OVADIA = "Retrieval beats fine-tuning for new facts (Ovadia et al. 2023)"
ALLEN_ZHU = "Paraphrases beat verbatim repetition (Allen-Zhu and Li 2023)"
GEKHMAN = "Learning new facts costs known ones (Gekhman et al. 2024)"
NO_SKILL = "Documents about a task do not teach it"
SKILL = "Training on examples teaches a task, and it holds for documents added later"


@dataclass(frozen=True, slots=True)
class Finding:
    """`claim`, in whose direction `difference` is positive; what was seen; and whether its interval leaves 0 out."""

    claim: str
    seen: str
    difference: Interval | None = None

    @property
    def outcome(self) -> Outcome:
        found = self.difference
        if found is None:
            return "no data"
        return "confirmed" if found.low > 0 else "contradicted" if found.high < 0 else "not decided"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "outcome": self.outcome}


def mean_of(scores: Sequence[float]) -> Interval:
    """Clipped to what a share can be."""
    found = interval(scores)
    return Interval(found.mean, max(0.0, found.low), min(1.0, found.high), found.n) if found.n else found


def difference(first: Sequence[float], second: Sequence[float]) -> Interval:
    """`first` less `second`, scores from 0 to 1 of the same cases in the same order.

    The interval of Agresti and Min (2005), for scores instead of zeros and ones: half a case more of each kind, so that it is
    honest where no case differs. Raises ValueError for another number of cases.
    """
    changes = [a - b for a, b in zip(first, second, strict=True)]
    n = len(changes)
    if not n:
        return Interval(math.nan, math.nan, math.nan, 0)
    centre = sum(changes) / (n + 2)
    variance = (sum(change**2 for change in changes) + 1) / (n + 2) - centre**2
    spread = 1.96 * math.sqrt(variance / (n + 2))
    return Interval(sum(changes) / n, max(-1.0, centre - spread), min(1.0, centre + spread), n)


def points(found: Interval, *, signed: bool = False) -> str:
    """In per cent, with its interval."""
    if not found.n:
        return "no data"
    sign = "+" if signed else ""
    return f"{100 * found.mean:{sign}.0f} % [{100 * found.low:{sign}.0f}, {100 * found.high:{sign}.0f}]"


def name_of(arm: FactArm) -> str:
    if arm.remedy == "none":
        return "the base alone"
    if arm.remedy == "retrieval":
        return f"retrieval, the {arm.model} reads"
    return f"training, {arm.form}, {arm.exposures} exposure{'s' if arm.exposures > 1 else ''}"


def cost_of(arm: FactArm | SkillArm) -> Cost:
    """Of teaching. Older versions wrote 0 where they had lost sight of a training."""
    trained = arm.remedy == "training" if isinstance(arm, FactArm) else arm.model == "trained"
    return NOT_MEASURED if trained and not arm.cost.cpu_seconds else arm.cost


def cpu_seconds_each(arm: FactArm) -> float | None:
    """What it takes to teach one fact; None: it was not measured."""
    spent = cost_of(arm).cpu_seconds
    return None if spent is None else spent / max(1, len(arm.recall))


def best(arms: Sequence[FactArm], remedy: str) -> FactArm | None:
    """The one that recalls most; of equals the cheapest of those whose cost was measured."""

    def rank(arm: FactArm) -> tuple[float, float]:
        each = cpu_seconds_each(arm)
        return sum(arm.recall), -math.inf if each is None else -each

    return max((arm for arm in arms if arm.remedy == remedy), key=rank, default=None)


def fact_findings(arms: Sequence[FactArm]) -> list[Finding]:
    trained = best(arms, "training")
    found = [_retrieval(arm, trained) for arm in arms if arm.remedy == "retrieval" and trained is not None]
    found.append(_paraphrases(arms))
    found.append(_damage(trained))
    return found


def _retrieval(arm: FactArm, trained: FactArm | None) -> Finding:
    if trained is None:
        return Finding(OVADIA, "Nothing was trained.")
    seen = (
        f"{name_of(arm).capitalize()}: {points(mean_of(arm.recall))} of the answers right for {_price(arm)}; "
        f"the best training ({trained.form}, {trained.exposures} exposures): {points(mean_of(trained.recall))} for "
        f"{_price(trained)}. After deletion: {points(mean_of(arm.left))} against {points(mean_of(trained.left))}."
    )
    return Finding(OVADIA, seen, difference(arm.recall, trained.recall))


def _price(arm: FactArm) -> str:
    each = cpu_seconds_each(arm)
    return "a cost that was not measured" if each is None else f"{each:.2g} CPU-seconds a fact"


def _paraphrases(arms: Sequence[FactArm]) -> Finding:
    """Over the exposures that both were measured with, of each fact the mean."""
    by_form = {form: {arm.exposures: arm for arm in arms if arm.form == form} for form in ("verbatim", "paraphrased")}
    # A single exposure is the same text in both.
    both = sorted(set(by_form["verbatim"]) & set(by_form["paraphrased"]) - {1})
    if not both:
        return Finding(ALLEN_ZHU, "Not measured: it needs both forms with two exposures or more.")
    means = {form: _means([of[k].recall for k in both]) for form, of in by_form.items()}
    most = both[-1]
    seen = (
        f"Paraphrased {points(mean_of(means['paraphrased']))}, verbatim {points(mean_of(means['verbatim']))}, the mean over "
        f"{', '.join(map(str, both))} exposures; with {most}: {points(mean_of(by_form['paraphrased'][most].recall))} and "
        f"{points(mean_of(by_form['verbatim'][most].recall))}."
    )
    return Finding(ALLEN_ZHU, seen, difference(means["paraphrased"], means["verbatim"]))


def _means(scores: Sequence[Sequence[float]]) -> list[float]:
    return [sum(each) / len(each) for each in zip(*scores, strict=True)]


def _damage(trained: FactArm | None) -> Finding:
    if trained is None or not trained.known:
        return Finding(GEKHMAN, "Not measured: it needs a trained model, and known facts that the base answers.")
    seen = (
        f"{name_of(trained).capitalize()}: of the {len(trained.known)} known facts that the base answers "
        f"{len(trained.known) - sum(trained.known):.0f} are lost."
    )
    return Finding(GEKHMAN, seen, difference([1.0] * len(trained.known), trained.known))


def skill_findings(arms: Sequence[SkillArm]) -> list[Finding]:
    """Over the examples of all skills that were measured in both ways."""
    if not arms:
        return []
    found = []
    pairs = [
        (NO_SKILL, ("base", "guide"), ("base", "passage"), "the base with a guide beside the passage", "without"),
        (SKILL, ("trained", "passage"), ("base", "passage"), "trained, with the passage", "the base with it"),
        (
            SKILL,
            ("trained", "documents"),
            ("base", "documents"),
            "trained, documents added later",
            "the base with them",
        ),
    ]
    for claim, one, other, what, against in pairs:
        first, second = _together(arms, one, other)
        if not first:
            found.append(Finding(claim, f"Not measured: {what}."))
            continue
        seen = f"{what.capitalize()} {points(mean_of(first))}, {against} {points(mean_of(second))}."
        # That a guide does not help is a claim of no difference, which no interval confirms.
        found.append(Finding(claim, seen, None if claim == NO_SKILL else difference(first, second)))
    return found


def _together(
    arms: Sequence[SkillArm], one: tuple[str, str], other: tuple[str, str]
) -> tuple[list[float], list[float]]:
    by_key = {(arm.skill, arm.model, arm.given): arm.right for arm in arms}
    first, second = list[float](), list[float]()
    for skill in dict.fromkeys(arm.skill for arm in arms):
        if (skill, *one) in by_key and (skill, *other) in by_key:
            first += by_key[skill, *one]
            second += by_key[skill, *other]
    return first, second
