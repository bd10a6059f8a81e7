"""A diagnosis in numbers: shares of verdicts, overall and by tag, what was found, and what it cost.

Every share comes with its 95 % interval (Wilson). Requests on which the model failed are in no share.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from openbook.diagnosis.questions import Question
from openbook.diagnosis.run_log import Header, Mode, Observation
from openbook.diagnosis.scoring import Interval, interval, is_right
from openbook.diagnosis.verdicts import VERDICTS, Judgement, Verdict
from openbook.records import Digest, canonical_json, sha256_hex

FORMAT = 1
SHARED: tuple[Verdict, ...] = VERDICTS[:-1]  # all but failed: these sum to 1
MISSES: tuple[Verdict, ...] = ("retriever_miss", "distracted", "reader_gap", "harmed_by_retrieval")
RANKS = (1, 3, 5, 10, 20)
MODES: tuple[Mode, ...] = get_args(Mode)
MOST_TAGS = 1000  # that are counted


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
    return Share(count, of, found.mean, max(0.0, found.low), min(1.0, found.high))


@dataclass(frozen=True, slots=True)
class Cost:
    """What a mode took. Tokens are those that the engine counted; None when it counts none."""

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
    """One question in short, for comparing. `question`: see `words_digest`; empty in files of older versions."""

    id: str
    verdict: Verdict
    right: bool
    question: Digest = ""


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


@dataclass(slots=True)
class _GroupCounts:
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    right: int = 0

    def add(self, found: Judgement) -> None:
        self.verdicts[found.verdict] += 1
        self.right += found.right

    def group(self) -> Group:
        failed, whole = self.verdicts["failed"], self.verdicts.total()
        shares = {verdict: share(self.verdicts[verdict], whole - failed) for verdict in SHARED}
        return Group(whole, failed, shares, share(self.right, whole - failed))


@dataclass(slots=True)
class _ModeCounts:
    """`asked` and `right`: questions with an answer. The others count requests on which the model did not fail."""

    asked: int = 0
    right: int = 0
    requests: int = 0
    seconds: float = 0.0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    counted: bool = True  # by the engine

    def add(self, observation: Observation, mode: Mode) -> None:
        replies = [wording.reply(mode) for wording in observation.asked]
        for reply in replies:
            if reply is not None and not reply.failure:
                self.requests += 1
                self.seconds += reply.seconds
                self.counted &= reply.prompt_tokens is not None and reply.answer_tokens is not None
                self.prompt_tokens += reply.prompt_tokens or 0
                self.answer_tokens += reply.answer_tokens or 0
        question = observation.question
        if question.answers and None not in replies and not observation.failure:
            self.asked += 1
            self.right += all(r is not None and not r.abstained and is_right(r.text, question) for r in replies)

    def cost(self) -> Cost:
        counted = self.counted and self.requests > 0
        tokens = (self.prompt_tokens, self.answer_tokens) if counted else (None, None)
        return Cost(self.requests, self.seconds, *tokens)


def summarise(header: Header, judgements: Iterable[tuple[Observation, Judgement]]) -> ModelSummary:
    """Holds counts, and of each question its verdict."""
    overall, counts = _GroupCounts(), Counter[str]()
    kinds, tags = defaultdict[str, _GroupCounts](_GroupCounts), defaultdict[str, _GroupCounts](_GroupCounts)
    modes = {mode: _ModeCounts() for mode in MODES}
    ranks: Counter[int] = Counter()
    outcomes: list[Outcome] = []
    for observation, found in judgements:
        question = observation.question
        outcomes.append(Outcome(question.id, found.verdict, found.right, words_digest(question)))
        overall.add(found)
        kinds[question.kind].add(found)
        for tag in question.tags:
            if tag in tags or len(tags) < MOST_TAGS:
                tags[tag].add(found)
        for mode, each in modes.items():
            each.add(observation, mode)
        if found.verdict == "failed":
            continue
        counts["from memory"] += found.from_memory
        if found.verdict == "not_in_the_knowledge_base":
            counts[found.silence] += 1
        if observation.holding:
            first = observation.asked[0]
            ranks[first.rank] += 1
            counts["reached"] += any(each.gold and each.id in first.found for each in observation.passages)
        if found.verdict == "retriever_miss":
            rank = observation.asked[found.wording].rank
            counts["miss within depth"] += rank > 0
            counts["miss cut off"] += 0 < rank <= header.passages
    held = ranks.total()
    within = {k: share(sum(n for rank, n in ranks.items() if 0 < rank <= k), held) for k in RANKS}
    reciprocal = [1.0 / rank if rank else 0.0 for rank in ranks.elements()]
    return ModelSummary(
        header=header,
        overall=overall.group(),
        by_kind={kind: each.group() for kind, each in sorted(kinds.items())},
        by_tag={tag: each.group() for tag, each in sorted(tags.items())},
        right_in={mode: share(each.right, each.asked) for mode, each in modes.items()},
        abstained=share(counts["abstained"], counts["abstained"] + counts["invented"]),
        from_memory=counts["from memory"],
        misses_within_depth=counts["miss within depth"],
        misses_cut_off=counts["miss cut off"],
        retrieval=Retrieval(held, within, share(counts["reached"], held), interval(reciprocal)),
        costs={mode: each.cost() for mode, each in modes.items()},
        outcomes=tuple(outcomes),
    )


def to_json(summary: ModelSummary) -> dict[str, Any]:
    value = asdict(summary)
    value["retrieval"]["found"] = {str(k): each for k, each in value["retrieval"]["found"].items()}
    if math.isnan(summary.retrieval.mrr.mean):
        value["retrieval"]["mrr"] = None
    return value
