"""OpenBook: answers from a frozen language model and a living knowledge base.

Training adjusts a model's parameters; inference uses fixed ones; the two never overlap. A tour of all public names, in which
`openbook.testing` stands in for a model and an embedder, so that it takes no time:

    >>> from pathlib import Path
    >>> import openbook
    >>> from openbook.testing import HashEmbedder, echo_model
    >>> model, embedder = echo_model(), HashEmbedder()

The living side is a knowledge base. Each change makes one new version:

    >>> folder = Path("docs")
    >>> folder.mkdir()
    >>> _ = (folder / "travel.md").write_text("Travel expenses are signed by the head of unit.")
    >>> base = openbook.KnowledgeBase.ensure(Path("kb"), embedder.identity)
    >>> openbook.sync(base, folder, embedder).version  # as often as you like: what is gone from the folder goes, too
    1
    >>> _ = Path("leave.md").write_text("Everybody has 28 days of leave.")
    >>> openbook.add(base, [Path("leave.md")], embedder).verdicts[0].outcome
    'added'

The frozen side is a model. Its answer cites the documents, and has a receipt by which it can be replayed:

    >>> answer = openbook.ask("Who signs travel expenses?", model, base, embedder)
    >>> answer.answer, answer.citations[0].quote
    ('Travel expenses are signed by the head of unit.', 'Travel expenses are signed by the head of unit.')
    >>> isinstance(answer, openbook.Answer) and isinstance(answer.receipt, openbook.Receipt)
    True
    >>> (answer.receipt.model.name, answer.receipt.knowledge_base_version)
    ('echo', 2)
    >>> short = openbook.Options(passages=1, decoding=openbook.Decoding(max_tokens=3))
    >>> openbook.ask("Who signs travel expenses?", model, base, embedder, short).answer
    'Travel expenses are'
    >>> before = openbook.Scope(as_of=1)  # a version, a filter over metadata, or the labels that the user holds
    >>> openbook.ask("How many days of leave has everybody?", model, base, embedder, scope=before).abstained
    True

`remove` keeps older versions as they were, `purge` deletes from all of them:

    >>> openbook.remove(base, [str(Path("leave.md").absolute())]).version
    3
    >>> openbook.purge(base, [str(Path("leave.md").absolute())]).documents == (str(Path("leave.md").absolute()),)
    True

Every error that a user can cause is an `OpenBookError`, and its text says what to do:

    >>> try:
    ...     openbook.ask("", model)
    ... except openbook.OpenBookError as error:
    ...     print(error)
    The question is empty or has no word in it.

A model behind an OpenAI-compatible server can only claim what it is:

    >>> remote = openbook.connect_model("qwen3:8b", base_url="http://localhost:11434/v1")
    >>> isinstance(remote, openbook.FrozenModel), remote.identity.evidence
    (True, 'claimed')
    >>> remote.close()

With real models, which are fetched once and checked by their digests:

    >>> store = openbook.ModelStore(Path("models"))
    >>> reference = openbook.ensure(store, "reader")
    >>> embedder = openbook.load_embedder(openbook.ensure(store, "minilm-l6-int8"))
    >>> embedder.embed_query("Who signs travel expenses?").shape
    (384,)
    >>> model = openbook.load_model(reference)
    >>> model.identity.evidence
    'verified'
    >>> model.close()

The command line `openbook` does the same. Importing this package does nothing else: names load when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_NAMES = {
    "answer": "ask Options",
    "records": "Answer Decoding Receipt",
    "inference": "FrozenModel load_model load_embedder connect_model",
    "knowledge": "KnowledgeBase Scope add sync remove purge",
    "models": "ModelStore ensure",
    "errors": "OpenBookError",
}
_HOMES = {name: f"openbook.{module}" for module, names in _NAMES.items() for name in names.split()}
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
