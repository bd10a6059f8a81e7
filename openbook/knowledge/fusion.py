"""Reciprocal rank fusion of rankings (Cormack, Clarke and Büttcher, SIGIR 2009)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol, TypeVar

K = 60  # the paper's constant; ranks far below it hardly differ


class _Item(Hashable, Protocol):
    def __lt__(self, other: Any, /) -> bool: ...


Item = TypeVar("Item", bound=_Item)


def fuse(rankings: Sequence[Sequence[Item]], k: int = K) -> list[tuple[Item, float]]:
    """(item, score) by falling score, where score is the sum over rankings of 1 / (k + rank), rank from 1.

    The result does not depend on the order of `rankings`; equal scores are ordered by item.
    """
    ranks: dict[Item, list[int]] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, start=1):
            ranks.setdefault(item, []).append(rank)
    # Sorted before summing: floating-point sums depend on their order.
    scores = {item: sum(1.0 / (k + rank) for rank in sorted(found)) for item, found in ranks.items()}
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
