"""Small networks, which need PyTorch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from openbook.models import read_gguf
from openbook.models.gguf_writer import write_gguf
from openbook.training.attention import use_tree_attention
from openbook.training.export import write_model
from openbook.training.network import config_of, write_vocabulary
from openbook.training.recipe import Architecture
from openbook.training.trees import Row
from tests.conftest import ROOT
from tests.training.examples import VOCABULARY

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
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "max_position_embeddings": 256}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=VOCABULARY, use_cache=False, **shape, **heads)
    network: Any = LlamaForCausalLM(config)
    use_tree_attention(network)
    network.requires_grad_(False)
    network.lm_head.weight *= 20  # as it is made, no output could be likely
    return network.eval()


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
