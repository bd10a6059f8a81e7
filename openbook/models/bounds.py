"""What the header of a model file may claim: each number that sizes something is in its bounds and agrees with the tensors.

An engine makes room by these numbers before it looks at a tensor, and some of them end its process. So they are
compared here, from the header alone, with what a refusal then says: the key, its value and what is allowed.
"""

from __future__ import annotations

import re

from openbook.errors import InvalidModelFile
from openbook.models.digest import READER_KEYS
from openbook.models.gguf import GgufHeader, MetadataValue, ValueType

MAX_BLOCKS = 512  # of llama.cpp
MAX_TOKENS = 1 << 22
MAX_TEMPLATE_CHARS = 1 << 18
MAX_RANK = 1 << 14
MAX_READER_CHARS = 1 << 12
MAX_READER_PASSAGES = 8
TEMPLATE_KEY, TOKENS_KEY = "tokenizer.chat_template", "tokenizer.ggml.tokens"

# Without the architecture's name: (least, most). Ten times and more what the largest known models have.
_NUMBERS = {
    "block_count": (1, MAX_BLOCKS),
    "context_length": (1, 1 << 27),
    "embedding_length": (1, 1 << 18),
    "vocab_size": (1, MAX_TOKENS),
    "attention.key_length": (1, 1 << 16),
    "attention.value_length": (1, 1 << 16),
    "rope.dimension_count": (0, 1 << 16),
    "expert_count": (0, 1 << 12),
    "expert_used_count": (0, 1 << 12),
    "expert_shared_count": (0, 1 << 12),
    "expert_feed_forward_length": (0, 1 << 22),
    "expert_shared_feed_forward_length": (0, 1 << 22),
    "leading_dense_block_count": (0, MAX_BLOCKS),
    "nextn_predict_layers": (0, MAX_BLOCKS),
    "ssm.conv_kernel": (0, 1 << 12),
    "ssm.inner_size": (0, 1 << 22),
    "ssm.state_size": (0, 1 << 16),
    "ssm.time_step_rank": (0, 1 << 16),
    "ssm.group_count": (0, 1 << 16),
}
# The same, of which a file may give one for all blocks or an array with one for each.
_BY_BLOCK = {
    "feed_forward_length": (0, 1 << 22),
    "attention.head_count": (0, 1 << 14),
    "attention.head_count_kv": (0, 1 << 14),
}
# What the file says of each token.
_BY_TOKEN = {"tokenizer.ggml.scores": ValueType.FLOAT32, "tokenizer.ggml.token_type": ValueType.INT32}
_NO_DECODER = ("none", "t5")  # tokenizers of models without a vocabulary, and with an encoder
_BLOCK = re.compile(r"blk\.([0-9]+)\.")
_LORA = re.compile(r"(.+)\.lora_([ab])")


def check_model(header: GgufHeader) -> None:
    """Raises InvalidModelFile for a language model whose header is out of bounds or contradicts itself."""
    architecture = header.text("general.architecture") or ""
    blocks = _checked_numbers(header, architecture)
    _check_blocks(header, architecture, blocks)
    _check_heads(header, architecture)
    _check_reader(header)
    _check_vocabulary(header, header.integer(f"{architecture}.embedding_length"))


def check_lora(header: GgufHeader) -> None:
    """The same for an adapter, by itself."""
    _check_alpha(header)
    _check_reader(header)
    for name, (a, b) in _pairs(header).items():
        if len(a) != 2 or len(b) != 2 or a[1] != b[0] or not 1 <= a[1] <= MAX_RANK:
            raise InvalidModelFile(
                f"The adapter's tensors for {name} have the shapes {a} and {b}. Both must be matrices of one rank, 1 to {MAX_RANK}."
            )


def check_lora_fits(adapter: GgufHeader, base: GgufHeader) -> None:
    """The same for an adapter on the model that it belongs to."""
    shapes = {tensor.name: tensor.shape for tensor in base.tensors}
    for name, (a, b) in _pairs(adapter).items():
        if shapes.get(name) != (a[0], b[1]):
            raise InvalidModelFile(
                f"The adapter changes {name} of the shape {(a[0], b[1])}; in its base that has the shape {shapes.get(name)}."
            )


def _checked_numbers(header: GgufHeader, architecture: str) -> int | None:
    """The number of blocks, if the file states one."""
    for key, bounds in _NUMBERS.items():
        if (found := header.metadata.get(f"{architecture}.{key}")) is not None:
            _check(f"{architecture}.{key}", found.value, *bounds)
    blocks = header.integer(f"{architecture}.block_count")
    for key, bounds in _BY_BLOCK.items():
        if (found := header.metadata.get(f"{architecture}.{key}")) is None:
            continue
        values = found.value if found.type is ValueType.ARRAY else (found.value,)
        if found.type is ValueType.ARRAY and len(values) != blocks:
            raise InvalidModelFile(f"{architecture}.{key} has {len(values)} items. Each of {blocks} blocks needs one.")
        for value in values:
            _check(f"{architecture}.{key}", value, *bounds)
    return blocks


def _check(key: str, value: object, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise InvalidModelFile(f"{key} is {repr(value)[:80]}. It must be an integer from {least} to {most}.")


def _check_blocks(header: GgufHeader, architecture: str, blocks: int | None) -> None:
    numbers = [int(found[1]) for tensor in header.tensors if (found := _BLOCK.match(tensor.name))]
    there = max(numbers, default=-1) + 1
    if blocks is not None and blocks != there:
        raise InvalidModelFile(f"{architecture}.block_count is {blocks}, but the tensors are those of {there} blocks.")


def _check_heads(header: GgufHeader, architecture: str) -> None:
    heads, shared = (header.integer(f"{architecture}.attention.head_count{end}") for end in ("", "_kv"))
    if heads and shared and heads % shared:
        raise InvalidModelFile(
            f"{architecture}.attention.head_count_kv is {shared}. It must divide {architecture}.attention.head_count, which is {heads}."
        )
    experts, used = (header.integer(f"{architecture}.expert_{end}") or 0 for end in ("count", "used_count"))
    if used > experts:
        raise InvalidModelFile(
            f"{architecture}.expert_used_count is {used}. It must be an integer from 0 to {architecture}.expert_count, which is {experts}."
        )


def _check_vocabulary(header: GgufHeader, width: int | None) -> None:
    model = header.text("tokenizer.ggml.model")
    if model in _NO_DECODER:
        raise InvalidModelFile(
            f"tokenizer.ggml.model is {model!r}. OpenBook runs models that read and write text without an encoder."
        )
    template = header.text(TEMPLATE_KEY) or ""
    if len(template) > MAX_TEMPLATE_CHARS:
        raise InvalidModelFile(
            f"{TEMPLATE_KEY} has {len(template)} characters. At most {MAX_TEMPLATE_CHARS} are allowed."
        )
    found = header.metadata.get(TOKENS_KEY)
    if found is None:
        return
    count = len(found.value) if _item_type(found) is ValueType.STRING else 0
    if not 1 <= count <= MAX_TOKENS:
        raise InvalidModelFile(f"{TOKENS_KEY} holds {count} texts. It must hold from 1 to {MAX_TOKENS}.")
    for key, kind in _BY_TOKEN.items():
        each = header.metadata.get(key)
        if each is not None and (_item_type(each) is not kind or len(each.value) != count):
            raise InvalidModelFile(f"{key} must be an array of {kind.name} with one for each of {count} tokens.")
    shape = next((tensor.shape for tensor in header.tensors if tensor.name == "token_embd.weight"), None)
    if shape is not None and width is not None and shape != (width, count):
        raise InvalidModelFile(
            f"token_embd.weight has the shape {shape}. With {count} tokens and an embedding_length of {width} it must have {(width, count)}."
        )


def _check_reader(header: GgufHeader) -> None:
    passages = header.metadata.get(READER_KEYS + "passages")
    if passages is not None and (type(passages.value) is not int or not 1 <= passages.value <= MAX_READER_PASSAGES):
        raise InvalidModelFile(
            f"{READER_KEYS}passages is {str(passages.value)[:80]}. It must be a number from 1 to {MAX_READER_PASSAGES}."
        )
    threshold = header.metadata.get(READER_KEYS + "declines_above")
    if threshold is not None and (type(threshold.value) is not float or not 0 < threshold.value < 1):
        raise InvalidModelFile(
            f"{READER_KEYS}declines_above is {str(threshold.value)[:80]}. It must be a number between 0 and 1."
        )
    for key in ("instruction", "abstention"):
        if len(header.text(READER_KEYS + key) or "") > MAX_READER_CHARS:
            raise InvalidModelFile(
                f"{READER_KEYS}{key} has {len(header.text(READER_KEYS + key) or '')} characters. At most {MAX_READER_CHARS} are allowed."
            )


def _item_type(value: MetadataValue) -> ValueType | None:
    """The type of an array's items; None for what is no array."""
    return ValueType(int.from_bytes(value.raw[:4], "little")) if value.type is ValueType.ARRAY else None


def _check_alpha(header: GgufHeader) -> None:
    found = header.metadata.get("adapter.lora.alpha")
    if found is None or type(found.value) is not float or not 0 < found.value < 1e6:
        shown = "absent" if found is None else repr(found.value)[:80]
        raise InvalidModelFile(f"adapter.lora.alpha is {shown}. It must be a number above 0 and below 1000000.")


def _pairs(header: GgufHeader) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """The shapes of A and B for each matrix that an adapter changes, by its name."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for tensor in header.tensors:
        parts = _LORA.fullmatch(tensor.name)
        if parts is None:
            raise InvalidModelFile(f"The adapter holds the tensor {tensor.name}, which is no .lora_a and no .lora_b.")
        found.setdefault(parts[1], {})[parts[2]] = tensor.shape
    for name, pair in found.items():
        if pair.keys() != {"a", "b"}:
            raise InvalidModelFile(f"The adapter holds only {name}.lora_{min(pair)}. It must hold .lora_a and .lora_b.")
    return {name: (pair["a"], pair["b"]) for name, pair in found.items()}
