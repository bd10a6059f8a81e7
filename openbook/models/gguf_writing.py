"""Writing GGUF files: what is not a weight is copied from another file's metadata, never guessed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from openbook.errors import ConfigError, InvalidModelFile
from openbook.models.digest import READER_KEYS
from openbook.models.gguf import GgufHeader, MetadataValue, ValueType, read_gguf
from openbook.records import ReaderFormat

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter
    from numpy.typing import NDArray

Quantisation: TypeAlias = Literal["F32", "F16", "BF16", "Q8_0", "Q4_1", "Q4_0"]
# Other types of a vector or a matrix whose rows are not whole blocks.
_FALLBACK = "F16"
# How a file is laid out, and what its tensors are stored as.
_LAYOUT = ("general.architecture", "general.file_type", "general.alignment", "general.quantization_version")


def checked_quantisation(text: str) -> Quantisation:
    """Raises ConfigError."""
    known: dict[str, Quantisation] = {
        "f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0", "q4_1": "Q4_1", "q4_0": "Q4_0",
    }  # fmt: skip
    if found := known.get(text.lower()):
        return found
    raise ConfigError(f"{text!r} is no quantisation that can be written. Use one of {', '.join(known)}.")


def reader_of(path: Path) -> ReaderFormat | None:
    """How the model or adapter in the GGUF file is asked as a reader, if it is one."""
    header = read_gguf(path)
    instruction, abstention = (header.text(READER_KEYS + key) for key in ("instruction", "abstention"))
    if not (instruction and abstention):
        return None
    threshold = header.metadata.get(READER_KEYS + "declines_above")
    return ReaderFormat(
        instruction,
        abstention,
        header.integer(READER_KEYS + "passages") or 1,
        None if threshold is None else float(threshold.value),
    )


def add_reader(writer: GGUFWriter, reader: ReaderFormat | None) -> None:
    if reader is not None:
        writer.add_string(f"{READER_KEYS}instruction", reader.instruction)
        writer.add_string(f"{READER_KEYS}abstention", reader.abstention)
        if reader.passages > 1:
            writer.add_uint32(f"{READER_KEYS}passages", reader.passages)
        if reader.declines_above is not None:
            writer.add_float32(f"{READER_KEYS}declines_above", reader.declines_above)


def copy_metadata(writer: GGUFWriter, header: GgufHeader) -> None:
    """Every key of the file but those of its layout, and of how it is asked as a reader."""
    for key, entry in header.metadata.items():
        if key not in _LAYOUT and not key.startswith(READER_KEYS):
            _add_value(writer, key, entry)


def _add_value(writer: GGUFWriter, key: str, entry: MetadataValue) -> None:
    from gguf import GGUFValueType

    if entry.type is not ValueType.ARRAY:
        writer.add_key_value(key, entry.value, GGUFValueType(int(entry.type)))
        return
    inner = ValueType(int.from_bytes(entry.raw[:4], "little"))
    if len(entry.value):
        writer.add_key_value(key, list(entry.value), GGUFValueType.ARRAY, GGUFValueType(int(inner)))


def add_tensor(writer: GGUFWriter, name: str, values: NDArray[np.float32], quantisation: Quantisation) -> None:
    """`values`: float32, slowest dimension first. Raises InvalidModelFile for numbers that are not finite."""
    import numpy as np
    from gguf.quants import QuantError, quantize

    values = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        raise InvalidModelFile(f"The tensor {name} holds numbers that are not finite; the model is not stored.")
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


def finish(writer: GGUFWriter) -> None:
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
