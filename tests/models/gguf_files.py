"""Small GGUF files for the tests, written here byte by byte: every order, alignment and mistake can be asked for."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from openbook.models.ggml import GGML_TYPES
from openbook.models.gguf import ValueType

FORMATS = {
    ValueType.UINT8: "<B",
    ValueType.INT8: "<b",
    ValueType.UINT16: "<H",
    ValueType.INT16: "<h",
    ValueType.UINT32: "<I",
    ValueType.INT32: "<i",
    ValueType.FLOAT32: "<f",
    ValueType.BOOL: "<?",
    ValueType.UINT64: "<Q",
    ValueType.INT64: "<q",
    ValueType.FLOAT64: "<d",
}
CODES = {kind.name: code for code, kind in GGML_TYPES.items()}


@dataclass(frozen=True)
class Array:
    """An array value: its item type, its items (values, or Arrays)."""

    type: ValueType
    items: tuple[Any, ...]


@dataclass(frozen=True)
class Tensor:
    name: str
    data: bytes
    type: str = "F32"
    shape: tuple[int, ...] = (4,)


Row = tuple[str, ValueType, Any]

METADATA: tuple[Row, ...] = (
    ("general.architecture", ValueType.STRING, "llama"),
    ("general.name", ValueType.STRING, "Tiny"),
    ("general.license", ValueType.STRING, "apache-2.0"),
    ("general.file_type", ValueType.UINT32, 0),
    ("llama.context_length", ValueType.UINT32, 128),
    ("llama.embedding_length", ValueType.UINT32, 4),
    ("llama.rope.freq_base", ValueType.FLOAT32, 10000.0),
    ("tokenizer.ggml.model", ValueType.STRING, "gpt2"),
    ("tokenizer.ggml.pre", ValueType.STRING, "smollm"),
    ("tokenizer.ggml.tokens", ValueType.ARRAY, Array(ValueType.STRING, ("a", "b", "ab"))),
    ("tokenizer.ggml.merges", ValueType.ARRAY, Array(ValueType.STRING, ("a b",))),
    ("tokenizer.ggml.token_type", ValueType.ARRAY, Array(ValueType.INT32, (1, 1, 1))),
    ("tokenizer.chat_template", ValueType.STRING, "{{ messages }}"),
)
TENSORS: tuple[Tensor, ...] = (
    Tensor("token_embd.weight", bytes(range(48)), shape=(4, 3)),
    Tensor("blk.0.attn_q.weight", b"\x01" * 16),
    Tensor("output_norm.weight", b"\x02" * 10, type="F16", shape=(5,)),
)


@dataclass(frozen=True)
class Recipe:
    """All that decides the bytes of a file."""

    metadata: tuple[Row, ...] = METADATA
    tensors: tuple[Tensor, ...] = TENSORS
    version: int = 3
    alignment: int = 32
    padding: bytes = b"\x00"
    magic: bytes = b"GGUF"
    tail: bytes = b""
    offsets: dict[str, int] = field(default_factory=dict)  # instead of the right ones

    def with_value(self, key: str, kind: ValueType, value: object) -> Recipe:
        """The same with that key set, in its place if it is there."""
        row = (key, kind, value)
        if any(name == key for name, _, _ in self.metadata):
            return replace(self, metadata=tuple(row if r[0] == key else r for r in self.metadata))
        return replace(self, metadata=(*self.metadata, row))

    def without(self, prefix: str) -> Recipe:
        return replace(self, metadata=tuple(r for r in self.metadata if not r[0].startswith(prefix)))

    def build(self) -> bytes:
        metadata = self.metadata
        if self.alignment != 32:
            metadata = (*metadata, ("general.alignment", ValueType.UINT32, self.alignment))
        out = self.magic + struct.pack("<IQQ", self.version, len(self.tensors), len(metadata))
        out += b"".join(text(key) + struct.pack("<I", kind) + encoded(kind, value) for key, kind, value in metadata)
        data = b""
        for tensor in self.tensors:
            offset = self.offsets.get(tensor.name, len(data))
            out += text(tensor.name) + struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
            out += struct.pack("<IQ", CODES[tensor.type], offset)
            data += tensor.data
            data += self._pad(len(data))
        return out + self._pad(len(out)) + data + self.tail

    def _pad(self, length: int) -> bytes:
        return self.padding * (-length % self.alignment)


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def encoded(kind: ValueType, value: Any) -> bytes:
    if kind is ValueType.STRING:
        return text(value)
    if kind is ValueType.ARRAY:
        head = struct.pack("<IQ", value.type, len(value.items))
        return head + b"".join(encoded(value.type, item) for item in value.items)
    return struct.pack(FORMATS[kind], value)


def flip(data: bytes, position: int, bit: int = 0) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


def names(tensors: Sequence[Tensor]) -> list[str]:
    return [tensor.name for tensor in tensors]
