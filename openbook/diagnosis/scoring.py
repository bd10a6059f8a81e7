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

from openbook.knowledge.values import LIMITS, Value, accepted_value, contradicts, same_value, stated_values
from openbook.knowledge.words import is_function_word

RESAMPLES = 4000
EXACT_PAIRS = 1000
FEW = 10  # scores whose own spread says little
_YES, _NO = frozenset({"yes", "true"}), frozenset({"no", "not", "false"})
_NEGATED = frozenset("not cannot cant dont doesnt didnt isnt arent wasnt werent wont never".split())
# "anywhere from 2 to 100" says neither 2 nor 100.
_VAGUE = re.compile(r"\b(?:anywhere|ranges?|ranging|var(?:y|ies)(?: \w+)?) (?:from|between)\b", re.IGNORECASE)
# "I'm not sure" says neither yes nor no.
_UNSURE = re.compile(
    r"\b(?:not|dont|doesnt|cannot|cant|isnt|never)(?: \w+)? (?:know|sure|certain|clear|stated?|says?|said|tell|told|mention(?:ed)?|"
    r"specif(?:y|ied)|given|determine)\b"
)
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_MARK = rf"[{re.escape(string.punctuation)}]"
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:([,'])\d{3})(?:\1\d{3})*(?!\d|[,']\d)")
_LEADING_POINT = re.compile(r"(?<![\w.])\.(?=\d)")
_BETWEEN_NO_DIGITS = re.compile(rf"(?<!\d){_MARK}|{_MARK}(?!\d)")
_GRADE = re.compile(r"(?<![\w.])([A-Za-z])(\+\+|[+#-])(?![\w+#])")  # C++, B-
_SIGNS = {"++": "plusplus", "+": "plus", "#": "sharp", "-": "minus"}
# The letter A in "Vitamin A" or "platform A is closed", where no article stands.
_LETTER_A = re.compile(r"\b[Aa](?=\s*(?:[,;:!?)\]](?!\w)|\.?\s*$))|(?<=\w )A(?= [^\W_A-Z])")


def normalised(text: str) -> str:
    """In lower case, without punctuation and articles, one space between words."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def plain_words(text: str) -> str:
    """As `normalised`, without what makes different things one: a mark between two digits stays ("1.5", "3-4"; not in "1,500"),
    as do the signs of "C++" and "B-" and the letter of "Vitamin A".
    """
    text = _LETTER_A.sub("lettera", text)
    text = _GRADE.sub(lambda found: found[1] + _SIGNS[found[2]], text)
    text = text.casefold().replace("\u0307", "")
    text = _THOUSANDS.sub(lambda found: re.sub("[,']", "", found[0]), text)
    text = _BETWEEN_NO_DIGITS.sub("", _LEADING_POINT.sub("0.", text))
    return " ".join(_ARTICLE.sub(" ", text).split())


def says(text: str, accepted: str) -> bool:
    """Whether the plain words of an accepted answer stand in the text one after the other. "IT" is not "it"."""
    words = plain_words(accepted)
    if not words:  # articles or signs alone
        return bool(accepted.strip()) and text.strip().casefold() == accepted.strip().casefold()
    if accepted.strip().isupper() and is_function_word(words) and words != plain_words(text):
        return re.search(rf"(?<!\w){re.escape(accepted.strip())}(?!\w)", text) is not None
    return f" {words} " in f" {plain_words(text)} "


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
    if _UNSURE.search(" ".join(words)):
        return ""
    if "yes" in words:
        return "yes"
    return "no" if not _NEGATED.isdisjoint(words) or "no" in words else ""


def negated(text: str) -> bool:
    """Whether a sentence says that something is not so, as far as one word tells."""
    return not _NEGATED.isdisjoint(normalised(text).split()) or yes_or_no(text) == "no"


def is_right(answer: str, accepted: Sequence[str]) -> float:
    """1 if the answer is or holds an accepted one, or states an equal value.

    Words alone do not make it right where the value is another: `1.5` is not `15`, `more than 28 days` not `28 days`, and
    `28 hours` does not hold `28` when `28 days` is accepted too; nor where only a range is said, `anywhere from 2 to 100`.
    Where yes, no or not is accepted, an answer is right that says the same; one that says it does not know says neither.
    """
    if equal_value(answer, accepted):
        return 1.0
    wanted = [(each, accepted_value(each)) for each in accepted]
    values = [value for _, value in wanted if value is not None]
    for each, value in wanted:
        if normalised(each) in _YES | _NO:
            if yes_or_no(answer) == yes_or_no(each):
                return 1.0
        elif says(answer, each) and (value is None or _agrees(answer, value, values)):
            return 1.0
    return 0.0


def _agrees(answer: str, value: Value, accepted: Sequence[Value]) -> bool:
    """Whether an answer that holds the words of an accepted value states no other in them."""
    if _VAGUE.search(answer):
        return False
    stated = stated_values(answer)
    near = [other for other in stated if other.core == value.core]
    return not stated or any(
        not any(contradicts(other, each) for each in accepted)
        and (other.bound == value.bound or other.bound not in LIMITS)
        for other in near
    )


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
    """Of scores that are all 0 or 1, or from 0 to 1 and alike or fewer than `FEW`, Wilson's, which holds for all of that range."""
    n = len(scores)
    if not n:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean, z = sum(scores) / n, 1.96
    variance = sum((score - mean) ** 2 for score in scores) / max(1, n - 1)
    shares = all(0.0 <= score <= 1.0 for score in scores)
    if shares and (n < FEW or not variance or all(score in (0.0, 1.0) for score in scores)):
        centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
        spread = z * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    else:
        centre, spread = mean, z * math.sqrt(variance / n)
    low, high = centre - spread, centre + spread
    if shares:  # what rounding leaves beyond the ends, or short of a mean that is one
        low, high = (0.0 if not mean else max(0.0, low)), (1.0 if mean == 1.0 else min(1.0, high))
    return Interval(mean, low, high, n)


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
