"""From a finished run to a model in the store: the only crossing, and it is a file.

A LoRA run gives an adapter, a small GGUF file that stands beside its base. `merged` writes base and adapter as one model,
a full run likewise. All that is not a weight (vocabulary, chat template, hyperparameters) is copied from the base's file,
never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from openbook.errors import ConfigError, InvalidModelFile
from openbook.models import GgufHeader, read_gguf
from openbook.models.describe import BASE_KEY
from openbook.models.digest import READER_KEYS
from openbook.models.gguf import MetadataValue, ValueType
from openbook.training.network import config_of, gguf_name, hf_name, permuted, unpermuted
from openbook.training.trainable import lora_pairs

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter
    from numpy.typing import NDArray

    from openbook.records import Digest, ReaderFormat

Quantisation: TypeAlias = Literal["F32", "F16", "BF16", "Q8_0", "Q4_1", "Q4_0"]
# Other types of a vector or a matrix whose rows are not whole blocks.
_FALLBACK = "F16"


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
    writer = GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    writer.add_string(BASE_KEY, base)
    _add_reader(writer, reader)
    heads = _heads(config)
    for module, (a, b) in sorted(lora_pairs(network).items()):
        name = gguf_name(f"{module}.weight")
        out = b.float().numpy()
        if rotated := heads.get(module.rpartition(".")[2]):
            out = permuted(out, rotated)
        _add_tensor(writer, f"{name}.lora_a", a.float().numpy(), quantisation)
        _add_tensor(writer, f"{name}.lora_b", out, quantisation)
    _finish(writer)


def write_merged(
    path: Path,
    base_file: Path,
    updates: Mapping[str, NDArray[np.float32]],
    *,
    quantisation: Quantisation,
    reader: ReaderFormat | None,
) -> None:
    """The model of `base_file` with `updates` added to its matrices, by transformers' names, as a GGUF of its own.

    Matrices are stored in `quantisation`, vectors in F32.
    """
    from gguf import GGUFReader, GGUFWriter
    from gguf.quants import dequantize

    header = read_gguf(base_file)
    heads = _heads(config_of(header))
    writer = GGUFWriter(path, "llama")
    copy_metadata(writer, header)
    _add_reader(writer, reader)
    left = dict(updates)
    for tensor in GGUFReader(base_file).tensors:
        name = hf_name(tensor.name)
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if (update := left.pop(name, None)) is not None:
            if rotated := heads.get(name.split(".")[-2]):
                update = permuted(update, rotated)
            values = values + update
        _add_tensor(writer, tensor.name, values, quantisation if values.ndim > 1 else "F32")
    if left:
        raise InvalidModelFile(f"The base has no {', '.join(sorted(left))}, which were learned.")
    _finish(writer)


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
    heads = _heads(config_of(header))
    writer = GGUFWriter(path, "llama")
    copy_metadata(writer, header)
    _add_reader(writer, reader)
    for name, values in state.items():
        if rotated := heads.get(name.split(".")[-2]):
            values = permuted(values, rotated)
        _add_tensor(writer, gguf_name(name), values, quantisation if values.ndim > 1 else "F32")
    _finish(writer)


def lora_updates(network: Any, alpha: float) -> dict[str, NDArray[np.float32]]:
    """The update of each matrix that the adapter changes: float32 [out, in], by transformers' names."""
    found = {}
    for module, (a, b) in lora_pairs(network).items():
        found[f"{module}.weight"] = (b.float() @ a.float() * (alpha / a.shape[0])).numpy()
    return found


def adapter_updates(adapter_file: Path, base_file: Path) -> dict[str, NDArray[np.float32]]:
    """The same, from a stored adapter: as the engine sees it, after quantisation."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    header = read_gguf(adapter_file)
    alpha = float(header.metadata["adapter.lora.alpha"].value)
    heads = _heads(config_of(read_gguf(base_file)))
    parts = {t.name: dequantize(t.data, t.tensor_type).astype(np.float32) for t in GGUFReader(adapter_file).tensors}
    found = {}
    for name in sorted({part.rpartition(".")[0] for part in parts}):
        a, b = parts[f"{name}.lora_a"], parts[f"{name}.lora_b"]
        update = b @ a * np.float32(alpha / a.shape[0])
        target = hf_name(name)
        rotated = heads.get(target.split(".")[-2])
        found[target] = unpermuted(update, rotated) if rotated else update
    return found


def reader_of(path: Path) -> ReaderFormat | None:
    """How the model or adapter in the GGUF file is asked as a reader, if it is one."""
    from openbook.records import ReaderFormat

    header = read_gguf(path)
    instruction, abstention = (header.text(READER_KEYS + key) for key in ("instruction", "abstention"))
    return ReaderFormat(instruction, abstention) if instruction and abstention else None


def copy_metadata(writer: GGUFWriter, header: GgufHeader) -> None:
    """Every key of the file but those that say how it is laid out or what its tensors are stored as."""
    for key, entry in header.metadata.items():
        if key in ("general.architecture", "general.file_type", "general.alignment", "general.quantization_version"):
            continue
        if not key.startswith(READER_KEYS):
            _add_value(writer, key, entry)


def _add_value(writer: GGUFWriter, key: str, entry: MetadataValue) -> None:
    from gguf import GGUFValueType

    if entry.type is not ValueType.ARRAY:
        writer.add_key_value(key, entry.value, GGUFValueType(int(entry.type)))
        return
    inner = ValueType(int.from_bytes(entry.raw[:4], "little"))
    if len(entry.value):
        writer.add_key_value(key, list(entry.value), GGUFValueType.ARRAY, GGUFValueType(int(inner)))


def _add_reader(writer: GGUFWriter, reader: ReaderFormat | None) -> None:
    if reader is not None:
        writer.add_string(f"{READER_KEYS}instruction", reader.instruction)
        writer.add_string(f"{READER_KEYS}abstention", reader.abstention)


def _heads(config: Any) -> dict[str, int]:
    return {
        "q_proj": config.num_attention_heads,
        "k_proj": config.num_key_value_heads or config.num_attention_heads,
    }


def _add_tensor(writer: GGUFWriter, name: str, values: NDArray[np.float32], quantisation: Quantisation) -> None:
    from gguf.quants import QuantError, quantize

    values = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        raise InvalidModelFile(f"The learned tensor {name} holds numbers that are not finite; the model is not stored.")
    kind = _type(quantisation)
    try:
        data = quantize(values, kind)
    except QuantError:  # a row that is not whole blocks
        kind = _type(_FALLBACK)
        data = quantize(values, kind)
    writer.add_tensor(name, data, raw_dtype=kind)


def _type(quantisation: str) -> GGMLQuantizationType:
    from gguf import GGMLQuantizationType

    return GGMLQuantizationType[quantisation]


def _finish(writer: GGUFWriter) -> None:
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def checked_quantisation(text: str) -> Quantisation:
    """Raises ConfigError."""
    known: dict[str, Quantisation] = {
        "f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0", "q4_1": "Q4_1", "q4_0": "Q4_0",
    }  # fmt: skip
    if found := known.get(text.lower()):
        return found
    raise ConfigError(f"{text!r} is no quantisation that can be written. Use one of {', '.join(known)}.")
