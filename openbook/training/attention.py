"""Attention over token trees, and batches of them.

One mask of all tokens against all would give the same result, but waste most of the time on pairs that do not see each
other. So each row is cut into pieces, and each piece attends to the earlier pieces it sees.

Shape legend: R rows, T tokens of the longest row, A learned tokens of all rows, d size of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from openbook.training.trees import Row

NAME = "openbook-tree"
CHUNK_TOKENS = 256  # shorter branches attend together


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive tokens of a row. They attend to the row's first `seen` pieces and to each other.

    `mask`: bool [tokens, tokens of the seen pieces + tokens]. None: causal, no piece is seen.
    """

    tokens: int
    seen: int
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class Batch:
    tokens: Tensor  # [R, T] int64
    positions: Tensor  # [R, T] int64
    pieces: list[list[Piece]]  # of each row
    predictors: Tensor  # [A] int64, indices into the R * T places
    targets: Tensor  # [A] int64
    real_tokens: int  # without padding


def batch_of(rows: Sequence[Row]) -> Batch:
    tokens = pad_sequence([torch.tensor(row.tokens) for row in rows], batch_first=True)
    longest = tokens.shape[1]
    predictors = [number * longest + place for number, row in enumerate(rows) for place in row.predictors]
    return Batch(
        tokens,
        pad_sequence([torch.tensor(row.positions) for row in rows], batch_first=True),
        [pieces_of(row) for row in rows],
        torch.tensor(predictors, dtype=torch.int64),
        torch.tensor([target for row in rows for target in row.targets], dtype=torch.int64),
        sum(len(row.tokens) for row in rows),
    )


def pieces_of(row: Row) -> list[Piece]:
    """The beginning, each passage, and branches in chunks."""
    beginning = len(row.tree.beginning)
    pieces = [Piece(beginning, 0, None)] if beginning else []
    for passage in row.tree.passages:
        mask = torch.ones(len(passage), beginning + len(passage), dtype=torch.bool).tril(beginning)
        pieces.append(Piece(len(passage), int(beginning > 0), mask if beginning else None))
    seen, start = len(pieces), sum(piece.tokens for piece in pieces)
    visible = torch.zeros(len(row.visible_parts), len(row.visible_parts), dtype=torch.bool)
    for number, parts in enumerate(row.visible_parts):
        visible[number, list(parts)] = True
    part = torch.tensor(row.part)
    place, chunk, branches = start, 0, 0
    for number, branch in enumerate(row.tree.branches, 1):
        chunk, branches = chunk + len(branch.tokens), branches + 1
        if chunk < CHUNK_TOKENS and number < len(row.tree.branches):
            continue
        own = part[place : place + chunk]
        mask = visible[own][:, torch.cat([part[:start], own])].tril(start)
        pieces.append(Piece(chunk, seen, mask if start or branches > 1 else None))
        place, chunk, branches = place + chunk, 0, 0
    return pieces


def use_tree_attention(network: Any) -> None:
    """Make `network` attend by `pieces` when a call passes them."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, tree_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    network.set_attn_implementation(NAME)


def tree_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    pieces: Sequence[Sequence[Piece]] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Query [R, heads, T, d], key and value [R, key-value heads, T, d]; returns [R, T, heads, d]."""
    if pieces is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        usual: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
        return usual
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    rows = [_attend(query[i : i + 1], key[i : i + 1], value[i : i + 1], own, scaling) for i, own in enumerate(pieces)]
    return torch.cat(rows).transpose(1, 2).contiguous(), None


def _attend(query: Tensor, key: Tensor, value: Tensor, pieces: Sequence[Piece], scaling: float | None) -> Tensor:
    sizes = [piece.tokens for piece in pieces]
    padding = query.shape[2] - sum(sizes)
    queries, keys, values = (torch.split(each, [*sizes, padding], 2) for each in (query, key, value))
    found = []
    for i, piece in enumerate(pieces):
        seen = [*range(piece.seen), i]
        found.append(
            functional.scaled_dot_product_attention(
                queries[i],
                torch.cat([keys[j] for j in seen], 2),
                torch.cat([values[j] for j in seen], 2),
                attn_mask=None if piece.mask is None else piece.mask.to(query.device),
                is_causal=piece.mask is None,
                scale=scaling,
            )
        )
    return torch.cat([*found, torch.zeros_like(queries[-1])], 2)
