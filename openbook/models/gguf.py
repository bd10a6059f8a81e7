"""A strict, bounded reader of GGUF headers (versions 2 and 3, little-endian).

It reads the metadata and the tensor table, never the tensors. Every count and length is checked against the bytes that
are there before anything is allocated, so a hostile file costs no more than an honest one of its size.
Specification: `docs/gguf.md` of ggml.
"""

from __future__ import annotations

import enum
import itertools
import math
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from openbook.errors import InvalidModelFile
from openbook.files import storage_errors

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT_BYTES = 32
MAX_ALIGNMENT_BYTES = 1 << 20
MAX_HEADER_BYTES = 128 << 20  # the largest vocabularies in use need about 16 MB
MAX_KEY_BYTES = 65_535
MAX_TENSOR_NAME_BYTES = 64
MAX_ARRAY_ITEMS = 1 << 24
MAX_ARRAY_DEPTH = 4
MAX_DIMENSIONS = 4
FIRST_READ_BYTES = 4 << 20


class ValueType(enum.IntEnum):
    """The types of metadata values, by their code in the file."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


_NUMBER_FORMATS = {
    ValueType.UINT8: "B",
    ValueType.INT8: "b",
    ValueType.UINT16: "H",
    ValueType.INT16: "h",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "?",
    ValueType.UINT64: "Q",
    ValueType.INT64: "q",
    ValueType.FLOAT64: "d",
}


# The tensor types of ggml by their code: (name, numbers in a block, bytes of a block). Source: `ggml-common.h` of llama.cpp.
GGML_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}


@dataclass(frozen=True, slots=True)
class MetadataValue:
    """One metadata value. Arrays are tuples. `raw` is the value as the file encodes it, without its type code."""

    type: ValueType
    value: Any
    raw: bytes = field(repr=False)

    @property
    def item_type(self) -> ValueType | None:
        """The type of an array's items; None for what is no array."""
        return ValueType(int.from_bytes(self.raw[:4], "little")) if self.type is ValueType.ARRAY else None


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One row of the tensor table. `shape` is in the file's order (fastest dimension first); `start` counts from the
    beginning of the file, so the tensor is `file[start : start + size_bytes]`.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    start: int
    size_bytes: int

    @property
    def element_count(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """All of a GGUF file but its tensors. The tensor table ends at `header_bytes`; tensors lie from `data_start`."""

    version: int
    metadata: Mapping[str, MetadataValue] = field(hash=False, repr=False)
    tensors: tuple[TensorInfo, ...] = field(repr=False)
    header_bytes: int
    data_start: int
    alignment_bytes: int
    file_bytes: int

    def text(self, key: str) -> str | None:
        """The value of a string key, or None where it is absent or of another type."""
        found = self.metadata.get(key)
        return found.value if found is not None and found.type is ValueType.STRING else None

    def integer(self, key: str) -> int | None:
        """The value of an integer key, or None where it is absent or of another type."""
        found = self.metadata.get(key)
        return found.value if found is not None and type(found.value) is int else None


def read_gguf(path: Path) -> GgufHeader:
    """The header of the file at `path`. Raises InvalidModelFile with the reason, StorageError if it cannot be read."""
    length = FIRST_READ_BYTES
    with storage_errors(f"read {path}"), path.open("rb") as stream:
        file_bytes = stream.seek(0, 2)
        while True:
            stream.seek(0)
            wanted = min(length, file_bytes, MAX_HEADER_BYTES)
            prefix = stream.read(wanted)
            try:
                return parse_gguf(prefix, file_bytes)
            except InvalidModelFile as error:
                raise InvalidModelFile(f"{path.name} is not a GGUF model OpenBook can read: {error}.") from error
            except _MoreNeeded:
                if len(prefix) < wanted:
                    raise InvalidModelFile(f"{path.name} became shorter while it was read.") from None
                length *= 4


class _MoreNeeded(Exception):
    """The header goes on past the bytes read so far, and the file has more."""


def parse_gguf(prefix: bytes, file_bytes: int) -> GgufHeader:
    """The header that begins `prefix`, the first bytes of a file of `file_bytes`. Raises InvalidModelFile."""
    cursor = _Cursor(prefix, file_bytes)
    if prefix[:4] != MAGIC:
        raise InvalidModelFile(f"it begins with {prefix[:4]!r}, not with {MAGIC!r}")
    cursor.position = 4
    version = cursor.u32()
    if version & 0xFFFF == 0 and version != 0:
        raise InvalidModelFile("it is big-endian; convert it to little-endian (gguf-convert-endian FILE little)")
    if version not in VERSIONS:
        raise InvalidModelFile(f"it has GGUF version {version}; versions 2 and 3 are known")
    tensor_count = cursor.count("tensors", smallest_bytes=8 + 4 + 8 + 4 + 8)
    key_count = cursor.count("metadata keys", smallest_bytes=8 + 4 + 1)
    metadata = _read_metadata(cursor, key_count)
    rows = [_read_tensor(cursor) for _ in range(tensor_count)]
    alignment = _alignment(metadata)
    data_start = -(-cursor.position // alignment) * alignment
    tensors = tuple(replace(row, start=data_start + row.start) for row in rows)
    for tensor in tensors:
        offset, end = tensor.start - data_start, tensor.start + tensor.size_bytes
        if offset % alignment:
            raise InvalidModelFile(f"tensor {tensor.name!r} is at offset {offset}, not a multiple of {alignment}")
        if end > file_bytes:
            raise InvalidModelFile(
                f"tensor {tensor.name!r} would end at byte {end}, but the file has {file_bytes} bytes: it is truncated or damaged"
            )
    if len({tensor.name for tensor in tensors}) < len(tensors):
        twice = Counter(tensor.name for tensor in tensors).most_common(1)[0][0]
        raise InvalidModelFile(f"the tensor {twice!r} stands twice")
    for before, after in itertools.pairwise(sorted(tensors, key=lambda tensor: tensor.start)):
        if before.start + before.size_bytes > after.start:
            raise InvalidModelFile(f"the tensors {before.name!r} and {after.name!r} overlap")
    return GgufHeader(version, MappingProxyType(metadata), tensors, cursor.position, data_start, alignment, file_bytes)


class _Cursor:
    """A position in the bytes read so far. Reading past them says whether the header or the file was too short."""

    def __init__(self, data: bytes, file_bytes: int) -> None:
        self.data = data
        self.file_bytes = file_bytes
        self.position = 0

    def take(self, length_bytes: int, what: str) -> bytes:
        start, end = self.position, self.position + length_bytes
        if end > self.file_bytes:
            raise InvalidModelFile(
                f"{what} would end at byte {end}, but the file has {self.file_bytes} bytes: it is truncated or damaged"
            )
        if end > MAX_HEADER_BYTES:
            raise InvalidModelFile(f"its header is longer than {MAX_HEADER_BYTES} bytes")
        if end > len(self.data):
            raise _MoreNeeded
        self.position = end
        return self.data[start:end]

    def u32(self) -> int:
        return int.from_bytes(self.take(4, "a number"), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8, "a number"), "little")

    def count(self, what: str, smallest_bytes: int) -> int:
        """A count of things of at least `smallest_bytes` each, which must fit into the rest of the file."""
        number = self.u64()
        if number * smallest_bytes > self.file_bytes - self.position:
            raise InvalidModelFile(f"it claims {number} {what}, more than its {self.file_bytes} bytes can hold")
        return number

    def string(self, what: str, max_bytes: int) -> str:
        length = self.u64()
        if length > max_bytes:
            raise InvalidModelFile(f"{what} has {length} bytes; at most {max_bytes} are allowed")
        data = self.take(length, what)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise InvalidModelFile(f"{what} is not UTF-8 text: {data[:40]!r}") from error


# --- metadata ---------------------------------------------------------------------------------------------------------


def _read_metadata(cursor: _Cursor, key_count: int) -> dict[str, MetadataValue]:
    metadata: dict[str, MetadataValue] = {}
    for _ in range(key_count):
        key = cursor.string("a metadata key", MAX_KEY_BYTES)
        if not key:
            raise InvalidModelFile("a metadata key is empty")
        if key in metadata:
            raise InvalidModelFile(f"the metadata key {key!r} stands twice")
        kind = _read_type(cursor, key)
        start = cursor.position
        (value,) = _read_values(cursor, kind, key, 1, depth=0)
        metadata[key] = MetadataValue(kind, value, cursor.data[start : cursor.position])
    return metadata


def _read_type(cursor: _Cursor, key: str) -> ValueType:
    code = cursor.u32()
    try:
        return ValueType(code)
    except ValueError:
        raise InvalidModelFile(f"the metadata key {key!r} has the unknown type {code}") from None


def _read_values(cursor: _Cursor, kind: ValueType, key: str, count: int, depth: int) -> tuple[Any, ...]:
    if kind is ValueType.STRING:
        return _read_strings(cursor, key, count)
    if kind is ValueType.ARRAY:
        return tuple(_read_array(cursor, key, depth + 1) for _ in range(count))
    layout = struct.Struct(f"<{count}{_NUMBER_FORMATS[kind]}")
    data = cursor.take(layout.size, f"the value of {key!r}")
    if kind is ValueType.BOOL and data.translate(None, b"\x00\x01"):
        raise InvalidModelFile(f"{key!r} is of type bool and holds a byte other than 0 and 1")
    return layout.unpack(data)


def _read_array(cursor: _Cursor, key: str, depth: int) -> tuple[Any, ...]:
    if depth > MAX_ARRAY_DEPTH:
        raise InvalidModelFile(f"{key!r} nests arrays more than {MAX_ARRAY_DEPTH} deep")
    kind = _read_type(cursor, key)
    smallest = {ValueType.STRING: 8, ValueType.ARRAY: 12}.get(kind) or struct.calcsize("<" + _NUMBER_FORMATS[kind])
    count = cursor.count(f"items in {key!r}", smallest)
    if count > MAX_ARRAY_ITEMS:
        raise InvalidModelFile(f"{key!r} holds {count} items; at most {MAX_ARRAY_ITEMS} are allowed")
    return _read_values(cursor, kind, key, count, depth)


def _read_strings(cursor: _Cursor, key: str, count: int) -> tuple[str, ...]:
    """The loop that vocabularies of 50,000 tokens go through, twice: kept free of calls."""
    data, position = cursor.data, cursor.position
    unpack: Callable[[bytes, int], tuple[int]] = struct.Struct("<Q").unpack_from
    strings: list[str] = []
    try:
        while len(strings) < count and position + 8 <= len(data):
            start, position = position + 8, position + 8 + unpack(data, position)[0]
            if position > len(data):
                break
            strings.append(data[start:position].decode())
    except UnicodeDecodeError as error:
        raise InvalidModelFile(f"item {len(strings)} of {key!r} is not UTF-8 text") from error
    end = position if len(strings) == count or position > len(data) else position + 8
    cursor.take(end - cursor.position, f"item {len(strings)} of {key!r}")
    return tuple(strings)


def _alignment(metadata: Mapping[str, MetadataValue]) -> int:
    found = metadata.get("general.alignment")
    if found is None:
        return DEFAULT_ALIGNMENT_BYTES
    value = found.value
    if found.type is not ValueType.UINT32 or not 8 <= value <= MAX_ALIGNMENT_BYTES or value & (value - 1):
        raise InvalidModelFile(
            f"general.alignment is {value!r} ({found.type.name}); it must be a power of two, 8 or more"
        )
    return int(value)


# --- the tensor table -------------------------------------------------------------------------------------------------


def _read_tensor(cursor: _Cursor) -> TensorInfo:
    """A row of the table. Its `start` counts from the beginning of the data, which is known after the last row."""
    name = cursor.string("a tensor name", MAX_TENSOR_NAME_BYTES)
    if not name:
        raise InvalidModelFile("a tensor has an empty name")
    dimensions = cursor.u32()
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise InvalidModelFile(f"tensor {name!r} has {dimensions} dimensions; 1 to {MAX_DIMENSIONS} are allowed")
    shape = tuple(cursor.u64() for _ in range(dimensions))
    if 0 in shape:
        raise InvalidModelFile(f"tensor {name!r} has the shape {shape}; every dimension must be 1 or more")
    code = cursor.u32()
    if code not in GGML_TYPES:
        raise InvalidModelFile(
            f"tensor {name!r} has the type {code}, which llama.cpp does not know; convert the file again"
        )
    kind, block_elements, block_bytes = GGML_TYPES[code]
    if shape[0] % block_elements:
        raise InvalidModelFile(
            f"tensor {name!r} has rows of {shape[0]} numbers; {kind} needs a multiple of {block_elements}"
        )
    size = math.prod(shape) // block_elements * block_bytes
    return TensorInfo(name, kind, shape, cursor.u64(), size)
