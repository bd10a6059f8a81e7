"""One score from two: how near a passage's vector is, and how much of the query's words it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WEIGHT = 0.5  # of the words; chosen on training queries only (benchmarks/fusion.py), and flat from 0.45 to 0.55


def fuse(similarity: NDArray[np.float64], bm25: NDArray[np.float64], ceiling: float) -> NDArray[np.float64]:
    """The score of each candidate [n], from its exact cosine and BM25 score: higher is better, at most 1.

    `ceiling` is what no passage's BM25 score can exceed for this query, so that both parts are shares of the possible
    (Bruch, Gai and Ingber, 2023: theoretical bounds instead of those of the candidates). A passage's score depends on
    its own two scores alone, whatever else is a candidate, and never falls when one of them rises.
    """
    words = bm25 / ceiling if ceiling > 0.0 else np.zeros_like(bm25)
    return (1.0 - WEIGHT) * similarity + WEIGHT * words
