"""One verdict for each question. Pure functions; every combination has exactly one verdict.

| verdict | alone | with documents | with the passage |
|---|---|---|---|
| known | right | right, or rightly says that they do not hold it | |
| harmed_by_retrieval | right | wrong | |
| fixed_by_retrieval | wrong | right | |
| retriever_miss | wrong | wrong: the passage was not given to the reader | right |
| distracted | wrong | wrong, though the passage was given | right |
| reader_gap | wrong | wrong | wrong |
| not_in_the_knowledge_base | wrong | wrong: no passage holds an answer | |
| failed | the model failed on a request: counted apart, never as wrong | | |

**Right** means right in every wording. Otherwise the first wording with a wrong open-book answer decides; if no passage
holds the answer, the first with an invented one.

**Known** answers are right alone, and not by chance: if more than 1 in 20 of the model's closed-book answers to
neighboring questions (up to `CONTROLS` on each side, except those with a common answer) hold an accepted answer ("yes",
"2"), being right shows nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeAlias, TypeVar, get_args

from openbook.diagnosis.questions import Question
from openbook.diagnosis.run_log import Observation, Reply, ShownPassage, Wording
from openbook.diagnosis.scoring import is_right, normalised, same_answer, text_holds_any

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
WithoutPassage: TypeAlias = Literal["", "abstained", "invented"]

CONTROLS = 32  # answers to other questions on each side
MAX_BY_CHANCE = 1 / 20  # the share of them that may hold the answer
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class QuestionVerdict:
    """`without_passage`: what the model did if no passage holds an answer. `wording_index`: of the wording that
    decided.

    `right`: with documents it answered right, or rightly said that they do not hold the answer. `from_memory`: it
    answered from memory against a given passage.
    """

    verdict: Verdict
    right: bool
    without_passage: WithoutPassage = ""
    wording_index: int = 0
    from_memory: bool = False


def verdicts_of(observations: Iterable[Observation]) -> Iterator[tuple[Observation, QuestionVerdict]]:
    """Judge in order, with few observations in memory. Needs no model."""
    for observation, others in with_neighbours(observations, CONTROLS):
        yield observation, verdict_of(observation, others)


def verdict_of(observation: Observation, others: Sequence[Observation] = ()) -> QuestionVerdict:
    """`others`: observations of the same model, for `by_chance`."""
    question, asked = observation.question, observation.asked
    if observation.failure:
        return QuestionVerdict("failed", right=False)
    if not question.answers:
        return _unfound(asked, next((i for i, each in enumerate(asked) if not each.opened.abstained), 0))
    known = all(reply_is_right(each.closed, question) for each in asked) and not by_chance(question, others)
    wrong = [i for i, each in enumerate(asked) if not reply_is_right(each.opened, question)]
    if not wrong:
        return QuestionVerdict("known" if known else "fixed_by_retrieval", right=True)
    wording = wrong[0]
    if asked[wording].oracle is None:
        wording = next((i for i in wrong if not asked[i].opened.abstained), wording)
    decisive = asked[wording]
    given = [passage for passage in observation.passages if passage.id in decisive.found]
    reached = any(passage.gold for passage in given)
    from_memory = reached and _is_from_memory(decisive, given)
    if known:
        if decisive.oracle is None and decisive.opened.abstained:
            return QuestionVerdict("known", True, "abstained", wording)
        return QuestionVerdict("harmed_by_retrieval", False, "", wording, from_memory)
    if decisive.oracle is None:
        return _unfound(asked, wording)
    if not reply_is_right(decisive.oracle, question):
        return QuestionVerdict("reader_gap", False, "", wording, from_memory)
    return QuestionVerdict("distracted" if reached else "retriever_miss", False, "", wording, from_memory)


def _unfound(asked: Sequence[Wording], wording: int) -> QuestionVerdict:
    abstained = asked[wording].opened.abstained
    return QuestionVerdict("not_in_the_knowledge_base", abstained, "abstained" if abstained else "invented", wording)


def _is_from_memory(wording: Wording, given: Sequence[ShownPassage]) -> bool:
    """True if a wrong open-book answer equals the closed-book one, and is in no given passage."""
    closed, opened = wording.closed, wording.opened
    return (
        not (opened.abstained or closed.abstained or wording.cited)
        and same_answer(opened.text, closed.text)
        and not any(text_holds_any(passage.text, [opened.text]) for passage in given)
    )


def reply_is_right(reply: Reply, question: Question) -> bool:
    return not reply.abstained and is_right(reply.text, question)


def by_chance(question: Question, others: Sequence[Observation]) -> bool:
    """True if closed-book answers to other questions hold this answer too often."""
    accepted = {normalised(answer) for answer in question.answers}
    alone = [other.asked[0].closed for other in others if accepted.isdisjoint(map(normalised, other.question.answers))]
    controls = [reply.text for reply in alone if not reply.failure]
    return sum(is_right(text, question) for text in controls) > MAX_BY_CHANCE * len(controls)


def with_neighbours(items: Iterable[_Item], reach: int) -> Iterator[tuple[_Item, list[_Item]]]:
    """Each item with up to `reach` items before and after it."""
    source = iter(items)
    before: deque[_Item] = deque(maxlen=reach)
    ahead = deque(islice(source, reach + 1))
    while ahead:
        item = ahead.popleft()
        yield item, [*before, *ahead]
        before.append(item)
        ahead.extend(islice(source, 1))


def reason(observation: Observation, found: QuestionVerdict) -> str:
    text = _why(observation, found)
    if found.from_memory:
        text += " It answered from memory against the passage."
    if found.wording_index and found.verdict not in ("known", "fixed_by_retrieval"):
        text += f" (Asked as: {observation.asked[found.wording_index].text})"
    return text


def _why(observation: Observation, found: QuestionVerdict) -> str:
    wording = observation.asked[found.wording_index]
    given, question = len(wording.found), observation.question
    match found.verdict:
        case "failed":
            return f"The model failed on a request: {observation.failure}"
        case "known":
            everywhere = f" in all {len(observation.asked)} wordings" if len(observation.asked) > 1 else ""
            silent = " No passage holds an answer, and with documents it said so." if found.without_passage else ""
            return f"Right without documents{everywhere}.{silent}"
        case "fixed_by_retrieval":
            sometimes = any(reply_is_right(each.closed, question) for each in observation.asked)
            return f"Alone {'not reliably right' if sometimes else 'wrong'}, with {given} passages right."
        case "not_in_the_knowledge_base":
            what = "said so" if found.without_passage == "abstained" else "gave an answer all the same"
            return f"No passage is known to hold an answer; the model {what}."
        case "retriever_miss":
            where = f"stands at rank {wording.rank}" if wording.rank else "is not among the first found"
            return f"The passage that holds the answer {where}; {given} were given to the reader. From it the model answers right."
        case "distracted":
            return (
                f"A passage that holds the answer was among the {given} given to the reader (the first one found is at rank "
                f"{wording.rank}). From it alone the model answers right."
            )
        case "reader_gap":
            return "With nothing but the passage that holds the answer, the model does not give it."
        case "harmed_by_retrieval":
            what = "said that they do not tell" if wording.opened.abstained else "answered wrong"
            return f"Right without documents; with {given} passages it {what}."
