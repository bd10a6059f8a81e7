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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from openbook.errors import InvalidModelFile, StorageError
from openbook.models.ggml import GGML_TYPES, REMOVED_TYPES, GgmlType

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
    ValueType.UINT64: "Q",
    ValueType.INT64: "q",
    ValueType.FLOAT64: "d",
}


@dataclass(frozen=True, slots=True)
class MetadataValue:
    """One metadata value. Arrays are tuples. `raw` is the value as the file encodes it, without its type code."""

    type: ValueType
    value: Any
    raw: bytes = field(repr=False)


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
    try:
        with path.open("rb") as stream:
            file_bytes = stream.seek(0, 2)
            length = FIRST_READ_BYTES
            while True:
                stream.seek(0)
                prefix = stream.read(min(length, file_bytes, MAX_HEADER_BYTES))
                try:
                    return parse_gguf(prefix, file_bytes)
                except _MoreNeeded:
                    if len(prefix) < min(length, file_bytes, MAX_HEADER_BYTES):
                        raise InvalidModelFile("the file became shorter while it was read") from None
                    length *= 4
    except InvalidModelFile as error:
        raise InvalidModelFile(f"{path.name} is not a GGUF model OpenBook can read: {error}.") from error.__cause__
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error


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
    rows = [_read_tensor_row(cursor) for _ in range(tensor_count)]
    alignment = _alignment(metadata)
    data_start = -(-cursor.position // alignment) * alignment
    tensors = tuple(_placed(row, data_start, alignment, file_bytes) for row in rows)
    _check_tensors(tensors)
    return GgufHeader(version, MappingProxyType(metadata), tensors, cursor.position, data_start, alignment, file_bytes)


class _Cursor:
    """A position in the bytes read so far. Reading past them says whether the header or the file was too short."""

    def __init__(self, data: bytes, file_bytes: int) -> None:
        self.data = data
        self.file_bytes = file_bytes
        self.position = 0

    def require(self, length_bytes: int, what: str) -> int:
        """Steps over `length_bytes` and returns where they start."""
        start = self.position
        end = start + length_bytes
        if end > len(self.data):
            self._too_short(end, what)
        self.position = end
        return start

    def _too_short(self, end: int, what: str) -> None:
        if end > self.file_bytes:
            raise InvalidModelFile(
                f"{what} would end at byte {end}, but the file has {self.file_bytes} bytes: it is truncated or damaged"
            )
        if end > MAX_HEADER_BYTES:
            raise InvalidModelFile(f"its header is longer than {MAX_HEADER_BYTES} bytes")
        raise _MoreNeeded

    def u32(self) -> int:
        start = self.require(4, "a number")
        return int.from_bytes(self.data[start : start + 4], "little")

    def u64(self) -> int:
        start = self.require(8, "a number")
        return int.from_bytes(self.data[start : start + 8], "little")

    def count(self, what: str, smallest_bytes: int) -> int:
        """A count of things of at least `smallest_bytes` each, which must fit into the rest of the file."""
        number = self.u64()
        if number * smallest_bytes > self.file_bytes - self.position:
            raise InvalidModelFile(f"it claims {number} {what}, more than its {self.file_bytes} bytes can hold")
        return number

    def string(self, what: str, max_bytes: int = MAX_HEADER_BYTES) -> str:
        length = self.u64()
        if length > max_bytes:
            raise InvalidModelFile(f"{what} has {length} bytes; at most {max_bytes} are allowed")
        start = self.require(length, what)
        return _decoded(self.data[start : start + length], what)


def _decoded(data: bytes, what: str) -> str:
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
        kind = _value_type(cursor.u32(), key)
        start = cursor.position
        value = _read_value(cursor, kind, key, depth=0)
        metadata[key] = MetadataValue(kind, value, cursor.data[start : cursor.position])
    return metadata


def _value_type(code: int, key: str) -> ValueType:
    try:
        return ValueType(code)
    except ValueError:
        raise InvalidModelFile(f"the metadata key {key!r} has the unknown type {code}") from None


def _read_value(cursor: _Cursor, kind: ValueType, key: str, depth: int) -> Any:
    if kind is ValueType.STRING:
        return cursor.string(f"the value of {key!r}")
    if kind is ValueType.ARRAY:
        return _read_array(cursor, key, depth + 1)
    return _read_numbers(cursor, kind, key, 1)[0]


def _read_numbers(cursor: _Cursor, kind: ValueType, key: str, count: int) -> tuple[Any, ...]:
    if kind is ValueType.BOOL:
        start = cursor.require(count, f"the value of {key!r}")
        data = cursor.data[start : start + count]
        if data.translate(None, b"\x00\x01"):
            raise InvalidModelFile(f"{key!r} is of type bool and holds a byte other than 0 and 1")
        return tuple(byte == 1 for byte in data)
    layout = struct.Struct(f"<{count}{_NUMBER_FORMATS[kind]}")
    start = cursor.require(layout.size, f"the value of {key!r}")
    return layout.unpack_from(cursor.data, start)


def _read_array(cursor: _Cursor, key: str, depth: int) -> tuple[Any, ...]:
    if depth > MAX_ARRAY_DEPTH:
        raise InvalidModelFile(f"{key!r} nests arrays more than {MAX_ARRAY_DEPTH} deep")
    kind = _value_type(cursor.u32(), key)
    smallest = {ValueType.STRING: 8, ValueType.ARRAY: 12, ValueType.BOOL: 1}.get(kind)
    item_bytes = smallest if smallest is not None else struct.calcsize("<" + _NUMBER_FORMATS[kind])
    count = cursor.count(f"items in {key!r}", item_bytes)
    if count > MAX_ARRAY_ITEMS:
        raise InvalidModelFile(f"{key!r} holds {count} items; at most {MAX_ARRAY_ITEMS} are allowed")
    if kind is ValueType.STRING:
        return _read_strings(cursor, key, count)
    if kind is ValueType.ARRAY:
        return tuple(_read_array(cursor, key, depth + 1) for _ in range(count))
    return _read_numbers(cursor, kind, key, count)


def _read_strings(cursor: _Cursor, key: str, count: int) -> tuple[str, ...]:
    """The loop that vocabularies of 50,000 tokens go through, twice: kept free of calls."""
    data, position, end = cursor.data, cursor.position, len(cursor.data)
    unpack: Callable[[bytes, int], tuple[int]] = struct.Struct("<Q").unpack_from
    strings: list[str] = []
    append = strings.append
    try:
        for _ in range(count):
            start = position + 8
            if start > end:
                break
            position = start + unpack(data, position)[0]
            if position > end:
                break
            append(data[start:position].decode())
    except UnicodeDecodeError as error:
        raise InvalidModelFile(f"item {len(strings)} of {key!r} is not UTF-8 text") from error
    cursor.position = 0
    cursor.require(max(position, start) if len(strings) < count else position, f"item {len(strings)} of {key!r}")
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


@dataclass(frozen=True, slots=True)
class _TensorRow:
    name: str
    type: GgmlType
    shape: tuple[int, ...]
    offset: int  # from the start of the data


def _read_tensor_row(cursor: _Cursor) -> _TensorRow:
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
    kind = GGML_TYPES.get(code)
    if kind is None:
        known = "removed from ggml; the file must be made again" if code in REMOVED_TYPES else "unknown to this version"
        raise InvalidModelFile(f"tensor {name!r} has the type {code}, which is {known}")
    if shape[0] % kind.block_elements:
        raise InvalidModelFile(
            f"tensor {name!r} has rows of {shape[0]} numbers; {kind.name} needs a multiple of {kind.block_elements}"
        )
    return _TensorRow(name, kind, shape, cursor.u64())


def _placed(row: _TensorRow, data_start: int, alignment: int, file_bytes: int) -> TensorInfo:
    size = math.prod(row.shape) // row.type.block_elements * row.type.block_bytes
    start = data_start + row.offset
    if row.offset % alignment:
        raise InvalidModelFile(f"tensor {row.name!r} is at offset {row.offset}, not a multiple of {alignment}")
    if start + size > file_bytes:
        raise InvalidModelFile(
            f"tensor {row.name!r} would end at byte {start + size}, but the file has {file_bytes} bytes: "
            "it is truncated or damaged"
        )
    return TensorInfo(row.name, row.type.name, row.shape, start, size)


def _check_tensors(tensors: tuple[TensorInfo, ...]) -> None:
    names: set[str] = set()
    for tensor in tensors:
        if tensor.name in names:
            raise InvalidModelFile(f"the tensor {tensor.name!r} stands twice")
        names.add(tensor.name)
    in_order = sorted(tensors, key=lambda tensor: tensor.start)
    for before, after in itertools.pairwise(in_order):
        if before.start + before.size_bytes > after.start:
            raise InvalidModelFile(f"the tensors {before.name!r} and {after.name!r} overlap")
