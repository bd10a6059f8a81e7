"""What an error says: what was wrong, with the value, and in which unit."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serving.conftest import Running

MANY = {"model": "hash", "input": ["x"] * 257}
LONG = {"model": "hash", "input": "x" * 32_001}


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("embeddings", MANY, "input may be at most 256 texts, not 257."),
        ("embeddings", LONG, "input may be at most 32,000 characters a text, not 32,001."),
        ("search", {"query": "x", "limit": 101}, "limit may be at most 100 passages, not 101."),
        ("search", {"query": "x", "limit": 0}, "Invalid value for 'limit': Input should be greater than or equal to 1, not 0."),
    ],
)  # fmt: skip
def test_an_error_names_the_value_and_its_unit(server: Running, path: str, body: dict[str, Any], message: str) -> None:
    assert server.client.post(f"/v1/{path}", json=body).json()["error"]["message"] == message
