"""The tools as a client of the protocol's own SDK meets them: from `stdio_server`, over HTTP, and from `openbook mcp`."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import httpx2
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextContent, TextResourceContents

from openbook.answers.certainty import MEANING
from openbook.answers.prompts import ABSTENTION
from openbook.core.config import Settings
from openbook.core.errors import EngineError
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, Scope
from openbook.library import Library
from openbook.proofs.receipts import is_altered, receipt_of, verify_log
from openbook.serving.mcp import stdio_server
from openbook.serving.mcp_tools import MAX_PART
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
    add_file,
    eventually,
    path_of,
)
from tests.serving.test_attacks import BrokenEngine

_Result = TypeVar("_Result")
MAX_TEXT = 7_500  # characters of a result: about 2,000 tokens
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


def test_tools_only_read(base: KnowledgeBase) -> None:
    tools = during(local(base), lambda client: client.list_tools()).tools
    assert {tool.name for tool in tools} == {*LOOKUPS, "ask"}
    for tool in tools:
        assert tool.annotations is not None
        assert (tool.annotations.read_only_hint, tool.annotations.destructive_hint) == (True, False)
        assert tool.description
        assert tool.description.count(". ") < 2
        assert {"as_of", "where"} <= set(tool.input_schema["properties"])
        assert tool.output_schema


def test_answer_comes_with_citations_that_can_be_read(base: KnowledgeBase) -> None:
    found = call(local(base), "ask", question="Who opened the bridge?")
    assert "Lila Ortega" in found["answer"]
    assert found["confidence"] in MEANING
    assert 0 <= found["certainty"] <= 1
    (sentence,) = found["sentences"]
    assert found["answer"][sentence["start"] : sentence["end"]] == found["answer"]
    assert sentence["support"] == "backed"
    cited = found["citations"][sentence["citation"]]
    place = {"document": cited["document"], "start": cited["start"], "length": len(cited["quote"])}
    part = call(local(base), "read", **place)
    assert (part["text"], part["total"]) == (cited["quote"], len(BRIDGE))
    receipt = receipt_of(found["receipt"])
    assert not is_altered(receipt)
    assert receipt.knowledge_base == base.id
    silent = call(local(base), "ask", question="Which colour has the zeppelin?")
    assert (silent["answer"], silent["declined"], silent["citations"]) == (ABSTENTION, True, [])
    assert (silent["confidence"], silent["certainty"], silent["sentences"]) == ("not found", None, [])


def test_results_are_small_and_can_be_continued(base: KnowledgeBase, tmp_path: Path) -> None:
    lines = [f"The fee of pier {number} is {number} crowns." for number in range(200)]
    text = "# Fees\n\n" + "\n\n".join(lines)
    add_file(base, tmp_path / "fees.md", text)

    def parts(tool: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        rest: dict[str, Any] | None = {}
        while rest is not None:
            part = call(local(base), tool, **arguments, **rest)
            assert len(json.dumps(part, indent=2)) < MAX_TEXT
            yield part
            rest = part["next"]

    found = [each for part in parts("grep", words="fee of PIER") for each in part["found"]]
    assert [each["line"] for each in found] == lines
    part = call(local(base), "read", document="fees.md", start=found[7]["start"], length=15)
    assert part["text"] == "fee of pier 7 i"
    assert "".join(part["text"] for part in parts("read", document="fees.md")).strip() == text
    assert [each["title"] for each in call(local(base), "outline", document="fees.md")["found"]] == ["Fees"]
    assert call(local(base), "grep", words=r"pier \d$|pier 19 .*19", expression=True)["found"][0]["line"] == lines[19]
    assert call(local(base), "find", name="FEES")["found"] == [path_of(base, "fees.md")]
    top = call(local(base), "list")["found"]
    assert sum(each["documents"] or 1 for each in top) == base.count(Scope())
    assert call(local(base), "list", where="type = 'pdf'")["found"] == []
    searched = call(local(base), "search", query="Who opened the bridge?", limit=1)
    (passage,) = searched["found"]
    assert (searched["version"], passage["document"]) == (base.version, path_of(base, "bridge.txt"))
    assert BRIDGE[passage["start"] : passage["end"]] == passage["text"]
    add_file(base, tmp_path / "long.txt", "word " * 10_000)
    read = during(local(base), lambda client: client.read_resource("openbook://document/long.txt"))
    resource = cast(TextResourceContents, read.contents[0]).text
    assert resource.endswith(f"the tool read shows the rest, with start={MAX_PART}]")
    assert len(resource) < MAX_PART + 200


def test_versions_are_compared(base: KnowledgeBase, tmp_path: Path) -> None:
    path = add_file(base, tmp_path / "fees.md", "The fee is 4 crowns.")
    add_file(base, path, "The fee is 5 crowns.")
    newest = base.version
    changed = call(local(base), "diff", before=newest - 1)
    assert (changed["before"], changed["version"]) == (newest - 1, newest)
    assert changed["found"] == [{"document": str(path), "change": "changed"}]
    words = call(local(base), "diff", before=str(newest - 1), document="fees.md")["found"]
    assert [each["text"].strip() for each in words if each["kind"] != "same"] == ["4", "5"]
    assert call(local(base), "diff", before=newest)["found"] == []
    assert call(local(base), "diff", before=newest - 2, as_of=newest - 1)["found"][0]["change"] == "added"
    versions = call(local(base), "history", as_of=newest - 1)["found"]
    assert [each["version"] for each in versions] == list(range(newest - 1, -1, -1))
    assert versions[0]["documents"] == base.count(Scope(newest - 1))
    history = call(local(base), "history", document="fees.md")["found"]
    assert [each["change"] for each in history] == ["changed", "added"]
    assert call(local(base), "read", document="fees.md", as_of=newest - 1)["text"].strip() == "The fee is 4 crowns."
    for tool, arguments in (
        ("history", {"as_of": "never"}),
        ("diff", {"before": 99}),
        ("find", {"name": "x", "as_of": 99}),
    ):
        assert "The tool history lists" in call(local(base), tool, **arguments)["error"]


LOOKUPS: dict[str, dict[str, Any]] = {  # how to ask a tool about one document
    "search": {"query": SECRET},
    "find": {"name": "safe"},
    "list": {},
    "grep": {"words": "safe of the harbour"},
    "read": {"document": "safe.txt"},
    "outline": {"document": "safe.txt"},
    "diff": {"before": 1, "document": "safe.txt"},
    "history": {"document": "safe.txt"},
}


@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_hidden_document_does_not_exist(base: KnowledgeBase, keyed: Running, transport: str) -> None:
    """Version 1 does not hold the document with the label hr; the newest does."""

    def looked(tool: str, *labels: str, **more: Any) -> dict[str, Any]:
        connection = local(base, *labels) if transport == "stdio" else remote(keyed, keyed.key("read", *labels))
        found = call(connection, tool, **LOOKUPS[tool], **more)
        return {key: value for key, value in found.items() if key != "version"}

    for tool, arguments in LOOKUPS.items():
        hidden, absent = looked(tool), looked(tool, as_of=1)
        assert hidden == absent
        assert "canary" not in json.dumps(hidden)
        assert ("error" in hidden) is ("document" in arguments)
        shown = json.dumps(looked(tool, "hr"))
        assert "error" not in shown
        assert "canary" in shown or "safe.txt" in shown or "added" in shown or tool == "outline"
    for labels, documents in (((), 2), (("hr",), 3)):
        assert call(local(base, *labels), "history")["found"][0]["documents"] == documents
        changed = call(local(base, *labels), "diff", before=1)["found"]
        assert [each["change"] for each in changed] == ["added"] * (documents - 2)


@both_versions
def test_document_is_a_resource(base: KnowledgeBase, keyed: Running, mode: str) -> None:
    async def read(client: Client, path: str) -> str:
        try:
            (content,) = (await client.read_resource(f"openbook://document/{path}")).contents
        except MCPError as error:
            return str(error)
        return cast(TextResourceContents, content).text

    def seen(path: str, *labels: str) -> str:
        return during(remote(keyed, keyed.key("read", *labels), mode=mode), lambda client: read(client, path))

    templates = during(local(base), lambda client: client.list_resource_templates()).resource_templates
    assert [each.uri_template for each in templates] == ["openbook://document/{+path}"]
    assert seen("bridge.txt") == BRIDGE == seen(path_of(base, "bridge.txt"))
    assert seen("safe.txt", "hr") == SECRET
    assert seen("safe.txt") == during(local(base), lambda client: read(client, "safe.txt"))
    assert seen("safe.txt").replace("safe", "saff") == seen("saff.txt")
    assert "No document '../bridge.txt'" in seen("..%2Fbridge.txt")


def test_prompts_name_existing_tools(base: KnowledgeBase) -> None:
    async def texts(client: Client) -> dict[str, str]:
        found: dict[str, str] = {}
        for prompt in (await client.list_prompts()).prompts:
            arguments = {each.name: "canary" for each in prompt.arguments or ()}
            (message,) = (await client.get_prompt(prompt.name, arguments)).messages
            found[prompt.name] = cast(TextContent, message.content).text
        return found

    found = during(local(base), texts)
    assert set(found) == {"answer_with_sources", "compare_versions", "find_all_places"}
    for text in found.values():
        assert "canary" in text
        assert set(re.findall(r"`(\w+)`", text)) <= {*LOOKUPS, "ask", "next", "document"}


def test_progress_is_sent_to_clients_that_ask_for_it(base: KnowledgeBase, server: Running) -> None:
    told: list[tuple[float, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, message))

    def asked(connection: AbstractAsyncContextManager[Client]) -> None:
        told.clear()
        during(
            connection, lambda client: client.call_tool("ask", {"question": QUESTION}, progress_callback=on_progress)
        )

    asked(local(base))
    assert [progress for progress, _ in told] == list(range(1, len(told) + 1))
    assert "Found" in str(told[0])
    assert told[-1][1] == "Writing"
    asked(remote(server))  # a reply of JSON has no place for it
    assert told == []


def test_cancelled_call_ends_the_model(base: KnowledgeBase) -> None:
    engine = WaitingEngine()
    settings = Settings(base.folder, kb=base.store.place)
    library = Library(settings, model=FrozenModel(engine), embedder=HashEmbedder())

    async def leave(client: Client) -> None:
        asked = asyncio.create_task(client.call_tool("ask", {"question": QUESTION}))
        await asyncio.to_thread(engine.begun.acquire, timeout=LONG_S)
        asked.cancel()

    during(Client(stdio_server(library)), leave)
    assert engine.was_cancelled.wait(LONG_S)


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("ask", {"question": "  "}, "The question is empty"),
    ("ask", {"question": "x" * 13_000}, "at most 12,000"),
    ("search", {"query": "bridge", "limit": 51}, "limit"),
    ("read", {"document": "../../etc/passwd"}, "No document"),
    ("read", {"document": "txt/"}, "openbook ls"),
    ("list", {"folder": "nowhere"}, "begin at the top"),
    ("grep", {"words": "(", "expression": True}, "missing )"),
    ("grep", {"words": "x", "where": "date >"}, "expected a value"),
    ("find", {"name": ""}, "is empty"),
    ("read", {"document": "x", "length": MAX_PART + 1}, "length"),
    ("read", {"document": "x", "start": -1}, "start"),
]


def test_mistakes_are_answered_with_a_sentence(base: KnowledgeBase) -> None:
    for tool, arguments, message in MISTAKES:
        assert message in call(local(base), tool, **arguments)["error"], arguments


@pytest.fixture
def program(own_home: Path) -> StdioServerParameters:
    """`openbook mcp` as an editor runs it, by the settings in docs/serving.md, over fakes."""
    base_with(own_home, {"ferry.md": "# Ferry\n\nThe ferry leaves at noon from pier 4.\n"}).close()
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8").replace("/home/me/kb", str(own_home / "kb"))
    said = json.loads(page.partition("```json\n")[2].partition("```")[0])["mcpServers"]["openbook"]
    assert said["command"] == "openbook"
    environment = {"OPENBOOK_HOME": str(own_home / "home"), "PYTHONPATH": str(ROOT), "PATH": ""}
    arguments = [str(ROOT / "tests" / "serving" / "fake_serve.py"), *said["args"]]
    return StdioServerParameters(command=sys.executable, args=arguments, env=environment)


@pytest.mark.laws
def test_client_starts_the_program_and_asks(program: StdioServerParameters) -> None:
    found = call(Client(program), "ask", question="When does the ferry leave?")
    assert "noon" in found["answer"]
    assert found["receipt"]["model"]["name"] == "echo"


@pytest.mark.laws
def test_client_that_stops_listening_is_no_error(program: StdioServerParameters) -> None:
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "editor", "version": "1"}}
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}) + "\n"
    command, pipe = [program.command, *program.args], subprocess.PIPE
    process = subprocess.Popen(command, env=program.env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    told, heard = cast(IO[str], process.stdin), cast(IO[str], process.stdout)
    told.write(message)
    told.flush()
    assert "protocolVersion" in heard.readline()
    heard.close()
    assert process.communicate(message, LONG_S)[1] == ""
    assert process.returncode == 0


@both_versions
def test_answer_over_http_is_that_of_the_api_and_in_the_log(with_receipts: Running, tmp_path: Path, mode: str) -> None:
    found = call(remote(with_receipts, mode=mode), "ask", question=QUESTION)
    assert verify_log(tmp_path / "log")[0] == 1
    over_http = with_receipts.ask(QUESTION).json()["openbook"]
    assert (found["answer"], found["receipt"]) == (over_http["answer"], over_http["receipt"])
    assert 'openbook_answers_total{end="end",mode="open-book"} 2.0' in with_receipts.client.get("/metrics").text


@both_versions
def test_key_decides_what_is_seen(keyed: Running, mode: str) -> None:
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
def test_failures_do_not_name_what_they_were_about(serve: Serve, caplog: pytest.LogCaptureFixture, mode: str) -> None:
    """As `openbook serve` sets logs up: the SDK's own say nothing below CRITICAL."""
    caplog.set_level(logging.CRITICAL, logger="mcp")
    caplog.set_level(logging.DEBUG)
    broken = serve(BrokenEngine(EngineError))
    question = "When was the bridge, canary-question, opened by the mayor?"
    assert "log says what failed" in call(remote(broken, mode=mode), "ask", question=question)["error"]
    assert "limit" in call(remote(broken, mode=mode), "search", query="canary-words", limit=0)["error"]
    call(remote(broken, mode=mode), "read", document="canary-document.txt")
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
def test_call_ends_when_its_client_leaves_and_when_time_is_up(
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
