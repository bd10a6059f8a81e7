"""A knowledge base that is damaged or busy: 503 with a sentence; the server stays up, and other knowledge bases answer."""

from __future__ import annotations

import logging
from typing import NoReturn

import httpx
import pytest

from openbook.core.errors import KnowledgeBaseBusy
from openbook.knowledge import KnowledgeBase
from tests.attacks.test_damage import sql
from tests.serving.conftest import QUESTION, Running, Serve, code


def test_damage_ends_the_answers_that_touch_it_and_no_other(
    towers: KnowledgeBase, serve: Serve, base: KnowledgeBase, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(others={"towers": towers})

    def searched(query: str, **more: object) -> httpx.Response:
        return server.client.post("/v1/search", json={"query": query, **more})

    sql(base.folder, "UPDATE contents SET text = replace(text, 'Lila Ortega', 'Lila Ortegb')")
    with caplog.at_level(logging.INFO):
        for response in (*(server.ask(QUESTION, stream=stream) for stream in (False, True)), searched(QUESTION)):
            assert code(response) == (503, "knowledge_base_damaged")
            assert response.json()["error"]["type"] == "server_error"
            assert "openbook verify" in response.text
    assert ("KnowledgeBaseDamaged" in caplog.text, "bridge" in caplog.text) == (True, False)
    assert searched("ferry Sandhavn ticket crowns", limit=1).status_code == 200
    version = "INSERT INTO versions VALUES (3, '2027-01-01T00:00:00+00:00', '')"
    sql(base.folder, "UPDATE documents SET labels = '[]'", version)
    damaged = [searched(QUESTION), searched(QUESTION, as_of="2027-01-02")]
    for response in (*damaged, *map(server.get, ("/v1/documents", "/v1/versions"))):
        assert code(response) == (503, "knowledge_base_damaged")
    assert searched(QUESTION, knowledge_base="towers").status_code == server.get("/health").status_code == 200


def test_busy_base_does_not_lack_a_version_or_a_receipt(
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
