"""Writing GGUF files. Everything but the weights is copied from another file's metadata, never guessed.

An adapter is merged into its base as W + B A * alpha / rank for every matrix W, which is then quantized again. The result
has its own digest and lineage. The same two files give the same bytes on every machine: B A is computed in float64, where
the machine's order of summation makes differences too small for the stored float32.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from openbook.core.errors import ConfigError, InvalidModelFile
from openbook.core.records import ReaderFormat
from openbook.models.gguf import GgufHeader, read_gguf
from openbook.models.reader_metadata import READER_KEYS, add_reader

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFWriter
    from numpy.typing import NDArray

Quantisation: TypeAlias = Literal["F32", "F16", "BF16", "Q8_0", "Q4_1", "Q4_0"]
# Layout of the file and storage types of its tensors.
_LAYOUT = ("general.architecture", "general.file_type", "general.alignment", "general.quantization_version")


def checked_quantisation(text: str) -> Quantisation:
    """Return the quantisation that `text` names. Raises ConfigError."""
    for known in get_args(Quantisation):
        if known == text.upper():
            return known  # type: ignore[no-any-return]  # get_args is not typed
    names = ", ".join(get_args(Quantisation)).lower()
    raise ConfigError(f"OpenBook cannot write the quantisation {text!r}. Use one of {names}.")


def write_gguf(
    path: Path,
    header: GgufHeader,
    tensors: Iterable[tuple[str, NDArray[np.float32]]],
    *,
    quantisation: Quantisation,
    reader: ReaderFormat | None,
) -> None:
    """Write `tensors` with the metadata of `header`, without its layout and reader keys. Raises InvalidModelFile.

    Matrices are stored in `quantisation` (F16 if a row is not whole blocks), vectors in F32.
    """
    from gguf import GGUFValueType, GGUFWriter

    writer = GGUFWriter(path, header.text("general.architecture") or "")
    for key, entry in header.metadata.items():
        if key in _LAYOUT or key.startswith(READER_KEYS):
            continue
        if entry.item_type is None:
            writer.add_key_value(key, entry.value, GGUFValueType(int(entry.type)))
        elif entry.value:  # the library writes no empty array
            writer.add_key_value(key, list(entry.value), GGUFValueType.ARRAY, GGUFValueType(int(entry.item_type)))
    add_reader(writer, reader)
    for name, values in tensors:
        add_tensor(writer, name, values, quantisation if values.ndim > 1 else "F32")
    finish(writer)


def add_tensor(writer: GGUFWriter, name: str, values: NDArray[np.float32], quantisation: Quantisation) -> None:
    """`values`: float32, slowest dimension first. Raises InvalidModelFile for values that are not finite."""
    import numpy as np
    from gguf import GGMLQuantizationType
    from gguf.quants import QuantError, quantize

    values = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        raise InvalidModelFile(f"The tensor {name} holds numbers that are not finite; the model is not stored.")
    kind = GGMLQuantizationType[quantisation]
    try:
        data = quantize(values, kind)
    except QuantError:  # a row that is not whole blocks
        kind = GGMLQuantizationType.F16
        data = quantize(values, kind)
    writer.add_tensor(name, data, raw_dtype=kind)


def finish(writer: GGUFWriter) -> None:
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


class AdapterUpdates(Mapping[str, "NDArray[np.float32]"]):
    """An adapter's update of each matrix, by GGUF name: float32 [out, in], computed on access to save memory."""

    def __init__(self, adapter_file: Path, base_file: Path) -> None:
        """Raises InvalidModelFile if the adapter does not fit the base."""
        from gguf import GGUFReader

        header, base = read_gguf(adapter_file), {tensor.name: tensor.shape for tensor in read_gguf(base_file).tensors}
        shapes = {tensor.name: tensor.shape for tensor in header.tensors}
        for name in {re.sub(r"\.lora_[ab]$", "", name) for name in shapes}:
            a, b, whole = shapes.get(f"{name}.lora_a", ()), shapes.get(f"{name}.lora_b", ()), base.get(name)
            if whole is None or (len(a), len(b)) != (2, 2) or a[1] != b[0] or (a[0], b[1]) != whole:
                raise InvalidModelFile(
                    f"The adapter changes {name} by matrices of the shapes {a} and {b}; in its base that has the shape {whole}."
                )
        alpha = header.metadata.get("adapter.lora.alpha")
        if alpha is None or not isinstance(alpha.value, float):
            raise InvalidModelFile("The adapter states no number adapter.lora.alpha.")
        self._alpha = alpha.value
        self._parts = {tensor.name: tensor for tensor in GGUFReader(adapter_file).tensors}

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        import numpy as np
        from gguf.quants import dequantize

        pair = (self._parts[f"{name}.lora_a"], self._parts[f"{name}.lora_b"])
        a, b = (dequantize(part.data, part.tensor_type).astype(np.float64) for part in pair)
        update: NDArray[np.float32] = (b @ a * (self._alpha / a.shape[0])).astype(np.float32)
        return update

    def __iter__(self) -> Iterator[str]:
        return (part.removesuffix(".lora_a") for part in self._parts if part.endswith(".lora_a"))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def write_merged(
    path: Path,
    base_file: Path,
    updates: Mapping[str, NDArray[np.float32]],
    *,
    quantisation: Quantisation,
    reader: ReaderFormat | None,
) -> None:
    """Write the model of `base_file` plus `updates` (by GGUF name, float32 [out, in]). Raises InvalidModelFile."""
    header = read_gguf(base_file)  # strict and bounded, which protects the reader below
    if left := set(updates) - {tensor.name for tensor in header.tensors}:
        raise InvalidModelFile(f"The base has no {', '.join(sorted(left))}, which the update changes.")

    def tensors() -> Iterator[tuple[str, NDArray[np.float32]]]:
        for name, values in dequantised(base_file):
            update = updates.get(name)
            if update is not None and update.shape != values.shape:
                raise InvalidModelFile(f"The update of {name} has the shape {update.shape}, not {values.shape}.")
            yield name, values if update is None else values + update

    write_gguf(path, header, tensors(), quantisation=quantisation, reader=reader)


def dequantised(path: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield (name, float32 values, slowest dimension first). `read_gguf` must have read the file: this is not bounded."""
    import numpy as np
    from gguf import GGUFReader
    from gguf.quants import dequantize

    for tensor in GGUFReader(path).tensors:
        yield tensor.name, dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
