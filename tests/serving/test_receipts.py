"""Receipts and replay over HTTP: only where a log is kept, and only for callers who may see what was read.

A knowledge base that is damaged or busy: 503 with a sentence; the server stays up, and other knowledge bases answer.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NoReturn

import httpx
import pytest

from openbook.core.errors import KnowledgeBaseBusy
from openbook.knowledge import KnowledgeBase, purge
from openbook.proofs.receipts import LOG_FILE, verify_log
from tests.attacks.test_damage import sql
from tests.knowledge.small_bases import reseal
from tests.serving.conftest import BRIDGE, QUESTION, SAFE, Running, Serve, add_file, code, path_of


def asked(server: Running, question: str, headers: dict[str, str] | None = None) -> str:
    digest: str = server.ask(question, headers).json()["openbook"]["receipt"]["digest"]
    return digest


def status(server: Running, digest: str, headers: dict[str, str] | None = None) -> tuple[int, int]:
    """Of the receipt, and of its replay."""
    receipt = server.get(f"/v1/receipts/{digest}", headers)
    replayed = server.client.post("/v1/replay", json={"id": digest}, headers=headers)
    return receipt.status_code, replayed.status_code


def test_answer_is_replayed_from_its_receipt_until_its_document_is_purged(
    with_receipts: Running, tmp_path: Path, server: Running
) -> None:
    answer = with_receipts.ask(QUESTION).json()["openbook"]
    digest = answer["receipt"]["digest"]
    assert with_receipts.get(f"/v1/receipts/{digest}").json()["receipt"] == answer["receipt"]
    found = {"object": "replay", "id": digest, "identical": True, "differences": [], "answer": answer["answer"]}
    assert with_receipts.client.post("/v1/replay", json={"id": digest}).json() == found
    with_receipts.ask(QUESTION, stream=True)
    assert verify_log(tmp_path / "log")[0] == 2
    assert status(server, asked(server, QUESTION)) == (404, 404)  # it keeps no log
    for unknown in ("0" * 64, "x", "..", "%2e%2e%2freceipts.jsonl"):
        assert status(with_receipts, unknown)[0] == 404
    base = with_receipts.bases["kb"]
    purge(base, [path_of(base, "bridge.txt")])
    assert status(with_receipts, digest) == (404, 404)


def test_damaged_line_of_the_log_is_not_found_and_hides_no_other(with_receipts: Running, tmp_path: Path) -> None:
    digest = asked(with_receipts, QUESTION)
    log = tmp_path / "log" / LOG_FILE
    whole = log.read_bytes()
    other = asked(with_receipts, "When does the ferry to Sandhavn leave?")
    both = log.read_bytes()
    log.write_bytes(both[: (len(whole) + len(both)) // 2])
    assert (status(with_receipts, digest), status(with_receipts, other)) == ((200, 200), (404, 404))
    log.write_bytes(both.replace(b"by the mayor?", b"by the baker?"))
    assert (status(with_receipts, digest), status(with_receipts, other)) == ((404, 404), (200, 200))


def test_receipt_needs_the_labels_of_what_it_names_now(with_receipts: Running, docs: Path) -> None:
    base, hr = with_receipts.bases["kb"], with_receipts.key("read", "hr")
    safe, bridge = asked(with_receipts, SAFE, hr), asked(with_receipts, QUESTION)
    add_file(base, docs / "a-canary.txt", BRIDGE, "hr")  # a closed copy closes nothing, and is not named
    copied = asked(with_receipts, QUESTION)
    for headers in (None, with_receipts.key("read", "finance"), hr):
        assert status(with_receipts, safe, headers) == ((200, 200) if headers == hr else (404, 404))
        replayed = with_receipts.client.post("/v1/replay", json={"id": copied}, headers=headers)
        assert replayed.json()["identical"], replayed.text
        assert "canary" not in replayed.text + with_receipts.get(f"/v1/receipts/{copied}", headers).text
    add_file(base, docs / "open.txt", BRIDGE)
    add_file(base, docs / "bridge.txt", BRIDGE, "hr")  # an open copy is read, but the closed name is not shown
    assert (status(with_receipts, bridge), status(with_receipts, bridge, hr)) == ((404, 200), (200, 200))
    replayed = with_receipts.client.post("/v1/replay", json={"id": bridge})
    assert replayed.json()["answer"]
    assert "bridge.txt" not in replayed.text


def test_passage_of_another_text_is_damage_or_a_difference(with_receipts: Running) -> None:
    digest, connection = asked(with_receipts, QUESTION), with_receipts.bases["kb"].connection
    connection.execute("PRAGMA query_only = OFF")
    connection.execute("UPDATE contents SET text = replace(text, 'mayor', 'baker')")
    assert status(with_receipts, digest)[1] == 503
    reseal(connection)  # as if that had been stored
    replayed = with_receipts.client.post("/v1/replay", json={"id": digest}).json()
    assert (replayed["answer"], replayed["identical"], bool(replayed["differences"])) == (None, False, True)


# --- knowledge bases that are damaged or busy -------------------------------------------------------------------------


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
