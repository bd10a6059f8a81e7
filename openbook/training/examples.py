"""What is learned from, as tokens: a shared beginning, passages side by side behind it, and branches that go on from them.

All of a `Tree` is read once. Each passage sees the beginning and itself, and stands right behind the beginning, whatever
else is read: what is computed of it is the same for every question. Each branch sees the beginning, the passages that it
`reads` and itself, never another branch; it stands behind the longest of its passages. So a tree is equal to its branches
as separate examples, and costs as much as its passages and all questions once.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

# Shape legend: T tokens of a tree.


@dataclass(frozen=True, slots=True)
class Branch:
    """`tokens[answer_start:]` is learned, except the ranges in `skipped`; what comes before is only read."""

    tokens: tuple[int, ...]
    answer_start: int
    kind: str = ""  # "answer" or "abstention", for a reader
    key: str = ""  # branches with the same key are other accepted answers to one question
    skipped: tuple[tuple[int, int], ...] = ()  # [start, end) after `answer_start`: what others say in a conversation
    reads: tuple[int, ...] = ()  # numbers of the tree's passages

    def __post_init__(self) -> None:
        if not 0 <= self.answer_start < len(self.tokens):
            raise ValueError(f"answer_start {self.answer_start} leaves nothing to learn of {len(self.tokens)} tokens")

    @property
    def learned(self) -> Iterator[int]:
        """The places of the tokens that are learned."""
        start = self.answer_start
        for skip_start, skip_end in self.skipped:
            yield from range(start, skip_start)
            start = skip_end
        yield from range(start, len(self.tokens))


@dataclass(frozen=True, slots=True)
class Tree:
    """`origin` says where it stands in the data, for messages: `squad.jsonl line 12`."""

    beginning: tuple[int, ...]
    branches: tuple[Branch, ...]
    origin: str = ""
    passages: tuple[tuple[int, ...], ...] = ()

    @property
    def tokens(self) -> int:
        parts = (self.beginning, *self.passages, *(branch.tokens for branch in self.branches))
        return sum(map(len, parts))

    def read_with(self, branch: Branch) -> int:
        """The tokens that `branch` needs besides its own."""
        return len(self.beginning) + sum(len(self.passages[number]) for number in branch.reads)

    def with_branches(self, branches: Sequence[Branch]) -> Tree:
        """The tree with these of its branches, without passages that none of them reads."""
        read = sorted({number for branch in branches for number in branch.reads})
        place = {number: i for i, number in enumerate(read)}
        kept = tuple(replace(branch, reads=tuple(place[number] for number in branch.reads)) for branch in branches)
        return replace(self, branches=kept, passages=tuple(self.passages[number] for number in read))

    @property
    def answer_tokens(self) -> int:
        found = sum(1 for branch in self.branches for _ in branch.learned)
        # The very first token of all has none before it to be predicted from.
        return found - (0 if self.beginning else sum(b.answer_start == 0 for b in self.branches))


@dataclass(frozen=True, slots=True)
class Row:
    """A tree laid out for the network.

    `tokens`, `positions`, `part` [T]: part 0 is the beginning, then come the passages and the branches. Token i attends to
    j <= i where part[j] is one of `seen[part[i]]`. The loss is at `predictors`: the output there must give `targets`. Both
    [answers' tokens].
    """

    tokens: list[int]
    positions: list[int]
    part: list[int]
    seen: list[tuple[int, ...]]
    predictors: list[int]
    targets: list[int]
    owners: list[int]  # which branch (from 0) each target belongs to
    tree: Tree


def row_of(tree: Tree) -> Row:
    start = len(tree.beginning)
    tokens, positions, part = list(tree.beginning), list(range(start)), [0] * start
    seen: list[tuple[int, ...]] = [(0,)]

    def lay(piece: Sequence[int], position: int, others: Sequence[int] = ()) -> None:
        tokens.extend(piece)
        positions.extend(range(position, position + len(piece)))
        part.extend([len(seen)] * len(piece))
        seen.append((0, *others, len(seen)))

    for passage in tree.passages:
        lay(passage, start)
    predictors: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for number, branch in enumerate(tree.branches):
        place = len(tokens)
        for i in branch.learned:
            before = place + i - 1 if i else start - 1  # a branch without passages follows the beginning
            if before >= 0:
                predictors.append(before)
                targets.append(branch.tokens[i])
                owners.append(number)
        longest = max((len(tree.passages[read]) for read in branch.reads), default=0)
        lay(branch.tokens, start + longest, [read + 1 for read in branch.reads])
    return Row(tokens, positions, part, seen, predictors, targets, owners, tree)


def fitted(trees: Sequence[Tree], sequence_tokens: int) -> tuple[list[Tree], list[str]]:
    """(trees that fit, a sentence for each branch left out). A tree with too much becomes several."""
    kept: list[Tree] = []
    problems: list[str] = []
    for tree in trees:
        chosen: list[Branch] = []
        for branch in tree.branches:
            if (tokens := tree.read_with(branch) + len(branch.tokens)) > sequence_tokens:
                problems.append(f"{tree.origin}: {tokens} tokens, over sequence_tokens = {sequence_tokens}; left out")
                continue
            if chosen and tree.with_branches([*chosen, branch]).tokens > sequence_tokens:
                kept.append(tree.with_branches(chosen))
                chosen = []
            chosen.append(branch)
        if chosen:
            kept.append(tree.with_branches(chosen))
    return kept, problems


def steps_in_epoch(trees: Sequence[Tree], step_tokens: int) -> int:
    """The same for every epoch, so that a step's number tells its epoch."""
    return min(len(trees), math.ceil(sum(tree.tokens for tree in trees) / step_tokens))


def steps_of(trees: Sequence[Tree], step_tokens: int, seed: int, epoch: int) -> list[list[int]]:
    """The steps of one epoch, each a list of numbers of trees: a function of the arguments alone.

    Trees of about the same length share a step, so little is padded; steps come in random order.
    """
    chance = random.Random(f"{seed}/{epoch}")  # noqa: S311  an order, not a secret
    # Lengths are blurred a little, so that the company a tree keeps changes from epoch to epoch.
    blurred = {i: tree.tokens * (1.0 + 0.1 * chance.random()) for i, tree in enumerate(trees)}
    order = sorted(blurred, key=lambda i: (blurred[i], i))
    total = sum(tree.tokens for tree in trees)
    count = steps_in_epoch(trees, step_tokens)
    steps: list[list[int]] = [[]]
    filled = 0
    for place, i in enumerate(order):  # boundaries at equal shares of the tokens, so that no step is a small rest
        wanted = max(filled * count // total, count - (len(order) - place))  # every step gets a tree, however they fall
        if steps[-1] and len(steps) - 1 < wanted:
            steps.append([])
        steps[-1].append(i)
        filled += trees[i].tokens
    chance.shuffle(steps)
    return steps


def calls_of(trees: Sequence[Tree], numbers: Sequence[int], call_tokens: int) -> Iterator[list[int]]:
    """The trees of one step in calls whose padded size is at most `call_tokens`, or one tree."""
    call: list[int] = []
    longest = 0
    for i in sorted(numbers, key=lambda i: (trees[i].tokens, i)):
        longest_now = max(longest, trees[i].tokens)
        if call and longest_now * (len(call) + 1) > call_tokens:
            yield call
            call, longest_now = [], trees[i].tokens
        call.append(i)
        longest = longest_now
    if call:
        yield call
