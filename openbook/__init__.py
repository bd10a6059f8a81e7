"""OpenBook: answers from a frozen language model and a living knowledge base.

    import openbook
    with openbook.open("kb") as kb:
        kb.sync("docs")
        answer = kb.ask("Who signs travel expenses?")
        print(answer, answer.citations)

`openbook.open` returns a `Library`: a knowledge base with the model and the embedder that answer from it, which are
fetched and opened on first use. Settings come from config.toml, OPENBOOK_* variables and arguments.

    kb.add, kb.sync, kb.remove, kb.purge       change the documents; each change makes one new version
    kb.ask, kb.stream, kb.chat, kb.search      also as ask_async, stream_async, search_async
    kb.as_of("v1"), kb.where("author = 'Lee'"), kb.labels("board")     views, which cost nothing
    kb.history, kb.diff, kb.tag, kb.documents  what is there, and what changed
    kb.replay(answer.receipt)                  the same answer again, byte for byte

`openbook.ask(question, docs="docs")` answers from files, without a knowledge base. Methods return `Answer`, `Citation`,
`Hit` and `Receipt`; `View` and `Chat` are parts of a library; `FrozenModel` is a model for `openbook.open(model=...)`.
Every error that a user can cause is an `OpenBookError`, and its text says what to do.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openbook.answers.conversation import Chat as Chat
    from openbook.core.errors import OpenBookError as OpenBookError
    from openbook.core.records import Answer as Answer
    from openbook.core.records import Citation as Citation
    from openbook.core.records import Embedder
    from openbook.core.records import Hit as Hit
    from openbook.core.records import Receipt as Receipt
    from openbook.inference import FrozenModel as FrozenModel
    from openbook.library import Library as Library
    from openbook.library import View as View

__version__ = "0.1.0"

_HOMES = {
    "Answer": "core.records",
    "Chat": "answers.conversation",
    "Citation": "core.records",
    "FrozenModel": "inference",
    "Hit": "core.records",
    "Library": "library",
    "OpenBookError": "core.errors",
    "Receipt": "core.records",
    "View": "library",
}


def open(  # noqa: A001  it opens a knowledge base as the built-in opens a file
    place: str | Path | None = None,
    *,
    docs: str | Path | Sequence[str | Path] | None = None,
    model: str | FrozenModel | None = None,
    embedder: str | Embedder | None = None,
    **settings: Any,
) -> Library:
    """A library over the knowledge base in `place`: a folder, a URL such as postgresql://host/name, or None for your
    own.

    `docs`: answer from exactly these files and folders instead. `model`: a name, or an open model, which stays open.
    `settings`: any setting by its name, such as max_tokens=200 (docs/settings.md).

    Nothing is opened yet; the first `add` or `sync` creates a missing knowledge base. Raises ConfigError.

    >>> with openbook.open("other", model=model, embedder=embedder) as other:
    ...     other.sync("docs").version
    1
    """
    library = importlib.import_module("openbook.library")  # so that no layer below imports it with this package
    opened: Library = library.Library.opened(place, docs, model, embedder, settings)
    return opened


def ask(
    question: str,
    docs: str | Path | Sequence[str | Path],
    *,
    model: str | FrozenModel | None = None,
    embedder: str | Embedder | None = None,
    **settings: Any,
) -> Answer:
    """Answer one question from files and folders. Arguments as of `open`. Raises as `View.ask` does.

    >>> print(openbook.ask("Who signs travel expenses?", docs="docs", model=model, embedder=embedder))
    Travel expenses are signed by the head of unit.
    """
    with open(docs=docs, model=model, embedder=embedder, **settings) as library:
        return library.ask(question)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'openbook' has no attribute {name!r}")
    return getattr(importlib.import_module(f"openbook.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return ["__version__", "ask", "open", *_HOMES]
