"""A diagnosis in numbers: shares of verdicts, overall and by tag, what was found, and what it cost.

Every share comes with its 95 % interval (Wilson). Requests on which the model failed are in no share.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, get_args

from openbook.diagnosis.questions import Question
from openbook.diagnosis.run_log import Header, Mode, Observation
from openbook.diagnosis.scoring import Interval, interval
from openbook.diagnosis.verdicts import VERDICTS, Judgement, Verdict, reply_is_right
from openbook.records import Digest, canonical_json, sha256_hex

FORMAT = 1
SHARED: tuple[Verdict, ...] = VERDICTS[:-1]  # all but failed: these sum to 1
MISSES: tuple[Verdict, ...] = ("retriever_miss", "distracted", "reader_gap", "harmed_by_retrieval")
RANKS = (1, 3, 5, 10, 20)
MODES: tuple[Mode, ...] = get_args(Mode)
MOST_TAGS = 1000  # that are counted
_RequestCost: TypeAlias = tuple[float, int | None, int | None]  # seconds, tokens read, tokens written


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `of`; `low` and `high` are its 95 % interval (Wilson), None without data."""

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
    found = interval([1.0] * count + [0.0] * (of - count))
    return Share(count, of, found.mean, found.low, found.high)


def share_of(found: Sequence[bool]) -> Share:
    """The share of those that are true."""
    return share(sum(found), len(found))


@dataclass(frozen=True, slots=True)
class Cost:
    """What a mode cost. Tokens are those that the engine counted; None when it counts none."""

    requests: int
    seconds: float
    prompt_tokens: int | None
    answer_tokens: int | None

    @property
    def seconds_each(self) -> float | None:
        return self.seconds / self.requests if self.requests else None


@dataclass(frozen=True, slots=True)
class Group:
    """Questions with something in common. `right`: with documents; see `Judgement.right`."""

    questions: int
    failed: int
    verdicts: Mapping[Verdict, Share]
    right: Share


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Over the questions with a passage that is known to hold the answer. `found[k]`: one such is among the first k.

    `reached`: among those given to the reader. `mrr`: the mean of 1/rank, 0 beyond the deepest rank.
    """

    questions: int
    found: Mapping[int, Share]
    reached: Share
    mrr: Interval


@dataclass(frozen=True, slots=True)
class Outcome:
    """One question in short, for comparing. `question`: see `words_digest`."""

    id: str
    verdict: Verdict
    right: bool
    question: Digest


def words_digest(question: Question) -> Digest:
    """The first 16 digits of a digest over all that an answer is judged by: wordings, kind and accepted answers, in any order."""
    answers = sorted(question.answers)
    return sha256_hex(canonical_json([list(question.wordings), question.kind, answers]))[:16]


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """`right_in`: of the questions with an answer, right in each mode in every wording (oracle: if there is one).

    `misses_within_depth`: retriever misses whose passage is among the deepest that are looked at. `misses_cut_off`: those of
    them whose rank is within the number of passages to read, so that something else kept it from the reader.
    """

    header: Header
    overall: Group
    by_kind: Mapping[str, Group]
    by_tag: Mapping[str, Group]
    right_in: Mapping[str, Share]
    abstained: Share
    from_memory: int
    misses_within_depth: int
    misses_cut_off: int
    retrieval: Retrieval
    costs: Mapping[str, Cost]
    outcomes: tuple[Outcome, ...]

    @property
    def name(self) -> str:
        return self.header.model.name


def summarise(header: Header, judgements: Iterable[tuple[Observation, Judgement]]) -> ModelSummary:
    """Keeps of each question its verdict and numbers, no text."""
    outcomes: list[Outcome] = []
    found: list[Judgement] = []
    kinds, tags = defaultdict[str, list[Judgement]](list), defaultdict[str, list[Judgement]](list)
    right: dict[Mode, list[bool]] = {mode: [] for mode in MODES}  # of each question with an answer, whether it was
    spent: dict[Mode, list[_RequestCost]] = {mode: [] for mode in MODES}  # without failed requests
    ranks: list[int] = []  # of the questions with a passage that holds an answer
    reached: list[bool] = []  # for the same ones
    missed: list[int] = []  # ranks of what the retriever missed
    for observation, each in judgements:
        question = observation.question
        outcomes.append(Outcome(question.id, each.verdict, each.right, words_digest(question)))
        found.append(each)
        kinds[question.kind].append(each)
        for tag in question.tags:
            if tag in tags or len(tags) < MOST_TAGS:
                tags[tag].append(each)
        for mode in MODES:
            replies = [reply for wording in observation.asked if (reply := wording.reply(mode)) is not None]
            spent[mode] += [(r.seconds, r.prompt_tokens, r.answer_tokens) for r in replies if not r.failure]
            if question.answers and len(replies) == len(observation.asked) and not observation.failure:
                right[mode].append(all(reply_is_right(reply, question) for reply in replies))
        if observation.holding and each.verdict != "failed":
            first = observation.asked[0]
            ranks.append(first.rank)
            reached.append(any(p.gold and p.id in first.found for p in observation.passages))
        if each.verdict == "retriever_miss":
            missed.append(observation.asked[each.wording].rank)
    silent = [each.silence == "abstained" for each in found if each.verdict == "not_in_the_knowledge_base"]
    return ModelSummary(
        header=header,
        overall=_group(found),
        by_kind={kind: _group(each) for kind, each in sorted(kinds.items())},
        by_tag={tag: _group(each) for tag, each in sorted(tags.items())},
        right_in={mode: share_of(each) for mode, each in right.items()},
        abstained=share_of(silent),
        from_memory=sum(each.from_memory for each in found),
        misses_within_depth=sum(rank > 0 for rank in missed),
        misses_cut_off=sum(0 < rank <= header.passages for rank in missed),
        retrieval=Retrieval(
            len(ranks),
            {k: share_of([0 < rank <= k for rank in ranks]) for k in RANKS},
            share_of(reached),
            interval([1.0 / rank if rank else 0.0 for rank in ranks]),
        ),
        costs={mode: _cost(each) for mode, each in spent.items()},
        outcomes=tuple(outcomes),
    )


def _cost(spent: Sequence[_RequestCost]) -> Cost:
    read = [prompt_tokens for _, prompt_tokens, _ in spent if prompt_tokens is not None]
    written = [answer_tokens for _, _, answer_tokens in spent if answer_tokens is not None]
    counted = bool(spent) and len(read) == len(written) == len(spent)
    seconds = sum((each[0] for each in spent), 0.0)
    return Cost(len(spent), seconds, *((sum(read), sum(written)) if counted else (None, None)))


def _group(found: Sequence[Judgement]) -> Group:
    verdicts = Counter(each.verdict for each in found)
    failed = verdicts["failed"]
    shares = {verdict: share(verdicts[verdict], len(found) - failed) for verdict in SHARED}
    return Group(len(found), failed, shares, share(sum(each.right for each in found), len(found) - failed))


def to_json(summary: ModelSummary) -> dict[str, Any]:
    value = asdict(summary)
    value["retrieval"]["found"] = {str(k): each for k, each in value["retrieval"]["found"].items()}
    if math.isnan(summary.retrieval.mrr.mean):
        value["retrieval"]["mrr"] = None
    return value
