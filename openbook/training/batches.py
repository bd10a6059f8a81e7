"""Rows of trees as tensors. Shape legend: R rows, T tokens of the longest, A answer tokens of all rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from openbook.training.attention import Piece, pieces_of
from openbook.training.examples import Row

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    tokens: Tensor  # [R, T] int64
    positions: Tensor  # [R, T] int64
    pieces: list[list[Piece]]  # of each row
    predictors: Tensor  # [A] int64, into the R * T places
    targets: Tensor  # [A] int64
    real_tokens: int


def batch_of(rows: Sequence[Row]) -> Batch:
    longest = max(len(row.tokens) for row in rows)
    shape = (len(rows), longest)
    tokens, positions = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    predictors: list[int] = []
    targets: list[int] = []
    for number, row in enumerate(rows):
        length = len(row.tokens)
        tokens[number, :length] = torch.tensor(row.tokens)
        positions[number, :length] = torch.tensor(row.positions)
        predictors += [number * longest + place for place in row.predictors]
        targets += row.targets
    return Batch(
        tokens,
        positions,
        [pieces_of(row) for row in rows],
        torch.tensor(predictors, dtype=torch.int64),
        torch.tensor(targets, dtype=torch.int64),
        sum(len(row.tokens) for row in rows),
    )
