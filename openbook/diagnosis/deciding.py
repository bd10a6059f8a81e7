"""Observations, each with its verdict and the reason in words. Only a few of them are in memory at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from openbook.diagnosis.observations import Observation, Wording
from openbook.diagnosis.verdicts import (
    CONTROLS,
    Asked,
    Judged,
    Observed,
    by_chance,
    holds_any,
    is_right,
    judge,
    same_answer,
)

_Item = TypeVar("_Item")


def judged(observations: Iterable[Observation]) -> Iterator[tuple[Observation, Judged]]:
    """In order. A function of the observations alone: judging again after a change of the rules asks no model."""
    for observation, others in with_neighbours(observations, CONTROLS):
        yield observation, judge(observed(observation, others))


def observed(observation: Observation, others: Sequence[Observation] = ()) -> Observed:
    question = observation.question
    asked = tuple(_asked(observation, wording) for wording in observation.asked)
    chance = False
    if question.answers and all(each.closed for each in asked):
        alone = [(o.question, o.asked[0].closed) for o in others]
        chance = by_chance(question, [(q, said.text) for q, said in alone if not said.failure])
    return Observed(bool(question.answers), asked, chance, bool(observation.failure))


def _asked(observation: Observation, wording: Wording) -> Asked:
    question, opened = observation.question, wording.opened
    found = [seen for seen in observation.passages if seen.id in wording.found]
    right = not opened.abstained and is_right(opened.text, question)
    from_memory = (
        not (right or opened.abstained or wording.closed.abstained or wording.cited)
        and same_answer(opened.text, wording.closed.text)
        and not any(holds_any(seen.text, [opened.text]) for seen in found)
    )
    oracle = wording.oracle
    return Asked(
        closed=not wording.closed.abstained and is_right(wording.closed.text, question),
        opened=right,
        abstained=opened.abstained,
        oracle=None if oracle is None else not oracle.abstained and is_right(oracle.text, question),
        reached=any(seen.gold for seen in found),
        from_memory=from_memory,
    )


def with_neighbours(items: Iterable[_Item], reach: int) -> Iterator[tuple[_Item, list[_Item]]]:
    """Each item with up to `reach` before and `reach` after it."""
    source = iter(items)
    before: deque[_Item] = deque(maxlen=reach)
    ahead = deque(islice(source, reach + 1))
    while ahead:
        item = ahead.popleft()
        yield item, [*before, *ahead]
        before.append(item)
        ahead.extend(islice(source, 1))


def reason(observation: Observation, found: Judged) -> str:
    """Why this verdict, in a sentence or two."""
    wording = observation.asked[found.wording]
    text = _why(observation, found, wording)
    if found.from_memory:
        text += " It answered from memory against the passage."
    if found.wording and found.verdict not in ("known", "fixed_by_retrieval"):
        text += f" (Asked as: {wording.text})"
    return text


def _why(observation: Observation, found: Judged, wording: Wording) -> str:
    given = len(wording.found)
    match found.verdict:
        case "failed":
            return f"The model failed on a request: {observation.failure}"
        case "known":
            silent = " No passage holds an answer, and with documents it said so." if found.silence else ""
            return f"Right without documents{_each_wording(observation)}.{silent}"
        case "fixed_by_retrieval":
            alone = "wrong" if not _right_alone(observation) else "not reliably right"
            return f"Alone {alone}, with {given} passages right."
        case "not_in_the_knowledge_base":
            what = "said so" if found.silence == "abstained" else "gave an answer all the same"
            return f"No passage is known to hold an answer; the model {what}."
        case "retriever_miss":
            where = f"stands at rank {wording.rank}" if wording.rank else "is not among the first found"
            return f"The passage that holds the answer {where}; {given} were given to the reader. From it the model answers right."
        case "distracted":
            return f"The passage was among the {given} given to the reader, at rank {wording.rank}. From it alone the model answers right."
        case "reader_gap":
            return "With nothing but the passage that holds the answer, the model does not give it."
        case "harmed_by_retrieval":
            what = "said that they do not tell" if wording.opened.abstained else "answered wrong"
            return f"Right without documents; with {given} passages it {what}."


def _right_alone(observation: Observation) -> bool:
    return any(_asked(observation, wording).closed for wording in observation.asked)


def _each_wording(observation: Observation) -> str:
    return f" in all {len(observation.asked)} wordings" if len(observation.asked) > 1 else ""
