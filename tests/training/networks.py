"""Small networks and recipes for tests of training."""

from __future__ import annotations

from typing import Any

import torch

from openbook.training.attention import attend
from openbook.training.examples import Branch, Row, Tree
from openbook.training.recipe import Recipe

VOCABULARY = 97


def small_network(seed: int = 0) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        use_cache=False,
    )
    network: Any = LlamaForCausalLM(config)
    attend(network)
    network.requires_grad_(False)
    network.lm_head.weight *= 20  # as it is made, no output could be likely
    return network.eval()


def small_recipe(**changes: Any) -> Recipe:
    value: dict[str, Any] = {
        "name": "small",
        "base": {"model": "small", "digest": "0" * 64},
        "objective": {"kind": "reader", "instruction": "Answer.", "abstention": "Not stated."},
        "train": [{"file": "train.jsonl", "sha256": "0" * 64}],
        "method": {"kind": "lora", "rank": 4, "alpha": 8},
        "optimiser": {"learning_rate": 1e-2, "warmup_steps": 2},
        "loop": {"seed": 3, "steps": 8, "step_tokens": 120, "call_tokens": 64, "precision": "f32"},
    }
    for key, change in changes.items():
        value[key] = {**value[key], **change} if isinstance(change, dict) and key in value else change
    return Recipe.model_validate(value)


def small_trees(count: int = 12, seed: int = 1) -> list[Tree]:
    import random

    chance = random.Random(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(chance.randrange(VOCABULARY) for _ in range(chance.randint(low, high)))

    trees = []
    for i in range(count):
        passages = tuple(tokens(3, 9) for _ in range(chance.choice((0, 0, 1, 4))))
        branches = []
        for number in range(chance.randint(1, 4)):
            question, answer = tokens(2, 6), tokens(1, 4)
            reads = tuple(chance.sample(range(len(passages)), chance.randint(0, len(passages))))
            branches.append(Branch((*question, *answer), len(question), "answer", str(number), reads=reads))
        trees.append(Tree(tokens(4, 20), tuple(branches), f"line {i + 1}", passages))
    return trees


def dense_logits(network: Any, row: Row) -> torch.Tensor:
    """What `answer_logits` must give, by one mask of all tokens against all."""
    part = torch.tensor(row.part)
    sees = torch.zeros(len(row.seen), len(row.seen), dtype=torch.bool)
    for number, parts in enumerate(row.seen):
        sees[number, list(parts)] = True
    hidden = network.model(
        input_ids=torch.tensor([row.tokens]),
        position_ids=torch.tensor([row.positions]),
        attention_mask=sees[part][:, part].tril()[None, None],
    ).last_hidden_state
    found: torch.Tensor = network.lm_head(hidden[0, row.predictors])
    return found


class Letters:
    """A vocabulary of small letters and spaces; what it does not know is lost, as in vocabularies without bytes."""

    chat_template = ""
    end_token = 27
    adds_bos, bos_token, bos_text, eos_text = False, -1, "", ""

    def tokenize(self, text: str, *, control: bool) -> list[int]:
        return [ord(letter) - 96 if letter != " " else 0 for letter in text if letter == " " or "a" <= letter <= "z"]

    def piece(self, token: int) -> bytes:
        return b" " if token == 0 else bytes([token + 96])

    def ends_generation(self, token: int) -> bool:
        return token == self.end_token
