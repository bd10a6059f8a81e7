"""What the header of a model file may claim: each number that sizes something is in its bounds and agrees with the tensors.

An engine allocates memory by these numbers before it looks at a tensor, and some of them end its process. So they are
checked here, from the header alone. An error names the key, its value and what is allowed.
"""

from __future__ import annotations

import re

from openbook.errors import InvalidModelFile
from openbook.models.gguf import GgufHeader, ValueType
from openbook.models.reader_metadata import ABSTENTION, DECLINES_ABOVE, INSTRUCTION, PASSAGES

MAX_BLOCKS = 512  # of llama.cpp
MAX_TOKENS = 1 << 22
MAX_TEMPLATE_CHARS = 1 << 18
MAX_RANK = 1 << 14
MAX_READER_CHARS = 1 << 12
MAX_READER_PASSAGES = 8

# Keys without the architecture's name, by (least, most). The bounds allow ten times what the largest known models have.
_NUMBERS = {
    (1, MAX_BLOCKS): ("block_count",),
    (1, 1 << 27): ("context_length",),
    (1, 1 << 18): ("embedding_length",),
    (1, MAX_TOKENS): ("vocab_size",),
    (1, 1 << 16): ("attention.key_length", "attention.value_length"),
    (0, MAX_BLOCKS): ("leading_dense_block_count", "nextn_predict_layers"),
    (0, 1 << 12): ("expert_count", "expert_used_count", "expert_shared_count", "ssm.conv_kernel"),
    (0, 1 << 14): ("attention.head_count", "attention.head_count_kv"),
    (0, 1 << 16): ("rope.dimension_count", "ssm.state_size", "ssm.time_step_rank", "ssm.group_count"),
    (0, 1 << 22): (
        "feed_forward_length",
        "expert_feed_forward_length",
        "expert_shared_feed_forward_length",
        "ssm.inner_size",
    ),
}
# Of these a file may state one number for all blocks, or an array with one for each block.
_BY_BLOCK = ("feed_forward_length", "attention.head_count", "attention.head_count_kv")
_BY_TOKEN = {"tokenizer.ggml.scores": ValueType.FLOAT32, "tokenizer.ggml.token_type": ValueType.INT32}
_MAX_CHARS = {
    "tokenizer.chat_template": MAX_TEMPLATE_CHARS,
    INSTRUCTION: MAX_READER_CHARS,
    ABSTENTION: MAX_READER_CHARS,
}
_NO_DECODER = ("none", "t5")  # tokenizers of models without a vocabulary, and with an encoder


def check_model(header: GgufHeader) -> None:
    """Raises InvalidModelFile for a language model whose header is out of bounds or contradicts itself."""
    _check_numbers(header)
    _check_reader(header)
    _check_vocabulary(header)


def check_lora(header: GgufHeader) -> None:
    """As `check_model`, for an adapter by itself."""
    alpha = header.metadata.get("adapter.lora.alpha")
    _check_number("adapter.lora.alpha", alpha.value if alpha else "absent", 0.0, 1e6)
    _check_reader(header)
    for name, (a, b) in _pairs(header).items():
        if len(a) != 2 or len(b) != 2 or a[1] != b[0] or not 1 <= a[1] <= MAX_RANK:
            raise InvalidModelFile(
                f"The adapter's tensors for {name} have the shapes {a} and {b}. Both must be matrices of one rank, 1 to {MAX_RANK}."
            )


def check_lora_fits(adapter: GgufHeader, base: GgufHeader) -> None:
    """Raises InvalidModelFile for an adapter that changes what `base` does not have."""
    shapes = {tensor.name: tensor.shape for tensor in base.tensors}
    for name, (a, b) in _pairs(adapter).items():
        if shapes.get(name) != (a[0], b[1]):
            raise InvalidModelFile(
                f"The adapter changes {name} of the shape {(a[0], b[1])}; in its base that has the shape {shapes.get(name)}."
            )


def _check_number(key: str, value: object, least: float, most: float) -> None:
    """Integers may be the bounds themselves; numbers with a fraction must lie between them."""
    if type(least) is int and not (type(value) is int and least <= value <= most):
        raise InvalidModelFile(f"{key} is {str(value)[:80]}. It must be an integer from {least} to {most}.")
    if type(least) is float and not (type(value) is float and least < value < most):
        raise InvalidModelFile(f"{key} is {str(value)[:80]}. It must be a number between {least:g} and {most:g}.")


def _check_numbers(header: GgufHeader) -> None:
    architecture = header.text("general.architecture")
    blocks = header.integer(f"{architecture}.block_count")
    for (least, most), names in _NUMBERS.items():
        for name in names:
            _check_stated(header, f"{architecture}.{name}", blocks if name in _BY_BLOCK else None, least, most)
    numbers = [int(match[1]) for tensor in header.tensors if (match := re.match(r"blk\.([0-9]+)\.", tensor.name))]
    there = max(numbers, default=-1) + 1
    if blocks is not None and blocks != there:
        raise InvalidModelFile(f"{architecture}.block_count is {blocks}, but the tensors are those of {there} blocks.")
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


def _check_stated(header: GgufHeader, key: str, blocks: int | None, least: int, most: int) -> None:
    """Checks a number that the header may state. With `blocks` it may also be an array with one number for each."""
    found = header.metadata.get(key)
    if found is None:
        return
    if blocks is None or found.type is not ValueType.ARRAY:
        _check_number(key, found.value, least, most)
        return
    if len(found.value) != blocks:
        raise InvalidModelFile(f"{key} has {len(found.value)} items. Each of {blocks} blocks needs one.")
    for value in found.value:
        _check_number(key, value, least, most)


def _check_reader(header: GgufHeader) -> None:
    for key, least, most in ((PASSAGES, 1, MAX_READER_PASSAGES), (DECLINES_ABOVE, 0.0, 1.0)):
        if (found := header.metadata.get(key)) is not None:
            _check_number(key, found.value, least, most)
    for key, most in _MAX_CHARS.items():
        if (chars := len(header.text(key) or "")) > most:
            raise InvalidModelFile(f"{key} has {chars} characters. At most {most} are allowed.")


def _check_vocabulary(header: GgufHeader) -> None:
    model = header.text("tokenizer.ggml.model")
    if model in _NO_DECODER:
        raise InvalidModelFile(
            f"tokenizer.ggml.model is {model!r}. OpenBook runs models that read and write text without an encoder."
        )
    found = header.metadata.get("tokenizer.ggml.tokens")
    if found is None:
        return
    count = len(found.value) if found.item_type is ValueType.STRING else 0
    if not 1 <= count <= MAX_TOKENS:
        raise InvalidModelFile(f"tokenizer.ggml.tokens holds {count} texts. It must hold from 1 to {MAX_TOKENS}.")
    for key, kind in _BY_TOKEN.items():
        each = header.metadata.get(key)
        if each is not None and (each.item_type is not kind or len(each.value) != count):
            raise InvalidModelFile(f"{key} must be an array of {kind.name} with one for each of {count} tokens.")
    width = header.integer(f"{header.text('general.architecture')}.embedding_length")
    shape = next((tensor.shape for tensor in header.tensors if tensor.name == "token_embd.weight"), None)
    if shape is not None and width is not None and shape != (width, count):
        raise InvalidModelFile(
            f"token_embd.weight has the shape {shape}. With {count} tokens and an embedding_length of {width} it must have {(width, count)}."
        )


def _pairs(header: GgufHeader) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """The shapes of A and B for each matrix that an adapter changes, by its name."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for tensor in header.tensors:
        parts = re.fullmatch(r"(.+)\.lora_([ab])", tensor.name)
        if parts is None:
            raise InvalidModelFile(
                f"The adapter holds the tensor {tensor.name}, whose name ends in neither .lora_a nor .lora_b."
            )
        found.setdefault(parts[1], {})[parts[2]] = tensor.shape
    for name, pair in found.items():
        if pair.keys() != {"a", "b"}:
            raise InvalidModelFile(f"The adapter holds only {name}.lora_{min(pair)}. It must hold .lora_a and .lora_b.")
    return {name: (pair["a"], pair["b"]) for name, pair in found.items()}
