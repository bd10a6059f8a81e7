"""Chooses the passage to answer from, of several that were each read on their own.

A trained reader's first token says if a passage holds the answer. The score is the log-odds of answering minus a price for
each rank of the retriever. Once one is sure enough, reading stops. The constants were fitted on the articles used to select
the reader, not on its training articles (research/log.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from openbook.inference.decoding import log_softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

RANK_PRICE = 0.75  # nats for each passage that the retriever ranked better
LEAST = 0.5  # nats; no answer from a passage below this
SURE = 2.0  # nats; with a passage above this, reading stops
_NEVER = 1e-12  # probabilities are clamped this far from 0 and 1


def score_of(logits: NDArray[np.float32], abstention: int) -> float:
    """The log-odds of answering; -inf if `abstention`, its first token, is likeliest."""
    return -math.inf if int(np.argmax(logits)) == abstention else log_odds(float(log_softmax(logits)[abstention]))


def log_odds(abstention_logprob: float) -> float:
    """The log-odds of answering, from the log-probability of the abstention's first token."""
    abstention = min(max(math.exp(abstention_logprob), _NEVER), 1 - _NEVER)
    return math.log1p(-abstention) - math.log(abstention)


def choose(scores: Sequence[float]) -> int | None:
    """The index of the passage to answer from, or None. Scores are in the retriever's order."""
    score, number = _best(scores)
    return number if score >= LEAST else None


def enough(scores: Sequence[float]) -> bool:
    return _best(scores)[0] >= SURE


def _best(scores: Sequence[float]) -> tuple[float, int]:
    """(score, index) of the best passage; equal scores go to the better ranked."""
    scored = ((score - RANK_PRICE * rank, -rank) for rank, score in enumerate(scores))
    score, rank = max(scored, default=(-math.inf, 0))
    return score, -rank
