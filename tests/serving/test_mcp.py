"""The tools as a client of the protocol's own SDK meets them: from `stdio_server`, over HTTP, and from `openbook mcp`."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
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
from openbook.inference.frozen import Engine
from openbook.knowledge import KnowledgeBase
from openbook.library import Library
from openbook.proofs.receipts import is_altered, receipt_of, verify_log
from openbook.serving.mcp import stdio_server
from openbook.serving.mcp_tools import MAX_PART
from openbook.testing import EchoEngine, HashEmbedder
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


def local(base: KnowledgeBase, *labels: str, engine: Engine | None = None) -> Client:
    """Of the server that `openbook mcp` runs."""
    settings, model = Settings(base.folder, kb=base.store.place), FrozenModel(engine or EchoEngine())
    return Client(stdio_server(Library(settings, model=model, embedder=HashEmbedder()).labels(*labels)))


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


def several(
    connection: AbstractAsyncContextManager[Client], calls: Iterable[tuple[str, dict[str, Any]]]
) -> list[dict[str, Any]]:
    """The result or the error of each call (tool, arguments)."""

    async def use(client: Client) -> list[dict[str, Any]]:
        results = [await client.call_tool(tool, arguments) for tool, arguments in calls]
        texts = ["".join(part.text for part in each.content if part.type == "text") for each in results]
        return [
            {"error": text} if each.is_error else dict(each.structured_content or {})
            for each, text in zip(results, texts, strict=True)
        ]

    return during(connection, use)


def call(connection: AbstractAsyncContextManager[Client], tool: str, **arguments: Any) -> dict[str, Any]:
    return several(connection, [(tool, arguments)])[0]


# --- on this machine --------------------------------------------------------------------------------------------------


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
    assert (found["confidence"] in MEANING, 0 <= found["certainty"] <= 1) == (True, True)
    (sentence,) = found["sentences"]
    assert (sentence["start"], sentence["end"], sentence["support"]) == (0, len(found["answer"]), "backed")
    cited = found["citations"][sentence["citation"]]
    place = {"document": cited["document"], "start": cited["start"], "length": len(cited["quote"])}
    assert call(local(base), "read", **place)["text"] == cited["quote"]
    receipt = receipt_of(found["receipt"])
    assert (is_altered(receipt), receipt.knowledge_base) == (False, base.id)
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
    assert "".join(part["text"] for part in parts("read", document="fees.md")).strip() == text
    calls: list[tuple[str, dict[str, Any]]] = [
        ("read", {"document": "fees.md", "start": found[7]["start"], "length": 15}),
        ("outline", {"document": "fees.md"}),
        ("grep", {"words": r"pier 19 .*19", "expression": True}),
        ("find", {"name": "FEES"}),
        ("list", {"where": "type = 'pdf'"}),
        ("search", {"query": "Who opened the bridge?", "limit": 1}),
    ]
    read, outline, matched, named, none, searched = several(local(base), calls)
    assert (read["text"], [each["title"] for each in outline["found"]]) == ("fee of pier 7 i", ["Fees"])
    assert ([each["line"] for each in matched["found"]], none["found"]) == ([lines[19]], [])
    assert (named["found"], searched["version"]) == ([path_of(base, "fees.md")], base.version)
    (passage,) = searched["found"]
    assert (passage["document"], passage["text"]) == (path_of(base, "bridge.txt"), BRIDGE)
    add_file(base, tmp_path / "long.txt", "word " * 10_000)
    whole = during(local(base), lambda client: client.read_resource("openbook://document/long.txt"))
    resource = cast(TextResourceContents, whole.contents[0]).text
    assert resource.endswith(f"the tool read shows the rest, with start={MAX_PART}]")
    assert len(resource) < MAX_PART + 200


def test_versions_are_compared(base: KnowledgeBase, tmp_path: Path) -> None:
    path = add_file(base, tmp_path / "fees.md", "The fee is 4 crowns.")
    add_file(base, path, "The fee is 5 crowns.")
    newest = base.version
    calls: list[tuple[str, dict[str, Any]]] = [
        ("diff", {"before": newest - 1}),
        ("diff", {"before": str(newest - 1), "document": "fees.md"}),
        ("diff", {"before": newest - 2, "as_of": newest - 1}),
        ("history", {"as_of": newest - 1}),
        ("history", {"document": "fees.md"}),
        ("read", {"document": "fees.md", "as_of": newest - 1}),
        ("history", {"as_of": "never"}),
        ("diff", {"before": 99}),
        ("find", {"name": "x", "as_of": 99}),
    ]
    changed, words, older, versions, history, read, *unknown = several(local(base), calls)
    assert (changed["before"], changed["version"]) == (newest - 1, newest)
    assert changed["found"] == [{"document": str(path), "change": "changed"}]
    assert [each["text"].strip() for each in words["found"] if each["kind"] != "same"] == ["4", "5"]
    assert (older["found"][0]["change"], read["text"].strip()) == ("added", "The fee is 4 crowns.")
    assert [each["version"] for each in versions["found"]] == list(range(newest - 1, -1, -1))
    assert [each["change"] for each in history["found"]] == ["changed", "added"]
    assert all("The tool history lists" in each["error"] for each in unknown)


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


def test_progress_is_sent_to_clients_that_ask_for_it(base: KnowledgeBase, shared: Running) -> None:
    told: list[tuple[float, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, message))

    asked = {"question": QUESTION}
    during(remote(shared), lambda client: client.call_tool("ask", asked, progress_callback=on_progress))
    assert told == []  # a reply of JSON has no place for it
    during(local(base), lambda client: client.call_tool("ask", asked, progress_callback=on_progress))
    assert [progress for progress, _ in told] == list(range(1, len(told) + 1))
    assert "Found" in str(told[0])
    assert told[-1][1] == "Writing"


async def leave(engine: WaitingEngine, client: Client) -> None:
    asked = asyncio.create_task(client.call_tool("ask", {"question": QUESTION}))
    await asyncio.to_thread(engine.begun.acquire, timeout=LONG_S)
    asked.cancel()


def test_cancelled_call_ends_the_model(base: KnowledgeBase) -> None:
    during(local(base, engine=(engine := WaitingEngine())), partial(leave, engine))
    assert engine.was_cancelled.wait(LONG_S)


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("ask", {"question": "  "}, "The question is empty"),
    ("search", {"query": "bridge", "limit": 51}, "limit"),
    ("read", {"document": "../../etc/passwd"}, "No document"),
    ("read", {"document": "txt/"}, "openbook ls"),
    ("list", {"folder": "nowhere"}, "begin at the top"),
    ("grep", {"words": "(", "expression": True}, "missing )"),
    ("grep", {"words": "x", "where": "date >"}, "expected a value"),
    ("read", {"document": "x", "length": MAX_PART + 1}, "length"),
    ("read", {"document": "x", "start": -1}, "start"),
]


def test_mistakes_are_answered_with_a_sentence(base: KnowledgeBase) -> None:
    found = several(local(base), [(tool, arguments) for tool, arguments, _ in MISTAKES])
    for (tool, _, message), each in zip(MISTAKES, found, strict=True):
        assert message in each["error"], (tool, each)


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_hidden_document_does_not_exist(base: KnowledgeBase, shared: Running, transport: str) -> None:
    """Version 1 does not hold the document with the label hr; the newest does."""

    def looked(*labels: str, **more: Any) -> list[dict[str, Any]]:
        connection = local(base, *labels) if transport == "stdio" else remote(shared, shared.key("read", *labels))
        found = several(connection, [(tool, {**arguments, **more}) for tool, arguments in LOOKUPS.items()])
        return [{key: value for key, value in each.items() if key != "version"} for each in found]

    hidden = looked()
    assert hidden == looked(as_of=1)
    assert "canary" not in json.dumps(hidden)
    assert ["error" in each for each in hidden] == ["document" in each for each in LOOKUPS.values()]
    for tool, shown in zip(LOOKUPS, looked("hr"), strict=True):
        assert "error" not in shown
        assert any(each in json.dumps(shown) for each in ("canary", "safe.txt", "added")) or tool == "outline"
    for labels, documents in (((), 2), (("hr",), 3)):
        history, changed = several(local(base, *labels), [("history", {}), ("diff", {"before": 1})])
        assert history["found"][0]["documents"] == documents
        assert [each["change"] for each in changed["found"]] == ["added"] * (documents - 2)


@both_versions
def test_key_decides_which_resources_and_answers_are_seen(base: KnowledgeBase, keyed: Running, mode: str) -> None:
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
    assert call(remote(keyed, keyed.key("read", "hr"), mode=mode), "ask", question=SAFE)["answer"] == SECRET
    for headers in ({}, {"authorization": "Bearer ob-00000000-" + "A" * 43}):
        with pytest.raises(BaseExceptionGroup):
            call(remote(keyed, headers, mode=mode), "search", query="bridge")


# --- as a program, and over HTTP --------------------------------------------------------------------------------------


@pytest.mark.laws
def test_editor_starts_the_program_of_the_docs_asks_and_may_stop_listening(own_home: Path) -> None:
    """By the settings in docs/serving.md, over fakes."""
    base_with(own_home, {"ferry.md": "# Ferry\n\nThe ferry leaves at noon from pier 4.\n"}).close()
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8").replace("/home/me/kb", str(own_home / "kb"))
    said = json.loads(page.partition("```json\n")[2].partition("```")[0])["mcpServers"]["openbook"]
    assert said["command"] == "openbook"
    environment = {"OPENBOOK_HOME": str(own_home / "home"), "PYTHONPATH": str(ROOT), "PATH": ""}
    arguments = [str(ROOT / "tests" / "serving" / "fake_serve.py"), *said["args"]]
    program = StdioServerParameters(command=sys.executable, args=arguments, env=environment)
    found = call(Client(program), "ask", question="When does the ferry leave?")
    assert ("noon" in found["answer"], found["receipt"]["model"]["name"]) == (True, "echo")
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
def test_answer_over_http_is_that_of_the_api_and_in_the_log(
    serve: Serve, towers: KnowledgeBase, tmp_path: Path, mode: str
) -> None:
    server = serve(others={"towers": towers}, receipts=tmp_path / "log")
    found = call(remote(server, mode=mode), "ask", question=QUESTION)
    assert verify_log(tmp_path / "log")[0] == 1
    over_http = server.ask(QUESTION).json()["openbook"]
    assert (found["answer"], found["receipt"]) == (over_http["answer"], over_http["receipt"])
    assert 'openbook_answers_total{end="end",mode="open-book"} 2.0' in server.client.get("/metrics").text
    assert "55" in call(remote(server, path="/mcp/towers", mode=mode), "ask", question=TOWER)["answer"]
    assert "55" not in call(remote(server, mode=mode), "ask", question=TOWER)["answer"]
    assert server.client.post("/mcp/nothing", json={}).json()["error"]["code"] == "knowledge_base_not_found"


@both_versions
def test_failures_do_not_name_what_they_were_about(serve: Serve, caplog: pytest.LogCaptureFixture, mode: str) -> None:
    """As `openbook serve` sets logs up: the SDK's own say nothing below CRITICAL."""
    caplog.set_level(logging.CRITICAL, logger="mcp")
    caplog.set_level(logging.DEBUG)
    broken, question = serve(BrokenEngine(EngineError)), "When was the bridge, canary-question, opened by the mayor?"
    calls: list[tuple[str, dict[str, Any]]] = [
        ("ask", {"question": question}),
        ("search", {"query": "canary-words", "limit": 0}),
        ("read", {"document": "canary-document.txt"}),
    ]
    failed, limited, _ = several(remote(broken, mode=mode), calls)
    assert "log says what failed" in failed["error"]
    assert "limit" in limited["error"]
    assert "failed: EngineError at count_prompt_tokens" in caplog.text
    own = [r for r in caplog.records if r.name.startswith(("openbook", "uvicorn", "mcp")) and "client" not in r.name]
    assert "canary" not in "".join(f"{r.getMessage()} {r.exc_text or ''}" for r in own)
    told = [r.getMessage() for r in own if r.levelno == logging.INFO and r.name == "openbook.serving"]
    assert {each.split(" ")[1] for each in told} == {"/mcp"}


def test_nothing_stays_open(shared: Running) -> None:
    """Neither a stream of events without end, nor a session."""
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}

    def status(method: str, **headers: str) -> int:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": meta}}
        return shared.client.post("/mcp", json=body, headers={**MODERN, "mcp-method": method, **headers}).status_code

    assert status("subscriptions/listen") == 406
    assert status("tools/list") == 200
    assert status("tools/list", accept="text/event-stream") == 406
    for method in ("GET", "DELETE", "PUT"):
        assert shared.client.request(method, "/mcp", headers=MODERN).status_code == 405
    assert shared.service.reading.running == 0


@both_versions
def test_call_ends_when_its_client_leaves_and_when_time_is_up(
    serve: Serve, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(engine := WaitingEngine(), running=1, waiting=0)
    during(remote(server, mode=mode), partial(leave, engine))
    assert engine.was_cancelled.wait(LONG_S)
    eventually(lambda: server.service.reading.running == 0)
    assert "stopped" in call(remote(serve(engine, answer_s=0.2), mode=mode), "ask", question=QUESTION)["error"]
    assert "ClientGone" not in caplog.text
