"""Chooses which of several passages, each read on its own, to answer from: the one that most surely holds the answer.

A trained reader says with its first token whether a passage holds the answer. How much likelier than not it answers, as
log-odds, less a price for each rank of the retriever, orders the passages. Once one is sure enough, the passages found
after it need not be read. The numbers were fitted on the articles that the reader was chosen by, not trained on
(research/log.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from openbook.inference.decoding import log_softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

RANK_PRICE = 0.75  # nats for each passage that the retriever found better
LEAST = 0.5  # nats; a passage below is not answered from
SURE = 2.0  # nats; with a passage above, no further one is read
_NEVER = 1e-12  # probabilities are kept so far from 0 and 1


def score_of(logits: NDArray[np.float32], abstention: int) -> float:
    """The log-odds of answering, by the logits of the first token of an answer; -inf when the likeliest begins the abstention.

    `abstention`: its first token.
    """
    return -math.inf if int(np.argmax(logits)) == abstention else log_odds(float(log_softmax(logits)[abstention]))


def log_odds(abstention_logprob: float) -> float:
    """The log-odds of answering, by the log-probability of the abstention's first token."""
    abstention = min(max(math.exp(abstention_logprob), _NEVER), 1 - _NEVER)
    return math.log1p(-abstention) - math.log(abstention)


def choose(scores: Sequence[float]) -> int | None:
    """The number of the passage to answer from; None when none holds the answer. The scores come best found passage first."""
    score, number = _best(scores)
    return number if score >= LEAST else None


def enough(scores: Sequence[float]) -> bool:
    """Whether the passages that were read will do."""
    return _best(scores)[0] >= SURE


def _best(scores: Sequence[float]) -> tuple[float, int]:
    """(score, number) of the passage with the highest score, the better found of equal ones."""
    scored = ((score - RANK_PRICE * rank, -rank) for rank, score in enumerate(scores))
    score, rank = max(scored, default=(-math.inf, 0))
    return score, -rank
