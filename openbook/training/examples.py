"""What is learned from, as tokens: a shared beginning and branches that go on from it.

A `Tree` is one passage (or any beginning) with the questions on it. Its tokens are read once; each branch sees the
beginning and itself, never another branch, at the positions it would have alone. So a tree is equal to its branches as
separate examples, and costs as much as its passage and all questions once.
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

    @property
    def tokens(self) -> int:
        return len(self.beginning) + sum(len(b.tokens) for b in self.branches)

    @property
    def answer_tokens(self) -> int:
        found = sum(1 for branch in self.branches for _ in branch.learned)
        # The very first token of all has none before it to be predicted from.
        return found - (0 if self.beginning else sum(b.answer_start == 0 for b in self.branches))


@dataclass(frozen=True, slots=True)
class Row:
    """A tree laid out for the network.

    `tokens`, `positions`, `branch` [T]; branch 0 is the beginning. Token i attends to j <= i where branch[j] is 0 or
    branch[i]. The loss is at `predictors`: the output there must give `targets`. Both [answers' tokens].
    """

    tokens: tuple[int, ...]
    positions: tuple[int, ...]
    branch: tuple[int, ...]
    predictors: tuple[int, ...]
    targets: tuple[int, ...]
    owners: tuple[int, ...]  # which branch (from 0) each target belongs to
    tree: Tree


def row_of(tree: Tree) -> Row:
    start = len(tree.beginning)
    tokens, positions, branch = list(tree.beginning), list(range(start)), [0] * start
    predictors: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for number, part in enumerate(tree.branches):
        place = len(tokens)
        for i in part.learned:
            before = place + i - 1 if i else start - 1  # a branch follows the beginning
            if before >= 0:
                predictors.append(before)
                targets.append(part.tokens[i])
                owners.append(number)
        tokens += part.tokens
        positions += range(start, start + len(part.tokens))
        branch += [number + 1] * len(part.tokens)
    return Row(tuple(tokens), tuple(positions), tuple(branch), tuple(predictors), tuple(targets), tuple(owners), tree)


def fitted(trees: Sequence[Tree], sequence_tokens: int) -> tuple[list[Tree], list[str]]:
    """(trees that fit, a sentence for each branch left out). A tree with too many branches becomes several."""
    kept: list[Tree] = []
    problems: list[str] = []
    for tree in trees:
        room = sequence_tokens - len(tree.beginning)
        chosen: list[Branch] = []
        used = 0
        for branch in tree.branches:
            if len(branch.tokens) > room:
                problems.append(
                    f"{tree.origin}: {len(tree.beginning) + len(branch.tokens)} tokens, over sequence_tokens = "
                    f"{sequence_tokens}; left out"
                )
                continue
            if used + len(branch.tokens) > room:
                kept.append(replace(tree, branches=tuple(chosen)))
                chosen, used = [], 0
            chosen.append(branch)
            used += len(branch.tokens)
        if chosen:
            kept.append(replace(tree, branches=tuple(chosen)))
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
