"""A network with gradients, from a stored or new model, and its loss.

It starts from the dequantized GGUF values that the engine computes with. Two families can be trained: `llama`, and `qwen2`,
whose query, key and value projections have biases. For `llama`, GGUF stores the rows of the query and key projections in
another order: rotated pairs side by side, where Transformers has halves.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from openbook.core.errors import ConfigError, InvalidModelFile
from openbook.models import GgufHeader, read_gguf
from openbook.models.gguf_writer import dequantised, finish
from openbook.training.attention import Batch, Piece, use_tree_attention

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from openbook.training.recipe import Architecture, Method

FAMILIES = ("llama", "qwen2")  # equals `general.architecture` and Transformers' `model_type`
END = "<|endoftext|>"
ADAPTER = "default"  # PEFT's name of the only adapter
_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def hf_name(gguf: str) -> str:
    """Transformers' name: `blk.3.attn_q.weight` is `model.layers.3.self_attn.q_proj.weight`. Raises InvalidModelFile."""
    match gguf.split("."):
        case [short, "weight"] if short in _NAMES:
            return f"{_NAMES[short]}.weight"
        case ["blk", layer, short, ("weight" | "bias") as kind] if short in _LAYER_NAMES:
            return f"model.layers.{layer}.{_LAYER_NAMES[short]}.{kind}"
    raise InvalidModelFile(f"Training does not know the tensor {gguf!r}.")


def gguf_name(hf: str) -> str:
    """GGUF's name. Law: `gguf_name(hf_name(x)) == x`. Raises InvalidModelFile."""
    module, _, kind = hf.rpartition(".")
    for short, long in _NAMES.items():
        if long == module:
            return f"{short}.{kind}"
    for short, long in _LAYER_NAMES.items():
        if module.startswith("model.layers.") and module.endswith(f".{long}"):
            return f"blk.{module.removeprefix('model.layers.').removesuffix(f'.{long}')}.{short}.{kind}"
    raise InvalidModelFile(f"GGUF has no name for the tensor {hf!r}.")


def gguf_rows(config: Any, name: str, rows: NDArray[Any]) -> NDArray[Any]:
    """The rows [heads * d, ...] of the parameter `name` (in Transformers) in GGUF's order."""
    heads = _permuted_heads(config, name)
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape) if heads else rows


def hf_rows(config: Any, name: str, rows: NDArray[Any]) -> NDArray[Any]:
    """Law: `hf_rows(c, n, gguf_rows(c, n, x)) == x`."""
    heads = _permuted_heads(config, name)
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape) if heads else rows


def _permuted_heads(config: Any, name: str) -> int:
    """The heads to reorder; 0 if both orders are equal."""
    if config.model_type != "llama":
        return 0
    if ".q_proj." in name:
        return int(config.num_attention_heads)
    return int(config.num_key_value_heads) if ".k_proj." in name else 0


def config_of(header: GgufHeader) -> Any:
    """The model's `LlamaConfig` or `Qwen2Config`. Raises InvalidModelFile for other models or missing numbers."""
    from transformers import LlamaConfig, Qwen2Config

    family = header.text("general.architecture")
    if family not in FAMILIES:
        raise InvalidModelFile(f"Only models of the families {' and '.join(FAMILIES)} can be trained, not {family!r}.")
    for key in (f"{family}.rope.scaling.type", f"{family}.expert_count"):
        if key in header.metadata and header.metadata[key].value not in (0, "none"):
            raise InvalidModelFile(f"Training does not support models with {key} = {header.metadata[key].value!r}.")

    def number(key: str) -> int:
        value = header.integer(f"{family}.{key}")
        if value is None or value < 1:
            raise InvalidModelFile(f"The model states no {family}.{key}. Convert it again.")
        return value

    def real(key: str, default: float) -> float:
        found = header.metadata.get(f"{family}.{key}")
        return float(found.value) if found is not None else default

    heads = number("attention.head_count")
    config = (LlamaConfig if family == "llama" else Qwen2Config)(
        vocab_size=len(header.metadata["tokenizer.ggml.tokens"].value),
        hidden_size=number("embedding_length"),
        intermediate_size=number("feed_forward_length"),
        num_hidden_layers=number("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=header.integer(f"{family}.attention.head_count_kv") or heads,
        max_position_embeddings=number("context_length"),
        rms_norm_eps=real("attention.layer_norm_rms_epsilon", 1e-5),
        rope_parameters={"rope_type": "default", "rope_theta": real("rope.freq_base", 10_000.0)},
        tie_word_embeddings=not any(t.name == "output.weight" for t in header.tensors),
        use_cache=False,
    )
    head_dim = config.hidden_size // heads
    rotated = header.integer(f"{family}.rope.dimension_count")
    if rotated is not None and rotated != head_dim:
        raise InvalidModelFile(f"The model rotates {rotated} of {head_dim} dimensions. Training supports only all.")
    return config


def parameters_of(path: Path) -> dict[str, NDArray[np.float32]]:
    """All tensors as float32, with the names, row order and shapes of Transformers."""
    config = config_of(read_gguf(path))
    found: dict[str, NDArray[np.float32]] = {}
    for tensor, values in dequantised(path):
        name = hf_name(tensor)
        found[name] = np.ascontiguousarray(hf_rows(config, name, values))
    return found


def load_network(path: Path, *, dtype: torch.dtype = torch.float32) -> Any:
    """The network of a GGUF file, without gradients yet, computing in `dtype`. Raises InvalidModelFile."""
    from transformers import LlamaForCausalLM, Qwen2ForCausalLM
    from transformers.initialization import no_init_weights

    config = config_of(read_gguf(path))
    with no_init_weights():
        network: Any = (LlamaForCausalLM if config.model_type == "llama" else Qwen2ForCausalLM)(config)
    state = {name: torch.from_numpy(values) for name, values in parameters_of(path).items()}
    missing, unexpected = network.load_state_dict(state, strict=False)
    lacking = set(missing) - ({"lm_head.weight"} if config.tie_word_embeddings else set())
    if unexpected or lacking:
        raise InvalidModelFile(
            (f"The model lacks the tensors {', '.join(sorted(lacking))}. " if lacking else "")
            + (f"No {config.model_type} model has the tensors {', '.join(sorted(unexpected))}. " if unexpected else "")
            + "Convert it again."
        )
    return _frozen(network, dtype)


def new_network(vocabulary: Path, seed: int, dtype: torch.dtype) -> Any:
    """A network with random values (normal, 0.02) in the file's shape."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    return _frozen(LlamaForCausalLM(config_of(read_gguf(vocabulary))), dtype)


def _frozen(network: Any, dtype: torch.dtype) -> Any:
    use_tree_attention(network)
    network.tie_weights()
    network.requires_grad_(False)
    return network.to(dtype).eval()


def write_vocabulary(path: Path, texts: Sequence[str], architecture: Architecture, *, name: str) -> None:
    """Learn a byte-level BPE vocabulary and write it to `path`, a GGUF file with hyperparameters but no tensors.

    So the engine's own code tokenizes, as for every model. Raises ConfigError for too little text.
    """
    from gguf import GGUFWriter, TokenType
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer: Any = Tokenizer(models.BPE())
    # Matches the engine's pre-tokenizer for `pre` = "gpt-2".
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=architecture.vocabulary,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    if len(tokens) < architecture.vocabulary:
        raise ConfigError(
            f"The documents give only {len(tokens):,} tokens. Lower architecture.vocabulary (now "
            f"{architecture.vocabulary:,}), or train on more text."
        )
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
    writer.add_token_types([TokenType.CONTROL if token == END else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(tokens.index(END))
    writer.add_eos_token_id(tokens.index(END))
    writer.add_add_bos_token(False)
    finish(writer)


def make_trainable(network: Any, method: Method, seed: int) -> dict[str, torch.nn.Parameter]:
    """Enable gradients for what `method` learns, in place: LoRA updates (Hu et al. 2021, by PEFT) or all parameters.

    Returns the learned parameters, sorted by name. Initial values are a function of the arguments.
    """
    torch.manual_seed(seed)
    if method.kind == "full":
        network.requires_grad_(True)
        return dict(sorted(network.named_parameters()))
    from peft import LoraConfig, inject_adapter_in_model

    layers = range(method.first_layer, network.config.num_hidden_layers)
    if not layers:
        raise ConfigError(
            f"method.first_layer is {method.first_layer}, but the base has only the layers 0 to {layers.stop - 1}."
        )
    config = LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=0.0,
        target_modules=list(method.targets),
        layers_to_transform=list(layers),
        layers_pattern="layers",
    )
    inject_adapter_in_model(config, network, ADAPTER)
    learned = {name: p for name, p in sorted(network.named_parameters()) if p.requires_grad}
    for parameter in learned.values():
        # PEFT's float32 would cast every input of every layer. `MasterWeights` keeps float32 instead.
        parameter.data = parameter.data.to(network.dtype)
    return learned


def lora_pairs(network: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Module name to (A [rank, in], B [out, rank]). The update is B @ A * alpha / rank."""
    return {
        name: (module.lora_A[ADAPTER].weight.detach(), module.lora_B[ADAPTER].weight.detach())
        for name, module in network.named_modules()
        if hasattr(module, "lora_A") and ADAPTER in module.lora_A
    }


def learned_logits(network: Any, batch: Batch) -> Tensor:
    """The logits that predict the A learned tokens of a batch: float32 [A, vocabulary].

    No others are computed: the output matrix is large, and most tokens are only read.
    """
    tokens, positions, predictors = (
        each.to(network.device) for each in (batch.tokens, batch.positions, batch.predictors)
    )
    # A sharded network's own method also collects its shards (see `distributed`).
    compute = getattr(network, "logits_at", functools.partial(logits_at, network))
    return compute(tokens, positions, batch.pieces, predictors)


def logits_at(network: Any, tokens: Tensor, positions: Tensor, pieces: list[list[Piece]], places: Tensor) -> Tensor:
    hidden = network.model(input_ids=tokens, position_ids=positions, pieces=pieces).last_hidden_state
    logits: Tensor = network.lm_head(hidden.flatten(0, 1)[places])
    return logits.float()


def loss_sum(network: Any, batch: Batch) -> Tensor:
    """The sum of -log p(token) over all learned tokens. A mean would weigh tokens by the size of their micro-batch."""
    logits = learned_logits(network, batch)
    return functional.cross_entropy(logits, batch.targets.to(logits.device), reduction="sum")
