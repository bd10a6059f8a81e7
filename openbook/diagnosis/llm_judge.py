"""A second opinion: another model says of each answer whether it is right. The verdicts stay those of the rules.

Nobody knows how good such a judge is before it has been compared. So the result is how far it agrees with the rules
(`scoring.is_right`), and where it does not: each disagreement is a mistake of the one or of the other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias

from openbook.diagnosis.questions import Question
from openbook.diagnosis.run_log import Mode, Observation, open_run_log, read_observations
from openbook.diagnosis.scoring import is_right
from openbook.diagnosis.summary import MODES, Share, share_of
from openbook.errors import ContextOverflow, EngineError
from openbook.inference import FrozenModel
from openbook.parallel import Progress, in_order, never
from openbook.records import Decoding, Prompt

JudgeReply: TypeAlias = Literal["yes", "no", "unclear"]
DECODING = Decoding(max_tokens=8, stop=("\n",))
MAX_SHOWN = 100  # disagreements
INSTRUCTION = (
    "You check answers. You are given a question, the accepted answers, and the answer of a student. Say yes if the "
    "student's answer means the same as an accepted answer, otherwise say no. Say nothing else."
)


@dataclass(frozen=True, slots=True)
class Agreement:
    """`kappa`: 1 for full agreement, 0 for that of chance; None without data, or if both always said the same one thing."""

    same: Share
    kappa: float | None

    def __str__(self) -> str:
        return f"{self.same}, {'no kappa' if self.kappa is None else f'kappa {self.kappa:.2f}'}"


def agreement(pairs: Iterable[tuple[Hashable, Hashable]]) -> Agreement:
    """How far two judges agree; a pair is what both said of one thing. Source of kappa: Cohen (1960)."""
    said = list(pairs)
    same = share_of([a == b for a, b in said])
    if same.share is None:
        return Agreement(same, None)
    one, other = Counter(a for a, _ in said), Counter(b for _, b in said)
    by_chance = sum(one[verdict] * other[verdict] for verdict in one) / len(said) ** 2
    return Agreement(same, None if by_chance == 1.0 else (same.share - by_chance) / (1.0 - by_chance))


@dataclass(frozen=True, slots=True)
class JudgeReplies:
    """What the judge says of each different answer to one question, whose id is `question`."""

    question: str
    says: Mapping[str, JudgeReply]


@dataclass(frozen=True, slots=True)
class Disagreement:
    question: Question
    mode: Mode
    answer: str
    right: bool


@dataclass(frozen=True, slots=True)
class JudgeAgreement:
    """`agreed`: on the answers of which the judge said yes or no; those of which it is `unclear` are in no share.

    `too_mild`: it calls right what the rules call wrong; `too_strict`: the other way round. `disagreements`: the first of them.
    """

    judge: str
    agreed: Agreement
    too_mild: int
    too_strict: int
    unclear: int
    disagreements: tuple[Disagreement, ...]

    def __str__(self) -> str:
        return (
            f"The judge {self.judge} agrees with the rules on {self.agreed}; it calls {self.too_mild} answers right that they "
            f"call wrong, and {self.too_strict} wrong that they call right. On {self.unclear} answers it said neither yes nor no."
        )


def to_judge(observation: Observation) -> list[tuple[Mode, str]]:
    """(mode, answer) of what can be right or wrong: not failed, no abstention, and the question has accepted answers."""
    asked = observation.asked if observation.question.answers else ()
    replies = [(mode, wording.reply(mode)) for wording in asked for mode in MODES]
    return [(m, r.text) for m, r in replies if r is not None and r.text.strip() and not (r.failure or r.abstained)]


def ask(judge: FrozenModel, question: Question, answer: str) -> JudgeReply:
    """Raises EngineError."""
    asked = f"Question: {question.question}\nAccepted answers: {' | '.join(question.answers)}"
    line = " ".join(answer.split())  # cannot look like what follows it
    try:
        said = judge.complete(Prompt(INSTRUCTION, (), f"{asked}\nStudent's answer: {line}"), DECODING).text
    except ContextOverflow:
        return "unclear"
    found = re.match(r"\W*(yes|no)\b", said, re.IGNORECASE)
    return "unclear" if found is None else "yes" if found[1].lower() == "yes" else "no"


def second_opinion(
    observed: Path,
    judge: FrozenModel,
    path: Path,
    questions: int,
    *,
    at_once: int = 1,
    progress: Progress = lambda done, total: None,
) -> JudgeAgreement:
    """Ask the judge about the answers to the first `questions` in a file of observations, keep in `path` what it says, and compare.

    `at_once`: how many answers to one question it is asked about at the same time; what it says does not depend on it.
    Nothing is asked twice, unless an answer has changed. Raises EngineError when the judge fails: what it said before is
    kept, and the next run goes on. Raises ConfigError, StorageError.
    """
    header, observations = read_observations(observed)
    header = replace(
        header,
        model=judge.identity,
        numeric_class=judge.engine.numeric_class,
        decoding=DECODING,
        context_tokens=judge.context_tokens,
    )
    pairs: list[tuple[bool, JudgeReply]] = []  # (right by the rules, what the judge says)
    differ: list[Disagreement] = []
    with open_run_log(path, header, JudgeReplies) as log:
        for done, observation in enumerate(islice(observations, questions), 1):
            question, answers = observation.question, to_judge(observation)
            there = log.find(question.id)
            if there is None or set(there.says) != {answer for _, answer in answers}:
                there = _replies(judge, question, [answer for _, answer in answers], at_once)
                log.append(there)
                progress(done, questions)
            for mode, answer in answers:
                right, said = is_right(answer, question), there.says[answer]
                pairs.append((right, said))
                if said == ("no" if right else "yes") and len(differ) < MAX_SHOWN:
                    differ.append(Disagreement(question, mode, answer, right))
    agreed = agreement((right, said == "yes") for right, said in pairs if said != "unclear")
    too_mild, too_strict = pairs.count((False, "yes")), pairs.count((True, "no"))
    unclear = len(pairs) - agreed.same.of
    return JudgeAgreement(judge.identity.name, agreed, too_mild, too_strict, unclear, tuple(differ))


def _replies(judge: FrozenModel, question: Question, answers: Iterable[str], at_once: int) -> JudgeReplies:
    """Raises EngineError."""
    asked = in_order(lambda answer, _: ask(judge, question, answer), dict.fromkeys(answers), at_once, never)
    try:
        with closing(asked):
            return JudgeReplies(question.id, dict(asked))
    except EngineError as error:
        raise EngineError(
            f"The judge {judge.identity.name} failed on an answer to {question.id!r}: {error} "
            "What it said before is kept. When that is put right, run the same command to go on."
        ) from error
