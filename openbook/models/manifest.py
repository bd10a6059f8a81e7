"""The manifest: what a stored model is, beside its files, as `manifest.json`.

Law: `Manifest.from_json(m.to_json()) == m`. Written format, with reasons: docs/formats/model-manifest.md.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from openbook.codec import unique_keys
from openbook.errors import InvalidModelFile
from openbook.models.digest import EmbeddingSpec, TensorDigest, model_digest, tensors_digest
from openbook.models.fields import Fields
from openbook.models.names import name_problem
from openbook.records import Digest, canonical_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FORMATS = (1, 2)  # 2 adds adapters and trained models; what needs neither is still written as 1
MAX_MANIFEST_BYTES = 64 << 20

Kind: TypeAlias = Literal["language-model", "embedder", "adapter"]
Trust: TypeAlias = Literal["catalogue", "first-use", "local-file", "training"]

SECTIONS: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {
        "language-model": ("architecture", "template", "tensors", "tokenizer"),
        "embedder": ("embedding", "tokenizer", "weights"),
        "adapter": ("architecture", "template", "tensors", "tokenizer"),
    }
)
FILES: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {"language-model": ("model.gguf",), "embedder": ("model.onnx", "tokenizer.json"), "adapter": ("adapter.gguf",)}
)
TRAINING_RECORD = "training.json"  # beside the files of a language model or adapter that was trained


@dataclass(frozen=True, slots=True)
class FileEntry:
    sha256: Digest
    bytes: int


@dataclass(frozen=True, slots=True)
class TokenizerSummary:
    """`model` and `pre` name the algorithm and the pre-tokenizer (empty: not stated); `digest` is the section's."""

    model: str
    pre: str
    vocabulary_size: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class TemplateSummary:
    """Whether the model brings a chat template. `digest` is the section's; None for an embedder, which has none."""

    present: bool
    digest: Digest | None


@dataclass(frozen=True, slots=True)
class KnowledgeCutoff:
    """`date` is YYYY-MM-DD, or None where nobody states one. A claim, never measured: `claimed_by` says whose."""

    date: str | None = None
    claimed_by: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the files came from, file by file, and why they are believed to be what they are called.

    `catalogue`: their SHA-256 was known beforehand. `first-use`: whatever the origin sent on the first pull.
    `local-file`: the user named the file. `training`: a run on this machine made them.
    """

    trust: Trust
    origins: Mapping[str, str] = field(hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "origins", MappingProxyType(dict(self.origins)))


@dataclass(frozen=True, slots=True)
class Manifest:
    """Numbers that nobody states are None. `tensors` is in the order of their names."""

    name: str
    kind: Kind
    digest: Digest
    sections: Mapping[str, Digest] = field(hash=False)
    architecture: str
    parameter_count: int | None
    context_tokens: int | None
    embedding_length: int | None
    quantisation: str
    tokenizer: TokenizerSummary
    template: TemplateSummary
    licence: str
    knowledge_cutoff: KnowledgeCutoff
    files: Mapping[str, FileEntry] = field(hash=False)
    header_bytes: int | None
    header_sha256: Digest | None
    tensors: tuple[TensorDigest, ...] = field(repr=False)
    source: Source
    lineage: Digest | None = None
    embedding: EmbeddingSpec | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sections", MappingProxyType(dict(self.sections)))
        object.__setattr__(self, "files", MappingProxyType(dict(self.files)))

    @property
    def is_gguf(self) -> bool:
        return self.kind != "embedder"

    @property
    def main_file(self) -> str:
        """The file that holds the weights."""
        return FILES[self.kind][0]

    @property
    def format(self) -> int:
        return 2 if self.kind == "adapter" or self.source.trust == "training" or TRAINING_RECORD in self.files else 1

    def to_json(self) -> bytes:
        """The canonical bytes of `manifest.json`."""
        value = {name: getattr(self, name) for name in _PLAIN}
        value |= {
            "format": self.format,
            "sections": dict(self.sections),
            "tokenizer": _as_dict(self.tokenizer),
            "template": _as_dict(self.template),
            "knowledge_cutoff": _as_dict(self.knowledge_cutoff),
            "files": {name: _as_dict(entry) for name, entry in self.files.items()},
            "tensors": [_as_dict(tensor) | {"shape": list(tensor.shape)} for tensor in self.tensors],
            "source": {"trust": self.source.trust, "origins": dict(self.source.origins)},
            "embedding": None if self.embedding is None else _as_dict(self.embedding),
        }
        return canonical_json(value)

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Raises InvalidModelFile for anything but a whole manifest of a known format: no key more, none less."""
        fields = Fields(_parsed(data), "manifest.json")
        version = fields.integer("format")
        if version not in FORMATS:
            raise InvalidModelFile(
                f"manifest.json has format {version}; this version of OpenBook reads {' and '.join(map(str, FORMATS))}. "
                "Upgrade OpenBook, or pull the model again."
            )
        manifest = _read(fields)
        fields.end()
        if manifest.format != version:
            raise InvalidModelFile(
                f"manifest.json has format {version}, and what it holds is of format {manifest.format}."
            )
        _check_shape(manifest)
        return manifest


_PLAIN = (
    "name",
    "kind",
    "digest",
    "architecture",
    "parameter_count",
    "context_tokens",
    "embedding_length",
    "quantisation",
    "licence",
    "header_bytes",
    "header_sha256",
    "lineage",
)


def inconsistencies(manifest: Manifest) -> tuple[str, ...]:
    """Where the manifest contradicts itself: its digests must follow from what it lists. Empty if nowhere."""
    found = []
    if manifest.digest != model_digest(manifest.sections):
        found.append("its digest does not follow from its sections")
    if manifest.tokenizer.digest != manifest.sections["tokenizer"]:
        found.append("its tokenizer digest is not that of its section")
    if manifest.is_gguf:
        if manifest.sections["tensors"] != tensors_digest(manifest.tensors):
            found.append("its tensor section does not follow from the tensors it lists")
        if manifest.template.digest != manifest.sections["template"]:
            found.append("its template digest is not that of its section")
    elif manifest.sections["weights"] != manifest.files["model.onnx"].sha256:
        found.append("its weights section is not the SHA-256 of model.onnx")
    return tuple(found)


def _as_dict(record: DataclassInstance) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in fields_of(record)}


def _parsed(data: bytes) -> object:
    if len(data) > MAX_MANIFEST_BYTES:
        raise InvalidModelFile(f"manifest.json has {len(data)} bytes; at most {MAX_MANIFEST_BYTES} are allowed.")
    try:
        return json.loads(data.decode(), object_pairs_hook=unique_keys, parse_float=_no_float, parse_constant=_no_float)
    except (ValueError, RecursionError) as error:
        raise InvalidModelFile(f"manifest.json is not valid JSON: {error}.") from error


def _no_float(text: str) -> object:
    raise ValueError(f"the number {text[:40]} is not an integer")


def _read(fields: Fields) -> Manifest:
    kind: Kind = fields.choice("kind", get_args(Kind))
    return Manifest(
        name=fields.text("name"),
        kind=kind,
        digest=fields.digest("digest"),
        sections=dict(_read_sections(fields.inner("sections"), kind)),
        architecture=fields.text("architecture"),
        parameter_count=fields.integer_or_none("parameter_count"),
        context_tokens=fields.integer_or_none("context_tokens"),
        embedding_length=fields.integer_or_none("embedding_length"),
        quantisation=fields.text("quantisation"),
        tokenizer=_read_tokenizer(fields.inner("tokenizer")),
        template=_read_template(fields.inner("template")),
        licence=fields.text("licence"),
        knowledge_cutoff=_read_cutoff(fields.inner("knowledge_cutoff")),
        files=_read_files(fields.inner("files"), kind),
        header_bytes=fields.integer_or_none("header_bytes"),
        header_sha256=fields.digest_or_none("header_sha256"),
        tensors=tuple(_read_tensor(row) for row in fields.rows("tensors")),
        source=_read_source(fields.inner("source"), kind),
        lineage=fields.digest_or_none("lineage"),
        embedding=_read_embedding(fields.inner_or_none("embedding")),
    )


def _read_sections(fields: Fields, kind: Kind) -> list[tuple[str, Digest]]:
    rows = [(name, fields.digest(name)) for name in SECTIONS[kind]]
    fields.end()
    return rows


def _read_files(fields: Fields, kind: Kind) -> dict[str, FileEntry]:
    files = {}
    for name in _file_names(fields, kind):
        entry = fields.inner(name)
        files[name] = FileEntry(entry.digest("sha256"), entry.integer("bytes"))
        entry.end()
    fields.end()
    return files


def _file_names(fields: Fields, kind: Kind) -> tuple[str, ...]:
    record = (TRAINING_RECORD,) if kind != "embedder" and TRAINING_RECORD in set(fields) else ()
    return FILES[kind] + record


def _read_tokenizer(fields: Fields) -> TokenizerSummary:
    value = TokenizerSummary(
        fields.text("model"), fields.text("pre"), fields.integer("vocabulary_size"), fields.digest("digest")
    )
    fields.end()
    return value


def _read_template(fields: Fields) -> TemplateSummary:
    value = TemplateSummary(fields.boolean("present"), fields.digest_or_none("digest"))
    fields.end()
    return value


def _read_cutoff(fields: Fields) -> KnowledgeCutoff:
    value = KnowledgeCutoff(fields.text_or_none("date"), fields.text("claimed_by"))
    fields.end()
    if value.date is not None:
        checked_date(value.date)
    return value


def _read_source(fields: Fields, kind: Kind) -> Source:
    origins = fields.inner("origins")
    names = _file_names(origins, kind)
    value = Source(fields.choice("trust", get_args(Trust)), {name: origins.text(name) for name in names})
    origins.end()
    fields.end()
    return value


def _read_tensor(fields: Fields) -> TensorDigest:
    value = TensorDigest(fields.text("name"), fields.text("type"), fields.integers("shape"), fields.digest("sha256"))
    fields.end()
    return value


def _read_embedding(fields: Fields | None) -> EmbeddingSpec | None:
    if fields is None:
        return None
    value = EmbeddingSpec(
        dimensions=fields.integer("dimensions"),
        max_tokens=fields.integer("max_tokens"),
        pooling=fields.choice("pooling", ("mean",)),
        normalize=fields.boolean("normalize"),
        query_prefix=fields.text("query_prefix"),
        passage_prefix=fields.text("passage_prefix"),
    )
    fields.end()
    return value


def checked_date(text: str) -> str:
    """`text`, if it is a date as YYYY-MM-DD. Raises InvalidModelFile."""
    try:
        if datetime.date.fromisoformat(text).isoformat() == text:
            return text
    except ValueError:
        pass
    raise InvalidModelFile(f"The knowledge cutoff {text[:40]!r} is not a date of the form YYYY-MM-DD.")


def _check_shape(manifest: Manifest) -> None:
    """What the kinds demand of each other's fields."""
    if problem := name_problem(manifest.name):
        raise InvalidModelFile(f"manifest.json: the name {manifest.name[:120]!r} is not allowed: {problem}.")
    is_gguf = manifest.is_gguf
    stated = {
        "header_bytes": manifest.header_bytes is not None,
        "header_sha256": manifest.header_sha256 is not None,
        "template.digest": manifest.template.digest is not None,
    }
    for key, present in stated.items():
        if present is not is_gguf:
            raise InvalidModelFile(f"manifest.json: {key} is {'null' if is_gguf else 'set'} in a {manifest.kind}.")
    if (manifest.embedding is None) is not is_gguf:
        raise InvalidModelFile(f"manifest.json: embedding is {'set' if is_gguf else 'null'} in a {manifest.kind}.")
    if manifest.kind == "adapter" and manifest.lineage is None:
        raise InvalidModelFile("manifest.json: lineage is null in an adapter, which needs its base.")
    if manifest.files.keys() != manifest.source.origins.keys():
        raise InvalidModelFile("manifest.json: files and source.origins name different files.")
    names = [tensor.name for tensor in manifest.tensors]
    if names != sorted(set(names)):
        raise InvalidModelFile("manifest.json: the tensors are not in the order of their names, each once.")
