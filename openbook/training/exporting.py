"""From a finished run to a model in the store: the only crossing, and it is a file.

A LoRA run gives an adapter, a small GGUF file that stands beside its base, or one model of both
(`openbook.models.gguf_writer`); a full run a model. All that is not a weight (vocabulary, chat template, hyperparameters) is
copied from the base's file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openbook.models import read_gguf
from openbook.models.describe import BASE_KEY
from openbook.models.gguf_writer import Quantisation, add_reader, add_tensor, copy_metadata, finish
from openbook.training.network import config_of, gguf_name, permuted, permuted_heads
from openbook.training.trainable import lora_pairs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from openbook.records import Digest, ReaderFormat


def write_adapter(
    path: Path,
    network: Any,
    base_file: Path,
    base: Digest,
    *,
    alpha: float,
    quantisation: Quantisation,
    reader: ReaderFormat | None,
) -> None:
    """The learned low-rank updates of `network` as a GGUF adapter for the model `base`, the file `base_file`."""
    from gguf import GGUFWriter

    header = read_gguf(base_file)
    config = config_of(header)
    writer = GGUFWriter(path, config.model_type)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    writer.add_string(BASE_KEY, base)
    add_reader(writer, reader)
    heads = permuted_heads(config)
    for module, (a, b) in sorted(lora_pairs(network).items()):
        name = gguf_name(f"{module}.weight")
        out = b.float().cpu().numpy()
        if rotated := heads.get(module.rpartition(".")[2]):
            out = permuted(out, rotated)
        add_tensor(writer, f"{name}.lora_a", a.float().cpu().numpy(), quantisation)
        add_tensor(writer, f"{name}.lora_b", out, quantisation)
    finish(writer)


def write_full(
    path: Path,
    described: Path,
    state: Mapping[str, NDArray[np.float32]],
    *,
    quantisation: Quantisation,
    reader: ReaderFormat | None,
) -> None:
    """All matrices of `state`, by transformers' names, as a model with the metadata of the GGUF file `described`."""
    from gguf import GGUFWriter

    header = read_gguf(described)
    config = config_of(header)
    heads = permuted_heads(config)
    writer = GGUFWriter(path, config.model_type)
    copy_metadata(writer, header)
    add_reader(writer, reader)
    for name, values in state.items():
        if rotated := heads.get(name.split(".")[-2]):
            values = permuted(values, rotated)
        add_tensor(writer, gguf_name(name), values, quantisation if values.ndim > 1 else "F32")
    finish(writer)


def lora_updates(network: Any, alpha: float) -> dict[str, NDArray[np.float32]]:
    """The update of each matrix that the adapter changes: float32 [out, in], by the names and in the order of GGUF."""
    found = {}
    heads = permuted_heads(network.config)
    for module, (a, b) in lora_pairs(network).items():
        update = (b.float() @ a.float() * (alpha / a.shape[0])).cpu().numpy()
        rotated = heads.get(module.rpartition(".")[2])
        found[gguf_name(f"{module}.weight")] = permuted(update, rotated) if rotated else update
    return found
