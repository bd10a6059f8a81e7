"""Three probes: what becomes of the answer to a question when what the model reads is changed.

- counterfactual: a value in a copy of the passage is altered. Does the answer follow the passage or the weights?
- abstention: every passage that holds an accepted answer is withheld. Does the model abstain, or invent an answer?
- noise: the passage that holds the answer stands at each rank, among more and more others. How much do they disturb?

The knowledge base is never changed: altered copies exist in one request alone. A trial is what one question showed. Each probe
is a class of results: `trial` puts it to one question, `of` sums the trials up, `rows` and `meaning` show what came out. Every
share has its 95 % interval.

<folder>/probes-<model>.jsonl   a header as of observations, then a line for each question
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any, ClassVar, TypeAlias

from openbook import __version__
from openbook.answer import pack
from openbook.codec import convert
from openbook.config import Strategy
from openbook.diagnosis.bench import Bench, PassageReply, ask_alone, ask_with
from openbook.diagnosis.gold_passages import LOOKED_THROUGH, GoldFinder, states_any
from openbook.diagnosis.perturb import AlteredPassage, altered, names_in, value_spans
from openbook.diagnosis.questions import Question
from openbook.diagnosis.run_log import Header, Reply
from openbook.diagnosis.scoring import Interval, is_right, paired, same_answer, text_holds_any
from openbook.diagnosis.summary import Share, share, share_of
from openbook.diagnosis.verdicts import reply_is_right
from openbook.errors import ConfigError, ContextOverflow
from openbook.parallel import Cancelled
from openbook.records import Hit, sha256_hex
from openbook.retrieval import near_enough

FORMAT = 1


class _RequestFailed(Exception):
    """The model gave no answer; the message says why."""


@dataclass(frozen=True, slots=True)
class Case:
    """A question, a passage that holds the answer (`gold`), and what else the retriever finds, best first, that holds none (`rest`)."""

    question: Question
    gold: Hit
    rest: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """`outcome`: what one question showed, or why it shows nothing; `failure`: why the model gave no answer."""

    id: str
    outcome: str = ""
    failure: str = ""


def _counted(trials: Sequence[Trial], outcomes: Iterable[str]) -> tuple[dict[str, int], dict[str, Share]]:
    """(how many trials are left out, by reason; the share of each of these outcomes among the other trials)."""
    found = Counter("the model failed" if trial.failure else trial.outcome for trial in trials)
    shown = {outcome: found.pop(outcome, 0) for outcome in outcomes}
    return dict(sorted(found.items())), {key: share(n, sum(shown.values())) for key, n in shown.items()}


def _ask(case: Case, bench: Bench, hits: Sequence[Hit], cancelled: Cancelled) -> PassageReply:
    """Raises Stopped, _RequestFailed."""
    answer = ask_with(bench, case.question.question, hits, cancelled)
    if answer.reply.failure:
        raise _RequestFailed(answer.reply.failure)
    return answer


# --- counterfactual ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CounterfactualTrial(Trial):
    """`before`: the answer from the passage as it is; `after`: from the copy in which `old` became `new`."""

    kind: str = ""
    old: str = ""
    new: str = ""
    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """Over the questions that the model answers right from the passage as it is."""

    left_out: Mapping[str, int]
    trials: tuple[CounterfactualTrial, ...]
    followed: Mapping[str, Share]

    title: ClassVar = "Counterfactual: does the answer follow the passage or the weights?"
    trial_type: ClassVar = CounterfactualTrial
    outcomes_shown: ClassVar = {  # those that count, in words; any other is a reason to leave a trial out
        "passage": "followed the altered passage",
        "weights": "followed the weights",
        "neither": "neither",
        "abstained": "abstained",
    }
    # What a page shows of a trial.
    columns: ClassVar = ("id", "outcome", "failure", "kind", "old", "new", "before", "after")

    @staticmethod
    def trial(case: Case, bench: Bench, cancelled: Cancelled) -> CounterfactualTrial:
        question = case.question
        copy = altered(case.gold.passage, question, names_in(hit.passage.text for hit in case.rest))
        if copy is None:
            return CounterfactualTrial(question.id, "no value that can be altered")
        change = copy.change
        before = _ask(case, bench, [case.gold], cancelled).reply
        trial = CounterfactualTrial(question.id, "", "", change.kind, change.old, change.new, before.text)
        if not reply_is_right(before, question):
            return replace(trial, outcome="not read right as it is")
        after = _ask(case, bench, [Hit(copy.passage, 0.0, None, None, None)], cancelled).reply
        return replace(trial, after=after.text, outcome=_followed(after, copy, question, bench, cancelled))

    @classmethod
    def of(cls, trials: Sequence[CounterfactualTrial]) -> Counterfactual:
        left_out, shares = _counted(trials, cls.outcomes_shown)
        return cls(left_out, tuple(trials), shares)

    def rows(self) -> list[tuple[str, Share]]:
        return [(name, self.followed[outcome]) for outcome, name in self.outcomes_shown.items()]

    def meaning(self) -> str:
        passage, weights = self.followed["passage"], self.followed["weights"]
        if not passage.of:
            return "No question has an answer that the model reads right and whose value could be altered."
        text = f"When a value in the passage is altered, the answer follows the passage in {passage} and the weights in {weights}."
        if weights.count > passage.count:
            return text + " It is the model's memory that answers: changing a document would not change what it says."
        if weights.count:
            return f"{text} Some answers come from memory against the passage, so changing a document is not sure to change them."
        return text + " No answer came from memory against the passage."


def _followed(after: Reply, copy: AlteredPassage, question: Question, bench: Bench, cancelled: Cancelled) -> str:
    if after.abstained:
        return "abstained"
    new, old = is_right(after.text, replace(question, answers=copy.answers)), is_right(after.text, question)
    if new and old:  # most words of an accepted sentence are there; the altered ones decide
        new, old = bool(value_spans(after.text, copy.change.new_part)), bool(value_spans(after.text, copy.change.part))
    if new != old:
        return "passage" if new else "weights"
    if not new and not states_any(copy.passage, [after.text]):
        alone = ask_alone(bench, question.question, cancelled)
        if not (alone.failure or alone.abstained) and same_answer(after.text, alone.text):
            return "weights"
    return "neither"


# --- abstention -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AbstentionTrial(Trial):
    """`cited`: the answer was cited from a passage that does not hold it."""

    answer: str = ""
    cited: bool = False


@dataclass(frozen=True, slots=True)
class Abstention:
    """Over the questions with a passage that is known to hold the answer. `cited` is over the invented answers."""

    left_out: Mapping[str, int]
    trials: tuple[AbstentionTrial, ...]
    outcomes: Mapping[str, Share]
    cited: Share

    title: ClassVar = "Abstention: what does it say when the passage is withheld?"
    trial_type: ClassVar = AbstentionTrial
    outcomes_shown: ClassVar = {
        "abstained": "abstained",
        "invented": "invented an answer",
        "recalled": "answered right, from memory",
    }
    columns: ClassVar = ("id", "outcome", "failure", "answer", "cited")

    @staticmethod
    def trial(case: Case, bench: Bench, cancelled: Cancelled) -> AbstentionTrial:
        """The best of the rest are read, as many as `openbook ask` reads."""
        rest = near_enough(case.rest[: bench.passages], bench.options)
        if not rest:
            return AbstentionTrial(case.question.id, "no other passage is near the question")
        answer = _ask(case, bench, rest, cancelled)
        if reply_is_right(answer.reply, case.question):
            outcome = "recalled"
        else:
            outcome = "abstained" if answer.reply.abstained else "invented"
        return AbstentionTrial(case.question.id, outcome, "", answer.reply.text, bool(answer.cited))

    @classmethod
    def of(cls, trials: Sequence[AbstentionTrial]) -> Abstention:
        left_out, shares = _counted(trials, cls.outcomes_shown)
        invented = [trial.cited for trial in trials if trial.outcome == "invented"]
        return cls(left_out, tuple(trials), shares, share_of(invented))

    def rows(self) -> list[tuple[str, Share]]:
        rows = [(name, self.outcomes[outcome]) for outcome, name in self.outcomes_shown.items()]
        return [*rows, ("of the invented ones, with a citation", self.cited)]

    def meaning(self) -> str:
        abstained, invented = self.outcomes["abstained"], self.outcomes["invented"]
        if not abstained.of:
            return "No question has a passage that could be withheld while others are left to read."
        text = f"Without the passage that holds the answer, the model abstains in {abstained} and invents an answer in {invented}."
        if self.cited.count:
            text += f" {self.cited.count} of the invented answers even carry a citation."
        if invented.count > abstained.count:
            return text + " Where the documents do not hold an answer, do not rely on it to say so."
        return text


# --- position and noise -----------------------------------------------------------------------------------------------

DISTRACTORS = (0, 1, 3, 7)
AMONG = 3  # distractors, where each rank is tried


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Rank of the passage that holds the answer, from 1, among so many distractors. Rank 0: at ranks that even out."""

    strategy: Strategy
    rank: int
    distractors: int


@dataclass(frozen=True, slots=True)
class NoiseReading:
    """`evens_out`: the rank is the question's own, so that over many questions each rank comes as often."""

    place: Position
    evens_out: bool
    right: bool
    abstained: bool


@dataclass(frozen=True, slots=True)
class NoiseTrial(Trial):
    seen: tuple[NoiseReading, ...] = ()


@dataclass(frozen=True, slots=True)
class Cell(Position):
    """What was read at one place."""

    right: Share
    abstained: Share

    def __str__(self) -> str:
        if self.rank:
            return f"{self.strategy}, at rank {self.rank} of {self.distractors + 1}"
        if not self.distractors:
            return f"{self.strategy}, alone"
        return f"{self.strategy}, among {self.distractors} distractor{'s' if self.distractors > 1 else ''}"


@dataclass(frozen=True, slots=True)
class Noise:
    """By strategy, over the questions that were read in both ways (None if there are no such questions): `noise_costs`, right with no
    distractor less right with most; `position_costs`, right at the first rank less right at the last.
    """

    left_out: Mapping[str, int]
    trials: tuple[NoiseTrial, ...]
    cells: tuple[Cell, ...]
    noise_costs: Mapping[Strategy, Interval | None]
    position_costs: Mapping[Strategy, Interval | None]

    title: ClassVar = "Position and noise: how much do other passages disturb?"
    trial_type: ClassVar = NoiseTrial
    outcomes_shown: ClassVar = {"read": "read"}
    columns: ClassVar = ()  # a trial is too long for a row

    @staticmethod
    def trial(case: Case, bench: Bench, cancelled: Cancelled) -> NoiseTrial:
        """Each rank and number of distractors that fits into the context: read by each strategy that a trained reader can read by,
        and by any other model as `openbook ask` does.
        """
        question, seen, model = case.question, list[NoiseReading](), bench.model
        others = [hit for hit in case.rest if hit.passage.id != case.gold.passage.id]
        by_reader: dict[Strategy, bool] = {
            "each": model.reads_each,
            "parallel": model.parallel_passages > 0,
            "together": True,
        }
        strategies = [each for each, can in by_reader.items() if can] if model.reader else [bench.strategy]
        for strategy, distractors in product(strategies, DISTRACTORS):
            to_read = replace(bench, options=replace(bench.options, strategy=strategy))
            own = own_rank(question.id, distractors)
            for rank in range(1, distractors + 2) if distractors == AMONG else [own]:
                hits = [*others[: rank - 1], case.gold, *others[rank - 1 : distractors]]
                if len(hits) <= distractors or not _fits(to_read, question.question, hits):
                    continue
                reply = _ask(case, to_read, hits, cancelled).reply
                place = Position(strategy, rank, distractors)
                seen.append(NoiseReading(place, rank == own, reply_is_right(reply, question), reply.abstained))
        outcome = "read" if seen else "the passage does not fit into the context"
        return NoiseTrial(question.id, outcome, seen=tuple(seen))

    @classmethod
    def of(cls, trials: Sequence[NoiseTrial]) -> Noise:
        read: dict[Position, dict[str, NoiseReading]] = {}  # at each place, by question
        for trial in trials:
            for seen in trial.seen:
                for place in (seen.place, replace(seen.place, rank=0)) if seen.evens_out else (seen.place,):
                    read.setdefault(place, {})[trial.id] = seen
        cells = []
        for place in sorted(place for place in read if place.rank == 0 or place.distractors == AMONG):
            here = read[place].values()
            right, abstained = share_of([seen.right for seen in here]), share_of([seen.abstained for seen in here])
            cells.append(Cell(place.strategy, place.rank, place.distractors, right, abstained))
        most, last, strategies = DISTRACTORS[-1], AMONG + 1, sorted({place.strategy for place in read})
        return cls(
            _counted(trials, cls.outcomes_shown)[0],
            tuple(trials),
            tuple(cells),
            {s: _difference(read, Position(s, 0, 0), Position(s, 0, most)) for s in strategies},
            {s: _difference(read, Position(s, 1, AMONG), Position(s, last, AMONG)) for s in strategies},
        )

    def rows(self) -> list[tuple[str, Share]]:
        return [(str(cell), cell.right) for cell in self.cells]

    def meaning(self) -> str:
        parts = []
        for strategy in self.noise_costs:
            costs = [
                _points(self.noise_costs[strategy], f"{DISTRACTORS[-1]} distractors"),
                _points(self.position_costs[strategy], f"rank {AMONG + 1} instead of 1"),
            ]
            if any(costs):
                parts.append(f"With the strategy {strategy}, {'; '.join(filter(None, costs))}.")
        if any(cost is not None and cost.low > 0.0 for cost in self.noise_costs.values()):
            parts.append(
                "Fewer passages (the setting `passages`) disturb less, if the retriever ranks the right one high."
            )
        return " ".join(parts) or "No question has enough passages around it to measure."


def _points(cost: Interval | None, by: str) -> str:
    """What it does to the share of right answers, in points with their interval."""
    if cost is None:
        return ""
    chance = ", which may be chance" if cost.low <= 0.0 <= cost.high else ""
    return f"{by}: {-100 * cost.mean + 0.0:+.0f} points [{-100 * cost.high:+.0f}, {-100 * cost.low:+.0f}]{chance}"


def own_rank(key: str, distractors: int) -> int:
    """A rank from 1 to `distractors` + 1; over many keys each comes equally often."""
    return 1 + int(sha256_hex(key.encode())[:8], 16) % (distractors + 1)


def _fits(bench: Bench, question: str, hits: Sequence[Hit]) -> bool:
    """Whether all of these passages are read: none is left out for want of room, or because no more can lie side by side."""
    groups = [[hit] for hit in hits] if bench.strategy == "each" else [hits]
    parallel = bench.strategy == "parallel"
    try:
        read = [pack(question, group, bench.model, bench.decoding, parallel=parallel)[0] for group in groups]
    except ContextOverflow:
        return False
    return sum(map(len, read)) == len(hits)


def _difference(read: Mapping[Position, Mapping[str, NoiseReading]], one: Position, other: Position) -> Interval | None:
    """How much more often right at one place than at the other, over the questions that were read at both."""
    first, second = read.get(one, {}), read.get(other, {})
    pairs = Counter((first[id_].right, second[id_].right) for id_ in first.keys() & second.keys())
    return paired(pairs[True, False], pairs[False, True], pairs.total()) if pairs else None


# --- all of them ------------------------------------------------------------------------------------------------------

Result: TypeAlias = Counterfactual | Abstention | Noise
PROBES: dict[str, type[Result]] = {"counterfactual": Counterfactual, "abstention": Abstention, "noise": Noise}


@dataclass(frozen=True, slots=True)
class ProbeRun:
    """`questions`: how many were probed; `stopped`: before all were. Without any, there is no result."""

    header: Header
    questions: int
    stopped: bool
    results: Mapping[str, Result]


@dataclass(frozen=True, slots=True)
class ProbeLine:
    """A line of the file: the trials of one question, whose id is `question`, by the name of the probe."""

    question: str
    trials: Mapping[str, Any]

    def read(self, names: Sequence[str]) -> dict[str, Trial]:
        """Raises ConfigError. Probes of other names are passed over."""
        where = f"The line of {self.question!r}"
        return {
            name: convert(self.trials[name], PROBES[name].trial_type, where, ConfigError)
            for name in names
            if name in self.trials
        }


def probe_question(
    names: Sequence[str], bench: Bench, finder: GoldFinder, question: Question, cancelled: Cancelled
) -> dict[str, Trial]:
    """What each probe of these names shows on the question. Raises Stopped, KnowledgeError."""
    gold, probes = finder.find(question), {name: PROBES[name] for name in names}
    if not gold.hits:
        return {name: probe.trial_type(question.id, "no passage holds the answer") for name, probe in probes.items()}
    ranked = bench.retrieve(question.question, LOOKED_THROUGH)
    rest = [hit for hit in ranked if not (gold.spans_in(hit.passage) or states_any(hit.passage, question.answers))]
    whole = (hit for hit in gold.hits if text_holds_any(hit.passage.text, question.answers))
    case = Case(question, next(whole, gold.hits[0]), tuple(rest))
    found: dict[str, Trial] = {}
    for name, probe in probes.items():
        try:
            found[name] = probe.trial(case, bench, cancelled)
        except _RequestFailed as failure:
            found[name] = probe.trial_type(question.id, failure=str(failure))
    return found


def to_json(run: ProbeRun) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "openbook_version": __version__,
        "header": asdict(run.header),
        "questions": run.questions,
        "stopped": run.stopped,
        "probes": {name: {"meaning": result.meaning(), **asdict(result)} for name, result in run.results.items()},
    }
