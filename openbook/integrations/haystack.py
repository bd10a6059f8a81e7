"""A retriever and a chat generator for Haystack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from openbook.core.errors import ConfigError
from openbook.integrations import asked, details, found, needs, view_of

with needs("haystack-ai"):
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.dataclasses import ChatMessage, StreamingChunk


class _Saved:
    """`kb`: a library, a view, or arguments of `openbook.open`; only of arguments can a pipeline be saved."""

    def __init__(self, kb: Any = None, **settings: Any) -> None:
        self._view = view_of(kb, settings)
        self._opened_from = None if self._view is kb else {"kb": kb if kb is None else str(kb), **settings}

    def to_dict(self) -> dict[str, Any]:
        if self._opened_from is None:
            raise ConfigError("An open knowledge base cannot be saved in a pipeline; give its place instead.")
        return dict(default_to_dict(self, **self._opened_from))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        return default_from_dict(cls, data)


@component
class OpenBookRetriever(_Saved):
    """The `top_k` best passages."""

    def __init__(self, kb: Any = None, *, top_k: int = 5, **settings: Any) -> None:
        _Saved.__init__(self, kb, **settings)  # `component` makes a new class, which super() does not know
        self.top_k = top_k

    def to_dict(self) -> dict[str, Any]:
        saved = _Saved.to_dict(self)
        saved["init_parameters"]["top_k"] = self.top_k
        return saved

    @component.output_types(documents=list[Document])
    def run(self, query: str, top_k: int | None = None) -> dict[str, list[Document]]:
        hits = found(self._view, query, self.top_k if top_k is None else top_k)
        made = [
            Document(id=place["passage_id"], content=text, meta=place, score=place["score"]) for text, place in hits
        ]
        return {"documents": made}


@component
class OpenBookChatGenerator(_Saved):
    """Answers the last message from the knowledge base; `meta` of the reply has the citations.

    It searches by itself, so give it the question without passages.
    """

    @component.output_types(replies=list[ChatMessage])
    def run(
        self, messages: list[ChatMessage], streaming_callback: Callable[[StreamingChunk], None] | None = None
    ) -> dict[str, list[ChatMessage]]:
        question = asked((message.role.value, message.text or "") for message in messages)
        with self._view.stream(**question) as pieces:
            for piece in pieces:
                if streaming_callback is not None:
                    streaming_callback(StreamingChunk(piece))
            return {"replies": [ChatMessage.from_assistant(pieces.answer.answer, meta=details(pieces.answer))]}
