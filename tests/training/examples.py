"""A small recipe, small trees and a small vocabulary."""

from __future__ import annotations

import random
from typing import Any

from openbook.training.recipe import Recipe
from openbook.training.trees import Branch, Tree

VOCABULARY = 97


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
    rng = random.Random(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.randrange(VOCABULARY) for _ in range(rng.randint(low, high)))

    trees = []
    for i in range(count):
        passages = tuple(tokens(3, 9) for _ in range(rng.choice((0, 0, 1, 4))))
        branches = []
        for number in range(rng.randint(1, 4)):
            question, answer = tokens(2, 6), tokens(1, 4)
            reads = tuple(rng.sample(range(len(passages)), rng.randint(0, len(passages))))
            branches.append(Branch((*question, *answer), len(question), "answer", str(number), reads=reads))
        trees.append(Tree(tokens(4, 20), tuple(branches), f"line {i + 1}", passages))
    return trees


class Letters:
    """A vocabulary of small letters and spaces. It loses everything else, like vocabularies without bytes."""

    chat_template = ""
    end_token = 27
    adds_bos, bos_token, bos_text, eos_text = False, -1, "", ""

    def tokenize(self, text: str, *, control: bool) -> list[int]:
        return [ord(letter) - 96 if letter != " " else 0 for letter in text if letter == " " or "a" <= letter <= "z"]

    def piece(self, token: int) -> bytes:
        return b" " if token == 0 else bytes([token + 96])

    def ends_generation(self, token: int) -> bool:
        return token == self.end_token
