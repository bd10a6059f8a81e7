"""OpenBook in the libraries that people use already: one module for each, over `openbook.open` (docs/integrations.md).

Only these modules import those libraries, and OpenBook depends on none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import openbook
from openbook.core.errors import ConfigError, QuestionError, first_line


@contextmanager
def needs(package: str) -> Iterator[None]:
    """For the imports of a module here. Raises ConfigError."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"This integration needs {package} ({first_line(error)}): pip install -U {package}"
        ) from error


def view_of(kb: Any, settings: Mapping[str, Any]) -> openbook.View:
    """`kb`, if it is a library or a view; otherwise `openbook.open(kb, **settings)`. Raises ConfigError."""
    if not isinstance(kb, openbook.View):
        return openbook.open(kb, **settings)
    if settings:
        raise ConfigError(f"The knowledge base is open already; give {', '.join(settings)} to openbook.open.")
    return kb


def found(view: openbook.View, query: str, limit: int) -> list[tuple[str, dict[str, Any]]]:
    """The texts of the best passages, best first, each with where it stands.

    Raises ConfigError, QuestionError, KnowledgeError.
    """
    from openbook.answers.ask import search

    if limit < 1:
        raise ConfigError(f"The number of passages must be at least 1, not {limit}.")
    version, hits = search(query, view.corpus, limit)
    places = []
    for hit in hits:
        place = {name: getattr(hit.passage, name) for name in ("document", "page", "start", "end")}
        places.append(
            (hit.passage.text, {**place, "passage_id": hit.passage.id, "version": version, "score": hit.score})
        )
    return places


def asked(turns: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Arguments of `View.ask` from messages: (role, text). The last is the question. Raises QuestionError."""
    turns = list(turns)
    if not turns or turns[-1][0] != "user":
        last = f"not {turns[-1][0]!r}" if turns else "but there is none"
        raise QuestionError(f"The last message is the question, so its role must be 'user', {last}.")
    told = "\n".join(text for role, text in turns if role in ("system", "developer"))
    *earlier, question = (text for role, text in turns if role == "user")
    return {"question": question, "earlier": earlier, "instruction": told}


def details(answer: openbook.Answer) -> dict[str, Any]:
    """What comes with the text of an answer, JSON-ready: `citations`, `confidence`, `certainty`, `receipt` and more."""
    left_out = {"question", "answer", "passages", "timings", "abstained"}
    return {name: value for name, value in answer.to_json().items() if name not in left_out}
