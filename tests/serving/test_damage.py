"""A knowledge base that is damaged: 503 with a sentence; the server stays up, and other knowledge bases answer."""

from __future__ import annotations

import logging
from typing import NoReturn

import httpx
import pytest

from openbook.core.errors import KnowledgeBaseBusy
from openbook.knowledge import KnowledgeBase
from tests.attacks.test_damage import sql
from tests.serving.conftest import QUESTION, Running, Serve, code


def assert_refused(response: httpx.Response) -> None:
    assert code(response) == (503, "knowledge_base_damaged")
    assert response.json()["error"]["type"] == "server_error"
    assert "openbook verify" in response.text


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


def test_a_base_that_is_busy_does_not_lack_a_version_or_a_receipt(
    with_receipts: Running, base: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = with_receipts.ask(QUESTION).json()["openbook"]["receipt"]["digest"]
    healthy = base.store.snapshot

    def busy_once(connection: object) -> NoReturn:
        monkeypatch.setattr(base.store, "snapshot", healthy)
        raise KnowledgeBaseBusy("Another process holds it.")

    client = with_receipts.client
    for request in (
        client.build_request("POST", "/v1/search", json={"query": QUESTION, "as_of": "1"}),
        client.build_request("GET", f"/v1/receipts/{digest}"),
        client.build_request("POST", "/v1/replay", json={"id": digest}),
    ):
        monkeypatch.setattr(base.store, "snapshot", busy_once)
        assert code(client.send(request)) == (503, "knowledge_base_busy")
        assert client.send(request).status_code == 200
