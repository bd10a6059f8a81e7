from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.errors import InvalidModelFile
from openbook.models.digest import (
    EmbeddingSpec,
    TensorDigest,
    embedder_sections,
    gguf_sections,
    hash_file,
    hash_gguf,
    metadata_digest,
    model_digest,
    tokenizer_json,
)
from openbook.models.gguf import MetadataValue, ValueType, parse_gguf, read_gguf
from openbook.records import Digest, sha256_hex
from tests.models.gguf_files import METADATA, TENSORS, Array, Recipe, Tensor, encoded, flip

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
    metadata=st.permutations(METADATA),
    tensors=st.permutations(TENSORS),
    alignment=st.sampled_from([8, 16, 32, 64, 4096]),
    padding=st.sampled_from([b"\x00", b"\xee"]),
    tail=st.binary(max_size=20),
    version=st.sampled_from([2, 3]),
    title=st.text(),
)
def test_what_does_not_matter(
    metadata: list[tuple[str, ValueType, object]],
    tensors: list[Tensor],
    alignment: int,
    padding: bytes,
    tail: bytes,
    version: int,
    title: str,
) -> None:
    recipe = Recipe(tuple(metadata), tuple(tensors), version, alignment, padding, tail=tail)
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


@pytest.mark.parametrize(
    ("recipe", "section"),
    [
        (Recipe().with_value("llama.rope.freq_base", ValueType.FLOAT32, 10001.0), "architecture"),
        (Recipe().with_value("llama.rope.freq_base", ValueType.FLOAT64, 10000.0), "architecture"),
        (Recipe().with_value("llama.context_length", ValueType.INT32, 128), "architecture"),
        (Recipe().with_value("llama.new", ValueType.UINT8, 0), "architecture"),
        (Recipe().with_value("adapter.lora.alpha", ValueType.FLOAT32, 1.0), "architecture"),
        (Recipe().without("llama.rope"), "architecture"),
        (Recipe().with_value("tokenizer.ggml.tokens", ARRAY, Array(STRING, ("a", "c", "ab"))), "tokenizer"),
        (Recipe().with_value("tokenizer.ggml.tokens", ARRAY, Array(STRING, ("b", "a", "ab"))), "tokenizer"),
        (Recipe().with_value("tokenizer.ggml.tokens", ARRAY, Array(STRING, ("ab", "a", "b"))), "tokenizer"),
        (Recipe().with_value("tokenizer.ggml.merges", ARRAY, Array(STRING, ("b a",))), "tokenizer"),
        (Recipe().with_value("tokenizer.ggml.token_type", ARRAY, Array(ValueType.UINT32, (1, 1, 1))), "tokenizer"),
        (Recipe().with_value("tokenizer.ggml.add_bos_token", ValueType.BOOL, True), "tokenizer"),
        (Recipe().with_value("tokenizer.chat_template", STRING, "{{ messages }} "), "template"),
        (Recipe().with_value("tokenizer.chat_template.tool_use", STRING, ""), "template"),
        (Recipe().with_value("tokenizer.chat_templates", ARRAY, Array(STRING, ("tool_use",))), "template"),
        (Recipe().without("tokenizer.chat_template"), "template"),
        (Recipe().with_value("general.architecture", STRING, "llam"), "architecture"),
        *(
            (replace(Recipe(), tensors=(replace(TENSORS[0], **change), *TENSORS[1:])), "tensors")
            for change in ({"name": "x"}, {"shape": (3, 4)}, {"shape": (12,)}, {"type": "I32"})
        ),
    ],
)
def test_what_matters_and_where(recipe: Recipe, section: str) -> None:
    assert changed_by(recipe) == {section}


SIMPLE = st.one_of(
    st.tuples(st.just(ValueType.STRING), st.text(max_size=5)),
    st.tuples(st.sampled_from([ValueType.UINT8, ValueType.UINT32, ValueType.INT64]), st.integers(0, 3)),
    st.tuples(st.sampled_from([ValueType.FLOAT32, ValueType.FLOAT64]), st.sampled_from([0.0, -0.0, 1.0])),
    st.tuples(st.just(ValueType.BOOL), st.booleans()),
    st.tuples(st.just(ARRAY), st.lists(st.text(max_size=2), max_size=3).map(lambda x: Array(STRING, tuple(x)))),
)
MAPPINGS = st.dictionaries(st.text(min_size=1, max_size=4), SIMPLE, max_size=3)


def as_metadata(mapping: dict[str, tuple[ValueType, object]]) -> dict[str, MetadataValue]:
    return {key: MetadataValue(kind, value, encoded(kind, value)) for key, (kind, value) in mapping.items()}


@given(MAPPINGS, MAPPINGS)
def test_metadata_digests_are_equal_only_for_equal_content(
    one: dict[str, tuple[ValueType, object]], other: dict[str, tuple[ValueType, object]]
) -> None:
    first, second = as_metadata(one), as_metadata(other)
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


def test_hash_gguf_is_the_hash_of_each_part(tmp_path: Path) -> None:
    data = replace(Recipe(), tail=b"tail").build()
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    header, seen = read_gguf(path), list[tuple[int, int]]()
    hashes = hash_gguf(path, header, lambda done, total: seen.append((done, total)))
    assert (hashes.sha256, hashes.bytes) == (sha256_hex(data), len(data)) == hash_file(path)
    assert hashes.header_sha256 == sha256_hex(data[: header.header_bytes])
    assert {t.name: t.sha256 for t in hashes.tensors} == {t.name: sha256_hex(t.data) for t in TENSORS}
    assert [t.name for t in hashes.tensors] == sorted(t.name for t in TENSORS)
    assert seen[-1] == (len(data), len(data))
    path.write_bytes(data[:-10])
    with pytest.raises(InvalidModelFile, match="truncated"):
        hash_gguf(path, header)


def test_the_digest_of_a_known_file_is_known() -> None:
    """A change here changes the name of every model ever stored: it needs a new digest format, not a new number."""
    assert model_digest(BASE) == "b9bc159b12d779a0f5b7326b98b708d9a696547f2e510f88c75affbb65bfb5c0"


def test_embedder_sections() -> None:
    base = embedder_sections("0" * 64, b'{"a": 1, "b": [2]}', SPEC)
    assert embedder_sections("0" * 64, b'{"b":[2],"a":1}', SPEC) == base
    assert embedder_sections("0" * 64, b'{"b":[3],"a":1}', SPEC)["tokenizer"] != base["tokenizer"]
    assert embedder_sections("0" * 64, b'{"b":[2.0],"a":1}', SPEC)["tokenizer"] != base["tokenizer"]
    assert embedder_sections("1" * 64, b'{"b":[2],"a":1}', SPEC)["weights"] == "1" * 64
    for spec in (replace(SPEC, max_tokens=9), replace(SPEC, query_prefix="q: "), replace(SPEC, normalize=False)):
        assert embedder_sections("0" * 64, b"{}", spec)["embedding"] != base["embedding"]


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"\xff", b'{"a":1,"a":2}', b'{"a":NaN}', b"[" * 100_000, b'"\\ud800"']
)
def test_a_bad_tokenizer_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidModelFile, match=r"tokenizer\.json"):
        tokenizer_json(data)
