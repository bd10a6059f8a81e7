"""A retriever and a chat model for LangChain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import openbook
from openbook.core.errors import ConfigError
from openbook.integrations import asked, details, found, needs, view_of

with needs("langchain-core"):
    from langchain_core.documents import Document
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
    from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
    from langchain_core.retrievers import BaseRetriever
    from pydantic import PrivateAttr


class OpenBookRetriever(BaseRetriever):
    """The `k` best passages. `kb`: a library, a view, or arguments of `openbook.open`."""

    k: int = 5
    _view: openbook.View = PrivateAttr()

    def __init__(self, kb: Any = None, *, k: int = 5, **settings: Any) -> None:
        super().__init__(k=k)
        self._view = view_of(kb, settings)

    def _get_relevant_documents(self, query: str) -> list[Document]:
        return [
            Document(text, id=place["passage_id"], metadata=place) for text, place in found(self._view, query, self.k)
        ]


class ChatOpenBook(BaseChatModel):
    """Answers the last message from the knowledge base; `response_metadata` has the citations.

    It searches by itself, so give it the question without passages. `kb`: as of `OpenBookRetriever`.
    """

    cache: Any = False  # a cache shared by views would show one reader's answers to another
    _view: openbook.View = PrivateAttr()

    def __init__(self, kb: Any = None, **settings: Any) -> None:
        super().__init__()
        self._view = view_of(kb, settings)

    @property
    def _llm_type(self) -> str:
        return "openbook"

    def _generate(self, messages: list[BaseMessage], stop: list[str] | None = None, *_: Any, **__: Any) -> ChatResult:
        return _result(self._view.ask(**_asked(messages, stop)))

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, *_: Any, **__: Any
    ) -> ChatResult:
        return _result(await self._view.ask_async(**_asked(messages, stop)))

    def _stream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, *_: Any, **__: Any
    ) -> Iterator[ChatGenerationChunk]:
        with self._view.stream(**_asked(messages, stop)) as pieces:
            for piece in pieces:
                yield ChatGenerationChunk(message=AIMessageChunk(piece))
            last = AIMessageChunk("", response_metadata=details(pieces.answer), chunk_position="last")
            yield ChatGenerationChunk(message=last)


def _asked(messages: Sequence[BaseMessage], stop: list[str] | None) -> dict[str, Any]:
    if stop:
        raise ConfigError(f"OpenBook's answers end by themselves; leave stop={stop!r} out.")
    roles = ((HumanMessage, "user"), (SystemMessage, "system"))
    return asked((next((name for kind, name in roles if isinstance(m, kind)), m.type), str(m.text)) for m in messages)


def _result(answer: openbook.Answer) -> ChatResult:
    message = AIMessage(answer.answer, response_metadata=details(answer))
    return ChatResult(generations=[ChatGeneration(message=message)])
