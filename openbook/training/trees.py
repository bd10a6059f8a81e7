"""Training examples as token trees: a shared beginning, parallel passages, and branches that continue them.

The network reads each token of a tree once. A passage sees the beginning and itself; its positions follow the beginning, so
its keys and values are the same for every question. A branch sees the beginning, the passages it `reads`, and itself, but no
other branch; its positions follow its longest passage. So a tree gives the same loss as its branches apart.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Branch:
    """The network learns `tokens[learn_start:]` except the ranges in `skipped`. It only reads the rest."""

    tokens: tuple[int, ...]
    learn_start: int
    kind: str = ""  # "answer" or "abstention", for a reader
    key: str = ""  # branches with the same key are accepted answers to one question
    skipped: tuple[tuple[int, int], ...] = ()  # [start, end) ranges of other speakers in a conversation
    reads: tuple[int, ...] = ()  # indices of the tree's passages

    def __post_init__(self) -> None:
        if not 0 <= self.learn_start < len(self.tokens):
            raise ValueError(f"learn_start {self.learn_start} leaves nothing to learn of {len(self.tokens)} tokens")

    @property
    def learned(self) -> Iterator[int]:
        """Indices of the learned tokens."""
        start = self.learn_start
        for skip_start, skip_end in self.skipped:
            yield from range(start, skip_start)
            start = skip_end
        yield from range(start, len(self.tokens))


@dataclass(frozen=True, slots=True)
class Tree:
    """`origin` locates the example in the data, for messages: `squad.jsonl line 12`."""

    beginning: tuple[int, ...]
    branches: tuple[Branch, ...]
    origin: str = ""
    passages: tuple[tuple[int, ...], ...] = ()

    @property
    def tokens(self) -> int:
        return sum(map(len, (self.beginning, *self.passages, *(branch.tokens for branch in self.branches))))

    def with_branches(self, branches: Sequence[Branch]) -> Tree:
        """Only these branches and the passages they read."""
        read = sorted({number for branch in branches for number in branch.reads})
        new_number = {number: i for i, number in enumerate(read)}
        renumbered = tuple(replace(b, reads=tuple(new_number[number] for number in b.reads)) for b in branches)
        return replace(self, branches=renumbered, passages=tuple(self.passages[number] for number in read))


@dataclass(frozen=True, slots=True)
class Row:
    """A tree laid out for the network. Shape legend: T tokens of the tree, A learned tokens.

    Part 0 is the beginning, then come passages and branches. Token i attends to token j if j <= i and `part[j]` is in
    `visible_parts[part[i]]`. The output at `predictors[k]` must predict `targets[k]`.
    """

    tree: Tree
    tokens: list[int]  # [T]
    positions: list[int]  # [T]
    part: list[int]  # [T]
    visible_parts: list[tuple[int, ...]]  # of each part
    predictors: list[int]  # [A]
    targets: list[int]  # [A]
    owners: list[int]  # [A], the number of the branch


def row_of(tree: Tree) -> Row:
    start = len(tree.beginning)
    row = Row(tree, list(tree.beginning), list(range(start)), [0] * start, [(0,)], [], [], [])

    def append(piece: Sequence[int], position: int, others: Sequence[int] = ()) -> None:
        number = len(row.visible_parts)
        row.tokens.extend(piece)
        row.positions.extend(range(position, position + len(piece)))
        row.part.extend([number] * len(piece))
        row.visible_parts.append((0, *others, number))

    for passage in tree.passages:
        append(passage, start)
    for number, branch in enumerate(tree.branches):
        offset = len(row.tokens)
        for i in branch.learned:
            predictor = offset + i - 1 if i else start - 1  # a branch without passages continues the beginning
            if predictor >= 0:  # nothing predicts the very first token
                row.predictors.append(predictor)
                row.targets.append(branch.tokens[i])
                row.owners.append(number)
        longest = max((len(tree.passages[read]) for read in branch.reads), default=0)
        append(branch.tokens, start + longest, [read + 1 for read in branch.reads])
    return row


def fit(trees: Sequence[Tree], sequence_tokens: int) -> tuple[list[Tree], list[str]]:
    """(trees that fit, a sentence for each branch that does not). A tree that is too long becomes several."""
    fitting: list[Tree] = []
    problems: list[str] = []
    for tree in trees:
        chosen: list[Branch] = []
        for branch in tree.branches:
            if (tokens := tree.with_branches([branch]).tokens) > sequence_tokens:
                problems.append(f"{tree.origin}: {tokens} tokens, over sequence_tokens = {sequence_tokens}; left out")
                continue
            if chosen and tree.with_branches([*chosen, branch]).tokens > sequence_tokens:
                fitting.append(tree.with_branches(chosen))
                chosen = []
            chosen.append(branch)
        if chosen:
            fitting.append(tree.with_branches(chosen))
    return fitting, problems


def steps_per_epoch(trees: Sequence[Tree], step_tokens: int) -> int:
    """The steps of an epoch, equal for all, so a step's number gives its epoch."""
    return min(len(trees), math.ceil(sum(tree.tokens for tree in trees) / step_tokens))


def epoch_steps(trees: Sequence[Tree], step_tokens: int, seed: int, epoch: int) -> list[list[int]]:
    """The steps of one epoch, each a list of tree numbers: a function of the arguments alone.

    Trees of similar length share a step, to avoid padding. The steps come in random order.
    """
    rng = random.Random(f"{seed}/{epoch}")  # noqa: S311  an order, not a secret
    # Noise on the lengths varies a tree's neighbors between epochs.
    noisy = {i: tree.tokens * (1.0 + 0.1 * rng.random()) for i, tree in enumerate(trees)}
    order = sorted(noisy, key=lambda i: (noisy[i], i))
    total = sum(tree.tokens for tree in trees)
    count = steps_per_epoch(trees, step_tokens)
    steps: list[list[int]] = [[]]
    done = 0
    for place, i in enumerate(order):  # steps end at equal shares of the tokens, so none is a small remainder
        number = max(done * count // total, count - (len(order) - place))  # and none is empty
        if steps[-1] and len(steps) - 1 < number:
            steps.append([])
        steps[-1].append(i)
        done += trees[i].tokens
    rng.shuffle(steps)
    return steps


def micro_batches(trees: Sequence[Tree], numbers: Sequence[int], call_tokens: int) -> Iterator[list[int]]:
    """Groups of at most `call_tokens` tokens, padding included. A longer tree is alone in its group."""
    group: list[int] = []
    for i in sorted(numbers, key=lambda i: (trees[i].tokens, i)):  # so the last is the longest
        if group and trees[i].tokens * (len(group) + 1) > call_tokens:
            yield group
            group = []
        group.append(i)
    if group:
        yield group
