"""The living side: knowledge bases, into which documents go and in which passages are found.

A knowledge base is a folder. One SQLite file in it is the source of truth.

`KnowledgeBase.ensure` and `.open` give a knowledge base. `add` puts files into it, `sync` makes it equal to a folder,
`remove` takes documents out: each makes one new version, and `.search` finds passages of any version that is kept, by
meaning and by words. `purge` deletes from all versions. The indexes beside the SQLite file are derived from it and can
be deleted at any time.

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
