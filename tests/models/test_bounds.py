"""Numbers of a header that size something are in bounds and agree with the tensors, or a sentence says which is not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openbook.errors import InvalidModelFile
from openbook.models import CATALOGUE, ModelReference
from openbook.models.bounds import MAX_TEMPLATE_CHARS, check_lora_fits
from openbook.models.describe import check_importable
from openbook.models.gguf import ValueType, read_gguf
from tests.models.gguf_files import TENSORS, TOKENS, Array, Recipe, Tensor, llama, lora
from tests.models.mutations import mutated

NUMBER, ARRAY = ValueType.UINT32, ValueType.ARRAY
HONEST = llama()


def array(kind: ValueType, *items: Any) -> Array:
    return Array(kind, items)


@pytest.mark.parametrize(
    ("key", "kind", "value", "said"),
    [
        ("llama.block_count", NUMBER, 0, r"llama\.block_count is 0. It must be an integer from 1 to 512"),
        ("llama.block_count", NUMBER, 1 << 20, r"llama\.block_count is 1048576. It must be an integer from 1 to 512"),
        ("llama.block_count", NUMBER, 1, r"block_count is 1, but the tensors are those of 2 blocks"),
        ("llama.block_count", NUMBER, 3, r"block_count is 3, but the tensors are those of 2 blocks"),
        ("llama.block_count", ValueType.STRING, "two", r"block_count is two. It must be an integer"),
        ("llama.block_count", ValueType.FLOAT32, 2.0, r"block_count is 2.0. It must be an integer"),
        ("llama.block_count", ValueType.BOOL, True, r"block_count is True. It must be an integer"),
        ("llama.context_length", NUMBER, 0, r"context_length is 0. It must be an integer from 1 to 134217728"),
        ("llama.context_length", NUMBER, 0xFFFFFFFF, r"context_length is 4294967295"),
        ("llama.embedding_length", NUMBER, 0, r"embedding_length is 0. It must be an integer from 1"),
        ("llama.embedding_length", NUMBER, 32, r"token_embd.weight has the shape .*an embedding_length of 32"),
        ("llama.attention.head_count", NUMBER, 1 << 31, r"head_count is 2147483648. It must be .* from 0 to 16384"),
        ("llama.attention.head_count", ValueType.INT32, -1, r"head_count is -1"),
        ("llama.attention.head_count_kv", NUMBER, 3, r"head_count_kv is 3. It must divide .*head_count, which is 2"),
        ("llama.attention.head_count_kv", ARRAY, array(NUMBER, 1), r"head_count_kv has 1 items. Each of 2 blocks"),
        ("llama.attention.head_count_kv", ARRAY, array(NUMBER, 1, 1 << 20), r"head_count_kv is 1048576"),
        ("llama.feed_forward_length", NUMBER, 1 << 30, r"feed_forward_length is 1073741824"),
        ("llama.rope.dimension_count", NUMBER, 1 << 30, r"rope.dimension_count is 1073741824"),
        ("llama.attention.key_length", NUMBER, 0, r"attention.key_length is 0. It must be .* from 1 to 65536"),
        ("llama.expert_used_count", NUMBER, 9, r"expert_used_count is 9. It must be .*expert_count, which is 0"),
        ("llama.vocab_size", NUMBER, 1 << 31, r"vocab_size is 2147483648"),
        ("tokenizer.ggml.tokens", ARRAY, array(ValueType.STRING), r"tokens holds 0 texts"),
        ("tokenizer.ggml.tokens", ARRAY, array(NUMBER, 1, 2), r"tokens holds 0 texts"),
        (
            "tokenizer.ggml.tokens",
            ARRAY,
            array(ValueType.STRING, *TOKENS[:-1]),
            r"token_type must be an array of INT32",
        ),
        ("tokenizer.ggml.token_type", ARRAY, array(ValueType.INT32, 1), r"token_type must be .* each of \d+ tokens"),
        ("tokenizer.ggml.scores", ARRAY, array(ValueType.INT32, *[1] * len(TOKENS)), r"scores must be .* FLOAT32"),
        ("tokenizer.ggml.model", ValueType.STRING, "none", r"tokenizer.ggml.model is 'none'"),
        ("openbook.reader.instruction", ValueType.STRING, "1" * 5000, r"reader.instruction has 5000 characters"),
        ("openbook.reader.passages", NUMBER, 9, r"reader.passages is 9. It must be an integer from 1 to 8"),
        ("openbook.reader.passages", ValueType.STRING, "2", r"reader.passages is 2. It must be"),
        ("openbook.reader.declines_above", ValueType.FLOAT32, 1.5, r"declines_above is 1.5. It must be .* 0 and 1"),
        ("openbook.reader.declines_above", ValueType.FLOAT32, float("nan"), r"declines_above is nan"),
        ("tokenizer.chat_template", ValueType.STRING, "a" * (MAX_TEMPLATE_CHARS + 1), r"has 262145 characters"),
    ],
)
def test_a_number_out_of_bounds_is_named(tmp_path: Path, key: str, kind: ValueType, value: object, said: str) -> None:
    path = HONEST.with_value(key, kind, value).write(tmp_path / "x.gguf")
    with pytest.raises(InvalidModelFile, match=said):
        check_importable(path)


def test_honest_files_are_in_bounds_and_no_change_does_more_than_be_refused(tmp_path: Path) -> None:
    blocks = HONEST.with_value("llama.feed_forward_length", ARRAY, array(NUMBER, 64, 64))
    blocks = blocks.with_value("llama.attention.head_count_kv", ARRAY, array(NUMBER, 1, 0))
    path, passed, said = tmp_path / "x.gguf", 0, list[str]()
    for recipe in (HONEST, blocks, Recipe()):
        check_importable(recipe.write(path))
    for seed in range(450):
        path.write_bytes(mutated(HONEST, seed)[1])
        try:
            check_importable(path)
            passed += 1
        except InvalidModelFile as error:
            said.append(str(error))
    assert passed
    assert len(said) == 450 - passed
    assert all(re.fullmatch(r".+\.", each) for each in said)


def adapter(tmp_path: Path, *tensors: Tensor, alpha: float | None = 8.0) -> Path:
    return lora("a" * 64, *tensors, alpha=alpha).write(tmp_path / "a.gguf")


A = Tensor("blk.0.attn_q.weight.lora_a", b"\0" * 256, shape=(64, 1))
B = Tensor("blk.0.attn_q.weight.lora_b", b"\0" * 256, shape=(1, 64))


@pytest.mark.parametrize(
    ("tensors", "alpha", "said"),
    [
        ((A, B), None, r"adapter\.lora\.alpha is absent. It must be a number between 0 and"),
        ((A, B), float("nan"), r"adapter\.lora\.alpha is nan"),
        ((A,), 8.0, r"holds only blk\.0\.attn_q\.weight\.lora_a. It must hold .lora_a and .lora_b"),
        ((A, B, TENSORS[0]), 8.0, r"token_embd\.weight, whose name ends in neither \.lora_a nor \.lora_b"),
        (
            (A, replace(B, shape=(2, 32))),
            8.0,
            r"have the shapes \(64, 1\) and \(2, 32\). Both must be matrices of one rank",
        ),
        ((replace(A, shape=(64,)), B), 8.0, r"have the shapes \(64,\) and \(1, 64\)"),
    ],
)
def test_an_adapter_that_fits_nothing_is_named(
    tmp_path: Path, tensors: tuple[Tensor, ...], alpha: float | None, said: str
) -> None:
    with pytest.raises(InvalidModelFile, match=said):
        check_importable(adapter(tmp_path, *tensors, alpha=alpha))


def test_an_adapter_fits_its_base_or_is_named_before_it_is_multiplied_out(tmp_path: Path) -> None:
    base = HONEST.write(tmp_path / "base.gguf")
    check_lora_fits(check_importable(adapter(tmp_path, A, B)), read_gguf(base))
    wide = (replace(A, shape=(1 << 6, 1)), Tensor(B.name, b"\0" * (1 << 20), shape=(1, 1 << 18)))
    with pytest.raises(InvalidModelFile, match=r"the shape \(64, 262144\); in its base that has the shape \(64, 64\)"):
        check_lora_fits(check_importable(adapter(tmp_path, *wide)), read_gguf(base))


@pytest.mark.model
def test_the_models_of_the_catalogue_are_in_bounds(
    model_reference: ModelReference, reader_reference: ModelReference
) -> None:
    header = check_importable(model_reference.main_file)
    check_lora_fits(check_importable(reader_reference.main_file), header)
    merged = reader_reference.merged
    assert merged is not None
    check_importable(merged.main_file)
    assert merged.manifest.files["model.gguf"].sha256 == CATALOGUE["reader"].merged_sha256
