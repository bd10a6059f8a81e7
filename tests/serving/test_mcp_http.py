"""The tools at /mcp, as a client of the protocol's own SDK meets them over HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, add
from openbook.receipts import verify
from openbook.serving.configuration import Configuration
from openbook.testing import HashEmbedder, echo_model
from tests.serving.conftest import LONG_S, SECRET, Running, WaitingEngine, bounded, eventually, running
from tests.serving.test_attacks import BrokenEngine

_Result = TypeVar("_Result")
QUESTION = "When was the bridge opened by the mayor?"
SAFE = "With which number does the safe of the harbour office open?"
MODERN = {"mcp-protocol-version": "2026-07-28", "accept": "application/json, text/event-stream"}


def with_client(
    server: Running,
    use: Callable[[Client], Awaitable[_Result]],
    headers: dict[str, str] | None = None,
    path: str = "/mcp",
    mode: Any = "auto",
) -> _Result:
    async def main() -> _Result:
        async with (
            httpx2.AsyncClient(headers=headers, timeout=LONG_S, trust_env=False) as http,
            Client(streamable_http_client(server.url + path, http_client=http), mode=mode) as client,
        ):
            return await use(client)

    return asyncio.run(main())


def call(
    server: Running,
    tool: str,
    headers: dict[str, str] | None = None,
    path: str = "/mcp",
    mode: Any = "auto",
    **arguments: Any,
) -> dict[str, Any]:
    async def use(client: Client) -> dict[str, Any]:
        result = await client.call_tool(tool, arguments)
        text = "".join(part.text for part in result.content if part.type == "text")
        return {"error": text} if result.is_error else dict(result.structured_content or {})

    return with_client(server, use, headers, path, mode)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_lists_the_tools_and_asks(server: Running, mode: str) -> None:
    async def use(client: Client) -> tuple[set[str], dict[str, Any]]:
        names = {tool.name for tool in (await client.list_tools()).tools}
        result = await client.call_tool("ask", {"question": QUESTION})
        return names, dict(result.structured_content or {})

    names, found = with_client(server, use, mode=mode)
    assert names == {"search", "ask", "read_document"}
    over_http = server.ask(QUESTION).json()["openbook"]
    assert found["answer"] == over_http["answer"]
    assert found["receipt"] == over_http["receipt"]
    cited = found["citations"][0]
    part = call(
        server, "read_document", mode=mode, document=cited["document"], start=cited["start"], length=len(cited["quote"])
    )
    assert part["text"] == cited["quote"]
    assert 'openbook_answers_total{end="end",mode="open-book"} 2.0' in server.client.get("/metrics").text


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_key_says_what_may_be_seen(keyed: Running, mode: str) -> None:
    plain, hr = keyed.key(), keyed.key("read", "hr")
    safe = next(path for path in keyed.bases["kb"].documents() if path.endswith("safe.txt"))
    assert call(keyed, "ask", hr, mode=mode, question=SAFE)["answer"] == SECRET
    assert SECRET in call(keyed, "read_document", hr, mode=mode, document=safe)["text"]
    for tool, arguments in (
        ("ask", {"question": SAFE}),
        ("search", {"query": SECRET}),
        ("read_document", {"document": safe}),
    ):
        assert "canary" not in json.dumps(call(keyed, tool, plain, mode=mode, **arguments))
    absent = call(keyed, "read_document", plain, mode=mode, document=safe.replace("safe", "gone"))["error"]
    assert call(keyed, "read_document", plain, mode=mode, document=safe)["error"] == absent.replace("gone", "safe")


def test_without_a_key_nothing_is_answered(keyed: Running) -> None:
    for headers in ({}, {"authorization": "Bearer ob-00000000-" + "A" * 43}):
        with pytest.raises(BaseExceptionGroup):
            call(keyed, "search", headers, query="bridge")
        response = keyed.client.post("/mcp", json={}, headers=headers)
        assert response.status_code == 401
        assert response.json()["error"]["type"] == "invalid_request_error"


def test_each_knowledge_base_has_an_address(
    configuration: Configuration, base: KnowledgeBase, tmp_path: Path, embedder: HashEmbedder
) -> None:
    other = KnowledgeBase.ensure(tmp_path / "other", embedder.identity)
    (tmp_path / "tower.txt").write_text("The tower of Lund is 55 metres high.")
    add(other, [tmp_path / "tower.txt"], embedder)
    with running(configuration, echo_model(), {"kb": base, "other": other}) as server:
        question = "How many metres high is the tower of Lund?"
        assert "55" in call(server, "ask", path="/mcp/other", question=question)["answer"]
        assert "55" not in call(server, "ask", question=question)["answer"]
        assert server.client.post("/mcp/nothing", json={}).json()["error"]["code"] == "knowledge_base_not_found"
    other.close()


def test_an_answer_is_in_the_log_of_receipts(with_receipts: Running, tmp_path: Path) -> None:
    found = call(with_receipts, "ask", question=QUESTION)
    assert verify(tmp_path / "log").receipts == 1
    assert with_receipts.client.post("/v1/replay", json={"id": found["receipt"]["digest"]}).json()["identical"]


def test_mistakes_come_back_as_a_sentence_and_failures_without_what_they_were_about(
    server: Running, configuration: Configuration, base: KnowledgeBase, caplog: pytest.LogCaptureFixture
) -> None:
    assert "question is empty" in call(server, "ask", question="  ")["error"]
    assert "limit" in call(server, "search", query="bridge", limit=51)["error"]
    with running(configuration, FrozenModel(BrokenEngine()), {"kb": base}) as broken:
        for mode in ("auto", "legacy"):
            assert "log says what failed" in call(broken, "ask", mode=mode, question=QUESTION)["error"]
    assert "failed: EngineError at count_prompt_tokens" in caplog.text
    assert "canary" not in caplog.text


def post(server: Running, method: str, params: dict[str, Any], **headers: str) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return server.client.post("/mcp", json=body, headers={**MODERN, "mcp-method": method, **headers})


def test_nothing_stays_open(server: Running) -> None:
    """Neither a stream of events without end, nor a session."""
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    assert post(server, "subscriptions/listen", {"_meta": meta}).status_code == 406
    assert post(server, "tools/list", {"_meta": meta}).status_code == 200
    assert post(server, "tools/list", {"_meta": meta}, accept="text/event-stream").status_code == 406
    for method in ("GET", "DELETE", "PUT"):
        assert server.client.request(method, "/mcp", headers=MODERN).status_code == 405
    assert server.service.reading.running == 0


@pytest.mark.parametrize("headers", [{}, MODERN])
def test_what_is_no_request_of_the_protocol_is_refused(server: Running, headers: dict[str, str]) -> None:
    kind = {"content-type": "application/json", "accept": "application/json, text/event-stream", **headers}
    for body in (
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"jsonrpc": "2.0"}',
        b'{"id": NaN}',
        b"\xff",
        b'{"id": {}, "method": 1}',
    ):
        response = server.client.post("/mcp", content=body, headers=kind)
        assert 400 <= response.status_code < 500, (body[:20], response.text)


def test_a_call_that_is_too_large_is_refused(configuration: Configuration, base: KnowledgeBase) -> None:
    with running(bounded(configuration, body_bytes=1000), echo_model(), {"kb": base}) as server:
        body = iter([b" " * 500, b" " * 501])
        response = server.client.post("/mcp", content=body, headers={**MODERN, "content-type": "application/json"})
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "request_too_large"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_call_waits_its_turn_and_ends_when_its_client_goes(
    configuration: Configuration, base: KnowledgeBase, mode: str
) -> None:
    engine = WaitingEngine()

    async def leave(client: Client) -> None:
        call = asyncio.create_task(client.call_tool("ask", {"question": QUESTION}))
        await asyncio.to_thread(engine.begun.acquire, timeout=LONG_S)
        call.cancel()

    with running(bounded(configuration, running=1, waiting=0), FrozenModel(engine), {"kb": base}) as server:
        with_client(server, leave, mode=mode)
        assert engine.was_cancelled.wait(LONG_S)
        eventually(lambda: server.service.reading.running == 0)
    with running(bounded(configuration, answer_s=0.2), FrozenModel(WaitingEngine()), {"kb": base}) as server:
        assert "stopped" in call(server, "ask", mode=mode, question=QUESTION)["error"]


def test_logs_hold_nothing_of_a_call(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    """As `openbook serve` sets them up: the SDK's own say nothing below CRITICAL."""
    caplog.set_level(logging.CRITICAL, logger="mcp")
    caplog.set_level(logging.DEBUG)
    call(server, "ask", question="What about canary-question?")
    call(server, "search", query="canary-words", limit=0)
    call(server, "read_document", document="canary-document.txt")
    own = [r for r in caplog.records if r.name.startswith(("openbook", "uvicorn", "mcp"))]
    assert "canary" not in "".join(f"{r.getMessage()} {r.exc_text or ''}" for r in own if "client" not in r.name)
    assert {r.getMessage().split(" ")[1] for r in own if r.name == "openbook.serving"} == {"/mcp"}


def test_the_labels_of_the_server_are_those_of_callers_without_a_key(
    configuration: Configuration, base: KnowledgeBase
) -> None:
    with running(replace(configuration, labels=frozenset({"hr"})), echo_model(), {"kb": base}) as server:
        assert call(server, "ask", question=SAFE)["answer"] == SECRET
