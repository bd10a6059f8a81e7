from __future__ import annotations

import struct
from pathlib import Path

import gguf as reference
import numpy as np
import pytest

from openbook.core.errors import InvalidModelFile, StorageError
from openbook.models import gguf
from openbook.models.gguf import ValueType, parse_gguf, read_gguf
from tests.models.gguf_files import TENSORS, Array, Recipe, Tensor, encoded, text

SMALL = Recipe().build()


def parsed(data: bytes) -> gguf.GgufHeader:
    return parse_gguf(data, len(data))


def test_reads_a_small_file() -> None:
    header = parsed(SMALL)
    assert header.text("general.architecture") == "llama"
    assert header.integer("llama.context_length") == 128
    assert header.integer("general.name") is None
    assert header.metadata["tokenizer.ggml.tokens"].value == ("a", "b", "ab")
    assert [t.name for t in header.tensors] == [t.name for t in TENSORS]
    for info, tensor in zip(header.tensors, TENSORS, strict=True):
        assert SMALL[info.start : info.start + info.size_bytes] == tensor.data
    assert header.header_bytes <= min(info.start for info in header.tensors)


def test_every_type_of_value() -> None:
    inner = Array(ValueType.STRING, ("x",))
    recipe = Recipe().with_value("deep", ValueType.ARRAY, Array(ValueType.ARRAY, (inner, inner)))
    numbers = [kind for kind in ValueType if kind not in (ValueType.STRING, ValueType.ARRAY)]
    for kind in numbers:
        recipe = recipe.with_value(kind.name, kind, 1)
        recipe = recipe.with_value(f"{kind.name}s", ValueType.ARRAY, Array(kind, (0, 1, 1)))
    found = parsed(recipe.build()).metadata
    assert found["deep"].value == (("x",), ("x",))
    for kind in numbers:
        assert (found[kind.name].type, found[kind.name].value) == (kind, 1)
        assert found[kind.name].raw == encoded(kind, 1)
        assert (found[f"{kind.name}s"].item_type, found[f"{kind.name}s"].value) == (kind, (0, 1, 1))


DEEP: object = Array(ValueType.UINT8, (1,))
for _ in range(10):
    DEEP = Array(ValueType.ARRAY, (DEEP,))


def tensor(*shape: int, name: str = "x", type: str = "F32") -> Recipe:  # noqa: A002  the field's name
    return Recipe(tensors=(Tensor(name, b"", type, shape),))


def offset(place: int) -> Recipe:
    return Recipe(offsets={"blk.0.attn_q.weight": place})


HEAD = b"GGUF" + struct.pack("<I", 3)
KEY = HEAD + struct.pack("<QQ", 0, 1) + text("k")
ROW = text("output_norm.weight") + struct.pack("<IQ", 1, 5)


@pytest.mark.parametrize(
    ("file", "match"),
    [
        (Recipe(magic=b"GGML"), "begins with b'GGML'"),
        (Recipe(version=1), "version 1"),
        (Recipe(version=4), "version 4"),
        (Recipe(version=3 << 24), "big-endian"),
        (Recipe(metadata=Recipe().metadata * 2), "'general.architecture' appears twice"),
        (Recipe(tensors=TENSORS * 2), "tensor 'token_embd.weight' appears twice"),
        (Recipe(alignment=48), "general.alignment is 48"),
        (Recipe().with_value("general.alignment", ValueType.UINT64, 32), "must be a UINT32, a power of two"),
        (Recipe().with_value("general.alignment", ValueType.UINT32, 1 << 21), "from 8 to 1048576"),
        (tensor(0, 3), r"shape \(0, 3\)"),
        (tensor(), "0 dimensions"),
        (tensor(*(1,) * 5), "5 dimensions"),
        (tensor(1 << 40, 1 << 40), "truncated"),
        (tensor(33, type="Q4_0"), "multiple of 32"),
        (tensor(4, name="x" * 65), "a tensor name has 65 bytes; 1 to 64"),
        (tensor(4, name=""), "a tensor name has 0 bytes"),
        (offset(32), "overlap"),
        (offset(65), "not a multiple of 32"),
        (offset(1 << 40), "truncated"),
        (Recipe().with_value("", ValueType.UINT8, 1), "a metadata key has 0 bytes"),
        (Recipe().with_value("deep", ValueType.ARRAY, DEEP), "nests arrays more than 4 deep"),
        (b"", "begins with b''"),
        (HEAD, "truncated"),
        (HEAD + struct.pack("<QQ", 1 << 60, 0), "claims 1152921504606846976 tensors"),
        (HEAD + struct.pack("<QQ", 0, 1 << 60), "metadata keys"),
        (HEAD + struct.pack("<QQQ", 0, 1, 1 << 40) + b"x" * 20, "1 to 65535"),
        (KEY + struct.pack("<I", 99) + b"\0" * 8, "unknown type 99"),
        (KEY + struct.pack("<I", 7) + b"\2" + b"\0" * 8, "other than 0 and 1"),
        (KEY + struct.pack("<IIQ", 9, 4, 1 << 50) + b"\0" * 8, "items in 'k'"),
        (KEY + struct.pack("<IIQ", 9, 8, 2) + text("a") + struct.pack("<Q", 1 << 60), "item 1 of 'k'"),
        (KEY + struct.pack("<IQ", 8, 1) + b"\xff" * 8, "not UTF-8"),
        (KEY + struct.pack("<IIQQ", 9, 8, 1, 1) + b"\xff" * 8, "item 0 of 'k' is not UTF-8"),
        *(
            (SMALL.replace(ROW + b"\1", ROW + bytes([code])), f"has the type {code}, which llama.cpp does not know")
            for code in (4, 200)
        ),
    ],
)
def test_bad_files_are_refused_with_the_reason(file: Recipe | bytes, match: str) -> None:
    with pytest.raises(InvalidModelFile, match=match):
        parsed(file if isinstance(file, bytes) else file.build())


def test_every_truncation_is_refused() -> None:
    for length in range(max(t.start + t.size_bytes for t in parsed(SMALL).tensors)):
        with pytest.raises(InvalidModelFile):
            parsed(SMALL[:length])


def test_a_too_long_header_and_a_missing_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "small.gguf"
    path.write_bytes(SMALL)
    assert read_gguf(path) == parsed(SMALL)
    monkeypatch.setattr(gguf, "MAX_HEADER_BYTES", 100)
    with pytest.raises(InvalidModelFile, match=r"small.gguf is not .* header is longer than 100 bytes"):
        read_gguf(path)
    with pytest.raises(StorageError, match="Cannot read"):
        read_gguf(tmp_path / "absent.gguf")


def test_parity_with_the_reference_writer_and_reader(tmp_path: Path) -> None:
    path = tmp_path / "reference.gguf"
    writer = reference.GGUFWriter(path, "llama")
    writer.add_string("some.text", "Grüße")
    writer.add_float32("some.float", 0.1)
    writer.add_bool("some.flag", True)
    writer.add_array("some.list", [1, 2, 3])
    writer.add_token_list(["x", "yy", "日本"])
    writer.add_custom_alignment(64)
    writer.add_tensor("a", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("b", np.arange(5, dtype=np.float16))
    writer.add_tensor("c", np.zeros((2, 18), dtype=np.uint8), raw_dtype=reference.GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    ours, theirs = read_gguf(path), reference.GGUFReader(path)
    fields = {name: f for name, f in theirs.fields.items() if not name.startswith("GGUF.")}
    assert list(ours.metadata) == list(fields)
    for name, field in fields.items():
        value = ours.metadata[name].value
        assert (list(value) if isinstance(value, tuple) else value) == field.contents()
        assert int(ours.metadata[name].type) == int(field.types[0])
    for info, tensor in zip(ours.tensors, theirs.tensors, strict=True):
        assert (info.name, info.type, list(info.shape)) == (tensor.name, tensor.tensor_type.name, list(tensor.shape))
        assert (info.start, info.size_bytes) == (tensor.data_offset, tensor.n_bytes)
