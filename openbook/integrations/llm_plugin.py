"""A plugin of the command `llm`: the model `openbook` answers from your knowledge base, `-f openbook:QUERY` finds passages.

Settings are those of the command `openbook`: config.toml and OPENBOOK_* variables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import openbook
from openbook.answers.answer_text import printable
from openbook.integrations import asked, details, found, needs

with needs("llm"):
    import llm


@cache
def library() -> openbook.Library:
    return openbook.open()


def _place(place: dict[str, Any]) -> str:
    page = "" if place["page"] is None else f", page {place['page']}"
    return printable(f"{place['document']}{page}")


class OpenBook(llm.Model):
    model_id = "openbook"
    can_stream = True

    def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> Iterator[str]:
        turns = ((turn.role, "\n".join(getattr(part, "text", "") for part in turn.parts)) for turn in prompt.messages)
        with library().stream(**asked(turns)) as pieces:
            yield from map(printable, pieces)
            told = response.response_json = details(pieces.answer)
        for each in told["citations"]:
            yield f"\n\n> {printable(' '.join(each['quote'].split()))}\n> ({_place(each)})"


@llm.hookimpl
def register_models(register: Callable[[llm.Model], None]) -> None:
    register(OpenBook())


@llm.hookimpl
def register_fragment_loaders(register: Callable[[str, Callable[[str], list[llm.Fragment]]], None]) -> None:
    register("openbook", passages)


def passages(query: str) -> list[llm.Fragment]:
    """The passages of your knowledge base that are nearest to a question, best first: openbook:QUESTION"""
    return [
        llm.Fragment(f"{_place(place)}:\n{printable(text)}", f"openbook:{place['passage_id']}")
        for text, place in found(library(), query, 5)
    ]
