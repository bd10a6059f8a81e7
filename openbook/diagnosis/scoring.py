"""How right an answer is, and how sure a share is.

Token F1 is that of the evaluation script of SQuAD 1.1 (Rajpurkar et al. 2016). `is_right` is what verdicts
rest on: docs/formats/diagnosis.md says what counts as right.
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
from openbook.knowledge.values import LIMITS, Value, accepted_value, contradicts, same_value, stated_values
from openbook.knowledge.words import is_function_word

FEW = 10  # scores whose own spread says little
LONG_ANSWER_WORDS = 6  # an accepted answer of more words is a sentence, which is not expected word for word
ENOUGH_F1 = 0.6  # for those
LEAST_OF_AN_ANSWER = 1 / 5  # of the words of the longer of two that are to be the same answer
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
_FRACTION = re.compile("(\\d*)([¼½¾⅛⅜⅝⅞])")
_RAISED = re.compile("(?<=\\d)([⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
_GROUPED = re.compile("(?<=\\d)[\u00a0\u2009\u202f](?=\\d{3}(?!\\d))")
_AS_TYPED = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "‐": "-", "‑": "-", "‒": "-", "–": "-", "−": "-"})
NO_SPACES = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")  # scripts without spaces


def normalised(text: str) -> str:
    """In lower case, without punctuation and articles, one space between words."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def plain_words(text: str) -> str:
    """As `normalised`, but what differs stays different: a mark between two digits stays ("1.5", "3-4"; not in "1,500"), as do
    the signs of "C++" and "B-" and the letter of "Vitamin A".
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


def token_f1(answer: str, accepted: Sequence[str]) -> float:
    """The best F1 of the answer's words with those of an accepted answer, from 0 to 1."""
    found, best = Counter(normalised(answer).split()), 0.0
    for each in accepted:
        wanted = Counter(normalised(each).split())
        common = (found & wanted).total()
        best = max(best, 2 * common / (found.total() + wanted.total()) if common else float(found == wanted))
    return best


def squad_contains(answer: str, accepted: Sequence[str]) -> float:
    """1 if the words of an accepted answer stand in the answer one after the other."""
    text = f" {normalised(answer)} "
    return float(any(words and f" {words} " in text for words in map(normalised, accepted)))


def equal_value(answer: str, accepted: Sequence[str]) -> bool:
    """Whether the answer states the number, date or time of day that an accepted answer is; in doubt not.

    `28 days` equals `twenty-eight days` and `28`, not `28 hours`; `30 April 2024` equals `30 April`, not the other way
    round. An answer that states several values of one kind equals none, nor does one that disagrees with another of the
    accepted answers.
    """
    wanted = [value for value in map(accepted_value, accepted) if value is not None]
    stated = stated_values(answer)
    kinds = Counter(value.kind for value in stated)
    alone = [value for value in stated if kinds[value.kind] == 1]
    same = [value for value in alone if any(same_value(value, each) for each in wanted)]
    return any(not any(contradicts(value, each) for each in wanted) for value in same)


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


def says_accepted(answer: str, accepted: Sequence[str]) -> bool:
    """Whether the answer is or holds an accepted one, or states an equal value.

    Words alone do not make it right if the value is another: `1.5` is not `15`, `more than 28 days` not `28 days`, and
    `28 hours` does not hold `28` when `28 days` is accepted too; nor if only a range is said, `anywhere from 2 to 100`.
    If yes, no or not is accepted, an answer is right that says the same; one that says it does not know says neither.
    """
    if equal_value(answer, accepted):
        return True
    wanted = [(each, accepted_value(each)) for each in accepted]
    values = [value for _, value in wanted if value is not None]
    for each, value in wanted:
        if normalised(each) in _YES | _NO:
            if yes_or_no(answer) == yes_or_no(each):
                return True
        elif says(answer, each) and (value is None or _agrees(answer, value, values)):
            return True
    return False


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


def is_right(answer: str, question: Question) -> bool:
    """Whether an answer is, holds or equals an accepted one (`says_accepted`), or says enough of one that is a sentence.

    Words that only repeat the question do not count: that Denmark, South Carolina is a town does not say where it is.
    """
    text, accepted = keyboard_form(answer), [keyboard_form(each) for each in question.answers]
    asked = [plain_words(keyboard_form(wording)).split() for wording in question.wordings]
    accepted = [each for each in accepted if not any(_only_repeats(text, each, words) for words in asked)]
    return says_accepted(text, accepted) or any(_says_loosely(text, each) for each in accepted)


def _only_repeats(text: str, accepted: str, question: Sequence[str]) -> bool:
    """Whether the accepted words stand in the text, each time beside a telling word that they stand beside in the question."""
    wanted, words = plain_words(accepted).split(), plain_words(text).split()
    beside = _neighbours(question, wanted)
    found = _neighbours(words, wanted)
    return bool(beside and found) and all(
        any(a and a == b and not is_function_word(a) for other in beside for a, b in zip(each, other, strict=True))
        for each in found
    )


def _neighbours(words: Sequence[str], wanted: Sequence[str]) -> list[tuple[str, str]]:
    """The words before and after each place where those that are wanted stand; an empty text for none."""
    n, padded = len(wanted), ["", *words, ""]
    return [(padded[i], padded[i + n + 1]) for i in range(len(words) - n + 1) if n and list(words[i : i + n]) == wanted]


def text_holds_any(text: str, accepted: Sequence[str]) -> bool:
    """Whether the text holds the words of one of the answers, or says enough of one that is a sentence."""
    text, answers = keyboard_form(text), list(map(keyboard_form, accepted))
    return any(says(text, each) or _says_loosely(text, each) for each in answers)


def _says_loosely(text: str, accepted: str) -> bool:
    """Whether the text holds the letters of an accepted answer in a script without spaces; or of one that is a whole sentence most of
    its words, all its values, and the same "not".
    """
    if not text.strip() or not accepted.strip():
        return False
    if NO_SPACES.search(accepted):
        return _has_letters(text.casefold(), accepted.strip().casefold())
    if len(accepted.split()) <= LONG_ANSWER_WORDS or token_f1(text, [accepted]) < ENOUGH_F1:
        return False
    values = {value.core for value in stated_values(text)}
    return negated(text) == negated(accepted) and all(value.core in values for value in stated_values(accepted))


def _has_letters(text: str, wanted: str) -> bool:
    """Whether they stand in the text, and not as the end or the beginning of a longer number."""
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
    """Compatible characters as one (NFKC), quotes and dashes as they are typed, digits in one group, fractions as decimals, and
    the punctuation of other scripts as spaces.
    """
    if text.isascii():
        return text
    text = _GROUPED.sub("", text.translate(_AS_TYPED))
    text = _FRACTION.sub(lambda found: f"{int(found[1] or 0) + unicodedata.numeric(found[2]):g}", text)
    text = _RAISED.sub(lambda found: f"^{found[1]}", text)
    text = unicodedata.normalize("NFKC", text)
    return "".join(" " if not c.isascii() and unicodedata.category(c)[0] == "P" else c for c in text)


def same_answer(one: str, other: str) -> bool:
    """Whether the words of one stand in the other and are a good part of it, or say its value: "4" is not "on 4 May"."""
    if not (text_holds_any(one, [other]) or text_holds_any(other, [one])):
        return False
    values = [{value.core for value in stated_values(keyboard_form(each))} for each in (one, other)]
    if all(values):
        return not values[0].isdisjoint(values[1])
    sizes = sorted(len(plain_words(keyboard_form(each)).split()) for each in (one, other))
    return sizes[0] >= LEAST_OF_AN_ANSWER * sizes[1]


# --- shares -----------------------------------------------------------------------------------------------------------


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
    """Wilson's for scores of 0 and 1, and for others from 0 to 1 if they are equal or fewer than `FEW`; else the normal one."""
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


def paired(better: int, worse: int, questions: int) -> Interval:
    """The difference of two shares over the same questions, with its 95 % interval: Wald's, half a question added to each
    of the four combinations. Source: Agresti & Min 2005.
    """
    n, gained, lost = questions + 2, better + 0.5, worse + 0.5
    middle, spread = (gained - lost) / n, 1.96 * math.sqrt(gained + lost - (gained - lost) ** 2 / n) / n
    return Interval((better - worse) / questions, max(-1.0, middle - spread), min(1.0, middle + spread), questions)


def mcnemar(only_first_right: int, only_second_right: int) -> float:
    """Two-sided p of McNemar's exact test (1947): of the questions that one model alone gets right, would a fair coin split them so?"""
    n, few = only_first_right + only_second_right, min(only_first_right, only_second_right)
    ways = total = 1  # to choose 0 of n
    for i in range(few):
        ways = ways * (n - i) // (i + 1)
        total += ways
    return min(1.0, float(2 * total / 2**n))
