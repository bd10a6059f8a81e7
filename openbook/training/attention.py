"""Attention over trees: each piece of a row attends to the pieces before it that it sees, and to itself.

One call with a mask of all tokens against all would do the same, and spend most of its time on what nobody sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from openbook.training.examples import Row

NAME = "openbook-tree"
CHUNK_TOKENS = 256  # branches that are shorter are attended from together


@dataclass(frozen=True, slots=True)
class Piece:
    """`tokens` in a row, which follow those of the piece before. They attend to the first `seen` pieces and to each other.

    `visible`: bool [tokens, tokens of the pieces seen + tokens]; None: no piece is seen, and of each other the earlier.
    """

    tokens: int
    seen: int
    visible: torch.Tensor | None


def pieces_of(row: Row) -> list[Piece]:
    """The beginning, each passage, and branches in chunks."""
    lengths = [len(row.tree.beginning), *map(len, row.tree.passages), *(len(b.tokens) for b in row.tree.branches)]
    pieces = [Piece(lengths[0], 0, None)] if lengths[0] else []
    for length in lengths[1 : 1 + len(row.tree.passages)]:
        # Of the pieces so far a passage sees the beginning, which is the first.
        visible = torch.ones(length, lengths[0] + length, dtype=torch.bool).tril(lengths[0]) if lengths[0] else None
        pieces.append(Piece(length, 1 if lengths[0] else 0, visible))
    seen, start = len(pieces), sum(piece.tokens for piece in pieces)
    sees = torch.zeros(len(row.seen), len(row.seen), dtype=torch.bool)
    for number, parts in enumerate(row.seen):
        sees[number, list(parts)] = True
    part = torch.tensor(row.part)
    chunk: list[int] = []
    place = start
    for number, length in enumerate(lengths[1 + len(row.tree.passages) :], 1):
        chunk.append(length)
        if sum(chunk) < CHUNK_TOKENS and number < len(row.tree.branches):
            continue
        tokens = sum(chunk)
        read = torch.cat([part[:start], part[place : place + tokens]])
        own = sees[part[place : place + tokens]][:, read].tril(start)
        pieces.append(Piece(tokens, seen, own if start or len(chunk) > 1 else None))
        place += tokens
        chunk = []
    return pieces


def attend(network: Any) -> None:
    """Have `network` attend by pieces where it is given such, and as usual where not."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, tree_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    network.set_attn_implementation(NAME)


def tree_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    pieces: Sequence[Sequence[Piece]] | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Query [R, heads, T, d], key and value [R, key-value heads, T, d]; gives [R, T, heads, d]. `pieces`: those of each row."""
    if pieces is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
        return found
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    rows = [_row(query[i : i + 1], key[i : i + 1], value[i : i + 1], own, scaling) for i, own in enumerate(pieces)]
    return torch.cat(rows).transpose(1, 2).contiguous(), None


def _row(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, pieces: Sequence[Piece], scaling: float | None
) -> torch.Tensor:
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
                attn_mask=None if piece.visible is None else piece.visible.to(query.device),
                is_causal=piece.visible is None,
                scale=scaling,
            )
        )
    return torch.cat([*found, torch.zeros_like(queries[-1])], 2)
