"""A few questions of the dev data, answered greedily: to look at, before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from openbook.inference.tokenizer import PromptTokenizer
from openbook.training.batches import batch_of
from openbook.training.examples import Tree, row_of

SAMPLES = 6
MAX_ANSWER_TOKENS = 24
PLAIN_PROMPT_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Sample:
    question: str
    expected: str
    answer: str


@torch.no_grad()
def samples_of(network: Any, trees: Sequence[Tree], tokenizer: PromptTokenizer) -> list[Sample]:
    """One question of each of the first trees, in turn one that has an answer and one that has none."""
    network.eval()
    found = []
    model = tokenizer.model

    def text(tokens: Sequence[int]) -> str:
        return b"".join(map(model.piece, tokens)).decode(errors="replace").strip()

    for number, tree in enumerate(trees[:SAMPLES]):
        wanted = "answer" if number % 2 == 0 else "abstention"
        branch = next((b for b in tree.branches if b.kind == wanted), tree.branches[0])
        start = branch.answer_start or min(PLAIN_PROMPT_TOKENS, len(branch.tokens) // 2)  # of plain text, a beginning
        answer = greedy(
            network,
            tree.with_branches([replace(branch, tokens=branch.tokens[:start], answer_start=start - 1)]),
            model.ends_generation,
        )
        expected = branch.tokens[start : start + MAX_ANSWER_TOKENS]
        asked = last_turn(branch.tokens[:start], model.ends_generation)
        found.append(Sample(text(asked), text(expected), text(answer)))
    return found


def greedy(network: Any, tree: Tree, ends: Callable[[int], bool]) -> list[int]:
    """The tokens that the network writes behind the one branch of `tree`."""
    from transformers import DynamicCache

    row = row_of(tree)
    batch, cache = batch_of([row]), DynamicCache()
    tokens, positions = batch.tokens.to(network.device), batch.positions.to(network.device)
    pieces: Any = batch.pieces
    written: list[int] = []
    while len(written) < MAX_ANSWER_TOKENS:
        read = network.model(input_ids=tokens, position_ids=positions, pieces=pieces, cache=cache, use_cache=True)
        token = int(network.lm_head(read.last_hidden_state[:, -1]).argmax())
        if ends(token):
            break
        written.append(token)
        tokens, positions, pieces = tokens.new_tensor([[token]]), positions[:, -1:] + 1, None
    return written


def last_turn(prompt: Sequence[int], ends: Callable[[int], bool]) -> Sequence[int]:
    """What was said last in a prompt: after it a template writes the end of the turn and the beginning of an answer."""
    places = [i for i, token in enumerate(prompt) if ends(token)]
    return prompt[places[-2] + 1 : places[-1]] if len(places) > 1 else prompt[: places[0]] if places else prompt
