"""The model digest: one SHA-256 over exactly what determines a model's answers.

A model has sections (docs/formats/model-manifest.md): a GGUF file its architecture, tensors, tokenizer and template, an
embedder its weights, tokenizer and vector settings. Each has its own digest, so differences can be named. The order of
metadata and tensors, alignment, padding and descriptive `general.*` keys do not matter. One bit of a tensor, one token,
merge or hyperparameter, or the template does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec

from openbook.core.codec import parse_json
from openbook.core.errors import InvalidModelFile
from openbook.core.files import storage_errors
from openbook.core.parallel import Progress
from openbook.core.records import Digest, canonical_json, sha256_hex
from openbook.models.gguf import GgufHeader, MetadataValue, read_gguf
from openbook.models.reader_metadata import READER_KEYS

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
    """One tensor. `shape` is in the file's order, fastest dimension first; `sha256` covers its bytes in the file."""

    name: str
    type: str
    shape: tuple[Count, ...]
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class EmbeddingSpec:
    """The rule for turning an embedder's output into a vector. Vectors of different specs must not be mixed.

    `openbook.inference.embedder` supports only these values of `pooling` and `normalize`.
    """

    dimensions: Count
    max_tokens: Count
    pooling: Literal["mean"] = "mean"
    normalize: Literal[True] = True
    query_prefix: str = ""
    passage_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Contents:
    """All that the bytes say. `header` and `tensors` (by name): of a GGUF file; `tokenizer`: of an embedder."""

    files: dict[str, FileEntry]
    sections: dict[str, Digest]
    tokenizer: Mapping[str, object] = field(default_factory=dict)
    header: GgufHeader | None = None
    header_sha256: Digest | None = None
    tensors: tuple[TensorDigest, ...] = ()


def read_contents(folder: Path, names: Collection[str], spec: EmbeddingSpec | None, progress: Progress) -> Contents:
    """Read these files completely. `spec`: for an embedder. `progress`: in bytes. Raises InvalidModelFile."""
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
    """Digest the entries in key order. Keys carry their length and values their type, so no two mappings share bytes.

    Values are hashed in their GGUF encoding, which is unique for a type and value: floats are compared by their bits, and the
    same number in two types differs.
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
    """(file, SHA-256 of its header, tensors by name), in one pass. Raises InvalidModelFile."""
    whole, position, buffer = hashlib.sha256(), 0, memoryview(bytearray(CHUNK_BYTES))
    found: list[TensorDigest] = []
    with storage_errors(f"read {path}"), path.open("rb", buffering=0) as stream:

        def read_to(end: int) -> Digest:
            """Return the SHA-256 of the bytes from `position` to `end`."""
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
    with storage_errors(f"read {path}"), path.open("rb") as stream:
        return FileEntry(hashlib.file_digest(stream, "sha256").hexdigest(), stream.tell())


def read_tokenizer(folder: Path) -> dict[str, object]:
    """An embedder's tokenizer.json. Raises InvalidModelFile, also for a duplicate key."""
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
