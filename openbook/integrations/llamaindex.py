"""A retriever and an LLM for LlamaIndex."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import openbook
from openbook.integrations import asked, details, found, needs, view_of

with needs("llama-index-core"):
    from llama_index.core.base.llms.generic_utils import (
        chat_response_to_completion_response,
        stream_chat_response_to_completion_response,
    )
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.llms import ChatMessage, ChatResponse, CompletionResponse, CustomLLM, LLMMetadata
    from llama_index.core.llms.callbacks import llm_chat_callback
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode


class OpenBookRetriever(BaseRetriever):
    """The `k` best passages. `kb`: a library, a view, or arguments of `openbook.open`."""

    def __init__(self, kb: Any = None, *, k: int = 5, **settings: Any) -> None:
        super().__init__()
        self._view, self._k = view_of(kb, settings), k

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        nodes = []
        for text, place in found(self._view, query_bundle.query_str, self._k):
            # A model that reads the passages sees only document and page.
            hidden = [name for name in place if name not in ("document", "page")]
            span = {"id_": place["passage_id"], "start_char_idx": place["start"], "end_char_idx": place["end"]}
            node = TextNode(text=text, metadata=place, excluded_llm_metadata_keys=hidden, **span)
            nodes.append(NodeWithScore(node=node, score=place["score"]))
        return nodes

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


class OpenBookLLM(CustomLLM):
    """Answers the last message from the knowledge base; `additional_kwargs` has the citations.

    It searches by itself, so give it the question without passages. `kb`: as of `OpenBookRetriever`.
    """

    _view: openbook.View = PrivateAttr()

    def __init__(self, kb: Any = None, **settings: Any) -> None:
        super().__init__()
        self._view = view_of(kb, settings)

    @property
    def metadata(self) -> LLMMetadata:
        settings = self._view.resources.settings
        sizes = {"context_window": settings.context_tokens, "num_output": settings.max_tokens}
        return LLMMetadata(model_name="openbook", is_chat_model=True, **sizes)

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        return _response(self._view.ask(**_asked(messages)))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        return _response(await self._view.ask_async(**_asked(messages)))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **_: Any) -> Iterator[ChatResponse]:
        text = ""
        with self._view.stream(**_asked(messages)) as pieces:
            for piece in pieces:
                text += piece
                yield ChatResponse(message=ChatMessage(text, role="assistant"), delta=piece)
            yield _response(pieces.answer, delta="")

    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        return chat_response_to_completion_response(self.chat([ChatMessage(prompt)]))

    async def acomplete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        return chat_response_to_completion_response(await self.achat([ChatMessage(prompt)]))

    def stream_complete(self, prompt: str, formatted: bool = False, **_: Any) -> Iterator[CompletionResponse]:
        yield from stream_chat_response_to_completion_response(self.stream_chat([ChatMessage(prompt)]))


def _asked(messages: Sequence[ChatMessage]) -> dict[str, Any]:
    return asked((message.role.value, message.content or "") for message in messages)


def _response(answer: openbook.Answer, **more: Any) -> ChatResponse:
    message = ChatMessage(answer.answer, role="assistant", additional_kwargs=details(answer))
    return ChatResponse(message=message, **more)
