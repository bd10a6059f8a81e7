"""Requests that want to break the server, or to learn from it what they should not."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from openbook.core.errors import EngineError, KnowledgeError, StorageError
from openbook.serving.errors import api_error
from openbook.testing import EchoEngine
from tests.serving.conftest import QUESTION, SECRET, Running, Serve, code, connected, eventually, everything

JSON = {"content-type": "application/json"}


def test_too_large_body_is_refused_unread(serve: Serve) -> None:
    server = serve(body_bytes=1000, upload_bytes=5000)
    head = "POST /v1/search HTTP/1.1\nHost: localhost\nContent-Type: application/json\n"
    for length in ("1001", "9" * 19, "99999999999"):
        with connected(server, f"{head}Content-Length: {length}\n\n") as connection:
            received = everything(connection)
            assert received.startswith(b"HTTP/1.1 413 "), length
            assert b"connection: close" in received
    with connected(server, f"{head}Transfer-Encoding: chunked\n\n", b"3e9\r\n" + b" " * 1001) as connection:
        assert everything(connection).startswith(b"HTTP/1.1 413 ")
    form = "POST /v1/documents HTTP/1.1\nHost: localhost\nContent-Type: multipart/form-data; boundary=x\n"
    part = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\n\r\n' + b"y" * 5000
    chunk = f"{len(part):x}\r\n".encode() + part
    with connected(server, f"{form}Transfer-Encoding: chunked\n\n", chunk) as connection:
        assert everything(connection).startswith(b"HTTP/1.1 413 ")
    assert server.client.post("/v1/search", json={"query": "bridge"}).status_code == 200


BAD_JSON = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"query": "\xc3"}',
    b'{"limit": ' + b"9" * 5000 + b', "query": "x"}',
    b"[" * 100_000,
    b'{"a":' * 20_000,
    b'{"query": "x"} {"query": "y"}',
]
# What parsers read in two ways, wherever it stands.
TWO_WAYS = ["1e999", "-1e999", "NaN", "Infinity", '{"a": 1, "\\u0061": 2}', '"\\ud800"']
BODIES: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"model": "echo", "messages": [{"role": "user", "content": "PUT"}]},
    "/v1/embeddings": {"model": "hash", "input": ["x", "PUT"]},
    "/v1/documents/remove": {"documents": ["x"], "more": {"deep": ["PUT"]}},
    "/mcp": {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"arguments": {"limit": "PUT"}}},
}


@pytest.mark.parametrize("path", BODIES)
def test_invalid_or_ambiguous_json_is_refused(shared: Running, path: str) -> None:
    text = json.dumps(BODIES[path])
    for body in (*BAD_JSON, *(text.replace('"PUT"', value).encode() for value in TWO_WAYS)):
        assert code(shared.client.post(path, content=body, headers=JSON)) == (400, "invalid_json"), body[:20]
    for depth in (100, 900, 1000, 1100):
        response = shared.client.post(path, content=text.replace('"PUT"', "[" * depth + "]" * depth), headers=JSON)
        assert response.status_code < 500, depth


def test_paths_lead_nowhere_else(shared: Running) -> None:
    elsewhere = "/v1/../health /%2e%2e/%2e%2e/etc/passwd //etc/passwd /v1/models/..%2f..%2fetc%2fpasswd /v1/models/\\..\\x /v1/documents/"
    for path in elsewhere.split():
        with connected(shared, f"GET {path} HTTP/1.1\nHost: localhost\nConnection: close\n\n") as connection:
            received = everything(connection)
        assert received.startswith(b"HTTP/1.1 404 "), path
        assert b"root:" not in received


def test_no_address_is_fetched(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    own, reached = socket.create_connection, []

    def noted(address: tuple[str, int], *arguments: Any, **named: Any) -> socket.socket:
        reached.append(address)
        return own(address, *arguments, **named)

    monkeypatch.setattr(socket, "create_connection", noted)
    page = (
        b'<html><img src="http://127.0.0.1:1/x"><a href="http://127.0.0.1:1/">a</a> The tower is 55 metres high.</html>'
    )
    assert server.client.post("/v1/documents", files={"file": ("a.html", page)}).status_code == 200
    assert server.ask("How high is the tower? http://127.0.0.1:1/").status_code == 200
    assert set(reached) <= {("127.0.0.1", server.port)}


def upload(client: httpx.Client, count: int) -> httpx.Response:
    files = [("file", (f"{number}.txt", b"The harbour is blue.")) for number in range(count)]
    return client.post("/v1/documents", files=files)


def embed(client: httpx.Client, *texts: str) -> httpx.Response:
    return client.post("/v1/embeddings", json={"model": "hash", "input": texts})


# (the bound, its value, a request of that size, what is said of one more)
BOUNDS: list[tuple[str, int, Callable[[httpx.Client, int], httpx.Response], str]] = [
    ("upload_files", 2, upload, "Maximum number of files is 2."),
    ("embedding_texts", 3, lambda client, n: embed(client, *["x"] * n), "input may be at most 3 texts, not 4."),
    ("embedding_chars", 1100, lambda client, n: embed(client, "x" * n), "at most 1,100 characters a text, not 1,101."),
    ("hits", 5, lambda client, n: client.post("/v1/search", json={"query": "x", "limit": n}), "5 passages, not 6."),
    ("listed", 7, lambda client, n: client.get(f"/v1/documents?limit={n}"), "limit may be at most 7 entries, not 8."),
]


def test_values_above_a_bound_are_refused_with_value_and_unit(serve: Serve) -> None:
    server = serve(**{name: most for name, most, _, _ in BOUNDS})
    for name, most, send, said in BOUNDS:
        assert send(server.client, most).status_code == 200, name
        refused = send(server.client, most + 1)
        assert refused.status_code == 400, name
        assert said in refused.json()["error"]["message"]


def test_logs_hold_no_text_question_or_name(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    headers, post = server.key("admin", "hr"), server.client.post
    for stream in (False, True):
        server.ask("What about canary-question and the safe?", headers, stream=stream)
    post("/v1/search", json={"query": SECRET}, headers=headers)
    server.get("/v1/documents", headers, after="canary-path")
    post("/v1/documents", files={"file": ("canary-name.txt", SECRET.encode())}, headers=headers)
    post("/v1/documents/remove", json={"documents": ["canary-gone.txt"]}, headers=headers)
    post("/v1/search", content=b'{"canary-json', headers=JSON)
    server.get("/canary-url", headers)

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "openbook.serving"]

    eventually(lambda: len(lines()) == 8)  # a line may come a moment after its answer
    assert ("POST /v1/chat/completions 200" in lines()[0], "key=" in lines()[0]) == (True, True)
    own = [record for record in caplog.records if record.name.startswith(("openbook", "uvicorn"))]
    text = "".join(f"{record.getMessage()} {record.exc_text or ''} {record.exc_info or ''}" for record in own)
    assert "canary" not in text
    assert headers["authorization"].split("-", 2)[2] not in text


class BrokenEngine(EchoEngine):
    def __init__(self, kind: type[Exception]) -> None:
        super().__init__()
        self._kind = kind

    def count_prompt_tokens(self, *_: object) -> int:
        raise self._kind("canary-7341 in the engine's own words")


def test_internal_failures_do_not_name_what_they_were_about(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    for kind in (EngineError, RuntimeError):
        server = serve(BrokenEngine(kind))
        for stream in (False, True):
            response = server.ask(QUESTION, stream=stream)
            assert (response.status_code, response.json()["error"]["type"]) == (500, "server_error")
            assert "canary" not in response.text
        assert f"failed: {kind.__name__} at count_prompt_tokens" in caplog.text
    assert "canary" not in caplog.text
    for error, status in (
        (StorageError("/home/anna is full"), 503),
        (KnowledgeError("/home/anna/secret.txt"), 500),
        (ValueError("/home/anna"), 500),
    ):
        refusal = api_error(error)
        assert (refusal.status_code, "anna" in refusal.message) == (status, False)
    assert ("/home/anna is full" in caplog.text, "secret.txt" in caplog.text) == (True, False)


def test_metrics_count_and_hold_no_text(server: Running) -> None:
    server.ask(QUESTION)
    server.ask("Is there a canary?")
    server.get("/v1/documents", after="canary")
    response = server.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    steps = (("retrieve", 2), ("first_token", 1), ("read", 2))  # one answer abstained without a token
    assert {
        'openbook_requests_total{method="POST",route="/v1/chat/completions",status="200"} 2.0',
        'openbook_answers_total{end="end",mode="open-book"} 1.0',
        'openbook_answers_total{end="abstained",mode="open-book"} 1.0',
        'openbook_request_seconds_count{route="/v1/documents"} 1.0',
        *(f'openbook_answer_seconds_count{{step="{step}"}} {count}.0' for step, count in steps),
    } <= set(response.text.splitlines())
    assert ("canary" in response.text, "bridge" in response.text) == (False, False)
