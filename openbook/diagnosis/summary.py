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


def summarise(
    header: Header, verdicts: Iterable[tuple[Observation, QuestionVerdict]], limits: CertaintyLimits = CertaintyLimits()
) -> ModelSummary:
    """Keeps no text of questions. `limits`: the present ones of certainty."""
    outcomes: list[QuestionOutcome] = []
    found: list[QuestionVerdict] = []
    kinds, tags = defaultdict[str, list[QuestionVerdict]](list), defaultdict[str, list[QuestionVerdict]](list)
    right: dict[Mode, list[bool]] = {mode: [] for mode in MODES}  # for each question with an answer
    spent: dict[Mode, list[_RequestCost]] = {mode: [] for mode in MODES}  # without failed requests
    ranks: list[int] = []  # of questions with a passage that holds an answer
    reached: list[bool] = []  # for the same questions
    missed: list[int] = []  # ranks of retriever misses
    judged: list[tuple[Signals, bool]] = []  # of answers with a certainty
    declined: list[bool] = []
    for observation, each in verdicts:
        question = observation.question
        outcomes.append(QuestionOutcome(question.id, each.verdict, each.right, words_digest(question)))
        found.append(each)
        kinds[question.kind].append(each)
        for tag in question.tags:
            tags[tag].append(each)
        for mode in MODES:
            replies = [reply for wording in observation.asked if (reply := wording.reply(mode)) is not None]
            spent[mode] += [(r.seconds, r.prompt_tokens, r.answer_tokens) for r in replies if not r.failure]
            if question.answers and len(replies) == len(observation.asked) and not observation.failure:
                right[mode].append(all(reply_is_right(reply, question) for reply in replies))
        if each.verdict == "failed":
            continue
        first = observation.asked[0]
        if first.signals:
            judged.append((first.signals, reply_is_right(first.opened, question)))
        elif first.opened.abstained:
            declined.append(not observation.holding)
        if observation.holding:
            ranks.append(first.rank)
            reached.append(any(p.gold and p.id in first.found for p in observation.passages))
        if each.verdict == "retriever_miss":
            missed.append(observation.asked[each.wording_index].rank)
    silent = [each.without_passage == "abstained" for each in found if each.verdict == "not_in_the_knowledge_base"]
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
            interval([1.0 / rank if rank else 0.0 for rank in ranks]) if ranks else None,
        ),
        costs={mode: _cost(each) for mode, each in spent.items()},
        calibration=calibration(judged, declined, limits),
        outcomes=tuple(outcomes),
    )


def _cost(spent: Sequence[_RequestCost]) -> Cost:
    read = [prompt_tokens for _, prompt_tokens, _ in spent if prompt_tokens is not None]
    written = [answer_tokens for _, _, answer_tokens in spent if answer_tokens is not None]
    counted = bool(spent) and len(read) == len(written) == len(spent)
    seconds = sum((each[0] for each in spent), 0.0)
    return Cost(len(spent), seconds, *((sum(read), sum(written)) if counted else (None, None)))


def _group(found: Sequence[QuestionVerdict]) -> Group:
    verdicts = Counter(each.verdict for each in found)
    failed = verdicts["failed"]
    shares = {verdict: share(verdicts[verdict], len(found) - failed) for verdict in SHARED}
    return Group(len(found), failed, shares, share(sum(each.right for each in found), len(found) - failed))


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
