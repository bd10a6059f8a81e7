"""Search, embeddings and the list of models."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from openbook.testing import HashEmbedder, echo_model
from tests.serving.conftest import Running


def test_a_search_is_that_of_the_library(server: Running) -> None:
    value = server.client.post("/v1/search", json={"query": "ferry ticket", "limit": 1}).json()
    version, hits = server.bases["kb"].search("ferry ticket", HashEmbedder(), 1)
    assert value["version"] == version
    assert [hit["passage"]["id"] for hit in value["data"]] == [hit.passage.id for hit in hits]
    assert value["data"][0]["similarity"] == hits[0].similarity
    assert len(value["data"]) == 1


def test_what_is_wrong_is_refused(server: Running) -> None:
    wrong: list[tuple[str, dict[str, Any], int]] = [
        ("search", {}, 400),
        ("search", {"query": ""}, 400),
        ("search", {"query": "x", "where": "("}, 400),
        ("search", {"query": "x", "labels": ["hr"]}, 400),
        ("embeddings", {"model": "hash", "input": []}, 400),
        ("embeddings", {"model": "hash", "input": [""]}, 400),
        ("embeddings", {"model": "hash", "input": [1, 2]}, 400),
        ("embeddings", {"model": "hash", "input": "x", "dimensions": 3}, 400),
        ("embeddings", {"model": "other", "input": "x"}, 404),
    ]
    for path, body, status in wrong:
        assert server.client.post(f"/v1/{path}", json=body).status_code == status, body
    response = server.client.post("/v1/search", json={"query": "x", "limit": 0})
    message = "Invalid value for 'limit': Input should be greater than or equal to 1, not 0."
    assert response.json()["error"]["message"] == message


def test_models_are_listed_with_their_digests_and_embeddings_are_those_of_the_embedder(server: Running) -> None:
    data = server.client.get("/v1/models").json()["data"]
    assert [each["id"] for each in data] == ["echo", "echo:closed-book", "hash"]
    assert data[0]["openbook"]["digest"] == echo_model().identity.digest
    for each in data:
        assert server.client.get(f"/v1/models/{each['id']}").json() == each
    assert server.client.get("/v1/models/other").json()["error"]["code"] == "model_not_found"
    texts = ["The ferry leaves.", "Überraschung"]
    expected = HashEmbedder().embed_passages(texts)
    plain = server.client.post("/v1/embeddings", json={"model": "hash", "input": texts, "dimensions": 64}).json()
    assert [each["index"] for each in plain["data"]] == [0, 1]
    assert np.array_equal(np.array([each["embedding"] for each in plain["data"]], dtype=np.float32), expected)
    assert plain["usage"] == {"prompt_tokens": 4, "total_tokens": 4}  # words, to this embedder
    body = {"model": "hash", "input": texts[0], "encoding_format": "base64"}
    packed = server.client.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    assert np.array_equal(np.frombuffer(base64.b64decode(packed), dtype="<f4"), expected[0])
