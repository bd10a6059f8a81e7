from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import openbook
from tests.integrations.conftest import FOLLOW_UP, QUESTION, cited, places

pytest.importorskip("langchain_core")
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from openbook.integrations.langchain import ChatOpenBook, OpenBookRetriever


def test_documents_and_where_they_stand(kb: openbook.Library) -> None:
    retriever = OpenBookRetriever(kb, k=3)
    documents = retriever.invoke(QUESTION)
    assert [each.metadata for each in documents] == places(kb, 3)
    assert [each.page_content for each in documents] == [hit.passage.text for hit in kb.search(QUESTION, 3)]
    assert [each.id for each in documents] == [each.metadata["passage_id"] for each in documents]
    assert asyncio.run(retriever.ainvoke(QUESTION)) == documents


def test_answers_whole_streamed_and_async(kb: openbook.Library) -> None:
    answer, model = kb.ask(QUESTION), ChatOpenBook(kb)
    whole = model.invoke(QUESTION)
    assert (whole.content, list(whole.response_metadata["citations"])) == (answer.answer, cited(answer))
    pieces = list(model.stream(QUESTION))
    streamed = sum(pieces[1:], pieces[0])
    assert len([piece for piece in pieces if piece.content]) > 1
    assert (streamed.content, list(streamed.response_metadata["citations"])) == (answer.answer, cited(answer))
    assert asyncio.run(model.ainvoke(QUESTION)).response_metadata == whole.response_metadata

    async def streaming() -> str:
        return "".join([str(piece.content) async for piece in model.astream(QUESTION)])

    assert asyncio.run(streaming()) == answer.answer


def test_a_conversation_and_an_instruction(kb: openbook.Library) -> None:
    turns = [SystemMessage("In German."), HumanMessage(QUESTION), AIMessage("The head."), HumanMessage(FOLLOW_UP)]
    answer = kb.ask(FOLLOW_UP, earlier=[QUESTION], instruction="In German.")
    assert ChatOpenBook(kb).invoke(turns).response_metadata["receipt"]["digest"] == answer.receipt.digest
    with pytest.raises(openbook.OpenBookError, match="must be 'user', not 'ai'"):
        ChatOpenBook(kb).invoke(turns[:3])
    with pytest.raises(openbook.OpenBookError, match="leave stop="):
        ChatOpenBook(kb).invoke(QUESTION, stop=["."])


def test_a_global_cache_shows_no_reader_what_another_one_may_see(kb: openbook.Library) -> None:
    Path("board.md").write_text("The treasurer approves a bonus.")
    kb.add("board.md", require_labels=["board"])
    question = "Who approves a bonus?"
    set_llm_cache(InMemoryCache())
    try:
        assert "treasurer" in str(ChatOpenBook(kb.labels("board")).invoke(question).content)
        assert "treasurer" not in str(ChatOpenBook(kb).invoke(question).content)
    finally:
        set_llm_cache(None)
