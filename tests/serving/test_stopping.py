"""Requests that read for long end between two pieces of their work: when time is up, and when the client goes."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from openbook.serving import stopping
from openbook.serving.configuration import Configuration
from openbook.serving.refusals import ClientGone
from openbook.serving.running import Stop
from openbook.testing import echo_model
from tests.serving.conftest import LONG_S, running
from tests.serving.test_running import QUESTION, WaitingEngine, bounded, connected, eventually


def stop_now() -> Stop:
    found = Stop(LONG_S, threading.Event())
    found.start()
    return found


def test_pieces_come_for_as_long_as_somebody_waits() -> None:
    stop = stop_now()
    pieces = stopping.each(range(5), stop)
    assert [next(pieces), next(pieces)] == [0, 1]
    stop.client_is_gone()
    with pytest.raises(ClientGone):
        next(pieces)


READS = [
    ("GET", "/v1/versions", None),
    ("GET", "/v1/versions/difference?before=1", None),
    ("GET", "/v1/documents", None),
    ("GET", "/v1/documents/text?path=x", None),
    ("POST", "/v1/search", {"query": "bridge"}),
    ("POST", "/v1/embeddings", {"model": "hash", "input": ["bridge", "ferry"]}),
]


@pytest.mark.parametrize(("method", "path", "body"), READS)
def test_every_long_read_ends_when_time_is_up(
    configuration: Configuration, base: KnowledgeBase, method: str, path: str, body: object
) -> None:
    """There is no time at all, so the first look finds that it is up."""
    with running(bounded(configuration, answer_s=0.0), echo_model(), {"kb": base}) as server:
        response = server.client.request(method, path, json=body)
        assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout"), response.text
    with running(configuration, echo_model(), {"kb": base}) as server:
        assert server.client.request(method, path, json=body).status_code in (200, 404)  # 404: there is no document x


def test_looking_for_a_receipt_ends_when_time_is_up(
    configuration: Configuration, base: KnowledgeBase, tmp_path: Path
) -> None:
    configuration = replace(configuration, receipts=tmp_path / "log")
    with running(configuration, echo_model(), {"kb": base}) as server:
        digest = server.ask(QUESTION).json()["openbook"]["receipt"]["digest"]
    with running(bounded(configuration, answer_s=0.0), echo_model(), {"kb": base}) as server:
        for response in (
            server.client.get(f"/v1/receipts/{digest}"),
            server.client.post("/v1/replay", json={"id": digest}),
        ):
            assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout"), response.text


@pytest.mark.parametrize("model", ["echo", "echo:closed-book"])
def test_a_replay_ends_its_generation_when_the_client_goes(
    configuration: Configuration, base: KnowledgeBase, tmp_path: Path, model: str
) -> None:
    engine = WaitingEngine()
    with running(replace(configuration, receipts=tmp_path / "log"), FrozenModel(engine), {"kb": base}) as server:
        engine.go_on.set()
        digest = server.ask(QUESTION, model=model).json()["openbook"]["receipt"]["digest"]
        assert engine.begun.acquire(timeout=LONG_S)
        engine.go_on.clear()
        body = json.dumps({"id": digest}).encode()
        head = "POST /v1/replay HTTP/1.1\nHost: localhost\nContent-Type: application/json\n"
        connection = connected(server, f"{head}Content-Length: {len(body)}\n\n", body)
        assert engine.begun.acquire(timeout=LONG_S)
        connection.close()
        assert engine.was_cancelled.wait(LONG_S)
        eventually(lambda: server.service.reading.running == 0)
        engine.go_on.set()
        assert server.client.post("/v1/replay", json={"id": digest}).json()["identical"]


def test_a_replay_that_takes_too_long_says_so_and_not_that_the_answer_differs(
    configuration: Configuration, base: KnowledgeBase, tmp_path: Path
) -> None:
    engine, configuration = WaitingEngine(), replace(configuration, receipts=tmp_path / "log")
    engine.go_on.set()
    with running(configuration, FrozenModel(engine), {"kb": base}) as server:
        digest = server.ask(QUESTION).json()["openbook"]["receipt"]["digest"]
    engine.go_on.clear()
    with running(bounded(configuration, answer_s=0.2), FrozenModel(engine), {"kb": base}) as server:
        response = server.client.post("/v1/replay", json={"id": digest})
        assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout"), response.text
