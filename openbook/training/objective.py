"""The loss of a batch, and what a teacher-forced pass tells about greedy answers.

Logits are computed only where something is learned: the output matrix has 49,152 rows in the default model, and most
tokens of an example are only read.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from openbook.training.attention import Piece
from openbook.training.batches import Batch, batch_of
from openbook.training.examples import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def answer_logits(network: Any, batch: Batch) -> Tensor:
    """Logits where answers are predicted: float32 [A, vocabulary]."""
    # A network that several processes share must be called by a method that fetches its parts (`processes.shard`).
    call = network.answer if hasattr(network, "answer") else functools.partial(answer, network)
    tokens, positions, predictors = (
        each.to(network.device) for each in (batch.tokens, batch.positions, batch.predictors)
    )
    logits: Tensor = call(tokens, positions, batch.pieces, predictors)
    return logits


def answer(network: Any, tokens: Tensor, positions: Tensor, pieces: list[list[Piece]], predictors: Tensor) -> Tensor:
    hidden = network.model(input_ids=tokens, position_ids=positions, pieces=pieces).last_hidden_state
    logits: Tensor = network.lm_head(hidden.flatten(0, 1)[predictors])
    return logits.float()


def loss_sum(network: Any, batch: Batch) -> Tensor:
    """The sum over all answer tokens of -log p(token); a mean would weigh a token by the company it keeps."""
    logits = answer_logits(network, batch)
    return functional.cross_entropy(logits, batch.targets.to(logits.device), reduction="sum")


@dataclass(frozen=True, slots=True)
class Reading:
    """How one branch was read: the loss of its tokens and whether greedy decoding would give exactly them.

    `exact` does not count the first token as wrong that is less likely than the beginning of an abstention alone: whether to
    abstain is decided by `abstention`, how likely that is.
    """

    kind: str
    question: str
    loss: float
    tokens: int
    exact: bool
    abstention: float


@torch.no_grad()
def readings(network: Any, rows: Sequence[Row], abstention: int | None = None) -> list[Reading]:
    """One for each branch of each row, in order. `abstention`: the token that an abstention begins with."""
    batch = batch_of(rows)
    logits = answer_logits(network, batch).cpu()
    losses = functional.cross_entropy(logits, batch.targets, reduction="none").tolist()
    chances = logits.softmax(-1)[:, abstention].tolist() if abstention is not None else [0.0] * len(losses)
    right = (logits.argmax(-1) == batch.targets).tolist()
    if abstention is not None:
        logits[:, abstention] = -torch.inf
    right_if_answered = (logits.argmax(-1) == batch.targets).tolist()
    found: list[Reading] = []
    place = 0
    for row in rows:
        for number, branch in enumerate(row.tree.branches):
            span = range(place, place + sum(owner == number for owner in row.owners))
            found.append(
                Reading(
                    kind=branch.kind,
                    question=f"{row.tree.origin}/{branch.key}",
                    loss=sum(losses[i] for i in span),
                    tokens=len(span),
                    exact=all(right[i] or (i == span.start and right_if_answered[i]) for i in span),
                    abstention=chances[span.start],
                )
            )
            place = span.stop
    return found
