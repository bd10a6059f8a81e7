"""From what was observed for one question to one verdict. Pure functions; exactly one verdict for every combination.

| verdict | alone | with documents | with the passage |
|---|---|---|---|
| known | right | right, or says that they do not hold it and none does | |
| harmed_by_retrieval | right | wrong | |
| fixed_by_retrieval | wrong | right | |
| retriever_miss | wrong | wrong: the passage was not among those given to the reader | right |
| distracted | wrong | wrong, though the passage was among them | right |
| reader_gap | wrong | wrong | wrong |
| not_in_the_knowledge_base | wrong | wrong: no passage holds an answer | |
| failed | the model failed on one of the requests: counted apart, never as wrong | | |

**Right** in a mode is who is right in every wording of the question. Of a question that is wrong with documents, the first
wording with a wrong answer decides between the reasons; where no passage holds the answer, the first in which one was invented.

**Known** is what the model says alone in every wording, and not by chance: the same model's answers, without documents, to
the questions before and after (up to `CONTROLS` on each side, those with an answer in common left out) are looked
through for an accepted answer. When more than 1 in 20 holds one ("yes", "2", "politician"), being right shows nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from openbook.diagnosis.questions import Question
from openbook.diagnosis.scoring import is_right as right
from openbook.diagnosis.scoring import negated, normalised, plain_words, says, token_f1
from openbook.knowledge.values import stated_values
from openbook.knowledge.words import is_function_word

Verdict: TypeAlias = Literal[
    "known",
    "fixed_by_retrieval",
    "not_in_the_knowledge_base",
    "retriever_miss",
    "distracted",
    "reader_gap",
    "harmed_by_retrieval",
    "failed",
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
Silence: TypeAlias = Literal["", "abstained", "invented"]

CONTROLS = 32  # answers to other questions, before and after
MOST_BY_CHANCE = 1 / 20  # share of them that may hold the answer
LONG_ANSWER_WORDS = 6  # an accepted answer of more words is a sentence, which is not expected word for word
ENOUGH_F1 = 0.6  # for those
LEAST_OF_AN_ANSWER = 1 / 5  # of the words of the longer of two that are to be the same answer
_FRACTION = re.compile("(\\d*)([¼½¾⅛⅜⅝⅞])")
_RAISED = re.compile("(?<=\\d)([⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
_GROUPED = re.compile("(?<=\\d)[\u00a0\u2009\u202f](?=\\d{3}(?!\\d))")
_TYPED = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "‐": "-", "‑": "-", "‒": "-", "–": "-", "−": "-"})
NO_SPACES = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")  # scripts without spaces


@dataclass(frozen=True, slots=True)
class Asked:
    """One wording. `closed`, `opened`, `oracle`: whether the answer was right alone, with documents, with the passage.

    `oracle` is None when no passage is known to hold an answer. `reached`: one that does was given to the reader.
    `from_memory`: a wrong answer with documents is the one given alone, and stands in no passage that was given.
    """

    closed: bool
    opened: bool
    abstained: bool
    oracle: bool | None = None
    reached: bool = False
    from_memory: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen of one question: `asked` has an entry for each wording, at least one."""

    has_answer: bool
    asked: tuple[Asked, ...]
    by_chance: bool = False
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """`silence`: what it did where no passage holds an answer. `wording`: the one that decided.

    `right`: with documents it did what it should: it answered right, or said that they do not hold the answer where they
    do not. `from_memory`: it answered from memory against a passage that it was given.
    """

    verdict: Verdict
    right: bool
    silence: Silence = ""
    wording: int = 0
    from_memory: bool = False


def judge(seen: Observed) -> Judged:
    if seen.failed:
        return Judged("failed", right=False)
    wording = next((i for i, each in enumerate(seen.asked) if not each.opened), 0)
    if not seen.has_answer:
        wording = next((i for i, each in enumerate(seen.asked) if not each.abstained), 0)
        return _nowhere(seen.asked[wording], wording)
    if seen.asked[wording].oracle is None:
        wrong = [i for i, each in enumerate(seen.asked) if not each.opened]
        wording = next((i for i in wrong if not seen.asked[i].abstained), wording)
    known = not seen.by_chance and all(each.closed for each in seen.asked)
    if all(each.opened for each in seen.asked):
        return Judged("known" if known else "fixed_by_retrieval", right=True)
    asked = seen.asked[wording]
    from_memory = asked.from_memory and asked.reached
    if known:
        if asked.oracle is None and asked.abstained:
            return Judged("known", True, "abstained", wording)
        return Judged("harmed_by_retrieval", False, "", wording, from_memory)
    if asked.oracle is None:
        return _nowhere(asked, wording)
    if not asked.oracle:
        return Judged("reader_gap", False, "", wording, from_memory)
    return Judged("distracted" if asked.reached else "retriever_miss", False, "", wording, from_memory)


def _nowhere(asked: Asked, wording: int) -> Judged:
    silence: Silence = "abstained" if asked.abstained else "invented"
    return Judged("not_in_the_knowledge_base", asked.abstained, silence, wording)


# --- right and wrong --------------------------------------------------------------------------------------------------


def is_right(answer: str, question: Question) -> bool:
    """Whether an answer is, holds or equals an accepted one (`scoring.is_right`), or says enough of one that is a sentence.

    What only repeats words of the question does not count: that Denmark, South Carolina is a town does not say where it is.
    """
    text, accepted = plain(answer), [plain(each) for each in question.answers]
    asked = [plain_words(plain(wording)).split() for wording in question.wordings]
    accepted = [each for each in accepted if not any(_only_repeats(text, each, words) for words in asked)]
    return bool(right(text, accepted)) or any(_loosely(text, each) for each in accepted)


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


def holds_any(text: str, accepted: Sequence[str]) -> bool:
    text = plain(text)
    return any(_holds(text, plain(each)) for each in accepted)


def _holds(text: str, accepted: str) -> bool:
    return says(text, accepted) or _loosely(text, accepted)


def _loosely(text: str, accepted: str) -> bool:
    """Where words cannot be told apart, the letters; of a whole sentence, most of its words, all its values, and its "not"."""
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


def plain(text: str) -> str:
    """Compatible characters as one (NFKC), quotes and dashes as they are typed, digits in one group, fractions as decimals, and
    the punctuation of other scripts as spaces.
    """
    if text.isascii():
        return text
    text = _GROUPED.sub("", text.translate(_TYPED))
    text = _FRACTION.sub(lambda found: f"{int(found[1] or 0) + unicodedata.numeric(found[2]):g}", text)
    text = _RAISED.sub(lambda found: f"^{found[1]}", text)
    text = unicodedata.normalize("NFKC", text)
    return "".join(" " if not c.isascii() and unicodedata.category(c)[0] == "P" else c for c in text)


def by_chance(question: Question, others: Sequence[tuple[Question, str]]) -> bool:
    """Whether the model's answers to `others`, each with its own question, hold this one's answer too often."""
    accepted = {normalised(answer) for answer in question.answers}
    controls = [text for other, text in others if accepted.isdisjoint(map(normalised, other.answers))]
    holding = sum(is_right(text, question) for text in controls)
    return holding > MOST_BY_CHANCE * len(controls)


def same_answer(one: str, other: str) -> bool:
    """Whether the words of one stand in the other and are a good part of it, or say its value: "4" is not "on 4 May"."""
    one, other = plain(one), plain(other)
    if not (_holds(one, other) or _holds(other, one)):
        return False
    values = [{value.core for value in stated_values(each)} for each in (one, other)]
    if all(values):
        return not values[0].isdisjoint(values[1])
    sizes = sorted(len(plain_words(each).split()) for each in (one, other))
    return sizes[0] >= LEAST_OF_AN_ANSWER * sizes[1]
