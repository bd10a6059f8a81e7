"""How right an answer is: exact match and token F1 after SQuAD's normalisation, and whether it holds an answer.

Source: the evaluation script of SQuAD 1.1 (Rajpurkar et al. 2016).
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """In lower case, without punctuation and articles, one space between words."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, accepted: Sequence[str]) -> float:
    return float(any(normalised(answer) == normalised(each) for each in accepted))


def token_f1(answer: str, accepted: Sequence[str]) -> float:
    """The best F1 of the answer's words with those of an accepted answer, from 0 to 1."""
    return max((_f1(normalised(answer).split(), normalised(each).split()) for each in accepted), default=0.0)


def holds_answer(answer: str, accepted: Sequence[str]) -> float:
    """1 if the words of an accepted answer stand in the answer one after the other."""
    text = f" {normalised(answer)} "
    return float(any(words and f" {words} " in text for words in map(normalised, accepted)))


def _f1(found: list[str], wanted: list[str]) -> float:
    if not found or not wanted:
        return float(found == wanted)
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted)) if common else 0.0


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean of `n` scores with its 95 % interval (normal approximation; for shares Wilson's)."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]" if self.n else "no data"


def interval(scores: Sequence[float]) -> Interval:
    n = len(scores)
    if not n:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean, z = sum(scores) / n, 1.96
    if all(score in (0.0, 1.0) for score in scores):
        centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
        spread = z * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return Interval(mean, centre - spread, centre + spread, n)
    variance = sum((score - mean) ** 2 for score in scores) / max(1, n - 1)
    spread = z * math.sqrt(variance / n)
    return Interval(mean, mean - spread, mean + spread, n)
