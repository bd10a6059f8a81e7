"""Nothing is kept between requests: canaries, shuffled orders, clients side by side, restarts. Bytes are compared."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from openbook.inference import load_model
from openbook.knowledge import KnowledgeBase
from openbook.models import ModelReference
from openbook.proofs.receipts import parse_receipt
from openbook.proofs.replay import replay
from openbook.serving.configuration import Configuration
from openbook.testing import HashEmbedder, echo_model
from tests.serving.conftest import Running, events_of, running

CHANGES = ("created", "timings")  # all that may differ between two answers to one request

QUESTIONS = [
    "When was the bridge opened by the mayor?",
    "When does the ferry to Sandhavn leave?",
    "What does a ticket cost?",
]


def essence(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: essence(each) for key, each in value.items() if key not in CHANGES}
    return [essence(each) for each in value] if isinstance(value, list) else value


def requests() -> list[dict[str, Any]]:
    canary = [
        {"role": "user", "content": "Remember canary-5512: the ferry leaves at five."},
        {"role": "assistant", "content": "I remember canary-5512."},
        {"role": "user", "content": "When does it leave?"},
    ]
    plain: list[dict[str, Any]] = [{"messages": [{"role": "user", "content": question}]} for question in QUESTIONS]
    sampled = {"messages": plain[0]["messages"], "temperature": 1.0, "seed": 7}
    alone = {"messages": plain[0]["messages"], "model": "echo:closed-book"}
    bodies: list[dict[str, Any]] = [*plain, {"messages": canary}, sampled, alone]
    return [{"model": "echo", **body, "stream": stream} for body in bodies for stream in (False, True)]


def answer(server: Running, body: dict[str, Any]) -> bytes:
    response = server.client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200
    text = response.text.replace(server.url, "http://server")  # in links to the sources
    parts = events_of(text) if body["stream"] else [text]
    return json.dumps([essence(json.loads(part)) if part != "[DONE]" else part for part in parts]).encode()


def test_equal_requests_have_equal_answers_in_any_order_beside_any_other_and_after_a_restart(
    configuration: Configuration, base: KnowledgeBase
) -> None:
    bodies = requests()
    with running(configuration, echo_model(), {"kb": base}) as server:
        alone = [answer(server, body) for body in bodies]
        for i, text in enumerate(alone):
            assert b"canary" not in text or i in (6, 7), i
        chance = random.Random(11)
        order = list(range(len(bodies))) * 2
        chance.shuffle(order)
        for i in order:
            assert answer(server, bodies[i]) == alone[i]
            server.client.post("/v1/chat/completions", content=b"{")
        with ThreadPoolExecutor(4) as clients:
            chance.shuffle(order)
            for i, text in zip(order, clients.map(lambda i: answer(server, bodies[i]), order), strict=True):
                assert text == alone[i]
    with running(configuration, echo_model(), {"kb": base}) as server:
        assert [answer(server, body) for body in bodies] == alone


def test_reading_leaves_the_knowledge_base_and_the_home_as_they_were(server: Running) -> None:
    def files() -> dict[Path, bytes]:
        places = (server.bases["kb"].folder, server.service.configuration.settings.home)
        found = [path for place in places for path in place.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in found if not path.name.endswith(("-shm", "-wal"))}

    before = files()
    for body in requests():
        answer(server, body)
    server.client.post("/v1/search", json={"query": "ferry"})
    server.client.post("/v1/embeddings", json={"model": "hash", "input": "ferry"})
    server.client.get("/v1/documents")
    assert files() == before


@pytest.mark.model
def test_eight_clients_get_the_bytes_that_one_gets(
    configuration: Configuration, base: KnowledgeBase, embedder: HashEmbedder, reader_reference: ModelReference
) -> None:
    bodies = [{**body, "model": "reader", "max_tokens": 6} for body in requests()[:6]]
    model = load_model(reader_reference, context_tokens=1024)
    with closing(model), running(configuration, model, {"kb": base}, embedder) as server:
        alone = [answer(server, body) for body in bodies]
        order = [*range(len(bodies))] * 2
        random.Random(5).shuffle(order)
        with ThreadPoolExecutor(8) as clients:
            together = list(clients.map(lambda i: answer(server, bodies[i]), order))
        reply = server.ask(QUESTIONS[0], model="reader", max_tokens=6).json()
        receipt = parse_receipt(json.dumps(reply["openbook"]["receipt"]).encode())
        assert replay(receipt, model, base).identical
    assert together == [alone[i] for i in order]
    assert len(set(alone)) > 3
