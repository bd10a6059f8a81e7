"""The correctness of answers, and the uncertainty of shares.

Token F1 follows the evaluation script of SQuAD 1.1 (Rajpurkar et al. 2016). Verdicts use `is_right`:
docs/formats/diagnosis.md.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from openbook.diagnosis.questions import Question
from openbook.knowledge.index.words import is_function_word

Z = 1.96  # for 95 %
FEW = 10  # scores; the spread of fewer says little
LONG_ANSWER_WORDS = 6  # an accepted answer with more words is a sentence, not expected word for word
ENOUGH_F1 = 0.6  # for sentences
LEAST_OF_AN_ANSWER = 1 / 5  # smallest share of the longer answer's words for two answers to be the same
_YES_OR_NO = frozenset({"yes", "no", "true", "false"})
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_MARK = rf"[{re.escape(string.punctuation)}]"
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:([,'])\d{3})(?:\1\d{3})*(?!\d|[,']\d)")
_LEADING_POINT = re.compile(r"(?<![\w.])\.(?=\d)")
_BETWEEN_NO_DIGITS = re.compile(rf"(?<!\d){_MARK}|{_MARK}(?!\d)")
_GRADE = re.compile(r"(?<![\w.])([A-Za-z])(\+\+|[+#-])(?![\w+#])")  # C++, B-
_SIGNS = {"++": "plusplus", "+": "plus", "#": "sharp", "-": "minus"}
_BELOW_ZERO = re.compile(r"(?<![^\s(])-(?=\d)")  # -5
# The letter A in "Vitamin A" or "platform A is closed", which is no article.
_LETTER_A = re.compile(r"\b[Aa](?=\s*(?:[,;:!?)\]](?!\w)|\.?\s*$))|(?<=\w )A(?= [^\W_A-Z])")
_FRACTION = re.compile("(\\d*)([¼½¾⅛⅜⅝⅞])")
_RAISED = re.compile("(?<=\\d)([⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
_GROUPED = re.compile("(?<=\\d)[\u00a0\u2009\u202f](?=\\d{3}(?!\\d))")
_AS_TYPED = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "‐": "-", "‑": "-", "‒": "-", "–": "-", "−": "-"})
NO_SPACES = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")  # scripts without spaces


def normalised(text: str) -> str:
    """Lower case, without punctuation and articles, one space between words."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def plain_words(text: str) -> str:
    """As `normalised`, but keeps marks between digits ("1.5", "3-4"; not in "1,500"), the signs of "-5", "C++" and
    "B-", and the letter of "Vitamin A".
    """
    text = _LETTER_A.sub("lettera", text)
    text = _GRADE.sub(lambda found: found[1] + _SIGNS[found[2]], text)
    text = _BELOW_ZERO.sub(_SIGNS["-"], text)
    text = text.casefold().replace("\u0307", "")
    text = _THOUSANDS.sub(lambda found: re.sub("[,']", "", found[0]), text)
    text = _BETWEEN_NO_DIGITS.sub("", _LEADING_POINT.sub("0.", text))
    return " ".join(_ARTICLE.sub(" ", text).split())


def says(text: str, accepted: str) -> bool:
    """True if the plain words of an accepted answer occur in sequence. "IT" is not "it"."""
    words = plain_words(accepted)
    if not words:  # only articles or signs
        return bool(accepted.strip()) and text.strip().casefold() == accepted.strip().casefold()
    if accepted.strip().isupper() and is_function_word(words) and words != plain_words(text):
        return re.search(rf"(?<!\w){re.escape(accepted.strip())}(?!\w)", text) is not None
    return f" {words} " in f" {plain_words(text)} "


def token_f1(answer: str, accepted: Sequence[str]) -> float:
    """The best F1 with an accepted answer, from 0 to 1."""
    found, best = Counter(normalised(answer).split()), 0.0
    for each in accepted:
        wanted = Counter(normalised(each).split())
        common = (found & wanted).total()
        best = max(best, 2 * common / (found.total() + wanted.total()) if common else float(found == wanted))
    return best


def squad_contains(answer: str, accepted: Sequence[str]) -> float:
    """1 if the words of an accepted answer occur in sequence, else 0."""
    text = f" {normalised(answer)} "
    return float(any(words and f" {words} " in text for words in map(normalised, accepted)))


def is_right(answer: str, question: Question) -> bool:
    """True if the answer holds an accepted answer's words, or enough of an accepted sentence. In doubt false.

    Words that only repeat the question do not count: "Denmark, South Carolina is a town" does not say where it is. For
    an accepted "no", the answer must begin with "No.", "No," or the like, or say "the answer is no".
    """
    text, asked = keyboard_form(answer), [keyboard_form(wording) for wording in question.wordings]
    for each in map(keyboard_form, question.answers):
        if normalised(each) in _YES_OR_NO:
            ends = r"\b" if normalised(each) in ("yes", "true") else r"[ \t]*(?:[^\w\s]|\n|$)"  # not "no idea"
            said = rf"(?:.*\banswer(?: is|:))?\W*{normalised(each)}{ends}"
            right = re.match(said, answer, re.IGNORECASE | re.DOTALL) is not None
        else:
            right = text_holds_any(text, [each]) and not any(_only_repeats(text, each, wording) for wording in asked)
        if right:
            return True
    return False


def _only_repeats(text: str, accepted: str, question: str) -> bool:
    """True if the accepted words occur only next to a content word that is next to them in the question."""
    wanted = plain_words(accepted)
    around = re.compile(rf"(?<!\S)(?:(\S+) )?{re.escape(wanted)}(?= (\S+)|$)")
    found, beside = around.findall(plain_words(text)), around.findall(plain_words(question))
    return bool(wanted and found and beside) and all(
        any(a and a == b and not is_function_word(a) for other in beside for a, b in zip(each, other, strict=True))
        for each in found
    )


def text_holds_any(text: str, accepted: Sequence[str]) -> bool:
    """True if the text holds the words of an answer, or enough of a sentence."""
    text, answers = keyboard_form(text), list(map(keyboard_form, accepted))
    return any(says(text, each) or _says_loosely(text, each) for each in answers)


def _says_loosely(text: str, accepted: str) -> bool:
    """True if the text holds the characters of an answer in a script without spaces; or most words and all numbers of a sentence."""
    if not text.strip() or not accepted.strip():
        return False
    if NO_SPACES.search(accepted):
        return _has_letters(text.casefold(), accepted.strip().casefold())
    if len(accepted.split()) <= LONG_ANSWER_WORDS or token_f1(text, [accepted]) < ENOUGH_F1:
        return False
    return _numbers(accepted) <= _numbers(text)


def _numbers(text: str) -> set[str]:
    """Words with a digit: "28", "09:40", "hp3"."""
    return set(re.findall(r"[a-z]*\d[a-z\d.,:/^-]*", plain_words(text)))


def _has_letters(text: str, wanted: str) -> bool:
    """True if `wanted` occurs, not as part of a longer number."""
    start = text.find(wanted)
    while start >= 0:
        before, after = text[start - 1 : start], text[start + len(wanted) : start + len(wanted) + 1]
        if not (_is_digit(before) and _is_digit(wanted[0])) and not (_is_digit(after) and _is_digit(wanted[-1])):
            return True
        start = text.find(wanted, start + 1)
    return False


def _is_digit(letter: str) -> bool:
    return bool(letter) and unicodedata.numeric(letter, None) is not None


def keyboard_form(text: str) -> str:
    """NFKC, with typed quotes and dashes, ungrouped digits, decimal fractions, signs such as "€" as words, and other
    scripts' punctuation as spaces.
    """
    if text.isascii():
        return text
    text = _GROUPED.sub("", text.translate(_AS_TYPED))
    text = _FRACTION.sub(lambda found: f"{int(found[1] or 0) + unicodedata.numeric(found[2]):g}", text)
    text = _RAISED.sub(lambda found: f"^{found[1]}", text)
    kinds = ((c, "" if c.isascii() else unicodedata.category(c)[0]) for c in unicodedata.normalize("NFKC", text))
    return "".join({"P": " ", "S": f" {c} "}.get(kind, c) for c, kind in kinds)


def same_answer(one: str, other: str) -> bool:
    """True if one answer's words are a good part of the other, with the same numbers: "4" is not "on 4 May 2024"."""
    one, other = keyboard_form(one), keyboard_form(other)
    if not (text_holds_any(one, [other]) or text_holds_any(other, [one])):
        return False
    if _numbers(one) and _numbers(other):
        return _numbers(one) == _numbers(other)
    sizes = sorted(len(plain_words(each).split()) for each in (one, other))
    return sizes[0] >= LEAST_OF_AN_ANSWER * sizes[1]


# --- shares -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Interval:
    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]" if self.n else "no data"


def wilson(mean: float, n: int, z: float = Z) -> Interval:
    """Wilson's interval of a share of `n`."""
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    spread = z * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # Remove rounding beyond the ends, or short of a mean of 1.
    low, high = (max(0.0, centre - spread) if mean else 0.0), (min(1.0, centre + spread) if mean < 1.0 else 1.0)
    return Interval(mean, low, high, n)


def interval(scores: Sequence[float]) -> Interval:
    """Wilson's interval for scores of 0 and 1, and for other shares if they are equal or fewer than `FEW`; else the normal one."""
    n = len(scores)
    if not n:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = sum(scores) / n
    variance = sum((score - mean) ** 2 for score in scores) / max(1, n - 1)
    shares = all(0.0 <= score <= 1.0 for score in scores)
    if shares and (n < FEW or not variance or all(score in (0.0, 1.0) for score in scores)):
        return wilson(mean, n)
    spread = Z * math.sqrt(variance / n)
    low, high = mean - spread, mean + spread
    return Interval(mean, max(0.0, low), min(1.0, high), n) if shares else Interval(mean, low, high, n)


@dataclass(frozen=True, slots=True)
class Share:
    """`low` and `high` bound its 95 % interval (Wilson). All None without data."""

    count: int
    of: int
    share: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.share is None or self.low is None or self.high is None:
            return "no data"
        return f"{self.count}/{self.of} = {self.share:.0%} [{100 * self.low:.0f}, {100 * self.high:.0f}]"


def share(count: int, of: int) -> Share:
    if not of:
        return Share(0, 0, None, None, None)
    found = wilson(count / of, of)
    return Share(count, of, found.mean, found.low, found.high)


def share_of(found: Sequence[bool]) -> Share:
    return share(sum(found), len(found))


def mcnemar(only_first_right: int, only_second_right: int) -> float:
    """Two-sided p of McNemar's exact test (1947)."""
    n, few = only_first_right + only_second_right, min(only_first_right, only_second_right)
    ways = total = 1  # to choose 0 of n
    for i in range(few):
        ways = ways * (n - i) // (i + 1)
        total += ways
    return min(1.0, float(2 * total / 2**n))
