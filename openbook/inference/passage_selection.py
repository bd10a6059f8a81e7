"""Chooses which of several passages, each read on its own, to answer from: the one that most surely holds the answer.

A trained reader says with its first token whether a passage holds the answer. How much likelier than not it answers, as
log-odds, less a price for each rank of the retriever, orders the passages. Once one is sure enough, the passages found
after it need not be read. The numbers were fitted on the articles that the reader was chosen by, not trained on
(docs/log.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from openbook.inference.decoding import log_softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

RANK_PRICE = 0.75  # nats for each passage that the retriever found better
LEAST = 0.5  # nats; a passage below is not answered from
SURE = 2.0  # nats; with a passage above, no further one is read
_NEVER = 1e-12  # probabilities are kept so far from 0 and 1


@dataclass(frozen=True, slots=True)
class AbstentionScore:
    """What a reader is inclined to do with one passage. `abstains`: the likeliest first token begins the abstention."""

    abstention_logprob: float
    abstains: bool

    @classmethod
    def of(cls, logits: NDArray[np.float32], abstention: int) -> AbstentionScore:
        """By the logits of the first token of an answer, and the first token of the abstention."""
        return cls(float(log_softmax(logits)[abstention]), int(np.argmax(logits)) == abstention)

    @property
    def answer_log_odds(self) -> float:
        abstention = min(max(math.exp(self.abstention_logprob), _NEVER), 1 - _NEVER)
        return math.log1p(-abstention) - math.log(abstention)


@dataclass(frozen=True, slots=True)
class PassageSelection:
    """`choose`: from the scores, best found passage first, to the number of the passage to answer from, or None.

    `enough`: whether those read so far will do; by default all are read.
    """

    choose: Callable[[Sequence[AbstentionScore]], int | None]
    enough: Callable[[Sequence[AbstentionScore]], bool] = lambda read: False


def choose(scores: Sequence[AbstentionScore]) -> int | None:
    """The number of the passage to answer from; None when none holds the answer. The scores come best found passage first."""
    score, number = _best(scores)
    return number if score >= LEAST else None


def enough(scores: Sequence[AbstentionScore]) -> bool:
    return _best(scores)[0] >= SURE


def _best(scores: Sequence[AbstentionScore]) -> tuple[float, int]:
    """(score, number) of the passage with the highest score, the better found of equal ones."""
    scored = [
        (each.answer_log_odds - RANK_PRICE * rank, -rank) for rank, each in enumerate(scores) if not each.abstains
    ]
    score, rank = max(scored, default=(-math.inf, 0))
    return score, -rank


CALIBRATED = PassageSelection(choose, enough)
