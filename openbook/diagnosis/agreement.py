"""How far two who judged the same things agree: the share, and Cohen's kappa, which takes out what chance alone would give.

Source: Cohen, A coefficient of agreement for nominal scales (1960).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from openbook.diagnosis.summary import Share, share


@dataclass(frozen=True, slots=True)
class Agreement:
    """`kappa`: 1 for full agreement, 0 for that of chance; None without data, or where both always said the same one thing."""

    same: Share
    kappa: float | None

    def __str__(self) -> str:
        kappa = "no kappa" if self.kappa is None else f"kappa {self.kappa:.2f}"
        return f"{self.same}, {kappa}"


def agreement(pairs: Iterable[tuple[Hashable, Hashable]]) -> Agreement:
    """Of (what one said, what the other said) for each thing judged. No pair is kept."""
    counts = Counter(pairs)
    same = share(sum(n for (a, b), n in counts.items() if a == b), counts.total())
    if same.share is None:
        return Agreement(same, None)
    one, other = Counter[Hashable](), Counter[Hashable]()
    for (a, b), n in counts.items():
        one[a] += n
        other[b] += n
    by_chance = sum(one[said] * other[said] for said in one) / counts.total() ** 2
    return Agreement(same, None if by_chance == 1.0 else (same.share - by_chance) / (1.0 - by_chance))
