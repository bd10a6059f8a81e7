"""From a stored model to a network with gradients, by the numbers that the engine uses: the file's, dequantised.

Two families of models can be trained: `llama`, and `qwen2`, which differs by biases of the query, key and value
projections. For `llama`, GGUF keeps the rows of the query and key projections in another order (pairs of a rotation beside
each other, where transformers has halves); `permuted` and `unpermuted` translate.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from openbook.errors import InvalidModelFile
from openbook.models import GgufHeader, read_gguf
from openbook.training.attention import attend

if TYPE_CHECKING:
    from numpy.typing import NDArray

FAMILIES = ("llama", "qwen2")  # as `general.architecture` names them, and `model_type` of transformers
# The names of a layer's tensors: GGUF, transformers. `token_embd` and the rest follow in `hf_name`.
LAYER_NAMES = {
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
_TOP_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def hf_name(gguf_name: str) -> str:
    """`blk.3.attn_q.weight` to `model.layers.3.self_attn.q_proj.weight`. Raises InvalidModelFile."""
    if gguf_name in _TOP_NAMES:
        return _TOP_NAMES[gguf_name]
    parts = gguf_name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in LAYER_NAMES and parts[3] in ("weight", "bias"):
        return f"model.layers.{int(parts[1])}.{LAYER_NAMES[parts[2]]}.{parts[3]}"
    raise InvalidModelFile(f"The tensor {gguf_name!r} is not part of a model that can be trained here.")


def gguf_name(hf: str) -> str:
    """The other way round. Law: `gguf_name(hf_name(x)) == x`. Raises InvalidModelFile."""
    for short, long in _TOP_NAMES.items():
        if long == hf:
            return short
    parts = hf.split(".", 3)
    if len(parts) == 4 and parts[:2] == ["model", "layers"]:
        long, _, kind = parts[3].rpartition(".")
        for short, name in LAYER_NAMES.items():
            if name == long and kind in ("weight", "bias"):
                return f"blk.{int(parts[2])}.{short}.{kind}"
    raise InvalidModelFile(f"{hf!r} is not part of a model that can be written.")


def permuted(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Rows of a query or key projection [heads * d, n] from the order of transformers into that of GGUF."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def unpermuted(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Law: `unpermuted(permuted(x, h), h) == x`."""
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def config_of(header: GgufHeader) -> Any:
    """The hyperparameters of a model (a `LlamaConfig` or `Qwen2Config`).

    Raises InvalidModelFile for another architecture or a missing number.
    """
    from transformers import LlamaConfig, Qwen2Config

    family = header.text("general.architecture")
    if family not in FAMILIES:
        raise InvalidModelFile(f"Only models of the families {' and '.join(FAMILIES)} can be trained, not {family!r}.")
    for key in (f"{family}.rope.scaling.type", f"{family}.expert_count"):
        if key in header.metadata and header.metadata[key].value not in (0, "none"):
            raise InvalidModelFile(
                f"The model has {key} = {header.metadata[key].value!r}, which cannot be trained here."
            )

    def number(key: str) -> int:
        value = header.integer(f"{family}.{key}")
        if value is None or value < 1:
            raise InvalidModelFile(f"The model states no {family}.{key}; convert it again.")
        return value

    def real(key: str, default: float) -> float:
        found = header.metadata.get(f"{family}.{key}")
        return float(found.value) if found is not None else default

    heads = number("attention.head_count")
    tokens = header.metadata["tokenizer.ggml.tokens"].value
    numbers: dict[str, Any] = {
        "vocab_size": len(tokens),
        "hidden_size": number("embedding_length"),
        "intermediate_size": number("feed_forward_length"),
        "num_hidden_layers": number("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": header.integer(f"{family}.attention.head_count_kv") or heads,
        "max_position_embeddings": number("context_length"),
        "rms_norm_eps": real("attention.layer_norm_rms_epsilon", 1e-5),
        "rope_parameters": {"rope_type": "default", "rope_theta": real("rope.freq_base", 10_000.0)},
        "tie_word_embeddings": not any(t.name == "output.weight" for t in header.tensors),
        "use_cache": False,
    }
    config = LlamaConfig(**numbers) if family == "llama" else Qwen2Config(**numbers)
    head_dim = config.hidden_size // config.num_attention_heads
    rotated = header.integer(f"{family}.rope.dimension_count")
    if rotated is not None and rotated != head_dim:
        raise InvalidModelFile(f"The model rotates {rotated} of {head_dim} dimensions; only all can be trained.")
    return config


def permuted_heads(config: Any) -> dict[str, int]:
    """The projections whose rows GGUF keeps in another order than transformers, each with its number of heads."""
    if config.model_type != "llama":
        return {}
    return {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}


def dequantised(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every tensor of the GGUF file in transformers' names, order and shape (slowest dimension first), as float32."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    header = read_gguf(path)  # strict and bounded, so that what follows meets nothing unexpected
    heads = permuted_heads(config_of(header))
    found: dict[str, NDArray[np.float32]] = {}
    for tensor in GGUFReader(path).tensors:
        name = hf_name(tensor.name)
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if permuted_by := heads.get(name.split(".")[-2]):
            values = unpermuted(values, permuted_by)
        found[name] = np.ascontiguousarray(values)
    return found


def load_network(path: Path, *, dtype: torch.dtype = torch.float32) -> Any:
    """The network of the GGUF file at `path`, without gradients yet. It computes in `dtype`. Raises InvalidModelFile."""
    from transformers import LlamaForCausalLM, Qwen2ForCausalLM
    from transformers.initialization import no_init_weights

    config = config_of(read_gguf(path))
    with no_init_weights():
        network: Any = (LlamaForCausalLM if config.model_type == "llama" else Qwen2ForCausalLM)(config)
    attend(network)
    state = {name: torch.from_numpy(values) for name, values in dequantised(path).items()}
    missing, unexpected = network.load_state_dict(state, strict=False)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set[str]()
    if unexpected or set(missing) - tied:
        raise InvalidModelFile(f"The model lacks {sorted(set(missing) - tied)} or has too much: {sorted(unexpected)}.")
    network.tie_weights()
    network.requires_grad_(False)
    return network.to(dtype).eval()
