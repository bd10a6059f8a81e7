"""A strict, bounded reader of GGUF headers (versions 2 and 3, little-endian): metadata and tensor table, never the tensors.

Every count and length is checked against the available bytes before any allocation, so a hostile file costs no more than an
honest one of its size. Specification: `docs/gguf.md` of ggml.
"""

from __future__ import annotations

import enum
import itertools
import math
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from openbook.core.errors import InvalidModelFile
from openbook.core.files import storage_errors

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT_BYTES = 32
MAX_ALIGNMENT_BYTES = 1 << 20
MAX_HEADER_BYTES = 64 << 20  # the largest vocabularies in use need about 16 MB
MAX_KEY_BYTES = 65_535
MAX_TENSOR_NAME_BYTES = 64
MAX_ARRAY_ITEMS = 1 << 24
MAX_ARRAY_DEPTH = 4
MAX_DIMENSIONS = 4


class ValueType(enum.IntEnum):
    """Types of metadata values, by their code in the file."""

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


# By ValueType, as `struct` has them.
_NUMBER_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


@dataclass(frozen=True, slots=True)
class MetadataValue:
    """One metadata value. Arrays are tuples. `raw` is the encoded value, without its type code."""

    type: ValueType
    value: Any
    raw: bytes = field(repr=False)

    @property
    def item_type(self) -> ValueType | None:
        return ValueType(int.from_bytes(self.raw[:4], "little")) if self.type is ValueType.ARRAY else None


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor, `file[start : start + size_bytes]`. `shape` is in the file's order, fastest dimension first."""

    name: str
    type: str
    shape: tuple[int, ...]
    start: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """A GGUF file without its tensors. The tensor table ends at `header_bytes`."""

    metadata: Mapping[str, MetadataValue] = field(hash=False, repr=False)
    tensors: tuple[TensorInfo, ...] = field(repr=False)
    header_bytes: int
    file_bytes: int

    def text(self, key: str) -> str | None:
        """A string value; None if it is missing or of another type."""
        found = self.metadata.get(key)
        return found.value if found is not None and found.type is ValueType.STRING else None

    def integer(self, key: str) -> int | None:
        """An integer value; None if it is missing or of another type."""
        found = self.metadata.get(key)
        return found.value if found is not None and type(found.value) is int else None


def read_gguf(path: Path) -> GgufHeader:
    """Read a file's header. Raises InvalidModelFile with the reason, StorageError."""
    with storage_errors(f"read {path}"), path.open("rb") as stream:
        prefix = stream.read(MAX_HEADER_BYTES)
        file_bytes = stream.seek(0, 2)
    try:
        return parse_gguf(prefix, file_bytes)
    except InvalidModelFile as error:
        raise InvalidModelFile(f"{path.name} is not a GGUF model OpenBook can read: {error}.") from error


def parse_gguf(prefix: bytes, file_bytes: int) -> GgufHeader:
    """Parse the header at the start of `prefix`, from a file of `file_bytes`. Raises InvalidModelFile."""
    cursor = _Cursor(prefix, file_bytes)
    if prefix[:4] != MAGIC:
        raise InvalidModelFile(f"it begins with {prefix[:4]!r}, not with {MAGIC!r}")
    cursor.position = 4
    version = cursor.number(4)
    if version & 0xFFFF == 0 and version != 0:
        raise InvalidModelFile("it is big-endian; convert it to little-endian (gguf-convert-endian FILE little)")
    if version not in VERSIONS:
        raise InvalidModelFile(f"it has GGUF version {version}; versions 2 and 3 are known")
    tensor_count = cursor.count("tensors", smallest_bytes=8 + 4 + 8 + 4 + 8)
    key_count = cursor.count("metadata keys", smallest_bytes=8 + 4 + 1)
    metadata = _read_metadata(cursor, key_count)
    rows = _read_tensors(cursor, tensor_count)
    alignment = _alignment(metadata)
    data_start = -(-cursor.position // alignment) * alignment
    tensors = tuple(replace(row, start=data_start + row.start) for row in rows)
    _check_places(tensors, data_start, alignment, file_bytes)
    return GgufHeader(metadata, tensors, cursor.position, file_bytes)


class _Cursor:
    """A position in the first bytes of a file."""

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
        if end > len(self.data):
            raise InvalidModelFile(f"its header is longer than {len(self.data)} bytes")
        self.position = end
        return self.data[start:end]

    def number(self, size_bytes: int) -> int:
        return int.from_bytes(self.take(size_bytes, "a number"), "little")

    def count(self, what: str, smallest_bytes: int) -> int:
        """Read a count of items of at least `smallest_bytes` each, which must fit into the rest of the file."""
        number = self.number(8)
        if number * smallest_bytes > self.file_bytes - self.position:
            raise InvalidModelFile(f"it claims {number} {what}, more than its {self.file_bytes} bytes can hold")
        return number

    def name(self, what: str, max_bytes: int) -> str:
        """Read a non-empty name of a key or tensor."""
        length = self.number(8)
        if not 1 <= length <= max_bytes:
            raise InvalidModelFile(f"{what} has {length} bytes; 1 to {max_bytes} are allowed")
        data = self.take(length, what)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise InvalidModelFile(f"{what} is not UTF-8 text: {data[:40]!r}") from error


def _read_metadata(cursor: _Cursor, key_count: int) -> dict[str, MetadataValue]:
    metadata: dict[str, MetadataValue] = {}
    for _ in range(key_count):
        key = cursor.name("a metadata key", MAX_KEY_BYTES)
        if key in metadata:
            raise InvalidModelFile(f"the metadata key {key!r} appears twice")
        kind = _read_type(cursor, key)
        start = cursor.position
        (value,) = _read_values(cursor, kind, key, 1, depth=0)
        metadata[key] = MetadataValue(kind, value, cursor.data[start : cursor.position])
    return metadata


def _read_type(cursor: _Cursor, key: str) -> ValueType:
    code = cursor.number(4)
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
    """A loop free of calls: vocabularies of 150,000 tokens pass through it twice."""
    data, position, last = cursor.data, cursor.position, len(cursor.data)
    strings: list[str] = []
    for number in range(count):
        start = position + 8
        position = start + int.from_bytes(data[position:start], "little")
        if position > last or start > last:
            cursor.take(max(start, position) - cursor.position, f"item {number} of {key!r}")  # raises, with the reason
        try:
            strings.append(data[start:position].decode())
        except UnicodeDecodeError as error:
            raise InvalidModelFile(f"item {number} of {key!r} is not UTF-8 text") from error
    cursor.position = position
    return tuple(strings)


def _alignment(metadata: Mapping[str, MetadataValue]) -> int:
    found = metadata.get("general.alignment")
    if found is None:
        return DEFAULT_ALIGNMENT_BYTES
    value = found.value
    if found.type is not ValueType.UINT32 or not 8 <= value <= MAX_ALIGNMENT_BYTES or value & (value - 1):
        raise InvalidModelFile(
            f"general.alignment is {value!r} ({found.type.name}); it must be a UINT32, a power of two from 8 to "
            f"{MAX_ALIGNMENT_BYTES}"
        )
    return int(value)


def _read_tensors(cursor: _Cursor, tensor_count: int) -> list[TensorInfo]:
    """The tensor table. `start` counts from the beginning of the data, which is known only after the last row."""
    from gguf import GGML_QUANT_SIZES

    sizes = {int(kind): (kind.name, *size) for kind, size in GGML_QUANT_SIZES.items()}
    found = []
    for _ in range(tensor_count):
        name = cursor.name("a tensor name", MAX_TENSOR_NAME_BYTES)
        dimensions = cursor.number(4)
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise InvalidModelFile(f"tensor {name!r} has {dimensions} dimensions; 1 to {MAX_DIMENSIONS} are allowed")
        shape = tuple(cursor.number(8) for _ in range(dimensions))
        if 0 in shape:
            raise InvalidModelFile(f"tensor {name!r} has the shape {shape}; every dimension must be 1 or more")
        code = cursor.number(4)
        if code not in sizes:
            raise InvalidModelFile(
                f"tensor {name!r} has the type {code}, which llama.cpp does not know; convert the file again"
            )
        kind, block_elements, block_bytes = sizes[code]
        if shape[0] % block_elements:
            raise InvalidModelFile(
                f"tensor {name!r} has rows of {shape[0]} numbers; {kind} needs a multiple of {block_elements}"
            )
        size = math.prod(shape) // block_elements * block_bytes
        found.append(TensorInfo(name, kind, shape, cursor.number(8), size))
    return found


def _check_places(tensors: tuple[TensorInfo, ...], data_start: int, alignment: int, file_bytes: int) -> None:
    """Raise unless names are unique and tensors do not overlap."""
    for tensor in tensors:
        offset, end = tensor.start - data_start, tensor.start + tensor.size_bytes
        if offset % alignment:
            raise InvalidModelFile(f"tensor {tensor.name!r} is at offset {offset}, not a multiple of {alignment}")
        if end > file_bytes:
            raise InvalidModelFile(
                f"tensor {tensor.name!r} would end at byte {end}, but the file has {file_bytes} bytes: it is truncated or damaged"
            )
    for name, times in Counter(tensor.name for tensor in tensors).items():
        if times > 1:
            raise InvalidModelFile(f"the tensor {name!r} appears twice")
    for before, after in itertools.pairwise(sorted(tensors, key=lambda tensor: tensor.start)):
        if before.start + before.size_bytes > after.start:
            raise InvalidModelFile(f"the tensors {before.name!r} and {after.name!r} overlap")
