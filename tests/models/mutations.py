"""Files that were model files before one thing in them was changed: a number, a type, a length, a tensor, a byte."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from openbook.models import read_gguf
from openbook.models.gguf import ValueType
from tests.models.gguf_files import CODES, Array, Recipe, Tensor

Mutation = Callable[[Recipe, random.Random], Recipe | bytes]

NUMBERS = (0, 1, 2, 3, 7, 255, 513, 1 << 16, 1 << 20, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
FLOATS = (0.0, -1.0, 1e-30, 1e30, float("inf"), float("-inf"), float("nan"))
VALUES: tuple[tuple[ValueType, Any], ...] = (
    (ValueType.STRING, ""), (ValueType.STRING, "x"), (ValueType.UINT8, 3), (ValueType.INT32, -1),
    (ValueType.UINT64, (1 << 64) - 1), (ValueType.FLOAT32, 1.5), (ValueType.BOOL, True),
    (ValueType.ARRAY, Array(ValueType.UINT32, ())), (ValueType.ARRAY, Array(ValueType.UINT32, (1, 2))),
    (ValueType.ARRAY, Array(ValueType.STRING, ("a",) * 3)), (ValueType.ARRAY, Array(ValueType.FLOAT32, (1.0,) * 300)),
)  # fmt: skip
KEYS = (
    "attention.key_length", "attention.value_length", "attention.sliding_window", "attention.causal", "attention.max_alibi_bias",
    "attention.clamp_kqv", "attention.layer_norm_epsilon", "attention.scale", "expert_count", "expert_used_count", "pooling_type",
    "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length", "rope.dimension_sections", "logit_scale",
    "rope.dimension_count_swa", "attention.group_norm_groups", "leading_dense_block_count", "nextn_predict_layers",
    "token_embedding.scale", "vocab_size", "residual_scale", "embedding_scale", "use_parallel_residual",
)  # fmt: skip
ARCHITECTURES = (
    "llama", "falcon", "gpt2", "gptj", "mpt", "bert", "bloom", "stablelm", "qwen2", "qwen2moe", "qwen3", "phi2", "phi3", "gemma",
    "gemma2", "gemma3", "starcoder2", "mamba", "command-r", "dbrx", "olmo", "openelm", "arctic", "deepseek2", "chatglm", "t5",
    "t5encoder", "jais", "nemotron", "rwkv6", "rwkv7", "granite", "chameleon", "wavtokenizer-dec", "clip", "x",
)  # fmt: skip
TOKENIZERS = ("llama", "bert", "t5", "rwkv", "none", "plamo2", "gpt2", "no_vocab", "")
TEMPLATES = (
    "{{ 'a' * 10**9 }}",
    "{% for i in range(10**9) %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% set n = namespace(t='a') %}{% for i in range(40) %}{% set n.t = n.t ~ n.t %}{% endfor %}{{ n.t }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ 'a' | center(10**9) }}",
    "{{ range(9) | batch(10**9, 'x') | list }}",
    "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    "{{ lipsum(n=10**7) }}",
    "{{ 9 ** 9 ** 9 ** 9 }}",
    "{{ messages }}",
    "{{ '\\ud800' }}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{% if messages %}" * 90 + "{% endif %}" * 90,
    "{{ raise_exception('no') }}",
    "{% for %}",
    "a" * 300_000,
    "",
)


def mutated(original: Recipe, seed: int) -> tuple[str, bytes]:
    """(the kind of the change, the bytes of the file). A function of the seed, which also chooses the kind in turn."""
    names = sorted(MUTATIONS)
    kind = names[seed % len(names)]
    found = MUTATIONS[kind](original, random.Random(seed))
    return kind, found if isinstance(found, bytes) else found.build()


def recipe_of(path: Path) -> Recipe:
    """What builds an equal file."""
    header, data = read_gguf(path), path.read_bytes()
    rows = []
    for key, value in header.metadata.items():
        found = value.value
        if value.item_type is not None:
            found = Array(value.item_type, found)
        rows.append((key, value.type, found))
    tensors = [Tensor(t.name, data[t.start : t.start + t.size_bytes], t.type, t.shape) for t in header.tensors]
    return Recipe(tuple(rows), tuple(tensors))


def _number(original: Recipe, chance: random.Random) -> Recipe:
    kinds = (ValueType.UINT32, ValueType.INT32, ValueType.FLOAT32)
    key, kind, value = chance.choice([row for row in original.metadata if row[1] in kinds])
    if kind is ValueType.FLOAT32:
        return original.with_value(key, kind, chance.choice(FLOATS))
    near = (value + 1, max(value - 1, 0), value * 2, value // 2)
    return original.with_value(key, ValueType.UINT32, chance.choice((*NUMBERS, *near)) & 0xFFFFFFFF)


def _new_key(original: Recipe, chance: random.Random) -> Recipe:
    kind, value = chance.choice(
        [*VALUES, *((ValueType.UINT32, n) for n in NUMBERS), *((ValueType.FLOAT32, n) for n in FLOATS)]
    )
    return original.with_value(f"llama.{chance.choice(KEYS)}", kind, value)


def _architecture(original: Recipe, chance: random.Random) -> Recipe:
    name = chance.choice(ARCHITECTURES)
    rows = tuple((key.replace("llama.", f"{name}."), *rest) for key, *rest in original.metadata)
    return replace(original, metadata=rows).with_value("general.architecture", ValueType.STRING, name)


def _by_block(original: Recipe, chance: random.Random) -> Recipe:
    key = chance.choice(("attention.head_count", "attention.head_count_kv", "feed_forward_length"))
    blocks = next(value for name, _, value in original.metadata if name == "llama.block_count")
    values = [chance.choice(NUMBERS) for _ in range(chance.choice((1, blocks, blocks, blocks + 1)))]
    return original.with_value(f"llama.{key}", ValueType.ARRAY, Array(ValueType.UINT32, tuple(values)))


def _array(original: Recipe, chance: random.Random) -> Recipe:
    key, kind, value = chance.choice([row for row in original.metadata if row[1] is ValueType.ARRAY])
    items = list(value.items)
    place = chance.randrange(len(items) + 1)
    how = chance.randrange(4)
    if how == 0:
        items = items[:place]
    elif how == 1:
        items[place:place] = items[place : place + 1] or items[:1]
    elif how == 2 and value.type is ValueType.STRING:
        texts = ("", "a", "\x00", "\U0010ffff", "a" * 70_000, "<0x41>", "  ", items[0])
        items[place : place + 1] = [chance.choice(texts)]
    else:
        items = items[::-1]
    return original.with_value(key, kind, Array(value.type, tuple(items)))


def _tokenizer(original: Recipe, chance: random.Random) -> Recipe:
    found = original.with_value("tokenizer.ggml.model", ValueType.STRING, chance.choice(TOKENIZERS))
    if chance.random() < 0.5:
        tokens = next(value for name, _, value in found.metadata if name == "tokenizer.ggml.tokens")
        scores = Array(ValueType.FLOAT32, (0.0,) * len(tokens.items))
        types = Array(ValueType.INT32, tuple(chance.choice((1, 1, 1, 2, 3, 4, 5, 6)) for _ in tokens.items))
        found = found.with_value("tokenizer.ggml.scores", ValueType.ARRAY, scores)
        found = found.with_value("tokenizer.ggml.token_type", ValueType.ARRAY, types)
    return found


def _special_token(original: Recipe, chance: random.Random) -> Recipe:
    which = chance.choice(("bos", "eos", "eot", "unknown", "padding", "seperator", "cls", "mask", "fim_pre"))
    found = original.with_value(f"tokenizer.ggml.{which}_token_id", ValueType.UINT32, chance.choice(NUMBERS))
    return found.with_value("tokenizer.ggml.add_bos_token", ValueType.BOOL, chance.random() < 0.5)


def _tensor(original: Recipe, chance: random.Random) -> Recipe:
    tensors = list(original.tensors)
    place = chance.randrange(len(tensors))
    one = tensors[place]
    other_names = ("x", "blk.9.attn_q.weight", "output.weight", "rope_freqs.weight")
    more_names = ("extra", "output.weight", "blk.0.attn_q.bias", "blk.2.attn_q.weight")
    changes: tuple[Callable[[], list[Tensor]], ...] = (
        list,
        lambda: [replace(one, name=chance.choice(other_names))],
        lambda: [replace(one, shape=one.shape[::-1])],
        lambda: [replace(one, shape=tuple(chance.choice((n, n * 2, max(n // 2, 1), 0, 1)) for n in one.shape))],
        lambda: [replace(one, type=chance.choice(sorted(CODES)))],
        lambda: [one, replace(one, name=chance.choice(more_names))],
        lambda: [replace(one, data=b"\xff" * len(one.data))],
    )
    tensors[place : place + 1] = chance.choice(changes)()
    return replace(original, tensors=tuple(tensors))


def _bytes(original: Recipe, chance: random.Random) -> bytes:
    data = bytearray(original.build())
    header = len(replace(original, tensors=()).build()) + 80 * len(original.tensors)
    for _ in range(chance.choice((1, 1, 2, 8))):
        data[chance.randrange(min(header, len(data)))] = chance.randrange(256)
    return bytes(data)


def _two(original: Recipe, chance: random.Random) -> Recipe | bytes:
    """Two changes, which may hide each other."""
    first = chance.choice((_number, _new_key, _by_block, _array, _tensor, _special_token))(original, chance)
    return chance.choice((_number, MUTATIONS["a value's type"], _tensor, _tokenizer, _bytes))(first, chance)


MUTATIONS: dict[str, Mutation] = {
    "a number": _number,
    "a value's type": lambda original, chance: original.with_value(
        chance.choice(original.metadata)[0], *chance.choice(VALUES)
    ),
    "a new key": _new_key,
    "a key less": lambda original, chance: original.without(chance.choice(original.metadata)[0]),
    "the architecture": _architecture,
    "numbers by block": _by_block,
    "an array": _array,
    "the tokenizer": _tokenizer,
    "a special token": _special_token,
    "the template": lambda original, chance: original.with_value(
        "tokenizer.chat_template", ValueType.STRING, chance.choice(TEMPLATES)
    ),
    "a tensor": _tensor,
    "an offset": lambda original, chance: replace(
        original, offsets={chance.choice(original.tensors).name: chance.choice((0, 1, 32, 64, 1 << 20, 1 << 40))}
    ),
    "bytes": _bytes,
    "two changes": _two,
}
