"""From a model's files to its manifest: what can be read off them, and what was claimed about them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from openbook.errors import InvalidModelFile, StorageError
from openbook.models.bounds import check_lora, check_model
from openbook.models.digest import (
    MAX_TOKENIZER_BYTES,
    EmbeddingSpec,
    Progress,
    embedder_sections,
    gguf_sections,
    hash_file,
    hash_gguf,
    is_template_key,
    model_digest,
    tokenizer_json,
)
from openbook.models.ggml import FILE_TYPES
from openbook.models.gguf import GgufHeader, read_gguf
from openbook.models.manifest import (
    TRAINING_RECORD,
    FileEntry,
    KnowledgeCutoff,
    Manifest,
    Source,
    TemplateSummary,
    TokenizerSummary,
)
from openbook.models.names import is_digest
from openbook.records import Digest

MAX_TEXT_CHARS = 200
BASE_KEY = "adapter.openbook.base"  # the digest of the model that an adapter belongs to


def check_importable(path: Path) -> GgufHeader:
    """The header of a GGUF file that can stand in the store as a language model. Raises InvalidModelFile."""
    header = read_gguf(path)
    parts = header.integer("split.count")
    if parts is not None and parts > 1:
        raise InvalidModelFile(
            f"{path.name} is one of {parts} parts of a split model. Join them first (llama-gguf-split --merge) "
            "and import the whole file."
        )
    kind = header.text("general.type")
    if kind not in (None, "model"):
        raise InvalidModelFile(f"{path.name} holds a GGUF of the type {kind[:80]!r}, not a language model.")
    if not header.tensors:
        raise InvalidModelFile(f"{path.name} holds no tensors, so it is no model that can answer.")
    if not header.text("general.architecture"):
        raise InvalidModelFile(f"{path.name} names no general.architecture, so no engine can run it. Convert it again.")
    check_model(header)
    return header


def describe_gguf(
    path: Path,
    *,
    name: str,
    source: Source,
    licence: str | None = None,
    cutoff: KnowledgeCutoff | None = None,
    lineage: Digest | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """The manifest of the language model in the file `path`, every byte of which is read. Raises InvalidModelFile.

    A tokenizer or chat template that is absent is recorded as absent. `licence` None takes what the file says.
    """
    header = check_importable(path)
    hashes = hash_gguf(path, header, progress)
    sections = gguf_sections(header, hashes.tensors)
    architecture = header.text("general.architecture") or ""
    return Manifest(
        name=name,
        kind="language-model",
        digest=model_digest(sections),
        sections=sections,
        architecture=architecture[:MAX_TEXT_CHARS],
        parameter_count=sum(tensor.element_count for tensor in header.tensors),
        context_tokens=header.integer(f"{architecture}.context_length"),
        embedding_length=header.integer(f"{architecture}.embedding_length"),
        quantisation=quantisation(header),
        tokenizer=_tokenizer_summary(header, sections["tokenizer"]),
        template=TemplateSummary(any(map(is_template_key, header.metadata)), sections["template"]),
        licence=(licence or header.text("general.license") or "not stated")[:MAX_TEXT_CHARS],
        knowledge_cutoff=cutoff or KnowledgeCutoff(),
        files={"model.gguf": FileEntry(hashes.sha256, hashes.bytes)},
        header_bytes=header.header_bytes,
        header_sha256=hashes.header_sha256,
        tensors=hashes.tensors,
        source=source,
        lineage=lineage,
    )


def describe_adapter(
    path: Path,
    *,
    name: str,
    source: Source,
    licence: str,
    cutoff: KnowledgeCutoff,
    progress: Progress | None = None,
) -> Manifest:
    """The manifest of the LoRA adapter in the GGUF file `path`, every byte of which is read. Raises InvalidModelFile."""
    header = check_adapter(path)
    hashes = hash_gguf(path, header, progress)
    sections = gguf_sections(header, hashes.tensors)
    return Manifest(
        name=name,
        kind="adapter",
        digest=model_digest(sections),
        sections=sections,
        architecture=(header.text("general.architecture") or "")[:MAX_TEXT_CHARS],
        parameter_count=sum(tensor.element_count for tensor in header.tensors),
        context_tokens=None,
        embedding_length=None,
        quantisation=quantisation(header),
        tokenizer=_tokenizer_summary(header, sections["tokenizer"]),
        template=TemplateSummary(any(map(is_template_key, header.metadata)), sections["template"]),
        licence=licence[:MAX_TEXT_CHARS],
        knowledge_cutoff=cutoff,
        files={"adapter.gguf": FileEntry(hashes.sha256, hashes.bytes)},
        header_bytes=header.header_bytes,
        header_sha256=hashes.header_sha256,
        tensors=hashes.tensors,
        source=source,
        lineage=header.text(BASE_KEY),
    )


def check_adapter(path: Path) -> GgufHeader:
    """The header of a GGUF file that can stand in the store as an adapter. Raises InvalidModelFile."""
    header = read_gguf(path)
    kind, method = header.text("general.type"), header.text("adapter.type")
    if kind != "adapter" or method != "lora":
        raise InvalidModelFile(f"{path.name} is a GGUF of the type {kind!r} and {method!r}, not a LoRA adapter.")
    if not is_digest(header.text(BASE_KEY) or ""):
        raise InvalidModelFile(
            f"{path.name} does not say which model it belongs to ({BASE_KEY}, a model digest), so it could be put on a wrong "
            "one. Only adapters that OpenBook trained can be stored."
        )
    if not header.tensors:
        raise InvalidModelFile(f"{path.name} holds no tensors, so it changes nothing.")
    check_lora(header)
    return header


def with_training_record(manifest: Manifest, path: Path, origin: str) -> Manifest:
    """`manifest` of a model that was trained, with its record, the file `path`."""
    sha256, size = hash_file(path)
    return replace(
        manifest,
        files={**manifest.files, TRAINING_RECORD: FileEntry(sha256, size)},
        source=replace(manifest.source, origins={**manifest.source.origins, TRAINING_RECORD: origin}),
    )


def quantisation(header: GgufHeader) -> str:
    """The file's own name for it, or else the type that holds most of the tensors' bytes."""
    named = FILE_TYPES.get(header.integer("general.file_type") or 0) if "general.file_type" in header.metadata else None
    if named is not None:
        return named
    bytes_by_type: Counter[str] = Counter()
    for tensor in header.tensors:
        bytes_by_type[tensor.type] += tensor.size_bytes
    return max(sorted(bytes_by_type), key=bytes_by_type.__getitem__, default="")


def _tokenizer_summary(header: GgufHeader, digest: Digest) -> TokenizerSummary:
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    return TokenizerSummary(
        model=(header.text("tokenizer.ggml.model") or "")[:MAX_TEXT_CHARS],
        pre=(header.text("tokenizer.ggml.pre") or "")[:MAX_TEXT_CHARS],
        vocabulary_size=len(tokens.value) if tokens is not None and isinstance(tokens.value, tuple) else 0,
        digest=digest,
    )


def describe_embedder(
    weights: Path,
    tokenizer: Path,
    *,
    name: str,
    spec: EmbeddingSpec,
    source: Source,
    licence: str,
    cutoff: KnowledgeCutoff | None = None,
    architecture: str = "",
    quantisation: str = "",
    progress: Progress | None = None,
) -> Manifest:
    """The manifest of an embedder. What its ONNX file holds is not looked into. Raises InvalidModelFile."""
    weights_sha256, weights_bytes = hash_file(weights, progress)
    tokenizer_sha256, tokenizer_bytes = hash_file(tokenizer)
    content = _content(tokenizer)
    sections = embedder_sections(weights_sha256, content, spec)
    model, vocabulary_size = _tokenizer_model(tokenizer_json(content))
    return Manifest(
        name=name,
        kind="embedder",
        digest=model_digest(sections),
        sections=sections,
        architecture=architecture,
        parameter_count=None,
        context_tokens=spec.max_tokens,
        embedding_length=spec.dimensions,
        quantisation=quantisation,
        tokenizer=TokenizerSummary(model, "", vocabulary_size, sections["tokenizer"]),
        template=TemplateSummary(False, None),
        licence=licence,
        knowledge_cutoff=cutoff or KnowledgeCutoff(),
        files={
            "model.onnx": FileEntry(weights_sha256, weights_bytes),
            "tokenizer.json": FileEntry(tokenizer_sha256, tokenizer_bytes),
        },
        header_bytes=None,
        header_sha256=None,
        tensors=(),
        source=source,
        embedding=spec,
    )


def _content(tokenizer: Path) -> bytes:
    try:
        with tokenizer.open("rb") as stream:
            return stream.read(MAX_TOKENIZER_BYTES + 1)
    except OSError as error:
        raise StorageError(f"Cannot read {tokenizer}: {error.strerror or error}.") from error


def _tokenizer_model(content: dict[str, object]) -> tuple[str, int]:
    """(the algorithm, the size of the vocabulary), as far as a tokenizer.json states them."""
    model = content.get("model")
    if not isinstance(model, dict):
        raise InvalidModelFile("tokenizer.json holds no tokenizer: its key 'model' is not an object.")
    vocabulary = model.get("vocab")
    return str(model.get("type", ""))[:MAX_TEXT_CHARS], len(vocabulary) if isinstance(vocabulary, dict | list) else 0
