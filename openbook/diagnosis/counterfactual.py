"""Does an answer follow the passage or the weights? A value in a copy of the passage is altered, and the copy is read.

The new value is of the same type and stands nowhere else in the passage; no accepted answer is left in it. So an answer
with the new value can only come from the passage, and one with an accepted answer only from the model's memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from openbook.diagnosis.altering import Change, accepted_now, changes, names_in, put, standing, within_another
from openbook.diagnosis.examining import Bench, ask_alone
from openbook.diagnosis.probing import Case, Read, left_out, made_up, read, right, shares, tells
from openbook.diagnosis.questions import Question
from openbook.diagnosis.summary import Share
from openbook.diagnosis.verdicts import holds_any, is_right, same_answer
from openbook.inference.frozen import Cancelled
from openbook.records import Passage

OUTCOMES = ("passage", "weights", "neither", "abstained")
_ROWS = ("followed the altered passage", "followed the weights", "neither", "abstained")


@dataclass(frozen=True, slots=True)
class Altered:
    """A copy of the passage with another value, and what says that value."""

    passage: Passage
    change: Change
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CounterfactualTrial:
    """`before`: the answer from the passage as it is; `after`: from the altered copy."""

    id: str
    outcome: str
    kind: str = ""
    old: str = ""
    new: str = ""
    before: str = ""
    after: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """Over the questions that the model answers right from the passage as it is."""

    followed: Mapping[str, Share]
    left_out: Mapping[str, int]
    trials: tuple[CounterfactualTrial, ...]

    def rows(self) -> list[tuple[str, Share]]:
        return [(name, self.followed[outcome]) for name, outcome in zip(_ROWS, OUTCOMES, strict=True)]

    def meaning(self) -> str:
        passage, weights = self.followed["passage"], self.followed["weights"]
        if not passage.of:
            return "No question has an answer that the model reads right and whose value could be altered."
        text = f"When a value in the passage is altered, the answer follows the passage in {passage} and the weights in {weights}."
        if weights.count > passage.count:
            return text + " It is the model's memory that answers: changing a document would not change what it says."
        if weights.count:
            return (
                text
                + " Some answers come from memory against the passage, so changing a document is not sure to change them."
            )
        return text + " No answer came from memory against the passage."


def trial(case: Case, bench: Bench, cancelled: Cancelled) -> CounterfactualTrial:
    """Raises Stopped."""
    question = case.question
    if case.gold is None:
        return CounterfactualTrial(question.id, "no passage holds the answer")
    copy = altered(case.gold.passage, question, names_in(hit.passage.text for hit in case.rest))
    if copy is None:
        return CounterfactualTrial(question.id, "no value that can be altered")
    before = read(bench, question.question, [case.gold], cancelled)
    seen = CounterfactualTrial(
        question.id, "", copy.change.kind, copy.change.old, copy.change.new, before.text, "", before.said.failure
    )
    if before.said.failure:
        return seen
    if not right(before, question):
        return replace(seen, outcome="not read right as it is")
    after = read(bench, question.question, [made_up(copy.passage)], cancelled)
    if after.said.failure:
        return replace(seen, failure=after.said.failure)
    return replace(seen, after=after.text, outcome=_followed(after, copy, question, bench, cancelled))


def altered(passage: Passage, question: Question, names: Sequence[str]) -> Altered | None:
    """The passage with another value in the answer's place, everywhere; None where no value can be altered without doubt."""
    if holds_any(question.question, question.answers):
        return None  # an answer that repeats the question would look like one from memory
    for answer in sorted(question.answers, key=len, reverse=True):
        spans = standing(passage.text, answer)
        if not spans or any(within_another(passage.text, span) for span in spans):
            continue
        start, end = spans[0]
        for change in changes(passage.text[start:end], names, question.id):
            answers = accepted_now(change, question.answers)
            copy = with_change(passage, change)
            if not (tells(copy, question.answers) or tells(passage, answers) or holds_any(question.question, answers)):
                return Altered(copy, change, answers)
    return None


def with_change(passage: Passage, change: Change) -> Passage:
    """The same passage with the new value in its text, and above it."""
    text, headings = put(passage.text, change), tuple(put(heading, change) for heading in passage.headings)
    return replace(
        passage, text=text, end=passage.start + len(text), title=put(passage.title, change), headings=headings
    )


def _followed(after: Read, copy: Altered, question: Question, bench: Bench, cancelled: Cancelled) -> str:
    if after.silent:
        return "abstained"
    new, old = is_right(after.text, replace(question, answers=copy.answers)), is_right(after.text, question)
    if new and old:  # most words of an accepted sentence are there; the altered ones decide
        change = copy.change
        new, old = (bool(standing(after.text, part)) for part in (change.new_part, change.part))
    if new != old:
        return "passage" if new else "weights"
    if not new and not tells(copy.passage, [after.text]):
        alone = ask_alone(bench, question.question, cancelled)
        if not (alone.failure or alone.abstained) and same_answer(after.text, alone.text):
            return "weights"
    return "neither"


def result(trials: Sequence[CounterfactualTrial]) -> Counterfactual:
    return Counterfactual(shares(trials, OUTCOMES), left_out(trials, OUTCOMES), tuple(trials))
