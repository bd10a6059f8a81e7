"""Small GGUF files for the tests, written here byte by byte: every order, alignment and mistake can be asked for."""

from __future__ import annotations

import math
import random
import struct
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from gguf import GGMLQuantizationType

from openbook.models import ModelReference, ModelStore, ensure, import_gguf
from openbook.models.gguf import ValueType

FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
CODES = {kind.name: int(kind) for kind in GGMLQuantizationType}


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
        data = bytearray()
        for tensor in self.tensors:
            offset = self.offsets.get(tensor.name, len(data))
            out += text(tensor.name) + struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
            out += struct.pack("<IQ", CODES[tensor.type], offset)
            data += tensor.data
            data += self._pad(len(data))
        return b"".join((out, self._pad(len(out)), data, self.tail))

    def write(self, path: Path) -> Path:
        path.write_bytes(self.build())
        return path

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


def rewrite(path: Path, data: bytes) -> None:
    """Changes a stored file behind the store's back."""
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


def lora(base: str, *tensors: Tensor, alpha: float | None = 8.0, reader: tuple[str, str] | None = None) -> Recipe:
    """An adapter for the model with the digest `base`. `reader`: its instruction and what it says when it abstains."""
    rows = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}
    rows["adapter.openbook.base"] = base
    if reader is not None:
        rows |= dict(zip(("openbook.reader.instruction", "openbook.reader.abstention"), reader, strict=True))
    recipe = Recipe(tuple((key, ValueType.STRING, value) for key, value in rows.items()), tensors)
    return recipe if alpha is None else recipe.with_value("adapter.lora.alpha", ValueType.FLOAT32, alpha)


# --- a model that answers -----------------------------------------------------------------------------------------------

CHATML = (
    "{% for m in messages %}{{ '<s>' + m['role'] + '\n' + m['content'] + '<s>\n' }}{% endfor %}{{ '<s>assistant\n' }}"
)
_BYTES = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
_WIDTH, _FORWARD, _HEADS, _SHARED_HEADS, _BLOCKS = 64, 64, 2, 1, 2
TOKENS = ("<s>", *_BYTES)  # the bytes as the byte-level BPE of GPT-2 spells them


@cache
def llama() -> Recipe:
    """A llama of two blocks with random numbers, which the engine loads and which answers nonsense: about 70 kB.

    Its vocabulary has a token for each byte and one control token.
    """
    chance = random.Random(7)

    def tensor(name: str, *shape: int) -> Tensor:
        numbers = [chance.gauss(0, 0.1) if len(shape) > 1 else 1.0 for _ in range(math.prod(shape))]
        return Tensor(name, struct.pack(f"<{len(numbers)}f", *numbers), shape=shape)

    shared = _WIDTH // _HEADS * _SHARED_HEADS
    tensors = [tensor("token_embd.weight", _WIDTH, len(TOKENS)), tensor("output_norm.weight", _WIDTH)]
    shapes: dict[str, tuple[int, ...]] = {
        "attn_norm": (_WIDTH,), "attn_q": (_WIDTH, _WIDTH), "attn_k": (_WIDTH, shared), "attn_v": (_WIDTH, shared),
        "attn_output": (_WIDTH, _WIDTH), "ffn_norm": (_WIDTH,), "ffn_gate": (_WIDTH, _FORWARD),
        "ffn_up": (_WIDTH, _FORWARD), "ffn_down": (_FORWARD, _WIDTH),
    }  # fmt: skip
    for block in range(_BLOCKS):
        tensors += [tensor(f"blk.{block}.{name}.weight", *shape) for name, shape in shapes.items()]
    return Recipe(_LLAMA, tuple(tensors))


def store_small_reader(folder: Path) -> ModelReference:
    """A reader on that model, with the model and both merged, in a new store in the folder."""
    chance, rank, store = random.Random(8), 4, ModelStore(folder / "models")

    def part(name: str, *shape: int) -> Tensor:
        numbers = [chance.gauss(0, 0.3) for _ in range(math.prod(shape))]
        return Tensor(f"blk.1.attn_q.weight.lora_{name}", struct.pack(f"<{len(numbers)}f", *numbers), shape=shape)

    base = llama().with_value("llama.context_length", ValueType.UINT32, 4096).write(folder / "small.gguf")
    updates = part("a", _WIDTH, rank), part("b", rank, _WIDTH)
    reader = lora(import_gguf(store, base).digest, *updates, reader=("Answer.", "Not stated."))
    import_gguf(store, reader.write(folder / "small-reader.gguf"))
    return ensure(store, "small-reader")


_LLAMA: tuple[Row, ...] = (
    ("general.architecture", ValueType.STRING, "llama"),
    ("general.name", ValueType.STRING, "Small"),
    ("llama.block_count", ValueType.UINT32, _BLOCKS),
    ("llama.context_length", ValueType.UINT32, 512),
    ("llama.embedding_length", ValueType.UINT32, _WIDTH),
    ("llama.feed_forward_length", ValueType.UINT32, _FORWARD),
    ("llama.attention.head_count", ValueType.UINT32, _HEADS),
    ("llama.attention.head_count_kv", ValueType.UINT32, _SHARED_HEADS),
    ("llama.attention.layer_norm_rms_epsilon", ValueType.FLOAT32, 1e-5),
    ("llama.rope.dimension_count", ValueType.UINT32, _WIDTH // _HEADS),
    ("llama.rope.freq_base", ValueType.FLOAT32, 10000.0),
    ("llama.vocab_size", ValueType.UINT32, len(TOKENS)),
    ("tokenizer.ggml.model", ValueType.STRING, "gpt2"),
    ("tokenizer.ggml.pre", ValueType.STRING, "gpt-2"),
    ("tokenizer.ggml.tokens", ValueType.ARRAY, Array(ValueType.STRING, TOKENS)),
    ("tokenizer.ggml.token_type", ValueType.ARRAY, Array(ValueType.INT32, (3, *[1] * len(_BYTES)))),
    ("tokenizer.ggml.merges", ValueType.ARRAY, Array(ValueType.STRING, ("Ġ Ġ",))),
    ("tokenizer.ggml.bos_token_id", ValueType.UINT32, 0),
    ("tokenizer.ggml.eos_token_id", ValueType.UINT32, 0),
    ("tokenizer.chat_template", ValueType.STRING, CHATML),
)
