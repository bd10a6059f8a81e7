"""The store of frozen models: files only, no engine.

A model is a folder named by a digest of all that determines its answers. It is written once and never changed; names point
to digests.

* `gguf`               strict reading of GGUF headers
* `digest`             the model digest, section by section
* `manifest`           `manifest.json`; `describe` makes it from the files
* `catalogue`          models known by name; `sources` fetches them
* `gguf_writer`        writes GGUF files and merges adapters
* `reader_metadata`    a trained reader's prompt format
* `importer`           `pull`, `ensure`, `import_gguf`, `merge`; `writer` installs their results
* `store`, `aliases`   `ModelStore`: names, resolving, removing
* `verify`             compares a model with its digest, and keeps results
* `lineage`            the origins of trained models, and the tree of them

    store = ModelStore(settings.models_dir)
    reference = ensure(store, "smollm2-135m-instruct")
    assert not store.findings(reference)
"""

from __future__ import annotations

from openbook.models.catalogue import CATALOGUE
from openbook.models.digest import EmbeddingSpec
from openbook.models.gguf import GgufHeader, read_gguf
from openbook.models.importer import ensure, import_gguf, pull
from openbook.models.manifest import KnowledgeCutoff
from openbook.models.store import ModelReference, ModelStore

__all__ = [
    "CATALOGUE",
    "EmbeddingSpec",
    "GgufHeader",
    "KnowledgeCutoff",
    "ModelReference",
    "ModelStore",
    "ensure",
    "import_gguf",
    "pull",
    "read_gguf",
]
