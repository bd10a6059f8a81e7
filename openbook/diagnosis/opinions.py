"""A second opinion: another model says of each answer whether it is right. The verdicts stay those of the rules.

Nobody knows how good such a judge is before it has been compared. What is reported is how far it agrees with the rules
(`scoring.is_right`), and where it does not; each disagreement is a mistake of the one or of the other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

from openbook.diagnosis.agreement import Agreement, agreement
from openbook.diagnosis.examining import Failing, Progress
from openbook.diagnosis.observations import Header, Observation, read_observations, read_records, recording
from openbook.diagnosis.questions import Question
from openbook.diagnosis.reading_back import record_of
from openbook.diagnosis.summary import MODES, answer_in
from openbook.diagnosis.verdicts import is_right
from openbook.errors import ConfigError, ContextOverflow, EngineError
from openbook.inference import FrozenModel
from openbook.records import Decoding, Prompt

Says: TypeAlias = Literal["yes", "no", "unclear", "failed"]
DECODING = Decoding(max_tokens=8, stop=("\n",))
MOST_SHOWN = 100  # disagreements

INSTRUCTION = (
    "You check answers. You are given a question, the accepted answers, and the answer of a student. Say yes if the "
    "student's answer means the same as an accepted answer, otherwise say no. Say nothing else."
)
_SAYS = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Opinion:
    """On one answer of a question: `wording` counts from 0, `mode` is one of `summary.MODES`."""

    wording: int
    mode: str
    answer: str
    says: Says


@dataclass(frozen=True, slots=True)
class Opinions:
    """On the answers to one question."""

    question: str
    opinions: tuple[Opinion, ...] = ()


@dataclass(frozen=True, slots=True)
class Disagreement:
    question: Question
    opinion: Opinion
    right: bool


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """`agreed`: on the answers of which the judge said yes or no. `unclear` and `failed` are in no share.

    `too_mild`: what it calls right and the rules wrong; `too_strict`: the other way round. `disagreements`: the first of them.
    """

    judge: str
    agreed: Agreement
    too_mild: int
    too_strict: int
    unclear: int
    failed: int
    disagreements: tuple[Disagreement, ...]

    def __str__(self) -> str:
        if not self.agreed.same.of:
            return f"The judge {self.judge} said yes or no to no answer: {self.unclear} unclear, {self.failed} failed."
        text = f"The judge {self.judge} agrees with the rules on {self.agreed}; it calls {self.too_mild} answers right that they call wrong, and {self.too_strict} wrong that they call right."
        if self.unclear or self.failed:
            text += f" Not counted: {self.unclear} unclear, {self.failed} failed."
        return text


def to_judge(observation: Observation) -> Iterator[tuple[int, str, str]]:
    """(wording, mode, answer) of what can be right or wrong: answers that are there, to a question with accepted ones."""
    if not observation.question.answers:
        return
    for number, wording in enumerate(observation.asked):
        for mode in MODES:
            said = answer_in(wording, mode)
            if said is not None and said.text.strip() and not (said.failure or said.abstained):
                yield number, mode, said.text


def judging_prompt(question: str, accepted: Sequence[str], answer: str) -> Prompt:
    """What the student wrote is one line, so that it cannot look like what follows it."""
    line = " ".join(answer.split())
    return Prompt(
        INSTRUCTION, (), f"Question: {question}\nAccepted answers: {' | '.join(accepted)}\nStudent's answer: {line}"
    )


def opinion_of(judge: FrozenModel, question: Question, wording: str, answer: str) -> Says:
    try:
        completion = judge.complete(judging_prompt(wording, question.answers, answer), DECODING)
    except (EngineError, ContextOverflow):
        return "failed"
    match = _SAYS.match(completion.text)
    if match is None:
        return "unclear"
    return "yes" if match[1].lower() == "yes" else "no"


def ask_judge(
    observed: Path,
    judge: FrozenModel,
    path: Path,
    *,
    limit: int | None = None,
    progress: Progress = lambda done, total: None,
) -> None:
    """Write what the judge says of the answers in the observations `observed` to `path`.

    What stands there is not asked again, unless the judge failed on it, or it is of other answers.
    Raises EngineError when the judge fails on every answer to many questions in a row; ConfigError, StorageError.
    """
    header, observations = read_observations(observed)
    with recording(path, judged_header(header, judge)) as record:
        failing = Failing()
        for place, observation in record.missing(islice(observations, limit), _opinions_of, _stands):
            found = _opinions(judge, observation)
            failed = all(each.says == "failed" for each in found.opinions) if found.opinions else None
            if failing.saw(place, failed):
                raise EngineError(
                    f"The judge {judge.identity.name} failed on {failing.questions} questions in a row, so it is asked no more. "
                    "When that is put right, run the same command to go on."
                )
            progress(record.append(found), limit or 0)


def _opinions_of(value: Any) -> Opinions:
    return record_of(Opinions, value)


def _stands(observation: Observation, there: Opinions) -> bool:
    """Whether the judge need not be asked again."""
    return _are_of(there, observation) and all(each.says != "failed" for each in there.opinions)


def _are_of(found: Opinions, observation: Observation) -> bool:
    seen = tuple((each.wording, each.mode, each.answer) for each in found.opinions)
    return (found.question, seen) == (observation.question.id, tuple(to_judge(observation)))


def judged_header(header: Header, judge: FrozenModel) -> Header:
    """That of the observations, with the judge in the place of the model."""
    identity, numeric_class = judge.identity, judge.engine.numeric_class
    return replace(
        header, model=identity, numeric_class=numeric_class, decoding=DECODING, context_tokens=judge.context_tokens
    )


def _opinions(judge: FrozenModel, observation: Observation) -> Opinions:
    said: dict[tuple[int, str], Says] = {}
    found = []
    for wording, mode, answer in to_judge(observation):
        key = (wording, answer)
        if key not in said:
            said[key] = opinion_of(judge, observation.question, observation.asked[wording].text, answer)
        found.append(Opinion(wording, mode, answer, said[key]))
    return Opinions(observation.question.id, tuple(found))


def second_opinion(observed: Path, opinions: Path, limit: int | None = None) -> SecondOpinion:
    """How far what stands in `opinions` agrees with the rules. Raises ConfigError when it is of other answers; StorageError."""
    header, said = read_records(opinions, _opinions_of)
    pairs = islice(zip(read_observations(observed)[1], said, strict=False), limit)
    return counted(header.model.name, pairs, opinions)


def counted(judge: str, pairs: Iterable[tuple[Observation, Opinions]], path: Path) -> SecondOpinion:
    said = Counter[tuple[bool, bool]]()  # (right by the rules, yes by the judge)
    disagreements: list[Disagreement] = []
    unclear = failed = 0
    for observation, found in pairs:
        if not _are_of(found, observation):
            raise ConfigError(f"{path} is of other answers to {observation.question.id!r}. Delete the file.")
        for each in found.opinions:
            unclear += each.says == "unclear"
            failed += each.says == "failed"
            if each.says in ("unclear", "failed"):
                continue
            right, yes = is_right(each.answer, observation.question), each.says == "yes"
            said[right, yes] += 1
            if right != yes and len(disagreements) < MOST_SHOWN:
                disagreements.append(Disagreement(observation.question, each, right))
    return SecondOpinion(
        judge,
        agreement(said.elements()),
        said[False, True],
        said[True, False],
        unclear,
        failed,
        tuple(disagreements),
    )
