"""The store of frozen models: files only, no engine.

A model is a folder named by a digest of everything that determines its answers. It is written once, through one door,
and never changed; names point to digests.

* `gguf`, `ggml`       strict, bounded reading of GGUF headers
* `bounds`             what a header may claim
* `digest`             the model digest, section by section
* `manifest`           what a stored model is, as `manifest.json`
* `catalogue`          the models known by name, byte for byte
* `sources`            where a file comes from; `wheels` and `hub` fetch it
* `describe`           from files to a manifest
* `writer`             the protected door into the store; only `importing` uses it
* `gguf_writing`       GGUF files, with another file's metadata
* `merging`            an adapter and its base as one file
* `importing`          `pull`, `ensure`, `import_gguf`, `merge`
* `store`              `ModelStore`: names, resolving, verifying (`verify`, `stamps`), removing
* `trials`             which files an engine has loaded in a process of its own

    store = ModelStore(settings.models_dir)
    reference = ensure(store, "smollm2-135m-instruct")
    store.verify(reference)
"""

from __future__ import annotations

from openbook.models.catalogue import CATALOGUE, CatalogueEntry, CatalogueFile
from openbook.models.digest import EmbeddingSpec, Progress, TensorDigest, model_digest
from openbook.models.gguf import GgufHeader, read_gguf
from openbook.models.importer import ensure, import_gguf, pull
from openbook.models.manifest import FileEntry, KnowledgeCutoff, Manifest, Source, TemplateSummary, TokenizerSummary
from openbook.models.store import ModelReference, ModelStore

__all__ = [
    "CATALOGUE",
    "CatalogueEntry",
    "CatalogueFile",
    "EmbeddingSpec",
    "FileEntry",
    "GgufHeader",
    "KnowledgeCutoff",
    "Manifest",
    "ModelReference",
    "ModelStore",
    "Progress",
    "Source",
    "TemplateSummary",
    "TensorDigest",
    "TokenizerSummary",
    "ensure",
    "import_gguf",
    "model_digest",
    "pull",
    "read_gguf",
]
