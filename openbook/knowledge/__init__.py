"""The living side: knowledge bases, into which documents go and in which passages are found.

A knowledge base is a folder. One SQLite file in it is the source of truth (or a PostgreSQL database, see `openbook.cluster`).

`KnowledgeBase.ensure` and `.open` give a knowledge base. `add` puts files into it, `sync` makes it equal to a folder,
`remove` takes documents out: each makes one new version, and `.search` finds passages of any version that is kept, by
meaning and by words. `purge` deletes from all versions. The indexes beside the SQLite file are derived from it and can
be deleted at any time.

* `base`                         `KnowledgeBase`: everything that reads; start reading here
* `store`, `sqlite_store`, `schema`, `migrations`   where the rows are; `write_lock`: one writer at a time
* `integrity`, `check`           digests of rows; looking at everything
* `updates`                      `add`, `sync`, `remove`: one run, made of `discovery` (which files), `ingest` (files to contents), `splitter`
                                 (contents to passages), `embeddings`, `identities` (renames, labels), `versions` (commit, prune)
* `sliced_run`                   how a long run shares the write lock
* `scope`, `filter_parser`       what a query may see
* `search`                       rounds over shards; `bm25`, `words` and `vectors` score, `indexes` holds the shards' rows
* `segments`                     the arrays of an index; `index_builder` makes them, `index_store` saves them, `index_cache` keeps them open,
                                 `shared_segments` and `blobs` share them between machines
* `passages`                     rows to passages and windows; `tables`, `boilerplate`, `sentences`: the structure of a text; `pictures`: PDF pages
* `quotes`                       the nearest words of passages to a sentence
* `editions`                     which documents were replaced or are not in force, by what they declare
* `erasure`                      purging and its proof; `byte_search` looks for bytes. Outside the folder: `openbook.deletion`
* `docs_cache`                   knowledge bases for `--docs`

Names load when they are used, so that a worker process that only reads files starts quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "KnowledgeBase": "base",
    "Report": "updates",
    "Rules": "discovery",
    "RunOptions": "ingest",
    "Scope": "scope",
    "add": "updates",
    "purge": "erasure",
    "remove": "updates",
    "sync": "updates",
}
__all__ = [*_HOMES]

if TYPE_CHECKING:
    from openbook.knowledge.base import KnowledgeBase as KnowledgeBase
    from openbook.knowledge.discovery import Rules as Rules
    from openbook.knowledge.erasure import purge as purge
    from openbook.knowledge.ingest import RunOptions as RunOptions
    from openbook.knowledge.scope import Scope as Scope
    from openbook.knowledge.updates import Report as Report
    from openbook.knowledge.updates import add as add
    from openbook.knowledge.updates import remove as remove
    from openbook.knowledge.updates import sync as sync


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'openbook.knowledge' has no attribute {name!r}")
    return getattr(importlib.import_module(f"openbook.knowledge.{_HOMES[name]}"), name)
