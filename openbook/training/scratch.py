"""A model from nothing: a vocabulary learned from the documents, and a network whose numbers are chance.

The vocabulary is byte-level BPE (trained by `tokenizers`) and is written as a GGUF file at once, with the network's
hyperparameters and no tensor yet; from there on tokens are made by the engine's own code, as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from openbook.errors import ConfigError
from openbook.models import read_gguf
from openbook.training.attention import attend
from openbook.training.network import config_of

if TYPE_CHECKING:
    from openbook.training.recipe import Architecture

END = "<|endoftext|>"
_NORMAL, _CONTROL = 1, 3  # token types of GGUF


def write_vocabulary(path: Path, texts: Sequence[str], architecture: Architecture, *, name: str) -> None:
    """Learn a vocabulary from `texts` and write it to `path`. A function of the arguments. Raises ConfigError."""
    from gguf import GGUFWriter
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer: Any = Tokenizer(models.BPE())
    # What the engine does for `pre` = "gpt-2".
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=architecture.vocabulary,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    import json

    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    if len(tokens) < architecture.vocabulary:
        raise ConfigError(
            f"The documents give only {len(tokens):,} tokens. Lower architecture.vocabulary (now "
            f"{architecture.vocabulary:,}), or train on more text."
        )
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    writer = GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_context_length(architecture.context_tokens)
    writer.add_embedding_length(architecture.width)
    writer.add_block_count(architecture.layers)
    writer.add_feed_forward_length(architecture.feed_forward)
    writer.add_head_count(architecture.heads)
    writer.add_head_count_kv(architecture.key_value_heads or architecture.heads)
    writer.add_rope_dimension_count(architecture.width // architecture.heads)
    writer.add_rope_freq_base(architecture.rope_base)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([_CONTROL if token == END else _NORMAL for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index(END))
    writer.add_eos_token_id(tokens.index(END))
    writer.add_add_bos_token(False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def new_network(vocabulary: Path, seed: int, dtype: torch.dtype) -> Any:
    """A network of the shape that the file states, its numbers by chance (normal, 0.02)."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    config = config_of(read_gguf(vocabulary))
    config.tie_word_embeddings = True
    network: Any = LlamaForCausalLM(config)
    attend(network)
    network.tie_weights()
    network.requires_grad_(False)
    return network.to(dtype).eval()
