"""The models that OpenBook knows by name: where they come from and, byte for byte, what must arrive (`data/catalogue.toml`)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from openbook.codec import convert
from openbook.errors import InvalidModelFile
from openbook.models.digest import EmbeddingSpec
from openbook.models.manifest import Kind
from openbook.records import Digest


@dataclass(frozen=True, slots=True)
class CatalogueFile:
    """One file of a model. `bytes` and `sha256` are of the file itself, `download_bytes` of what carries it.

    `sources` are tried in their order, until one delivers exactly these bytes.
    """

    target: str
    sources: tuple[str, ...]
    sha256: Digest
    bytes: int
    download_bytes: int


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """`knowledge_cutoff` is YYYY-MM-DD or None, and `cutoff_claimed_by` says on whose word.

    Of an adapter, `base` names the model that it belongs to, and `merged_sha256` is that of the file that both are merged into.
    `memory_mb` is the memory of a process that answers with it, with 4,096 tokens of context: measured where `tried`,
    otherwise the file, its key/value cache and 300 MB. What is not `tried` goes through a trial, as any other file does.
    """

    name: str
    kind: Kind
    description: str
    licence: str
    cutoff_claimed_by: str
    files: tuple[CatalogueFile, ...]
    memory_mb: int
    knowledge_cutoff: str | None = None
    tried: bool = True
    embedding: EmbeddingSpec | None = None
    architecture: str = ""  # stated for an embedder only: a GGUF file states its own
    quantisation: str = ""
    base: str = ""
    merged_sha256: Digest = ""

    @property
    def download_bytes(self) -> int:
        return sum(file.download_bytes for file in self.files)


_FILE = Path(__file__).parent / "data" / "catalogue.toml"
_MODELS = tomllib.loads(_FILE.read_text("utf-8"))["models"]
_ENTRIES = convert(_MODELS, tuple[CatalogueEntry, ...], _FILE.name, InvalidModelFile)

CATALOGUE: Mapping[str, CatalogueEntry] = {entry.name: entry for entry in _ENTRIES}
KNOWN_FILES: frozenset[Digest] = frozenset(
    digest
    for entry in _ENTRIES
    if entry.tried
    for digest in (*(file.sha256 for file in entry.files), entry.merged_sha256)
    if digest
)
