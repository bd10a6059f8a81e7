"""OpenBook: answers from a frozen language model and a living knowledge base.

Training adjusts a model's parameters; inference uses fixed ones; the two never overlap. A tour:

    from pathlib import Path
    import openbook

    store = openbook.ModelStore(Path("models"))                 # frozen models: files with digests
    model = openbook.load_model(openbook.ensure(store, "qwen2.5-coder-1.5b-instruct"))
    embedder = openbook.load_embedder(openbook.ensure(store, "minilm-l6-int8"))

    base = openbook.KnowledgeBase.ensure(Path("kb"), embedder.identity)   # the living side
    openbook.sync(base, Path("docs"), embedder)                 # each change is one version

    answer = openbook.ask("Who signs travel expenses?", model, base, embedder)
    print(answer.answer, answer.citations, answer.receipt)      # the receipt names weights, passages and parameters

The command line `openbook` does the same. Importing this package does nothing else: names load when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "ask": "openbook.answer",
    "Options": "openbook.answer",
    "Answer": "openbook.records",
    "Decoding": "openbook.records",
    "Receipt": "openbook.records",
    "FrozenModel": "openbook.inference",
    "load_model": "openbook.inference",
    "load_embedder": "openbook.inference",
    "connect_model": "openbook.inference",
    "KnowledgeBase": "openbook.knowledge",
    "Scope": "openbook.knowledge",
    "add": "openbook.knowledge",
    "sync": "openbook.knowledge",
    "remove": "openbook.knowledge",
    "purge": "openbook.knowledge",
    "ModelStore": "openbook.models",
    "ensure": "openbook.models",
    "OpenBookError": "openbook.errors",
}
__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from openbook.answer import Options as Options
    from openbook.answer import ask as ask
    from openbook.errors import OpenBookError as OpenBookError
    from openbook.inference import FrozenModel as FrozenModel
    from openbook.inference import connect_model as connect_model
    from openbook.inference import load_embedder as load_embedder
    from openbook.inference import load_model as load_model
    from openbook.knowledge import KnowledgeBase as KnowledgeBase
    from openbook.knowledge import Scope as Scope
    from openbook.knowledge import add as add
    from openbook.knowledge import purge as purge
    from openbook.knowledge import remove as remove
    from openbook.knowledge import sync as sync
    from openbook.models import ModelStore as ModelStore
    from openbook.models import ensure as ensure
    from openbook.records import Answer as Answer
    from openbook.records import Decoding as Decoding
    from openbook.records import Receipt as Receipt


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'openbook' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
