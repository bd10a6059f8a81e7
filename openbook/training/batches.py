"""Rows of trees as tensors. Shape legend: R rows, T tokens of the longest, A answer tokens of all rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from openbook.training.examples import Row

if TYPE_CHECKING:
    from torch import Tensor

PAD = -1  # the branch of a place that is no token


@dataclass(frozen=True, slots=True)
class Batch:
    tokens: Tensor  # [R, T] int64
    positions: Tensor  # [R, T] int64
    visible: (
        Tensor | None
    )  # [R, 1, T, T] bool: may the token of the third index attend to that of the fourth; None: causal
    predictors: Tensor  # [A] int64, into the R * T places
    targets: Tensor  # [A] int64
    real_tokens: int


def batch_of(rows: Sequence[Row]) -> Batch:
    longest = max(len(row.tokens) for row in rows)
    shape = (len(rows), longest)
    tokens, positions = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    branch = torch.full(shape, PAD, dtype=torch.int64)
    predictors: list[int] = []
    targets: list[int] = []
    for number, row in enumerate(rows):
        length = len(row.tokens)
        tokens[number, :length] = torch.tensor(row.tokens)
        positions[number, :length] = torch.tensor(row.positions)
        branch[number, :length] = torch.tensor(row.branch)
        predictors += [number * longest + place for place in row.predictors]
        targets += row.targets
    # Whole sequences that are no trees need no mask, and then attention costs half.
    plain = all(len(row.tokens) == longest and len(set(row.branch)) == 1 for row in rows)
    return Batch(
        tokens,
        positions,
        None if plain else visible_of(branch),
        torch.tensor(predictors, dtype=torch.int64),
        torch.tensor(targets, dtype=torch.int64),
        sum(len(row.tokens) for row in rows),
    )


def visible_of(branch: Tensor) -> Tensor:
    """The mask of trees: earlier tokens of the beginning and of the token's own branch, and always itself."""
    length = branch.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool).tril()
    own = branch[:, :, None] == branch[:, None, :]
    beginning = (branch == 0)[:, None, :] & (branch != PAD)[:, :, None]
    return ((own | beginning) & earlier)[:, None]
