"""From a model's files to its manifest: what the files say, and what was claimed about them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from openbook.errors import InvalidModelFile
from openbook.files import storage_errors
from openbook.models.aliases import is_digest
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
from openbook.models.gguf import GgufHeader, read_gguf
from openbook.models.manifest import (
    FILES,
    TRAINING_RECORD,
    FileEntry,
    KnowledgeCutoff,
    Manifest,
    Source,
    TemplateSummary,
    TokenizerSummary,
    Trust,
)
from openbook.records import Digest

MAX_TEXT_CHARS = 200
BASE_KEY = "adapter.openbook.base"  # the digest of the model that an adapter belongs to


def check_importable(path: Path) -> GgufHeader:
    """The header of a GGUF file that can stand in the store: a language model, or an adapter of one that OpenBook trained.

    Raises InvalidModelFile.
    """
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
        raise InvalidModelFile(f"{path.name} holds no tensors, so it is no model that can answer.")
    if not header.text("general.architecture"):
        raise InvalidModelFile(f"{path.name} names no general.architecture, so no engine can run it. Convert it again.")
    (check_lora if kind == "adapter" else check_model)(header)
    return header


def describe_gguf(
    path: Path,
    *,
    name: str,
    trust: Trust,
    origin: str,
    licence: str | None = None,
    cutoff: KnowledgeCutoff | None = None,
    lineage: Digest | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """The manifest of the language model or adapter in the file `path`, every byte of which is read.

    A tokenizer or chat template that is absent is recorded as absent. `licence` None takes what the file says. An adapter's
    lineage is the base that it names. `trust` and `origin` are those of a Source. Raises InvalidModelFile.
    """
    header = check_importable(path)
    is_adapter = header.text("general.type") == "adapter"
    hashes = hash_gguf(path, header, progress)
    sections = gguf_sections(header, hashes.tensors)
    architecture = header.text("general.architecture") or ""
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    file = FILES["adapter" if is_adapter else "language-model"][0]
    return Manifest(
        name=name,
        kind="adapter" if is_adapter else "language-model",
        digest=model_digest(sections),
        sections=sections,
        architecture=architecture[:MAX_TEXT_CHARS],
        parameter_count=sum(tensor.element_count for tensor in header.tensors),
        context_tokens=header.integer(f"{architecture}.context_length"),
        embedding_length=header.integer(f"{architecture}.embedding_length"),
        quantisation=quantisation(header),
        tokenizer=TokenizerSummary(
            model=(header.text("tokenizer.ggml.model") or "")[:MAX_TEXT_CHARS],
            pre=(header.text("tokenizer.ggml.pre") or "")[:MAX_TEXT_CHARS],
            vocabulary_size=len(tokens.value) if tokens is not None and isinstance(tokens.value, tuple) else 0,
            digest=sections["tokenizer"],
        ),
        template=TemplateSummary(any(map(is_template_key, header.metadata)), sections["template"]),
        licence=(licence or header.text("general.license") or "not stated")[:MAX_TEXT_CHARS],
        knowledge_cutoff=cutoff or KnowledgeCutoff(),
        files={file: FileEntry(hashes.sha256, hashes.bytes)},
        header_bytes=header.header_bytes,
        header_sha256=hashes.header_sha256,
        tensors=hashes.tensors,
        source=Source(trust, {file: origin}),
        lineage=header.text(BASE_KEY) if is_adapter else lineage,
    )


def with_training_record(manifest: Manifest, path: Path, origin: str) -> Manifest:
    """`manifest` of a model that was trained, with its record, the file `path`."""
    files = {**manifest.files, TRAINING_RECORD: FileEntry(*hash_file(path))}
    origins = {**manifest.source.origins, TRAINING_RECORD: origin}
    return replace(manifest, files=files, source=replace(manifest.source, origins=origins))


def quantisation(header: GgufHeader) -> str:
    """The file's own name for it, or else the type that holds most of the tensors' bytes."""
    from gguf import LlamaFileType

    named: dict[int | None, str] = {
        int(kind): kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in LlamaFileType
    }
    code = header.integer("general.file_type")
    if code in named:
        return named[code]
    bytes_by_type: Counter[str] = Counter()
    for tensor in header.tensors:
        bytes_by_type[tensor.type] += tensor.size_bytes
    return max(sorted(bytes_by_type), key=bytes_by_type.__getitem__, default="")


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
) -> Manifest:
    """The manifest of an embedder. The content of its ONNX file is not examined. Raises InvalidModelFile."""
    files = {"model.onnx": FileEntry(*hash_file(weights)), "tokenizer.json": FileEntry(*hash_file(tokenizer))}
    with storage_errors(f"read {tokenizer}"), tokenizer.open("rb") as stream:
        content = stream.read(MAX_TOKENIZER_BYTES + 1)
    sections = embedder_sections(files["model.onnx"].sha256, content, spec)
    model = tokenizer_json(content).get("model")
    if not isinstance(model, dict):
        raise InvalidModelFile("tokenizer.json holds no tokenizer: its key 'model' is not an object.")
    vocabulary = model.get("vocab")
    size = len(vocabulary) if isinstance(vocabulary, dict | list) else 0
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
        tokenizer=TokenizerSummary(str(model.get("type", ""))[:MAX_TEXT_CHARS], "", size, sections["tokenizer"]),
        template=TemplateSummary(False, None),
        licence=licence,
        knowledge_cutoff=cutoff or KnowledgeCutoff(),
        files=files,
        header_bytes=None,
        header_sha256=None,
        tensors=(),
        source=source,
        embedding=spec,
    )
