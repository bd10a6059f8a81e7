from __future__ import annotations

import pytest

import openbook
from tests.integrations.conftest import FOLLOW_UP, QUESTION, cited, places

pytest.importorskip("haystack")
from haystack import Pipeline
from haystack.dataclasses import ChatMessage, StreamingChunk

from openbook.integrations.haystack import OpenBookChatGenerator, OpenBookRetriever


def test_documents_and_where_they_stand(kb: openbook.Library) -> None:
    documents = OpenBookRetriever(kb).run(QUESTION, top_k=3)["documents"]
    assert [each.meta for each in documents] == places(kb, 3)
    assert [each.content for each in documents] == [hit.passage.text for hit in kb.search(QUESTION, 3)]
    assert [each.score for each in documents] == [each.meta["score"] for each in documents]


def test_answers_whole_streamed_and_to_a_conversation(kb: openbook.Library) -> None:
    answer, pieces = kb.ask(QUESTION), list[StreamingChunk]()
    [reply] = OpenBookChatGenerator(kb).run([ChatMessage.from_user(QUESTION)], streaming_callback=pieces.append)[
        "replies"
    ]
    assert (reply.text, list(reply.meta["citations"])) == (answer.answer, cited(answer))
    assert len(pieces) > 1
    assert "".join(piece.content for piece in pieces) == answer.answer
    turns = [ChatMessage.from_system("In German."), ChatMessage.from_user(QUESTION)]
    turns += [ChatMessage.from_assistant("The head."), ChatMessage.from_user(FOLLOW_UP)]
    answer = kb.ask(FOLLOW_UP, earlier=[QUESTION], instruction="In German.")
    [reply] = OpenBookChatGenerator(kb).run(turns)["replies"]
    assert reply.meta["receipt"]["digest"] == answer.receipt.digest


def test_a_pipeline_is_saved_and_loaded(kb: openbook.Library) -> None:
    pipeline = Pipeline()
    pipeline.add_component("passages", OpenBookRetriever("kb", top_k=2, max_tokens=50))
    pipeline.add_component("answers", OpenBookChatGenerator("kb"))
    loaded = Pipeline.loads(pipeline.dumps(), allowed_modules=["openbook.integrations.haystack"])
    asked = {"passages": {"query": QUESTION}, "answers": {"messages": [ChatMessage.from_user(QUESTION)]}}
    done = loaded.run(asked)
    assert [each.meta for each in done["passages"]["documents"]] == places(kb, 2)
    assert list(done["answers"]["replies"][0].meta["citations"]) == cited(kb.ask(QUESTION))
    for component in (OpenBookRetriever(kb), OpenBookChatGenerator(kb)):
        with pytest.raises(openbook.OpenBookError, match="give its place instead"):
            component.to_dict()
