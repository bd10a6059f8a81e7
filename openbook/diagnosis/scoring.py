"""How right an answer is: exact match and token F1 after SQuAD's normalisation, whether it holds an answer, and whether
it states the same number, date or time. And how sure a share, or the difference of two models, is.

Source of the first two: the evaluation script of SQuAD 1.1 (Rajpurkar et al. 2016).
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openbook.diagnosis.values import accepted_value, contradicts, same_value, stated_values

RESAMPLES = 4000
EXACT_PAIRS = 1000
_YES, _NO = frozenset({"yes", "true"}), frozenset({"no", "not", "false"})
_NEGATED = frozenset("not cannot cant dont doesnt didnt isnt arent wasnt werent wont never".split())
# "anywhere from 2 to 100" says neither 2 nor 100.
_VAGUE = re.compile(r"\b(?:anywhere|ranges?|ranging|var(?:y|ies)(?: \w+)?) (?:from|between)\b", re.IGNORECASE)
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


def equal_value(answer: str, accepted: Sequence[str]) -> float:
    """1 if the answer states the number, date or time of day that an accepted answer is; in doubt 0.

    `28 days` equals `twenty-eight days` and `28`, not `28 hours`; `30 April 2024` equals `30 April`, not the other way
    round. An answer that states several values of one kind equals none, nor does one that disagrees with another of the
    accepted answers.
    """
    wanted = [value for value in map(accepted_value, accepted) if value is not None]
    if not wanted:
        return 0.0
    stated = stated_values(answer)
    for value in stated:
        if any(value is not other and value.kind == other.kind for other in stated):
            continue
        if any(same_value(value, each) for each in wanted) and not any(contradicts(value, each) for each in wanted):
            return 1.0
    return 0.0


def yes_or_no(answer: str) -> str:
    """Which of the two an answer says; empty when it says neither."""
    words = normalised(answer).split()
    if not words or words[:2] == ["no", "idea"]:
        return ""
    if words[0] in _YES | _NO:
        return "yes" if words[0] in _YES else "no"
    return "" if _NEGATED.isdisjoint(words) else "no"


def is_right(answer: str, accepted: Sequence[str]) -> float:
    """1 if the answer is or holds an accepted one, or states an equal value.

    Words alone do not make it right where the value is another: `1.5` is not `15`, and `28 hours` does not hold `28` when
    `28 days` is accepted too; nor where only a range is said, `anywhere from 2 to 100`. Where yes, no or not is accepted, an
    answer is right that says the same, wherever those words stand in it.
    """
    if equal_value(answer, accepted):
        return 1.0
    wanted = [(each, accepted_value(each)) for each in accepted]
    stated = stated_values(answer)
    for each, value in wanted:
        if normalised(each) in _YES | _NO:
            if yes_or_no(answer) == yes_or_no(each):
                return 1.0
            continue
        if value is not None and _VAGUE.search(answer):
            continue
        if not (exact_match(answer, [each]) or holds_answer(answer, [each])):
            continue
        if value is None or not stated:
            return 1.0
        near = [other for other in stated if other.core == value.core]
        values = [other for _, other in wanted if other is not None]
        if any(not any(contradicts(other, accept) for accept in values) for other in near):
            return 1.0
    return 0.0


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


def bootstrap(scores: Sequence[float], seed: int = 0) -> Interval:
    """The mean with the 95 % interval of means of questions drawn anew, with replacement.

    For shares Wilson's interval (`interval`) is the better one near 0 and 1, where resampling finds no spread.
    """
    n = len(scores)
    if not n:
        return Interval(math.nan, math.nan, math.nan, 0)
    chance, values = np.random.default_rng(seed), np.asarray(scores, dtype=float)
    if np.isin(values, (0.0, 1.0)).all():  # the mean of n draws from zeros and ones
        means = chance.binomial(n, values.mean(), size=RESAMPLES) / n
    else:
        means = np.array([values[chance.integers(0, n, size=n)].mean() for _ in range(RESAMPLES)])
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(values.mean()), float(low), float(high), n)


def mcnemar(only_first_right: int, only_second_right: int) -> float:
    """Two-sided p of McNemar's test: of the questions that one model alone gets right, would a fair coin split them so?

    Exact up to 1,000 of them; beyond, the normal approximation with continuity correction. Raises ValueError for a negative
    count. Source: McNemar 1947; Edwards 1948 for the correction.
    """
    n, few = only_first_right + only_second_right, min(only_first_right, only_second_right)
    if few < 0:
        raise ValueError(f"{few} is no count of questions: it is negative")
    if n <= EXACT_PAIRS:
        return min(1.0, float(2 * sum(math.comb(n, i) for i in range(few + 1)) / 2**n))
    z = max(0.0, abs(only_first_right - only_second_right) - 1) / math.sqrt(n)
    return math.erfc(z / math.sqrt(2))
