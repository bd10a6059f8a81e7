from __future__ import annotations

import asyncio

import pytest

import openbook
from tests.integrations.conftest import FOLLOW_UP, QUESTION, cited, places

pytest.importorskip("llama_index.core")
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import MetadataMode

from openbook.integrations.llamaindex import OpenBookLLM, OpenBookRetriever


def test_nodes_and_where_they_stand(kb: openbook.Library) -> None:
    retriever = OpenBookRetriever(kb, k=3)
    nodes = retriever.retrieve(QUESTION)
    assert [each.node.metadata for each in nodes] == places(kb, 3)
    assert [each.text for each in nodes] == [hit.passage.text for hit in kb.search(QUESTION, 3)]
    assert [each.score for each in nodes] == [each.metadata["score"] for each in nodes]
    assert asyncio.run(retriever.aretrieve(QUESTION)) == nodes
    shown = nodes[0].get_content(MetadataMode.LLM)
    assert nodes[0].metadata["document"] in shown
    assert "passage_id" not in shown


def test_answers_whole_streamed_and_async(kb: openbook.Library) -> None:
    answer, model = kb.ask(QUESTION), OpenBookLLM(kb)
    pieces = list(model.stream_complete(QUESTION))
    assert len(pieces) > 2
    assert "".join(piece.delta or "" for piece in pieces) == answer.answer
    wholes = [model.complete(QUESTION), asyncio.run(model.acomplete(QUESTION)), pieces[-1]]
    message = [ChatMessage(QUESTION)]
    for whole in wholes:
        assert (whole.text, list(whole.additional_kwargs["citations"])) == (answer.answer, cited(answer))
    for chat in (model.chat(message), asyncio.run(model.achat(message))):
        assert list(chat.message.additional_kwargs["citations"]) == cited(answer)


def test_a_conversation_and_an_instruction(kb: openbook.Library) -> None:
    said = (("system", "In German."), ("user", QUESTION), ("assistant", "The head."), ("user", FOLLOW_UP))
    turns = [ChatMessage(text, role=role) for role, text in said]
    answer = kb.ask(FOLLOW_UP, earlier=[QUESTION], instruction="In German.")
    told = OpenBookLLM(kb).chat(turns).message.additional_kwargs
    assert told["receipt"]["digest"] == answer.receipt.digest
    with pytest.raises(openbook.OpenBookError, match="must be 'user', not 'assistant'"):
        OpenBookLLM(kb).chat(turns[:3])


def test_a_query_engine_shows_its_sources(kb: openbook.Library) -> None:
    engine = RetrieverQueryEngine(OpenBookRetriever(kb, k=2), get_response_synthesizer(llm=MockLLM()))
    assert [each.metadata for each in engine.query(QUESTION).source_nodes] == places(kb, 2)
