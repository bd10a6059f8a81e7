"""A diagnosis in numbers: shares of verdicts, overall and by tag, what was found, and what it cost.

Every share comes with its 95 % interval (Wilson). Requests on which the model failed are in no share.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from openbook.diagnosis.observations import Header, Observation, Said
from openbook.diagnosis.questions import Question
from openbook.diagnosis.scoring import Interval, interval
from openbook.diagnosis.verdicts import VERDICTS, Judged, Verdict, is_right
from openbook.records import Digest, canonical_json, sha256_hex

FORMAT = 1
SHARED: tuple[Verdict, ...] = VERDICTS[:-1]  # all but failed: these sum to 1
MISSES: tuple[Verdict, ...] = ("retriever_miss", "distracted", "reader_gap", "harmed_by_retrieval")
RANKS = (1, 3, 5, 10, 20)
MODES = ("closed_book", "open_book", "oracle")
MOST_TAGS = 1000  # that are counted


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `of`; `low` and `high` are its 95 % interval (Wilson), None where there is no data."""

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
    """Questions with something in common. `right`: with documents; see `Judged.right`."""

    questions: int
    failed: int
    verdicts: Mapping[Verdict, Share]
    right: Share


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Over the questions of which a passage is known to hold the answer. `found[k]`: one such is among the first k.

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
    """`right_in`: of the questions with an answer, right in each mode in every wording (oracle: where there is one).

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


class _Counting:
    def __init__(self) -> None:
        self.verdicts: Counter[Verdict] = Counter()
        self.right = 0

    def add(self, found: Judged) -> None:
        self.verdicts[found.verdict] += 1
        self.right += found.right

    def group(self) -> Group:
        failed = self.verdicts["failed"]
        whole = sum(self.verdicts.values())
        shares = {verdict: share(self.verdicts[verdict], whole - failed) for verdict in SHARED}
        return Group(whole, failed, shares, share(self.right, whole - failed))


class Summing:
    """Takes one judged observation after the other; keeps counts, and of each question its verdict."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._overall, self._kinds, self._tags = _Counting(), dict[str, _Counting](), dict[str, _Counting]()
        self._right, self._asked = Counter[str](), Counter[str]()
        self._costs: dict[str, list[Said]] = {}
        self._totals = {mode: [0, 0.0, 0, 0] for mode in MODES}
        self._uncounted: set[str] = set()
        self._ranks: Counter[int] = Counter()
        self._reached = self._silent = self._nowhere = self._from_memory = self._near = self._cut_off = 0
        self._outcomes: list[Outcome] = []

    def add(self, observation: Observation, found: Judged) -> None:
        question = observation.question
        self._outcomes.append(Outcome(question.id, found.verdict, found.right, words_digest(question)))
        self._overall.add(found)
        self._kinds.setdefault(question.kind, _Counting()).add(found)
        for tag in question.tags:
            if tag in self._tags or len(self._tags) < MOST_TAGS:
                self._tags.setdefault(tag, _Counting()).add(found)
        self._add_costs(observation)
        if found.verdict == "failed":
            return
        self._add_modes(observation)
        self._from_memory += found.from_memory
        if found.verdict == "not_in_the_knowledge_base":
            self._nowhere += 1
            self._silent += found.silence == "abstained"
        if observation.holding:
            first = observation.asked[0]
            self._ranks[first.rank] += 1
            self._reached += any(seen.gold and seen.id in first.found for seen in observation.passages)
        if found.verdict == "retriever_miss":
            rank = observation.asked[found.wording].rank
            self._near += rank > 0
            self._cut_off += 0 < rank <= self._header.passages

    def _add_costs(self, observation: Observation) -> None:
        for wording in observation.asked:
            for mode, said in zip(MODES, (wording.closed, wording.opened, wording.oracle), strict=True):
                if said is None or said.failure:
                    continue
                total = self._totals[mode]
                total[0] += 1
                total[1] += said.seconds
                if said.prompt_tokens is None or said.answer_tokens is None:
                    self._uncounted.add(mode)
                total[2] += said.prompt_tokens or 0
                total[3] += said.answer_tokens or 0

    def _add_modes(self, observation: Observation) -> None:
        question = observation.question
        if not question.answers:
            return
        for mode in MODES:
            answers = [answer_in(wording, mode) for wording in observation.asked]
            if None in answers:
                continue
            self._asked[mode] += 1
            self._right[mode] += all(a is not None and not a.abstained and is_right(a.text, question) for a in answers)

    def summary(self) -> ModelSummary:
        held = sum(self._ranks.values())
        within = {k: share(sum(n for rank, n in self._ranks.items() if 0 < rank <= k), held) for k in RANKS}
        reciprocal = [1.0 / rank if rank else 0.0 for rank, n in self._ranks.items() for _ in range(n)]
        return ModelSummary(
            header=self._header,
            overall=self._overall.group(),
            by_kind={kind: each.group() for kind, each in sorted(self._kinds.items())},
            by_tag={tag: each.group() for tag, each in sorted(self._tags.items())},
            right_in={mode: share(self._right[mode], self._asked[mode]) for mode in MODES},
            abstained=share(self._silent, self._nowhere),
            from_memory=self._from_memory,
            misses_within_depth=self._near,
            misses_cut_off=self._cut_off,
            retrieval=Retrieval(held, within, share(self._reached, held), interval(reciprocal)),
            costs={mode: self._cost(mode) for mode in MODES},
            outcomes=tuple(self._outcomes),
        )

    def _cost(self, mode: str) -> Cost:
        requests, seconds, prompt, answer = self._totals[mode]
        counted = mode not in self._uncounted and requests > 0
        return Cost(int(requests), seconds, int(prompt) if counted else None, int(answer) if counted else None)


def answer_in(wording: Any, mode: str) -> Said | None:
    said: Said | None = {"closed_book": wording.closed, "open_book": wording.opened, "oracle": wording.oracle}[mode]
    return said


def summarise(header: Header, judged: Iterable[tuple[Observation, Judged]]) -> ModelSummary:
    summing = Summing(header)
    for observation, found in judged:
        summing.add(observation, found)
    return summing.summary()


# --- as JSON ----------------------------------------------------------------------------------------------------------


def to_json(summary: ModelSummary) -> dict[str, Any]:
    value = asdict(summary)
    found = value["retrieval"]["found"]
    value["retrieval"]["found"] = {str(k): each for k, each in found.items()}
    if math.isnan(summary.retrieval.mrr.mean):
        value["retrieval"]["mrr"] = None
    return value


def outcomes_of(value: Any) -> Iterator[Outcome]:
    """The outcomes in the JSON of a model. Raises ValueError, KeyError, TypeError."""
    for each in value["outcomes"]:
        if each["verdict"] not in VERDICTS:
            raise ValueError(f"{str(each['verdict'])[:40]!r} is no verdict")
        yield Outcome(str(each["id"]), each["verdict"], bool(each["right"]), str(each.get("question", "")))
