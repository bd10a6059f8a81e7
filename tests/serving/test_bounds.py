"""Bounds of one request: what is exactly at one passes, one more is refused with its number. Others are tested where they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import httpx
import pytest

from openbook.knowledge import KnowledgeBase
from openbook.serving.configuration import Bounds, Configuration
from openbook.testing import echo_model
from tests.serving.conftest import Running, bounded, running

Send = Callable[[httpx.Client, int], httpx.Response]


def embed(client: httpx.Client, texts: list[str]) -> httpx.Response:
    return client.post("/v1/embeddings", json={"model": "hash", "input": texts})


def upload(client: httpx.Client, count: int) -> httpx.Response:
    files = [("file", (f"{number}.txt", b"The harbour is blue.")) for number in range(count)]
    return client.post("/v1/documents", files=files)


SENDS: dict[str, Send] = {
    "upload_files": upload,
    "embedding_texts": lambda client, count: embed(client, ["harbour"] * count),
    "embedding_chars": lambda client, count: embed(client, ["harbour", "x" * count]),
    "hits": lambda client, count: client.post("/v1/search", json={"query": "harbour", "limit": count}),
    "listed": lambda client, count: client.get("/v1/documents", params={"limit": count}),
}
SMALL = {"upload_files": 2, "embedding_texts": 3, "embedding_chars": 11, "hits": 5, "listed": 7}


@pytest.fixture
def small(configuration: Configuration, base: KnowledgeBase) -> Iterator[Running]:
    with running(bounded(configuration, **SMALL), echo_model(), {"kb": base}) as found:
        yield found


def check(client: httpx.Client, send: Send, most: int) -> None:
    assert send(client, most).status_code == 200
    refused = send(client, most + 1)
    assert refused.status_code == 400
    assert re.search(rf"\b(at most|is) {most:,}\b", refused.json()["error"]["message"])


@pytest.mark.parametrize("name", SENDS)
def test_at_a_bound_a_request_passes_and_one_over_it_is_refused(small: Running, name: str) -> None:
    check(small.client, SENDS[name], SMALL[name])


@pytest.mark.parametrize("name", [name for name in SENDS if name != "upload_files"])  # 64 files take their time
def test_the_bounds_that_hold_unless_told(server: Running, name: str) -> None:
    check(server.client, SENDS[name], getattr(Bounds(), name))


def test_a_list_without_a_limit_ends_at_the_bound(configuration: Configuration, base: KnowledgeBase) -> None:
    with running(bounded(configuration, listed=1), echo_model(), {"kb": base}) as server:
        first = server.client.get("/v1/documents").json()
        assert (len(first["data"]), first["has_more"]) == (1, True)
        rest = server.client.get("/v1/documents", params={"after": first["data"][0]["path"]}).json()
        assert (len(rest["data"]), rest["has_more"]) == (1, False)
