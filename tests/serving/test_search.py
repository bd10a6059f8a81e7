"""Search, and what is wrong with requests for hits and embeddings."""

from __future__ import annotations

from typing import Any

from openbook.testing import HashEmbedder
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
