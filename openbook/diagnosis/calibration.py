"""How often certain answers are right on the questions of a diagnosis, and the limits for the words of certainty that hold there.

A limit holds if, of at least `FEWEST` answers, the share of right ones is `SUPPORTED` or `LIKELY` even at the lower end
of Wilson's 90 % interval: chosen on the same answers, a limit by the plain share would be too low every second time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openbook.answers.certainty import MEANING, CertaintyLimits, Signals, certainty
from openbook.core.records import Confidence
from openbook.diagnosis.scoring import Interval, Share, share_of, wilson

SUPPORTED, LIKELY = 0.8, 0.6
FEWEST = 10  # answers that a limit, or a part, rests on
ENOUGH = 30  # answers for all but the words
PARTS = 10
Z = 1.645  # for 90 %
DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Part:
    """Answers of about equal certainty: their mean certainty, and how many were right."""

    certainty: float
    right: Share


@dataclass(frozen=True, slots=True)
class Calibration:
    """Over the answers with documents to first wordings. `answers`: those with a certainty.

    `words`: right answers, and of "not found" those where no passage is known to hold an answer. `error`: mean
    difference of certainty and share of right answers in the `parts`; `error_by_chance`: 95 % of calibrated certainties
    have less on as many answers. `area`: under the curve. `proposed`: limits that hold. With fewer than `ENOUGH`
    answers only `words` are there.
    """

    answers: int
    words: Mapping[Confidence, Share]
    parts: tuple[Part, ...] = ()
    error: float | None = None
    error_by_chance: float | None = None
    area: Interval | None = None
    proposed: CertaintyLimits = CertaintyLimits()

    def notes(self) -> list[str]:
        if self.error is None:
            return [f"Too few answers have a certainty to judge it: {self.answers} of at least {ENOUGH}."]
        area = f" Area under the curve {self.area}." if self.area else ""
        error = f"Calibration error {self.error:.3f}; up to {self.error_by_chance:.3f} may be chance.{area}"
        if not self.settings:
            return [error, "No limit holds on these questions."]
        return [error, "Limits that hold on these questions, for config.toml:"]

    @property
    def settings(self) -> str:
        """Lines for `config.toml`."""
        lines = {"supported_from": self.proposed.supported_from, "likely_from": self.proposed.likely_from}
        return "\n".join(f"{key} = {value}" for key, value in lines.items() if value is not None)


def calibration(
    judged: Sequence[tuple[Signals, bool]], declined: Sequence[bool], limits: CertaintyLimits
) -> Calibration:
    """`judged`: each answer, and whether it is right. `declined`: whether that was right. `limits`: the present ones."""
    found = [certainty(signals, limits) for signals, _ in judged]
    by_word: dict[Confidence, list[bool]] = {word: [] for word in MEANING} | {"not found": list(declined)}
    for (_, is_right), (_, word) in zip(judged, found, strict=True):
        by_word[word].append(is_right)
    words = {word: share_of(each) for word, each in by_word.items()}
    n = len(judged)
    if n < ENOUGH:
        return Calibration(n, words)
    sure, right = np.array([each for each, _ in found]), np.array([is_right for _, is_right in judged])
    groups, chance = parts_of(sure, min(PARTS, n // FEWEST)), np.random.default_rng(0)
    drawn = ((chance.random((DRAWS, len(at))) < sure[at]).mean(axis=1) - sure[at].mean() for at in groups)
    by_chance = sum(len(at) * abs(each) / n for at, each in zip(groups, drawn, strict=True))
    wrong = n - int(right.sum())

    def lowest(among: list[bool], wanted: float) -> float | None:
        of = right[among]
        return limit(sure[among], lambda surer: wilson(float(of[surer].mean()), int(surer.sum()), Z).low >= wanted)

    high = lowest([signals.asked > 0 for signals, _ in judged], SUPPORTED)
    chosen = CertaintyLimits(limits.supported_from if high is None else high, limits.likely_from)
    low = lowest([certainty(signals, chosen)[1] != "supported" for signals, _ in judged], LIKELY)
    return Calibration(
        n,
        words,
        tuple(Part(float(sure[at].mean()), share_of(right[at].tolist())) for at in groups),
        calibration_error(sure, right, len(groups)),
        float(np.quantile(by_chance, 0.95)),
        # No area of so many answers varies more (Birnbaum and Klose 1957).
        wilson(area(sure, right), min(wrong, n - wrong)) if 0 < wrong < n else None,
        CertaintyLimits(high, None if high is not None and low is not None and low > high else low),
    )


def limit(sure: NDArray[np.float64], holds: Callable[[NDArray[np.bool_]], bool]) -> float | None:
    """The least certainty with at least `FEWEST` answers from it on that `holds` accepts, as a mask."""
    masks = ((float(at), sure >= at) for at in np.unique(sure))
    return next((at for at, surer in masks if surer.sum() >= FEWEST and holds(surer)), None)


def area(score: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Under the curve: how often a right one scores higher than a wrong one."""
    wrong, ours = np.sort(score[~right]), score[right]
    below = np.searchsorted(wrong, ours, "left") + np.searchsorted(wrong, ours, "right")
    return float(below.mean() / 2 / len(wrong))


def parts_of(sure: NDArray[np.float64], count: int = PARTS) -> list[NDArray[np.intp]]:
    """Indices of answers, by certainty, in parts of equal size."""
    return np.array_split(np.argsort(sure, kind="stable"), count)


def calibration_error(sure: NDArray[np.float64], right: NDArray[np.bool_], count: int = PARTS) -> float:
    """The mean difference of certainty and share of right answers in equal parts, weighted."""
    groups = parts_of(sure, count)
    return float(sum(len(g) * abs(sure[g].mean() - right[g].mean()) for g in groups) / len(sure))
