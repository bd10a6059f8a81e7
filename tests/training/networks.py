"""Small networks and recipes for tests of training."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from openbook.models import read_gguf
from openbook.models.gguf_writer import write_gguf
from openbook.training.attention import use_tree_attention
from openbook.training.export import write_model
from openbook.training.network import config_of, write_vocabulary
from openbook.training.recipe import Architecture, Recipe
from openbook.training.trees import Branch, Row, Tree
from tests.conftest import ROOT

VOCABULARY = 97
SHAPE = Architecture(vocabulary=500, width=64, layers=3, heads=4, key_value_heads=2, feed_forward=96)


def write_tiny_model(path: Path, family: str = "llama") -> None:
    """A GGUF file that the engine can open, with random numbers."""
    from transformers import LlamaForCausalLM, Qwen2ForCausalLM

    vocabulary, metadata = path.with_suffix(".vocabulary"), path.with_suffix(".metadata")
    write_vocabulary(vocabulary, [(ROOT / "docs" / "architecture.md").read_text()], SHAPE, name="tiny")
    header = read_gguf(vocabulary)
    renamed = {key.replace("llama.", f"{family}."): value for key, value in header.metadata.items()}
    renamed["general.architecture"] = replace(header.metadata["general.architecture"], value=family)
    write_gguf(metadata, replace(header, metadata=renamed), (), quantisation="F32", reader=None)
    torch.manual_seed(3)
    network = (LlamaForCausalLM if family == "llama" else Qwen2ForCausalLM)(config_of(read_gguf(metadata)))
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.add_(torch.randn_like(value) * (0.5 if name.endswith("bias") else 0.1))
    state = {name: value.detach().numpy() for name, value in network.named_parameters()}
    write_model(path, metadata, state, quantisation="F32", reader=None)


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
    use_tree_attention(network)
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


def dense_logits(network: Any, row: Row) -> torch.Tensor:
    """What `learned_logits` must give, by one mask of all tokens against all."""
    part = torch.tensor(row.part)
    sees = torch.tensor([[i in parts for i in range(len(row.visible_parts))] for parts in row.visible_parts])
    hidden = network.model(
        input_ids=torch.tensor([row.tokens]),
        position_ids=torch.tensor([row.positions]),
        attention_mask=sees[part][:, part].tril()[None, None],
    ).last_hidden_state
    found: torch.Tensor = network.lm_head(hidden[0, row.predictors])
    return found


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
