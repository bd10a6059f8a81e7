"""The store of frozen models: files only, no engine.

A model is a folder named by a digest of everything that determines its answers. It is written once, through one door,
and never changed; names point to digests.

* `gguf`               strict reading of GGUF headers
* `digest`             the model digest, section by section
* `manifest`           what a stored model is, as `manifest.json`; `describe` makes it from the files
* `catalogue`          the models known by name, byte for byte
* `sources`            where a file comes from, and how it is fetched
* `gguf_writer`        writes GGUF files, and an adapter with its base as one file; reads a file's weights as numbers
* `reader_metadata`    how a trained reader is asked, as metadata of its file
* `importer`           `pull`, `ensure`, `import_gguf`, `merge`, through the one door, `writer`
* `store`, `aliases`   `ModelStore`: names, resolving, removing
* `verify`             whether a stored model is what its digest says
* `verify_cache`       what earlier checks found: stamps of verified files, and trials (`openbook.inference.trial`)
* `training_record`    how a trained model came to be; `lineage` makes the tree of models of it

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
