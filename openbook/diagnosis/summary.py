"""A diagnosis in numbers: shares of verdicts, retrieval, and cost; and the comparison of two.

Shares have 95 % intervals (Wilson). Failed requests are in no share.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, get_args

from openbook.answers.certainty import CertaintyLimits, Signals
from openbook.core.errors import ConfigError
from openbook.core.records import Digest, canonical_json, sha256_hex
from openbook.diagnosis.calibration import Calibration, calibration
from openbook.diagnosis.questions import Question
from openbook.diagnosis.run_log import Header, Mode, Observation, differences
from openbook.diagnosis.scoring import Interval, Share, interval, mcnemar, share, share_of
from openbook.diagnosis.verdicts import VERDICTS, QuestionVerdict, Verdict, reply_is_right

FORMAT = 1
SHARED: tuple[Verdict, ...] = VERDICTS[:-1]  # all but failed: these sum to 1
MISSES: tuple[Verdict, ...] = ("retriever_miss", "distracted", "reader_gap", "harmed_by_retrieval")
RANKS = (1, 3, 5, 10, 20)
MODES: tuple[Mode, ...] = get_args(Mode)
_RequestCost: TypeAlias = tuple[float, int | None, int | None]  # seconds, tokens read, tokens written


@dataclass(frozen=True, slots=True)
class Cost:
    """Tokens are None if the engine counts none."""

    requests: int
    seconds: float
    prompt_tokens: int | None
    answer_tokens: int | None


@dataclass(frozen=True, slots=True)
class Group:
    """`right`: with documents; see `QuestionVerdict.right`."""

    questions: int
    failed: int
    verdicts: Mapping[Verdict, Share]
    right: Share


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Over questions with a known passage that holds the answer. `found[k]`: such a passage is among the first k.

    `reached`: among those given to the reader. `mrr`: mean of 1/rank, 0 beyond the deepest rank; None without
    questions.
    """

    questions: int
    found: Mapping[int, Share]
    reached: Share
    mrr: Interval | None


@dataclass(frozen=True, slots=True)
class QuestionOutcome:
    """For comparisons. `question`: its `words_digest`."""

    id: str
    verdict: Verdict
    right: bool
    question: Digest


def words_digest(question: Question) -> Digest:
    """16 digits of a digest over wordings, kind and answers, in any order."""
    answers = sorted(question.answers)
    return sha256_hex(canonical_json([list(question.wordings), question.kind, answers]))[:16]


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """`right_in`: by mode, of questions with an answer, those right in every wording.

    `misses_within_depth`: retriever misses whose passage was among the first `runner.DEPTH`. `misses_cut_off`: those of
    them within the passages to read, so that something else kept the passage from the reader.
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
    calibration: Calibration
    outcomes: tuple[QuestionOutcome, ...]

    @property
    def name(self) -> str:
        return self.header.model.name

    @property
    def misses(self) -> dict[str, int]:
        """Wrong answers by their cause, the most frequent first."""
        found = {verdict: self.overall.verdicts[verdict].count for verdict in MISSES}
        found["not_in_the_knowledge_base"] = self.abstained.of - self.abstained.count
        return {cause: count for cause, count in sorted(found.items(), key=lambda each: -each[1]) if count}

    @property
    def nothing_measured(self) -> bool:
        """True if the model failed on every question."""
        return self.overall.failed == self.overall.questions


@dataclass(frozen=True, slots=True)
class _Row:
    """What the numbers need of one question, without its text.

    `right`: of a question with an answer, by mode, whether every wording was right. `spent`: without failed requests.
    `rank`: of the first passage that holds an answer, for the first wording; None: no such passage is known.
    `decisive_rank`: for the wording that decided. `reached`: such a passage was given to the reader. `judged`: signals
    of the answer's certainty, and whether it is right. `declined`: whether that was right; None: it did not decline.
    """

    outcome: QuestionOutcome
    kind: str
    tags: tuple[str, ...]
    found: QuestionVerdict
    right: Mapping[Mode, bool]
    spent: Mapping[Mode, Sequence[_RequestCost]]
    rank: int | None
    decisive_rank: int
    reached: bool
    judged: tuple[Signals, bool] | None
    declined: bool | None

    @property
    def failed(self) -> bool:
        return self.found.verdict == "failed"


def _row(observation: Observation, found: QuestionVerdict) -> _Row:
    question, asked, first = observation.question, observation.asked, observation.asked[0]
    replies = {mode: [reply for each in asked if (reply := each.reply(mode)) is not None] for mode in MODES}
    counted = bool(question.answers) and not observation.failure
    return _Row(
        outcome=QuestionOutcome(question.id, found.verdict, found.right, words_digest(question)),
        kind=question.kind,
        tags=question.tags,
        found=found,
        right={
            mode: all(reply_is_right(reply, question) for reply in each)
            for mode, each in replies.items()
            if counted and len(each) == len(asked)
        },
        spent={
            mode: [(r.seconds, r.prompt_tokens, r.answer_tokens) for r in each if not r.failure]
            for mode, each in replies.items()
        },
        rank=first.rank if observation.holding else None,
        decisive_rank=asked[found.wording_index].rank,
        reached=any(passage.gold and passage.id in first.found for passage in observation.passages),
        judged=(first.signals, reply_is_right(first.opened, question)) if first.signals else None,
        declined=not observation.holding if first.opened.abstained and not first.signals else None,
    )


def summarise(
    header: Header, verdicts: Iterable[tuple[Observation, QuestionVerdict]], limits: CertaintyLimits = CertaintyLimits()
) -> ModelSummary:
    """Keeps no text of questions. `limits`: the present ones of certainty."""
    rows = [_row(observation, found) for observation, found in verdicts]
    measured = [row for row in rows if not row.failed]
    held = [(row.rank, row.reached) for row in measured if row.rank is not None]
    missed = [row.decisive_rank for row in measured if row.found.verdict == "retriever_miss"]
    unfound = [row.found.without_passage for row in measured if row.found.verdict == "not_in_the_knowledge_base"]
    return ModelSummary(
        header=header,
        overall=_group(rows),
        by_kind=_groups((row.kind, row) for row in rows),
        by_tag=_groups((tag, row) for row in rows for tag in row.tags),
        right_in={mode: share_of([row.right[mode] for row in rows if mode in row.right]) for mode in MODES},
        abstained=share_of([each == "abstained" for each in unfound]),
        from_memory=sum(row.found.from_memory for row in rows),
        misses_within_depth=sum(rank > 0 for rank in missed),
        misses_cut_off=sum(0 < rank <= header.passages for rank in missed),
        retrieval=Retrieval(
            len(held),
            {k: share_of([0 < rank <= k for rank, _ in held]) for k in RANKS},
            share_of([reached for _, reached in held]),
            interval([1.0 / rank if rank else 0.0 for rank, _ in held]) if held else None,
        ),
        costs={mode: _cost([each for row in rows for each in row.spent[mode]]) for mode in MODES},
        calibration=calibration(
            [row.judged for row in measured if row.judged is not None],
            [row.declined for row in measured if row.declined is not None],
            limits,
        ),
        outcomes=tuple(row.outcome for row in rows),
    )


def _cost(spent: Sequence[_RequestCost]) -> Cost:
    read = [prompt_tokens for _, prompt_tokens, _ in spent if prompt_tokens is not None]
    written = [answer_tokens for _, _, answer_tokens in spent if answer_tokens is not None]
    counted = bool(spent) and len(read) == len(written) == len(spent)
    seconds = sum((each[0] for each in spent), 0.0)
    return Cost(len(spent), seconds, *((sum(read), sum(written)) if counted else (None, None)))


def _groups(rows: Iterable[tuple[str, _Row]]) -> dict[str, Group]:
    by_key = defaultdict[str, list[_Row]](list)
    for key, row in rows:
        by_key[key].append(row)
    return {key: _group(each) for key, each in sorted(by_key.items())}


def _group(rows: Sequence[_Row]) -> Group:
    verdicts = Counter(row.found.verdict for row in rows)
    counted = len(rows) - verdicts["failed"]
    shares = {verdict: share(verdicts[verdict], counted) for verdict in SHARED}
    return Group(len(rows), verdicts["failed"], shares, share(sum(row.found.right for row in rows), counted))


# --- two of them compared ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelOutcomes:
    name: str
    header: Header
    outcomes: Sequence[QuestionOutcome]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models or runs, on the questions that both were asked and neither failed on.

    `p`: two-sided McNemar test. `moved`: (verdict, other verdict, questions). `left_out`: questions that only one was
    asked. `failed`: asked of both, and failed. `notes`: other differences of the setups.
    """

    first: str
    second: str
    questions: int
    both_right: int
    only_first: int
    only_second: int
    p: float | None
    moved: tuple[tuple[Verdict, Verdict, int], ...]
    left_out: int
    failed: int
    notes: tuple[str, ...]

    @property
    def p_text(self) -> str:
        if self.p is None:
            return "no data"
        return f"{self.p:.3f}" if self.p >= 0.001 else "< 0.001"

    def all_notes(self) -> list[str]:
        found = list(self.notes)
        if self.left_out:
            found.append(f"Questions left out, because only one of the two was asked them: {self.left_out:,}.")
        if self.failed:
            found.append(f"Questions left out, because at least one of the two failed on them: {self.failed:,}.")
        return found


def compare(first: ModelOutcomes | ModelSummary, second: ModelOutcomes | ModelSummary) -> Comparison:
    """Compare on questions with equal `words_digest`. Raises ConfigError if there are none."""
    ones, others = ({each.question: each for each in model.outcomes} for model in (first, second))
    same = [(outcome, others[words]) for words, outcome in ones.items() if words in others]
    if not same and first.header.questions != second.header.questions:
        raise ConfigError(
            f"{first.name} and {second.name} were asked different questions (digests {first.header.questions[:12]} and "
            f"{second.header.questions[:12]}), and none of them is the same in both. Compare diagnoses of the same questions."
        )
    pairs = [(a, b) for a, b in same if "failed" not in (a.verdict, b.verdict)]
    only_first = sum(a.right and not b.right for a, b in pairs)
    only_second = sum(b.right and not a.right for a, b in pairs)
    moved = Counter((a.verdict, b.verdict) for a, b in pairs if a.verdict != b.verdict)
    return Comparison(
        first=first.name,
        second=second.name,
        questions=len(pairs),
        both_right=sum(a.right and b.right for a, b in pairs),
        only_first=only_first,
        only_second=only_second,
        p=mcnemar(only_first, only_second) if pairs else None,
        moved=tuple((a, b, n) for (a, b), n in sorted(moved.items(), key=lambda each: (-each[1], each[0]))),
        left_out=len(ones) + len(others) - 2 * len(same),
        failed=len(same) - len(pairs),
        notes=tuple(_notes(first.header, second.header)),
    )


def _notes(first: Header, second: Header) -> Iterator[str]:
    for field, one, other in differences(first, second):
        if field == "questions":
            yield f"The files of questions differ (digests {one[:12]} and {other[:12]}); compared is what both ask."
        elif field not in ("model", "numeric_class"):
            yield f"They differ in {field.replace('_', ' ')}: {one} and {other}."
