"""A knowledge base that is damaged: 503 with a sentence; the server stays up, and other knowledge bases answer."""

from __future__ import annotations

import logging
import sqlite3

import pytest

from openbook.knowledge import KnowledgeBase
from tests.serving.conftest import QUESTION, Running, Serve


def damage(base: KnowledgeBase, sql: str) -> None:
    with sqlite3.connect(base.folder / "kb.sqlite3") as connection:
        connection.execute(sql)
    connection.close()


def is_refused(server: Running, method: str, path: str, body: dict[str, object] | None = None) -> None:
    response = server.client.request(method, path, json=body)
    assert response.status_code == 503, (path, response.text)
    error = response.json()["error"]
    assert error["code"] == "knowledge_base_damaged"
    assert error["type"] == "server_error"
    assert "openbook status --check" in error["message"]


def test_a_damaged_text_ends_the_answers_that_touch_it(
    server: Running, base: KnowledgeBase, caplog: pytest.LogCaptureFixture
) -> None:
    damage(base, "UPDATE contents SET text = replace(text, 'Lila Ortega', 'Lila Ortegb')")
    chat: dict[str, object] = {"model": "echo", "messages": [{"role": "user", "content": QUESTION}]}
    with caplog.at_level(logging.INFO):
        is_refused(server, "POST", "/v1/chat/completions", chat)
        is_refused(server, "POST", "/v1/chat/completions", {**chat, "stream": True})
        is_refused(server, "POST", "/v1/search", {"query": QUESTION})
    assert "KnowledgeBaseDamaged" in caplog.text
    assert "bridge" not in caplog.text
    found = server.client.post("/v1/search", json={"query": "ferry Sandhavn ticket crowns", "limit": 1})
    assert found.status_code == 200
    assert server.client.get("/health").status_code == 200


def test_damaged_tables_end_every_answer_of_that_base_and_of_no_other(
    towers: KnowledgeBase, serve: Serve, base: KnowledgeBase
) -> None:
    server = serve(others={"towers": towers})
    damage(base, "UPDATE documents SET labels = '[]'")
    damage(base, "INSERT INTO versions VALUES (3, '2027-01-01T00:00:00+00:00', '')")
    is_refused(server, "POST", "/v1/search", {"query": QUESTION})
    is_refused(server, "POST", "/v1/search", {"query": QUESTION, "as_of": "2027-01-02"})
    is_refused(server, "GET", "/v1/documents")
    is_refused(server, "GET", "/v1/versions")
    response = server.client.post("/v1/search", json={"query": QUESTION, "knowledge_base": "towers"})
    assert response.status_code == 200
