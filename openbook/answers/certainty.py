"""The certainty of an answer: one calibrated probability, and the word for it.

A logistic regression, fitted on judged answers by `recipes/certainty.py`; docs/certainty.md has its accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from openbook.core.codec import decode
from openbook.core.errors import EngineError
from openbook.core.records import Confidence

FITS = Path(__file__).with_name("certainty.json")
MEANING: Mapping[Confidence, str] = {
    "supported": "Of answers that measured like this one eight in ten were right.",
    "likely": "Of answers that measured like this one six in ten were right; read the quotes first.",
    "check it": "Too few answers that measured like this one were right; compare it with the quotes.",
    "not found": "Nothing that was read seems to say it.",
}
UNMEASURED = (
    "How often such an answer is right was not measured; compare it with the quotes."  # for an answer without a number
)


@dataclass(frozen=True, slots=True)
class Signals:
    """`backed`: how well the quotes back the sentences, on average. `asked`: the share of the question's words around
    the quotes. `stated`: probability by the model's probe that the passages state an answer. `least_logprob`: the
    lowest of the answer's tokens. The last two may be None.
    """

    backed: float
    asked: float
    stated: float | None = None
    least_logprob: float | None = None


@dataclass(frozen=True, slots=True)
class CertaintyLimits:
    """Lowest certainty for "supported" and for "likely", inclusive. None: that of the fit."""

    supported_from: float | None = None
    likely_from: float | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """`weights`: by signal. `supported_from`, `likely_from`: lowest certainty for each word, inclusive."""

    bias: float
    weights: Mapping[str, float]
    supported_from: float
    likely_from: float


@cache
def fits() -> Mapping[str, Fit]:
    """`probed`: for models that report all signals. `other`: for all others."""
    return decode(FITS.read_bytes(), dict[str, Fit], FITS.name, EngineError)


def certainty(signals: Signals, limits: CertaintyLimits = CertaintyLimits()) -> tuple[float, Confidence]:
    """Return (probability that the answer is right, the word for it).

    Never "supported" if no word of the question is near the quotes.
    """
    told = {each.name: getattr(signals, each.name) for each in fields(signals)}
    fit = fits()["other" if None in told.values() else "probed"]
    odds = fit.bias + math.fsum(weight * told[name] for name, weight in fit.weights.items())
    sure = round(1 / (1 + math.exp(-max(-30.0, min(30.0, odds)))), 3)
    high = fit.supported_from if limits.supported_from is None else limits.supported_from
    low = fit.likely_from if limits.likely_from is None else limits.likely_from
    return sure, "supported" if sure >= high and signals.asked else "likely" if sure >= low else "check it"
