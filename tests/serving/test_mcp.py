"""The tools as a client of the protocol's own SDK meets them: from `stdio_server`, over HTTP, and from `openbook mcp`."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from openbook.certainty import MEANING
from openbook.config import Settings
from openbook.errors import EngineError
from openbook.knowledge import KnowledgeBase
from openbook.library import Library
from openbook.prompts import ABSTENTION
from openbook.receipts import is_altered, receipt_of, verify_log
from openbook.serving.mcp import MAX_CHARS, stdio_server
from openbook.testing import HashEmbedder, echo_model
from tests.conftest import ROOT, base_with
from tests.serving.conftest import (
    BRIDGE,
    LONG_S,
    QUESTION,
    SAFE,
    SECRET,
    TOWER,
    Running,
    Serve,
    WaitingEngine,
    eventually,
    path_of,
)
from tests.serving.test_attacks import BrokenEngine

_Result = TypeVar("_Result")
MODERN = {"mcp-protocol-version": "2026-07-28", "accept": "application/json, text/event-stream"}
both_versions = pytest.mark.parametrize("mode", ["auto", "legacy"])  # of the protocol


def local(base: KnowledgeBase, *labels: str) -> Client:
    """Of the server that `openbook mcp` runs."""
    settings = Settings(base.folder, kb=base.store.place)
    return Client(stdio_server(Library(settings, model=echo_model(), embedder=HashEmbedder()).labels(*labels)))


@asynccontextmanager
async def remote(
    server: Running, headers: dict[str, str] | None = None, path: str = "/mcp", mode: Any = "auto"
) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers=headers, timeout=LONG_S, trust_env=False) as http,
        Client(streamable_http_client(server.url + path, http_client=http), mode=mode) as client,
    ):
        yield client


def during(connection: AbstractAsyncContextManager[Client], use: Callable[[Client], Awaitable[_Result]]) -> _Result:
    async def main() -> _Result:
        async with connection as client:
            return await use(client)

    return asyncio.run(main())


def call(connection: AbstractAsyncContextManager[Client], tool: str, **arguments: Any) -> dict[str, Any]:
    """The result, or the error."""
    result = during(connection, lambda client: client.call_tool(tool, arguments))
    text = "".join(part.text for part in result.content if part.type == "text")
    return {"error": text} if result.is_error else dict(result.structured_content or {})


def test_the_tools_read_and_change_nothing(base: KnowledgeBase) -> None:
    tools = during(local(base), lambda client: client.list_tools()).tools
    assert {tool.name for tool in tools} == {"search", "ask", "read_document"}
    for tool in tools:
        assert tool.annotations is not None
        assert (tool.annotations.read_only_hint, tool.annotations.destructive_hint) == (True, False)
        assert tool.description
        assert tool.output_schema


def test_an_answer_comes_with_its_citations_and_passages_best_first(base: KnowledgeBase) -> None:
    found = call(local(base), "ask", question="Who opened the bridge?")
    assert "Lila Ortega" in found["answer"]
    assert found["confidence"] in MEANING
    assert 0 <= found["certainty"] <= 1
    (sentence,) = found["sentences"]
    assert found["answer"][sentence["start"] : sentence["end"]] == found["answer"]
    assert sentence["support"] == "backed"
    cited = found["citations"][sentence["citation"]]
    place = {"document": cited["document"], "start": cited["start"], "length": len(cited["quote"])}
    part = call(local(base), "read_document", **place)
    assert (part["text"], part["total"]) == (cited["quote"], len(BRIDGE))
    receipt = receipt_of(found["receipt"])
    assert not is_altered(receipt)
    assert receipt.knowledge_base == base.id
    silent = call(local(base), "ask", question="Which colour has the zeppelin?")
    assert (silent["answer"], silent["abstained"], silent["citations"]) == (ABSTENTION, True, [])
    assert (silent["confidence"], silent["certainty"], silent["sentences"]) == ("not found", None, [])
    found = call(local(base), "search", query="Who opened the bridge?", limit=1)
    assert found["version"] == base.version
    (passage,) = found["passages"]
    assert passage["document"].endswith("bridge.txt")
    assert BRIDGE[passage["start"] : passage["end"]] == passage["text"]
    part = call(local(base), "read_document", document=passage["document"], start=10_000)
    assert (part["text"], part["start"]) == ("", part["total"])


def test_what_may_not_be_seen_is_as_what_does_not_exist(base: KnowledgeBase) -> None:
    hr, safe = "hr", path_of(base, "safe.txt")
    assert call(local(base, hr), "read_document", document=safe)["text"] == SECRET
    assert SECRET in json.dumps(call(local(base, hr), "search", query=SECRET))
    refused = call(local(base), "read_document", document=safe)["error"]
    absent = call(local(base), "read_document", document=safe.replace("safe", "gone"))["error"]
    assert refused.replace("safe.txt", "gone.txt") == absent
    for found in (call(local(base), "search", query=SECRET), call(local(base), "ask", question=SAFE)):
        assert "canary" not in json.dumps(found)


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("ask", {"question": "  "}, "The question is empty"),
    ("ask", {"question": "x" * 13_000}, "at most 12,000"),
    ("search", {"query": "bridge", "limit": 51}, "limit"),
    ("read_document", {"document": "../../etc/passwd"}, "There is no document"),
    ("read_document", {"document": "x", "length": MAX_CHARS + 1}, "length"),
    ("read_document", {"document": "x", "start": -1}, "start"),
]


def test_mistakes_come_back_as_a_sentence(base: KnowledgeBase) -> None:
    for tool, arguments, message in MISTAKES:
        assert message in call(local(base), tool, **arguments)["error"], arguments


def test_a_client_starts_it_and_asks(own_home: Path) -> None:
    """`openbook mcp` as an editor runs it, over fakes."""
    base_with(own_home, {"ferry.md": "# Ferry\n\nThe ferry leaves at noon from pier 4.\n"}).close()
    program = [str(ROOT / "tests" / "serving" / "fake_serve.py"), "mcp"]
    environment = {"OPENBOOK_HOME": str(own_home), "PYTHONPATH": str(ROOT), "PATH": ""}
    parameters = StdioServerParameters(command=sys.executable, args=program, env=environment)
    found = call(Client(parameters), "ask", question="When does the ferry leave?")
    assert "noon" in found["answer"]
    assert found["receipt"]["model"]["name"] == "echo"


def test_a_client_that_stops_listening_is_no_error(own_home: Path) -> None:
    base_with(own_home, {"ferry.md": "The ferry leaves at noon.\n"}).close()
    program = [sys.executable, str(ROOT / "tests" / "serving" / "fake_serve.py"), "mcp"]
    environment = {"OPENBOOK_HOME": str(own_home), "PYTHONPATH": str(ROOT), "PATH": ""}
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "editor", "version": "1"}}
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}) + "\n"
    process = subprocess.Popen(
        program, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    told, heard = cast(IO[str], process.stdin), cast(IO[str], process.stdout)
    told.write(message)
    told.flush()
    assert "protocolVersion" in heard.readline()
    heard.close()
    assert process.communicate(message, LONG_S)[1] == ""
    assert process.returncode == 0


@both_versions
def test_over_http_an_answer_is_that_of_the_api_and_in_the_log_of_receipts(
    with_receipts: Running, tmp_path: Path, mode: str
) -> None:
    found = call(remote(with_receipts, mode=mode), "ask", question=QUESTION)
    assert verify_log(tmp_path / "log")[0] == 1
    over_http = with_receipts.ask(QUESTION).json()["openbook"]
    assert (found["answer"], found["receipt"]) == (over_http["answer"], over_http["receipt"])
    assert 'openbook_answers_total{end="end",mode="open-book"} 2.0' in with_receipts.client.get("/metrics").text


@both_versions
def test_the_key_says_what_may_be_seen(keyed: Running, mode: str) -> None:
    plain, hr = keyed.key(), keyed.key("read", "hr")
    assert call(remote(keyed, hr, mode=mode), "ask", question=SAFE)["answer"] == SECRET
    assert "canary" not in json.dumps(call(remote(keyed, plain, mode=mode), "search", query=SECRET))
    for headers in ({}, {"authorization": "Bearer ob-00000000-" + "A" * 43}):
        with pytest.raises(BaseExceptionGroup):
            call(remote(keyed, headers, mode=mode), "search", query="bridge")


def test_each_knowledge_base_has_an_address(towers: KnowledgeBase, serve: Serve) -> None:
    server = serve(others={"towers": towers})
    assert "55" in call(remote(server, path="/mcp/towers"), "ask", question=TOWER)["answer"]
    assert "55" not in call(remote(server), "ask", question=TOWER)["answer"]
    assert server.client.post("/mcp/nothing", json={}).json()["error"]["code"] == "knowledge_base_not_found"


@both_versions
def test_failures_come_back_without_what_they_were_about(
    serve: Serve, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    """As `openbook serve` sets logs up: the SDK's own say nothing below CRITICAL."""
    caplog.set_level(logging.CRITICAL, logger="mcp")
    caplog.set_level(logging.DEBUG)
    broken = serve(BrokenEngine(EngineError))
    question = "When was the bridge, canary-question, opened by the mayor?"
    assert "log says what failed" in call(remote(broken, mode=mode), "ask", question=question)["error"]
    assert "limit" in call(remote(broken, mode=mode), "search", query="canary-words", limit=0)["error"]
    call(remote(broken, mode=mode), "read_document", document="canary-document.txt")
    assert "failed: EngineError at count_prompt_tokens" in caplog.text
    own = [r for r in caplog.records if r.name.startswith(("openbook", "uvicorn", "mcp")) and "client" not in r.name]
    assert "canary" not in "".join(f"{r.getMessage()} {r.exc_text or ''}" for r in own)
    told = [r.getMessage() for r in own if r.levelno == logging.INFO and r.name == "openbook.serving"]
    assert {each.split(" ")[1] for each in told} == {"/mcp"}


def test_nothing_stays_open(server: Running) -> None:
    """Neither a stream of events without end, nor a session."""
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}

    def status(method: str, **headers: str) -> int:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": meta}}
        return server.client.post("/mcp", json=body, headers={**MODERN, "mcp-method": method, **headers}).status_code

    assert status("subscriptions/listen") == 406
    assert status("tools/list") == 200
    assert status("tools/list", accept="text/event-stream") == 406
    for method in ("GET", "DELETE", "PUT"):
        assert server.client.request(method, "/mcp", headers=MODERN).status_code == 405
    assert server.service.reading.running == 0


@both_versions
def test_a_call_ends_when_its_client_goes_and_when_time_is_up(
    serve: Serve, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = WaitingEngine()

    async def leave(client: Client) -> None:
        asked = asyncio.create_task(client.call_tool("ask", {"question": QUESTION}))
        await asyncio.to_thread(engine.begun.acquire, timeout=LONG_S)
        asked.cancel()

    server = serve(engine, running=1, waiting=0)
    during(remote(server, mode=mode), leave)
    assert engine.was_cancelled.wait(LONG_S)
    eventually(lambda: server.service.reading.running == 0)
    assert "stopped" in call(remote(serve(engine, answer_s=0.2), mode=mode), "ask", question=QUESTION)["error"]
    assert "ClientGone" not in caplog.text
