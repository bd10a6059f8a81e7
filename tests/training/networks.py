"""Small networks and recipes for tests of training."""

from __future__ import annotations

from typing import Any

import torch

from openbook.training.examples import Branch, Tree
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
    network.set_attn_implementation("sdpa")
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
        branches = []
        for number in range(chance.randint(1, 4)):
            question, answer = tokens(2, 6), tokens(1, 4)
            branches.append(Branch((*question, *answer), len(question), "answer", str(number)))
        trees.append(Tree(tokens(4, 20), tuple(branches), f"line {i + 1}"))
    return trees
