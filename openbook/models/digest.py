"""The model digest: one SHA-256 over all of a model that determines its answers, and over nothing else.

A model is cut into sections (docs/formats/model-manifest.md): of a GGUF file its architecture, tensors, tokenizer and template,
of an embedder its weights, tokenizer and how vectors are made. Each has a digest of its own, so that a difference can be
named; the model digest covers them all. The order of metadata and of tensors, alignment, padding and descriptive `general.*`
keys do not matter; one bit of one tensor, one token, one merge, one hyperparameter or the template does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec

from openbook.codec import parse_json
from openbook.errors import InvalidModelFile
from openbook.files import storage_errors
from openbook.models.gguf import GgufHeader, MetadataValue, read_gguf
from openbook.models.reader_metadata import READER_KEYS
from openbook.parallel import Progress
from openbook.records import Digest, canonical_json, sha256_hex

DIGEST_FORMAT = "openbook-model-digest/1"
METADATA_TAG = b"openbook-metadata/1\n"
CHUNK_BYTES = 1 << 20
MAX_TOKENIZER_BYTES = 64 << 20

Sha256: TypeAlias = Annotated[Digest, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


@dataclass(frozen=True, slots=True)
class FileEntry:
    sha256: Sha256
    bytes: Count


@dataclass(frozen=True, slots=True)
class TensorDigest:
    """One tensor. `shape` is in the file's order, fastest dimension first; `sha256` is over its bytes in the file."""

    name: str
    type: str
    shape: tuple[Count, ...]
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class EmbeddingSpec:
    """How an embedder's output becomes a vector. Two specs that differ give vectors that must not be mixed.

    `pooling` and `normalize`: keys of the format, with the only values that `openbook.inference.embedder` knows.
    """

    dimensions: Count
    max_tokens: Count
    pooling: Literal["mean"] = "mean"
    normalize: Literal[True] = True
    query_prefix: str = ""
    passage_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Contents:
    """What every byte of a model's files says. `header` and `tensors`, by name: of a GGUF file; `tokenizer`: of an embedder."""

    files: dict[str, FileEntry]
    sections: dict[str, Digest]
    tokenizer: Mapping[str, object] = field(default_factory=dict)
    header: GgufHeader | None = None
    header_sha256: Digest | None = None
    tensors: tuple[TensorDigest, ...] = ()


def read_contents(folder: Path, names: Collection[str], spec: EmbeddingSpec | None, progress: Progress) -> Contents:
    """Reads these files of a model from end to end. `spec`: of an embedder. `progress`: in bytes. Raises InvalidModelFile, StorageError."""
    files = {name: hash_file(folder / name) for name in names if not name.endswith(".gguf")}
    if spec is not None:
        tokenizer = read_tokenizer(folder)
        sections = {
            "embedding": sha256_hex(canonical_json(asdict(spec))),
            "tokenizer": sha256_hex(canonical_json(tokenizer)),
            "weights": files["model.onnx"].sha256,
        }
        return Contents(files, sections, tokenizer)
    (main,) = (name for name in names if name.endswith(".gguf"))
    header = read_gguf(folder / main)
    files[main], header_sha256, tensors = hash_gguf(folder / main, header, progress)
    return Contents(files, gguf_sections(header, tensors), {}, header, header_sha256, tensors)


def model_digest(sections: Mapping[str, Digest]) -> Digest:
    return sha256_hex(canonical_json({"format": DIGEST_FORMAT, "sections": dict(sections)}))


def gguf_sections(header: GgufHeader, tensors: Iterable[TensorDigest]) -> dict[str, Digest]:
    """The four sections of a language model or adapter."""
    architecture = header.text("general.architecture") or ""
    chosen: dict[str, dict[str, MetadataValue]] = {"architecture": {}, "template": {}, "tokenizer": {}}
    for key, value in header.metadata.items():
        if is_template_key(key):
            chosen["template"][key] = value
        elif key.startswith("tokenizer."):
            chosen["tokenizer"][key] = value
        if key == "general.architecture" or key.startswith((f"{architecture}.", "adapter.")):
            chosen["architecture"][key] = value
    sections = {section: metadata_digest(entries) for section, entries in chosen.items()}
    return sections | {"tensors": tensors_digest(tensors)}


def tensors_digest(tensors: Iterable[TensorDigest]) -> Digest:
    rows = sorted([t.name, t.type, list(t.shape), t.sha256] for t in tensors)
    return sha256_hex(canonical_json(rows))


def metadata_digest(metadata: Mapping[str, MetadataValue]) -> Digest:
    """Over the entries in key order. Keys carry their length and values their type, so no two mappings share bytes.

    A value's bytes are those of its GGUF encoding, which is the only one for a type and value: floats are compared by
    their bits, and the same number in two types differs.
    """
    hasher = hashlib.sha256(METADATA_TAG)
    hasher.update(len(metadata).to_bytes(8, "little"))
    for key in sorted(metadata):
        entry, name = metadata[key], key.encode()
        hasher.update(len(name).to_bytes(8, "little") + name)
        hasher.update(int(entry.type).to_bytes(4, "little") + len(entry.raw).to_bytes(8, "little"))
        hasher.update(entry.raw)
    return hasher.hexdigest()


def is_template_key(key: str) -> bool:
    named = key in ("tokenizer.chat_template", "tokenizer.chat_templates")
    return named or key.startswith(("tokenizer.chat_template.", READER_KEYS))


def hash_gguf(path: Path, header: GgufHeader, progress: Progress) -> tuple[FileEntry, Digest, tuple[TensorDigest, ...]]:
    """(the file, the SHA-256 of its header, its tensors by name), from one pass. Raises InvalidModelFile, StorageError."""
    whole, position, buffer = hashlib.sha256(), 0, memoryview(bytearray(CHUNK_BYTES))
    found: list[TensorDigest] = []
    with storage_errors(f"read {path}"), path.open("rb", buffering=0) as stream:

        def read_to(end: int) -> Digest:
            """Reads up to there and returns the SHA-256 of these bytes alone."""
            nonlocal position
            part = hashlib.sha256()
            while position < end:
                count = stream.readinto(buffer[: min(end - position, CHUNK_BYTES)])
                if not count:
                    raise InvalidModelFile(
                        f"{path.name} ends at byte {position} of {header.file_bytes}: it is truncated."
                    )
                part.update(buffer[:count])
                whole.update(buffer[:count])
                position += count
                progress(position, header.file_bytes)
            return part.hexdigest()

        header_sha256 = read_to(header.header_bytes)
        for tensor in sorted(header.tensors, key=lambda tensor: tensor.start):
            read_to(tensor.start)
            sha256 = read_to(tensor.start + tensor.size_bytes)
            found.append(TensorDigest(tensor.name, tensor.type, tensor.shape, sha256))
        read_to(header.file_bytes)
    tensors = tuple(sorted(found, key=lambda tensor: tensor.name))
    return FileEntry(whole.hexdigest(), header.file_bytes), header_sha256, tensors


def hash_file(path: Path) -> FileEntry:
    """Raises StorageError."""
    with storage_errors(f"read {path}"), path.open("rb") as stream:
        return FileEntry(hashlib.file_digest(stream, "sha256").hexdigest(), stream.tell())


def read_tokenizer(folder: Path) -> dict[str, object]:
    """The object that the tokenizer.json of an embedder holds. Raises InvalidModelFile, also for a key that appears twice."""
    path = folder / "tokenizer.json"
    with storage_errors(f"read {path}"), path.open("rb") as stream:
        data = stream.read(MAX_TOKENIZER_BYTES + 1)
    if len(data) > MAX_TOKENIZER_BYTES:
        raise InvalidModelFile(f"tokenizer.json has more than {MAX_TOKENIZER_BYTES} bytes.")
    value = parse_json(data, "tokenizer.json", InvalidModelFile)
    if not isinstance(value, dict):
        raise InvalidModelFile(f"tokenizer.json must hold an object, not {type(value).__name__}.")
    try:
        canonical_json(value)
    except ValueError as error:  # NaN, or half a surrogate pair
        raise InvalidModelFile(f"tokenizer.json is not valid JSON: {error}.") from error
    return value
