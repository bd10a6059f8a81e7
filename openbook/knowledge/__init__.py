"""Knowledge bases: documents go in, passages are found.

The truth is one SQLite file in a folder, or a PostgreSQL database (`openbook.cluster`); the indexes are derived from it and may be deleted.
`add`, `sync` and `remove` each make one new version; `KnowledgeBase.search` finds passages of any kept version; `purge` deletes from all.

Four rooms, each of which imports only those above it:

* `store`    the truth: `interface`, `schema`, `sqlite`, `version_rows`, `identities` (renames, labels), `write_lock`
* `index`    what a search reads: `words`, `bm25`, `vectors`, `segments`, `search`; `scope` and `filter_parser` limit it
* `ingest`   files to contents: `discovery`, `mirror`, `fetch`, `contents`, `splitter`, `embeddings`; `long_run` shares the write lock
* `cite`     what is shown: `passages`, `windows`, `quotes`, `pictures` of pages, `editions`

Above them:

* `base`        `KnowledgeBase`: everything that reads; start reading here
* `updates`     `add`, `sync`, `remove`, of `synced_folders` too, `reembed`;  `versions`: list, compare, tag, restore, prune
* `documents`   outlines, histories, examples, files that were not read;  `word_diff`: which words changed
* `check`       verification;  `erasure`: purging and its proof, with `byte_search` (outside the folder: `openbook.proofs.purge`)
* `docs_cache`  knowledge bases for `--docs`

Names load on first use, so that worker processes start quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "KnowledgeBase": "base",
    "Report": "updates",
    "Rules": "ingest.discovery",
    "RunOptions": "ingest.contents",
    "Scope": "index.scope",
    "add": "updates",
    "purge": "erasure",
    "remove": "updates",
    "sync": "updates",
}
__all__ = [*_HOMES]

if TYPE_CHECKING:
    from openbook.knowledge.base import KnowledgeBase as KnowledgeBase
    from openbook.knowledge.erasure import purge as purge
    from openbook.knowledge.index.scope import Scope as Scope
    from openbook.knowledge.ingest.contents import RunOptions as RunOptions
    from openbook.knowledge.ingest.discovery import Rules as Rules
    from openbook.knowledge.updates import Report as Report
    from openbook.knowledge.updates import add as add
    from openbook.knowledge.updates import remove as remove
    from openbook.knowledge.updates import sync as sync


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'openbook.knowledge' has no attribute {name!r}")
    return getattr(importlib.import_module(f"openbook.knowledge.{_HOMES[name]}"), name)
