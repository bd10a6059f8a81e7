"""From a model's files, and claims about them, to its manifest."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from openbook.core.errors import InvalidModelFile
from openbook.core.parallel import Progress
from openbook.core.records import Digest
from openbook.models.aliases import is_digest
from openbook.models.digest import Contents, EmbeddingSpec, is_template_key, model_digest, read_contents
from openbook.models.gguf import GgufHeader, ValueType, read_gguf
from openbook.models.manifest import FILES, Kind, KnowledgeCutoff, Manifest, Source, TemplateSummary, TokenizerSummary

MAX_TEXT_CHARS = 200
BASE_KEY = "adapter.openbook.base"  # the digest of an adapter's base


def check_importable(path: Path) -> GgufHeader:
    """The header of a language model, or of an adapter that OpenBook trained. Raises InvalidModelFile."""
    header = read_gguf(path)
    kind, method = header.text("general.type"), header.text("adapter.type")
    parts = header.integer("split.count")
    if parts is not None and parts > 1:
        raise InvalidModelFile(
            f"{path.name} is one of {parts} parts of a split model. Join them first (llama-gguf-split --merge) "
            "and import the whole file."
        )
    if kind not in (None, "model", "adapter"):
        raise InvalidModelFile(f"{path.name} holds a GGUF of the type {kind[:80]!r}, not a language model.")
    if kind == "adapter" and method != "lora":
        raise InvalidModelFile(f"{path.name} is a GGUF of the type {kind!r} and {method!r}, not a LoRA adapter.")
    if kind == "adapter" and not is_digest(header.text(BASE_KEY) or ""):
        raise InvalidModelFile(
            f"{path.name} does not say which model it belongs to ({BASE_KEY}, a model digest), so it could be put on a wrong "
            "one. Only adapters that OpenBook trained can be stored."
        )
    if not header.tensors:
        raise InvalidModelFile(f"{path.name} holds no tensors, so it cannot be used as a model.")
    if not header.text("general.architecture"):
        raise InvalidModelFile(f"{path.name} names no general.architecture, so no engine can run it. Convert it again.")
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    for key, item_type in (
        ("tokenizer.ggml.scores", ValueType.FLOAT32),
        ("tokenizer.ggml.token_type", ValueType.INT32),
    ):
        found = header.metadata.get(key)  # llama.cpp reads one per token, without a bounds check
        if found and not (tokens and found.item_type is item_type and len(found.value) == len(tokens.value)):
            raise InvalidModelFile(f"{path.name}: {key} must be an array of {item_type.name} with one for each token.")
    return header


def kind_of(header: GgufHeader) -> Kind:
    return "adapter" if header.text("general.type") == "adapter" else "language-model"


def describe(
    folder: Path,
    *,
    name: str,
    source: Source,
    licence: str | None = None,
    cutoff: KnowledgeCutoff | None = None,
    lineage: Digest | None = None,
    embedding: EmbeddingSpec | None = None,
    architecture: str = "",
    quantisation: str = "",
    progress: Progress = lambda done, total: None,
) -> Manifest:
    """Make the manifest of the model in `folder`, reading every byte of the files that `source` names.

    `licence` None: the file's own. An adapter's lineage is the base it names. `embedding`, `architecture` and `quantisation` are
    for an embedder, whose ONNX file is not examined. Raises InvalidModelFile.
    """
    for file in source.origins:
        if file.endswith(".gguf"):
            kind = kind_of(check_importable(folder / file))
            if file not in FILES[kind]:
                raise InvalidModelFile(f"{file} cannot hold a model of the kind {kind}.")
    contents = read_contents(folder, source.origins, embedding, progress)
    if contents.header is not None:
        facts = _gguf_facts(contents.header, contents)
        licence = licence or contents.header.text("general.license")
        lineage = contents.header.text(BASE_KEY) if facts["kind"] == "adapter" else lineage
    else:
        assert embedding is not None
        facts = _embedder_facts(contents, embedding) | {"architecture": architecture, "quantisation": quantisation}
    return Manifest(
        name=name,
        digest=model_digest(contents.sections),
        sections=contents.sections,
        licence=(licence or "not stated")[:MAX_TEXT_CHARS],
        knowledge_cutoff=cutoff or KnowledgeCutoff(),
        files=contents.files,
        header_sha256=contents.header_sha256,
        tensors=contents.tensors,
        source=source,
        lineage=lineage,
        embedding=embedding,
        **facts,
    )


def _gguf_facts(header: GgufHeader, contents: Contents) -> dict[str, Any]:
    architecture = header.text("general.architecture") or ""
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    return {
        "kind": kind_of(header),
        "architecture": architecture[:MAX_TEXT_CHARS],
        "parameter_count": sum(math.prod(tensor.shape) for tensor in header.tensors),
        "context_tokens": _count(header, f"{architecture}.context_length"),
        "embedding_length": _count(header, f"{architecture}.embedding_length"),
        "quantisation": quantisation_of(header),
        "tokenizer": TokenizerSummary(
            model=(header.text("tokenizer.ggml.model") or "")[:MAX_TEXT_CHARS],
            pre=(header.text("tokenizer.ggml.pre") or "")[:MAX_TEXT_CHARS],
            vocabulary_size=len(tokens.value) if tokens is not None and isinstance(tokens.value, tuple) else 0,
            digest=contents.sections["tokenizer"],
        ),
        "template": TemplateSummary(any(map(is_template_key, header.metadata)), contents.sections["template"]),
        "header_bytes": header.header_bytes,
    }


def _count(header: GgufHeader, key: str) -> int | None:
    """An integer of the header in a manifest's range, or None."""
    number = header.integer(key)
    return number if number is not None and 0 <= number < 1 << 63 else None


def _embedder_facts(contents: Contents, spec: EmbeddingSpec) -> dict[str, Any]:
    model = contents.tokenizer.get("model")
    if not isinstance(model, dict):
        raise InvalidModelFile("tokenizer.json holds no tokenizer: its key 'model' is not an object.")
    vocabulary = model.get("vocab")
    size = len(vocabulary) if isinstance(vocabulary, dict | list) else 0
    return {
        "kind": "embedder",
        "parameter_count": None,
        "context_tokens": spec.max_tokens,
        "embedding_length": spec.dimensions,
        "tokenizer": TokenizerSummary(
            str(model.get("type", ""))[:MAX_TEXT_CHARS], "", size, contents.sections["tokenizer"]
        ),
        "template": TemplateSummary(False, None),
        "header_bytes": None,
    }


def quantisation_of(header: GgufHeader) -> str:
    """The file's own name for it, else the type with most of the tensors' bytes."""
    from gguf import LlamaFileType

    with suppress(ValueError):  # no name, or one unknown to the library
        named: str = LlamaFileType(header.integer("general.file_type")).name
        return named.removeprefix("MOSTLY_").removeprefix("ALL_")
    bytes_by_type: Counter[str] = Counter()
    for tensor in header.tensors:
        bytes_by_type[tensor.type] += tensor.size_bytes
    return max(sorted(bytes_by_type), key=bytes_by_type.__getitem__, default="")
