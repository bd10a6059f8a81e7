"""The manifest: what a stored model is, in `manifest.json` next to its files.

Law: `Manifest.from_json(m.to_json()) == m`. Format, with reasons: docs/formats/model-manifest.md.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from openbook.core.codec import convert, parse_json
from openbook.core.errors import InvalidModelFile
from openbook.core.files import storage_errors
from openbook.core.records import Digest, canonical_json
from openbook.models.aliases import name_problem
from openbook.models.digest import Count, EmbeddingSpec, FileEntry, Sha256, TensorDigest, model_digest, tensors_digest

FORMATS = (1, 2)  # one format: what was trained here is written as 2, all else as 1
MAX_MANIFEST_BYTES = 64 << 20
MANIFEST_NAME = "manifest.json"
TRAINING_RECORD = "training.json"  # next to the files of a trained language model or adapter

Kind: TypeAlias = Literal["language-model", "embedder", "adapter"]
Trust: TypeAlias = Literal["catalogue", "first-use", "local-file", "training"]

# The first file holds the weights.
FILES: Mapping[Kind, tuple[str, ...]] = {
    "language-model": ("model.gguf",),
    "embedder": ("model.onnx", "tokenizer.json"),
    "adapter": ("adapter.gguf",),
}


@dataclass(frozen=True, slots=True)
class TokenizerSummary:
    """`model` is the algorithm, `pre` the pre-tokenizer ("" if not stated); `digest` is the section's."""

    model: str
    pre: str
    vocabulary_size: Count
    digest: Sha256


@dataclass(frozen=True, slots=True)
class TemplateSummary:
    """`present`: the model has a chat template. `digest` is the section's; None for an embedder."""

    present: bool
    digest: Sha256 | None


@dataclass(frozen=True, slots=True)
class KnowledgeCutoff:
    """`date` is YYYY-MM-DD or None. It is a claim by `claimed_by`, never measured."""

    date: str | None = None
    claimed_by: str = ""

    def __post_init__(self) -> None:
        if self.date is not None:
            checked_date(self.date)


@dataclass(frozen=True, slots=True)
class Source:
    """The origin of each file, and the reason to trust it.

    `catalogue`: the SHA-256 was known. `first-use`: whatever the origin sent first. `local-file`: given by the user.
    `training`: made on this machine.
    """

    trust: Trust
    origins: Mapping[str, str] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Numbers that are not stated are None. `tensors` are sorted by name."""

    name: str
    kind: Kind
    digest: Sha256
    sections: Mapping[str, Sha256] = field(hash=False)
    architecture: str
    parameter_count: Count | None
    context_tokens: Count | None
    embedding_length: Count | None
    quantisation: str
    tokenizer: TokenizerSummary
    template: TemplateSummary
    licence: str
    knowledge_cutoff: KnowledgeCutoff
    files: Mapping[str, FileEntry] = field(hash=False)
    header_bytes: Count | None
    header_sha256: Sha256 | None
    tensors: tuple[TensorDigest, ...] = field(repr=False)
    source: Source
    lineage: Sha256 | None = None
    embedding: EmbeddingSpec | None = None

    @property
    def is_gguf(self) -> bool:
        return self.kind != "embedder"

    @property
    def main_file(self) -> str:
        """The file with the weights."""
        return FILES[self.kind][0]

    @property
    def format(self) -> int:
        return 2 if self.kind == "adapter" or self.source.trust == "training" or TRAINING_RECORD in self.files else 1

    def to_json(self) -> bytes:
        """Return the canonical bytes of `manifest.json`."""
        return canonical_json(msgspec.to_builtins(self) | {"format": self.format})

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Parse a manifest. Raises InvalidModelFile unless it is complete, consistent and of a known format."""
        value, version = open_format(data, MANIFEST_NAME, FORMATS, MAX_MANIFEST_BYTES)
        manifest = convert(value, cls, MANIFEST_NAME, InvalidModelFile)
        if problem := _problem(manifest, version) or _wrong_digest(manifest):
            raise InvalidModelFile(f"manifest.json: {problem}.")
        try:
            if canonical_json(value | {"format": version}) != manifest.to_json():
                lacking = msgspec.to_builtins(manifest).keys() - value.keys()
                raise InvalidModelFile(
                    f"manifest.json lacks {', '.join(sorted(lacking)) or 'a key of a record in it'}. Every key must be there."
                )
        except UnicodeEncodeError as error:
            raise InvalidModelFile("manifest.json: a text holds half a surrogate pair.") from error
        return manifest


def read_manifest(folder: Path, digest: Digest) -> Manifest:
    """Read the manifest of the model `digest`. Raises InvalidModelFile if it is damaged or another model's."""
    path = folder / MANIFEST_NAME
    try:
        with storage_errors(f"read {path}"):
            try:
                with path.open("rb") as stream:
                    manifest = Manifest.from_json(stream.read(MAX_MANIFEST_BYTES + 1))
            except FileNotFoundError:
                raise InvalidModelFile(f"{MANIFEST_NAME} is missing.") from None
        if manifest.digest != digest:
            raise InvalidModelFile(f"it is for the model {manifest.digest[:12]}, and the folder holds {digest[:12]}.")
    except InvalidModelFile as error:
        problem = str(error).removeprefix(f"{MANIFEST_NAME}: ").rstrip(".")
        raise InvalidModelFile(f"{MANIFEST_NAME} is damaged: {problem}") from error
    return manifest


def open_format(data: bytes, where: str, formats: tuple[int, ...], max_bytes: int) -> tuple[dict[str, Any], int]:
    """(the object of a JSON file without its key `format`, that format). Raises InvalidModelFile."""
    if len(data) > max_bytes:
        raise InvalidModelFile(f"{where} has more than {max_bytes:,} bytes.")
    value = parse_json(data, where, InvalidModelFile)
    version = value.pop("format", None) if isinstance(value, dict) else None
    if type(version) is not int or version not in formats:
        raise InvalidModelFile(
            f"{where} has format {str(version)[:40]}, made by a development version of OpenBook, or by a newer one: fetch or "
            "import the model again, or upgrade OpenBook."
        )
    return value, version


def checked_date(text: str) -> str:
    """Return `text`, a date as YYYY-MM-DD. Raises ValueError."""
    try:
        if datetime.date.fromisoformat(text).isoformat() == text:
            return text
    except ValueError:
        pass
    raise ValueError(f"The knowledge cutoff {text[:40]!r} is not a date of the form YYYY-MM-DD.")


def _problem(manifest: Manifest, version: int) -> str:
    """Return how the manifest contradicts its kind or itself, or ""."""
    is_gguf, kind = manifest.is_gguf, manifest.kind
    if manifest.format != version:
        return f"it has format {version}, and what it holds is of format {manifest.format}"
    if problem := name_problem(manifest.name):
        return f"the name {manifest.name[:120]!r} is not allowed: {problem}"
    sections = ("architecture", "template", "tensors") if is_gguf else ("embedding", "weights")
    if manifest.sections.keys() != {*sections, "tokenizer"}:
        return f"the sections of the kind {kind} are {', '.join(sections)} and tokenizer"
    if not {*FILES[kind]} <= manifest.files.keys() <= {*FILES[kind], *([TRAINING_RECORD] if is_gguf else [])}:
        return f"the files of the kind {kind} are {' and '.join(FILES[kind])}"
    if manifest.files.keys() != manifest.source.origins.keys():
        return "files and source.origins name different files"
    for key, value, belongs in (
        ("header_bytes", manifest.header_bytes, is_gguf),
        ("header_sha256", manifest.header_sha256, is_gguf),
        ("template.digest", manifest.template.digest, is_gguf),
        ("embedding", manifest.embedding, not is_gguf),
        ("lineage", manifest.lineage, kind == "adapter" or manifest.lineage is not None),
    ):
        if (value is not None) is not belongs:
            return f"{key} is {'null' if belongs else 'set'} in the kind {kind}"
    names = [tensor.name for tensor in manifest.tensors]
    if names != sorted(set(names)):
        return "the tensors are not in the order of their names, each once"
    return ""


def _wrong_digest(manifest: Manifest) -> str:
    """Return which digest does not match the content, or ""."""
    sections = manifest.sections
    if manifest.digest != model_digest(sections):
        return "its digest does not follow from its sections"
    if manifest.tokenizer.digest != sections["tokenizer"] or manifest.template.digest != sections.get("template"):
        return "its tokenizer or template digest is not that of its section"
    if manifest.is_gguf and sections["tensors"] != tensors_digest(manifest.tensors):
        return "its tensor section does not follow from the tensors it lists"
    if not manifest.is_gguf and sections["weights"] != manifest.files["model.onnx"].sha256:
        return "its weights section is not the SHA-256 of model.onnx"
    return ""
