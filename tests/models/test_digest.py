from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.core.errors import InvalidModelFile
from openbook.core.records import Digest, sha256_hex
from openbook.models.digest import (
    EmbeddingSpec,
    FileEntry,
    TensorDigest,
    gguf_sections,
    hash_gguf,
    metadata_digest,
    model_digest,
    read_contents,
)
from openbook.models.gguf import MetadataValue, ValueType, parse_gguf, read_gguf
from tests.models.gguf_files import METADATA, TENSORS, Array, Recipe, encoded, flip

SPEC = EmbeddingSpec(dimensions=4, max_tokens=8)


def sections_of(recipe: Recipe) -> dict[str, Digest]:
    data = recipe.build()
    header = parse_gguf(data, len(data))
    rows = [
        TensorDigest(t.name, t.type, t.shape, sha256_hex(data[t.start : t.start + t.size_bytes]))
        for t in header.tensors
    ]
    return gguf_sections(header, rows)


BASE = sections_of(Recipe())


def changed_by(recipe: Recipe) -> set[str]:
    found = sections_of(recipe)
    names = {name for name, digest in BASE.items() if found[name] != digest}
    assert (model_digest(found) != model_digest(BASE)) is bool(names)
    return names


@given(
    st.builds(
        Recipe,
        metadata=st.permutations(METADATA).map(tuple),
        tensors=st.permutations(TENSORS).map(tuple),
        alignment=st.sampled_from([8, 32, 64]),
        padding=st.sampled_from([b"\x00", b"\xee"]),
        tail=st.binary(max_size=20),
        version=st.sampled_from([2, 3]),
    ),
    st.text(),
)
def test_order_and_descriptive_keys_do_not_change_the_digest(recipe: Recipe, title: str) -> None:
    recipe = recipe.with_value("general.name", ValueType.STRING, title).with_value("general.x", ValueType.UINT8, 1)
    assert changed_by(recipe) == set()


@given(st.data())
def test_one_bit_of_one_tensor_matters(data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(TENSORS) - 1))
    tensor = TENSORS[number]
    position, bit = data.draw(st.integers(0, len(tensor.data) - 1)), data.draw(st.integers(0, 7))
    tensors = list(TENSORS)
    tensors[number] = replace(tensor, data=flip(tensor.data, position, bit))
    assert changed_by(replace(Recipe(), tensors=tuple(tensors))) == {"tensors"}


STRING, ARRAY = ValueType.STRING, ValueType.ARRAY
CHANGES: dict[str, list[tuple[str, ValueType, object]]] = {
    "architecture": [
        ("llama.rope.freq_base", ValueType.FLOAT32, 10001.0), ("llama.rope.freq_base", ValueType.FLOAT64, 10000.0),
        ("llama.context_length", ValueType.INT32, 128), ("llama.new", ValueType.UINT8, 0),
        ("adapter.lora.alpha", ValueType.FLOAT32, 1.0), ("general.architecture", STRING, "llam"),
    ],
    "tokenizer": [
        ("tokenizer.ggml.tokens", ARRAY, Array(STRING, ("a", "c", "ab"))),
        ("tokenizer.ggml.tokens", ARRAY, Array(STRING, ("b", "a", "ab"))),
        ("tokenizer.ggml.merges", ARRAY, Array(STRING, ("b a",))),
        ("tokenizer.ggml.token_type", ARRAY, Array(ValueType.UINT32, (1, 1, 1))),
        ("tokenizer.ggml.add_bos_token", ValueType.BOOL, True),
    ],
    "template": [
        ("tokenizer.chat_template", STRING, "{{ messages }} "),
        ("tokenizer.chat_template.tool_use", STRING, ""),
        ("tokenizer.chat_templates", ARRAY, Array(STRING, ("tool_use",))),
        ("openbook.reader.passages", ValueType.UINT32, 2),
    ],
}  # fmt: skip


def test_each_change_shows_in_its_section() -> None:
    for section, changes in CHANGES.items():
        for key, kind, value in changes:
            assert changed_by(Recipe().with_value(key, kind, value)) == {section}, (key, value)
    assert changed_by(Recipe().without("llama.rope")) == {"architecture"}
    assert changed_by(Recipe().without("tokenizer.chat_template")) == {"template"}
    for change in ({"name": "x"}, {"shape": (3, 4)}, {"shape": (12,)}, {"type": "I32"}):
        tensors = (replace(TENSORS[0], **change), *TENSORS[1:])
        assert changed_by(replace(Recipe(), tensors=tensors)) == {"tensors"}


SIMPLE = st.one_of(
    st.tuples(st.just(ValueType.STRING), st.text(max_size=5)),
    st.tuples(st.sampled_from([ValueType.UINT8, ValueType.UINT32, ValueType.INT64]), st.integers(0, 3)),
    st.tuples(st.sampled_from([ValueType.FLOAT32, ValueType.FLOAT64]), st.sampled_from([0.0, -0.0, 1.0])),
    st.tuples(st.just(ValueType.BOOL), st.booleans()),
    st.tuples(st.just(ARRAY), st.lists(st.text(max_size=2), max_size=3).map(lambda x: Array(STRING, tuple(x)))),
)
METADATA_VALUES = st.dictionaries(
    st.text(min_size=1, max_size=4),
    SIMPLE.map(lambda one: MetadataValue(one[0], one[1], encoded(one[0], one[1]))),
    max_size=3,
)


@given(METADATA_VALUES, METADATA_VALUES)
def test_metadata_digests_are_equal_only_for_equal_content(
    first: dict[str, MetadataValue], second: dict[str, MetadataValue]
) -> None:
    same = {k: (v.type, v.raw) for k, v in first.items()} == {k: (v.type, v.raw) for k, v in second.items()}
    assert (metadata_digest(first) == metadata_digest(second)) is same


def test_a_nan_is_kept_bit_by_bit() -> None:
    """A float that passes through Python may come out with other bits; the digest is over those of the file."""
    data = Recipe().with_value("llama.x", ValueType.FLOAT32, float("nan")).build()
    quiet = struct.pack("<f", float("nan"))
    assert data.count(quiet) == 1
    signalling = data.replace(quiet, b"\x01\x00\xa0\x7f")
    first, second = (gguf_sections(parse_gguf(d, len(d)), ())["architecture"] for d in (data, signalling))
    assert first != second


def test_contents_are_the_hashes_of_the_parts(tmp_path: Path) -> None:
    data = replace(Recipe(), tail=b"tail").build()
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    (tmp_path / "training.json").write_bytes(b"{}")
    seen = list[tuple[int, int]]()
    found = read_contents(
        tmp_path, ["model.gguf", "training.json"], None, lambda done, total: seen.append((done, total))
    )
    assert found.files["model.gguf"] == FileEntry(sha256_hex(data), len(data))
    assert found.files["training.json"] == FileEntry(sha256_hex(b"{}"), 2)
    assert found.sections == BASE
    assert found.header is not None
    assert found.header_sha256 == sha256_hex(data[: found.header.header_bytes])
    assert {t.name: t.sha256 for t in found.tensors} == {t.name: sha256_hex(t.data) for t in TENSORS}
    assert [t.name for t in found.tensors] == sorted(t.name for t in TENSORS)
    assert seen[-1] == (len(data), len(data))
    header = read_gguf(path)
    path.write_bytes(data[:-10])
    with pytest.raises(InvalidModelFile, match="truncated"):
        hash_gguf(path, header, lambda done, total: None)


def test_the_digest_of_a_known_file_is_known() -> None:
    """A change here changes the name of every model ever stored: it needs a new digest format, not a new number."""
    assert model_digest(BASE) == "b9bc159b12d779a0f5b7326b98b708d9a696547f2e510f88c75affbb65bfb5c0"


def embedder(folder: Path, tokenizer: bytes, weights: bytes = b"w", spec: EmbeddingSpec = SPEC) -> dict[str, Digest]:
    (folder / "model.onnx").write_bytes(weights)
    (folder / "tokenizer.json").write_bytes(tokenizer)
    return read_contents(folder, ["model.onnx", "tokenizer.json"], spec, lambda done, total: None).sections


def test_embedder_sections(tmp_path: Path) -> None:
    base = embedder(tmp_path, b'{"a": 1, "b": [2]}')
    assert embedder(tmp_path, b'{"b":[2],"a":1}') == base
    for other in (b'{"b":[3],"a":1}', b'{"b":[2.0],"a":1}'):
        assert embedder(tmp_path, other)["tokenizer"] != base["tokenizer"]
    assert embedder(tmp_path, b"{}", b"other")["weights"] == sha256_hex(b"other")
    for spec in (replace(SPEC, max_tokens=9), replace(SPEC, query_prefix="q: ")):
        assert embedder(tmp_path, b"{}", spec=spec)["embedding"] != base["embedding"]


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"\xff", b'{"a":1,"a":2}', b'{"a":NaN}', b"[" * 100_000, b'"\\ud800"']
)
def test_a_bad_tokenizer_is_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(InvalidModelFile, match=r"tokenizer\.json"):
        embedder(tmp_path, data)
