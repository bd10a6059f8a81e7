"""How much do other passages disturb? The passage that holds the answer is put among distractors from the retriever.

Position: with `AMONG` distractors, at each rank. Noise: with each number of `DISTRACTORS`, at a rank that differs from
question to question, so that position evens out. Both for each strategy that the model has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from openbook.answer import Strategy
from openbook.diagnosis.examining import Bench
from openbook.diagnosis.probing import Case, fits, left_out, read, right
from openbook.diagnosis.scoring import Interval
from openbook.diagnosis.summary import Share, share
from openbook.inference.frozen import Cancelled
from openbook.records import Hit, sha256_hex

DISTRACTORS = (0, 1, 3, 7)
AMONG = 3
OUTCOMES = ("read",)


@dataclass(frozen=True, slots=True)
class Place:
    """Rank of the passage that holds the answer, from 1, among so many distractors."""

    strategy: Strategy
    rank: int
    distractors: int


@dataclass(frozen=True, slots=True)
class Seen:
    """`evens_out`: of its number of distractors, the one at the rank that the question was given."""

    place: Place
    evens_out: bool
    right: bool
    abstained: bool


@dataclass(frozen=True, slots=True)
class NoiseTrial:
    id: str
    outcome: str
    seen: tuple[Seen, ...] = ()
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """`rank` 0: at ranks that even out over the questions."""

    strategy: Strategy
    rank: int
    distractors: int
    right: Share
    abstained: Share


@dataclass(frozen=True, slots=True)
class Noise:
    """`noise_costs`: right with no distractor less right with most, for each strategy; `position_costs`: at the first rank
    less at the last. Both over the questions that were read in both ways; None where there is none.
    """

    cells: tuple[Cell, ...]
    noise_costs: Mapping[Strategy, Interval | None]
    position_costs: Mapping[Strategy, Interval | None]
    left_out: Mapping[str, int]
    trials: tuple[NoiseTrial, ...]

    def rows(self) -> list[tuple[str, Share]]:
        return [(_name(cell), cell.right) for cell in self.cells]

    def meaning(self) -> str:
        parts = []
        for strategy in self.noise_costs:
            noise, position = self.noise_costs[strategy], self.position_costs[strategy]
            said = [_said(noise, f"{DISTRACTORS[-1]} distractors"), _said(position, f"rank {AMONG + 1} instead of 1")]
            if any(said):
                parts.append(f"Read {strategy}, {'; '.join(filter(None, said))}.")
        if any(cost is not None and cost.low > 0.0 for cost in self.noise_costs.values()):
            parts.append("Fewer passages (--passages) disturb less, if the retriever ranks the right one high.")
        return " ".join(parts) or "No question has enough passages around it to measure."


def _name(cell: Cell) -> str:
    if cell.rank:
        return f"{cell.strategy}, at rank {cell.rank} of {cell.distractors + 1}"
    if not cell.distractors:
        return f"{cell.strategy}, alone"
    return f"{cell.strategy}, among {cell.distractors} distractor{'s' if cell.distractors > 1 else ''}"


def _said(cost: Interval | None, by: str) -> str:
    """What it does to the share of right answers, in points with their interval."""
    if cost is None:
        return ""
    chance = ", which may be chance" if cost.low <= 0.0 <= cost.high else ""
    return f"{by}: {-100 * cost.mean + 0.0:+.0f} points [{-100 * cost.high:+.0f}, {-100 * cost.low:+.0f}]{chance}"


def strategies(bench: Bench) -> tuple[Strategy, ...]:
    """Those that the model has."""
    return ("each", "together") if bench.model.reads_each else ("together",)


def steps(bench: Bench) -> Iterator[Place]:
    for strategy in strategies(bench):
        for distractors in DISTRACTORS:
            ranks = range(1, distractors + 2) if distractors == AMONG else [0]
            yield from (Place(strategy, rank, distractors) for rank in ranks)


def trial(case: Case, bench: Bench, cancelled: Cancelled) -> NoiseTrial:
    """Each way in which there are distractors enough and all passages fit into the context. Raises Stopped."""
    question, gold = case.question, case.gold
    if gold is None:
        return NoiseTrial(question.id, "no passage holds the answer")
    others = [hit for hit in case.rest if hit.passage.id != gold.passage.id]
    seen: list[Seen] = []
    for step in steps(bench):
        own = own_rank(question.id, step.distractors)
        place = replace(step, rank=step.rank or own)
        hits = arranged(gold, others, place)
        if hits is None or not fits(bench, question.question, hits, place.strategy):
            continue
        found = read(bench, question.question, hits, cancelled, place.strategy)
        if found.said.failure:
            return NoiseTrial(question.id, "", (), found.said.failure)
        seen.append(Seen(place, place.rank == own, right(found, question), found.silent))
    return NoiseTrial(question.id, "read" if seen else "the passage does not fit into the context", tuple(seen))


def own_rank(key: str, distractors: int) -> int:
    """From 1 to `distractors` + 1, each as often over many keys."""
    return 1 + int(sha256_hex(key.encode())[:8], 16) % (distractors + 1)


def arranged(gold: Hit, others: Sequence[Hit], place: Place) -> list[Hit] | None:
    """The best distractors in their order, the passage at its rank among them; None where there are too few."""
    distractors = list(others[: place.distractors])
    if len(distractors) < place.distractors:
        return None
    return [*distractors[: place.rank - 1], gold, *distractors[place.rank - 1 :]]


def result(trials: Sequence[NoiseTrial]) -> Noise:
    seen = [each for trial in trials for each in trial.seen]
    names = sorted({each.place.strategy for each in seen})
    cells = [_cell(seen, strategy, 0, n) for strategy in names for n in DISTRACTORS]
    cells += [_cell(seen, strategy, rank, AMONG) for strategy in names for rank in range(1, AMONG + 2)]
    most = DISTRACTORS[-1]
    return Noise(
        tuple(cell for cell in cells if cell.right.of),
        {
            s: _difference(trials, s, lambda e: e.place.distractors == 0, lambda e: e.place.distractors == most)
            for s in names
        },
        {s: _difference(trials, s, lambda e: _at(e, 1), lambda e: _at(e, AMONG + 1)) for s in names},
        left_out(trials, OUTCOMES),
        tuple(trials),
    )


def _at(seen: Seen, rank: int) -> bool:
    return (seen.place.rank, seen.place.distractors) == (rank, AMONG)


def _cell(seen: Sequence[Seen], strategy: Strategy, rank: int, distractors: int) -> Cell:
    here = [e for e in seen if e.place.strategy == strategy and e.place.distractors == distractors]
    here = [e for e in here if (e.place.rank == rank if rank else e.evens_out)]
    return Cell(
        strategy,
        rank,
        distractors,
        share(sum(e.right for e in here), len(here)),
        share(sum(e.abstained for e in here), len(here)),
    )


def _difference(
    trials: Sequence[NoiseTrial], strategy: Strategy, one: Callable[[Seen], bool], other: Callable[[Seen], bool]
) -> Interval | None:
    """How much more often right in one way than in the other, question by question."""
    better = worse = both = 0
    for trial in trials:
        seen = [each for each in trial.seen if each.place.strategy == strategy]
        pair = [next((each.right for each in seen if fit(each)), None) for fit in (one, other)]
        if None not in pair:
            both += 1
            better += pair == [True, False]
            worse += pair == [False, True]
    return paired(better, worse, both) if both else None


def paired(better: int, worse: int, questions: int) -> Interval:
    """The difference of two shares over the same questions, with its 95 % interval: Wald's, half a question added to each
    of the four combinations. Source: Agresti & Min 2005.
    """
    n, gained, lost = questions + 2, better + 0.5, worse + 0.5
    middle, spread = (gained - lost) / n, 1.96 * math.sqrt(gained + lost - (gained - lost) ** 2 / n) / n
    return Interval((better - worse) / questions, max(-1.0, middle - spread), min(1.0, middle + spread), questions)
