"""A knowledge base that is damaged: 503 with a sentence; the server stays up, and other knowledge bases answer."""

from __future__ import annotations

import logging

import httpx
import pytest

from openbook.knowledge import KnowledgeBase
from tests.attacks.test_damage import sql
from tests.serving.conftest import QUESTION, Running, Serve, code


def assert_refused(response: httpx.Response) -> None:
    assert code(response) == (503, "knowledge_base_damaged")
    assert response.json()["error"]["type"] == "server_error"
    assert "openbook status --check" in response.text


def test_a_damaged_text_ends_the_answers_that_touch_it(
    server: Running, base: KnowledgeBase, caplog: pytest.LogCaptureFixture
) -> None:
    sql(base.folder, "UPDATE contents SET text = replace(text, 'Lila Ortega', 'Lila Ortegb')")
    with caplog.at_level(logging.INFO):
        assert_refused(server.ask(QUESTION))
        assert_refused(server.ask(QUESTION, stream=True))
        assert_refused(server.client.post("/v1/search", json={"query": QUESTION}))
    assert "KnowledgeBaseDamaged" in caplog.text
    assert "bridge" not in caplog.text
    found = server.client.post("/v1/search", json={"query": "ferry Sandhavn ticket crowns", "limit": 1})
    assert found.status_code == 200
    assert server.client.get("/health").status_code == 200


def test_damaged_tables_end_every_answer_of_that_base_and_of_no_other(
    towers: KnowledgeBase, serve: Serve, base: KnowledgeBase
) -> None:
    server = serve(others={"towers": towers})
    version = "INSERT INTO versions VALUES (3, '2027-01-01T00:00:00+00:00', '')"
    sql(base.folder, "UPDATE documents SET labels = '[]'", version)
    for asked in ({}, {"as_of": "2027-01-02"}):
        assert_refused(server.client.post("/v1/search", json={"query": QUESTION, **asked}))
    assert_refused(server.client.get("/v1/documents"))
    assert_refused(server.client.get("/v1/versions"))
    response = server.client.post("/v1/search", json={"query": QUESTION, "knowledge_base": "towers"})
    assert response.status_code == 200
