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
from tests.serving.conftest import CHAT, QUESTION, Running, events_of, running

CHANGES = ("created", "timings")  # all that may differ between two answers to one request
FERRY = "When does the ferry to Sandhavn leave?"


def essence(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: essence(each) for key, each in value.items() if key not in CHANGES}
    return [essence(each) for each in value] if isinstance(value, list) else value


def requests() -> list[dict[str, Any]]:
    def asked(*texts: str) -> dict[str, Any]:
        roles = ("user", "assistant", "user")
        return {"messages": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]}

    told = "Remember canary-5512: the ferry leaves at five."
    plain = [asked(QUESTION), asked(FERRY), asked("What does a ticket cost?")]
    canary = asked(told, "I remember canary-5512.", "When does it leave?")
    sampled = {**plain[0], "temperature": 1.0, "seed": 7}
    bodies = [*plain, canary, sampled, {**plain[0], "model": "echo:closed-book"}]
    return [{"model": "echo", **body, "stream": stream} for body in bodies for stream in (False, True)]


def answer(server: Running, body: dict[str, Any]) -> bytes:
    response = server.client.post(CHAT, json=body)
    assert response.status_code == 200
    text = response.text.replace(server.url, "http://server")  # in links to the sources
    parts = events_of(text) if body["stream"] else [text]
    return json.dumps([essence(json.loads(part)) if part != "[DONE]" else part for part in parts]).encode()


def test_equal_requests_have_equal_answers_in_any_order_and_after_a_restart(
    configuration: Configuration, base: KnowledgeBase
) -> None:
    """And they write nothing, neither in the knowledge base nor in the home."""
    bodies = requests()

    def files() -> dict[Path, bytes]:
        found = (path for place in (base.folder, configuration.settings.home) for path in place.rglob("*"))
        return {path: path.read_bytes() for path in found if path.is_file() and path.name[-4:] not in ("-shm", "-wal")}

    with running(configuration, echo_model(), {"kb": base}) as server:
        before = files()
        alone = [answer(server, body) for body in bodies]
        assert [i for i, text in enumerate(alone) if b"canary" in text and i not in (6, 7)] == []
        order = list(range(len(bodies))) * 2
        random.Random(11).shuffle(order)
        for i in order:
            assert answer(server, bodies[i]) == alone[i]
            server.client.post(CHAT, content=b"{")
        with ThreadPoolExecutor(4) as clients:
            assert [*clients.map(lambda i: answer(server, bodies[i]), order[::-1])] == [alone[i] for i in order[::-1]]
        server.client.post("/v1/search", json={"query": "ferry"})
        server.client.post("/v1/embeddings", json={"model": "hash", "input": "ferry"})
        server.get("/v1/documents")
        assert files() == before
    with running(configuration, echo_model(), {"kb": base}) as server:
        assert [answer(server, body) for body in bodies] == alone


@pytest.mark.laws
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
        reply = server.ask(QUESTION, model="reader", max_tokens=6).json()
        receipt = parse_receipt(json.dumps(reply["openbook"]["receipt"]).encode())
        assert replay(receipt, model, base).identical
    assert together == [alone[i] for i in order]
    assert len(set(alone)) > 3
