"""The tools as a client of the protocol's own SDK meets them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from mcp import Client, StdioServerParameters

from openbook.answer import Options
from openbook.knowledge import KnowledgeBase, RunOptions, add
from openbook.knowledge.scope import EVERYTHING, Scope
from openbook.prompts import ABSTENTION
from openbook.receipts import is_altered, receipt_of
from openbook.serving.mcp import MAX_CHARS, make_server
from openbook.testing import HashEmbedder, echo_model
from tests.conftest import MODEL_HOME

_Result = TypeVar("_Result")
BRIDGE = "The bridge was opened on 14 March 2026 by mayor Lila Ortega. It has four lanes.\n"
SECRET = "The bridge was opened secretly on 1 April 2025 by Otto Quill, says the confidential file.\n"
SCRIPT = Path(__file__).parent / "fake_serve.py"
OPTIONS = Options(min_similarity=-1.0)


@pytest.fixture
def base(tmp_path: Path, embedder: HashEmbedder) -> KnowledgeBase:
    docs = tmp_path / "docs"
    (docs / "open").mkdir(parents=True)
    (docs / "closed").mkdir()
    (docs / "open" / "bridge.txt").write_text(BRIDGE)
    (docs / "closed" / "secret.txt").write_text(SECRET)
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)
    add(base, [docs / "open"], embedder)
    add(base, [docs / "closed"], embedder, RunOptions(labels=frozenset({"board"})))
    return base


def with_client(
    base: KnowledgeBase, embedder: HashEmbedder, use: Callable[[Client], Awaitable[_Result]], scope: Scope = EVERYTHING
) -> _Result:
    async def main() -> _Result:
        server = make_server(base, embedder, echo_model, scope=scope, options=OPTIONS)
        async with Client(server) as client:
            return await use(client)

    return asyncio.run(main())


def call(
    base: KnowledgeBase, embedder: HashEmbedder, tool: str, scope: Scope = EVERYTHING, **arguments: object
) -> dict[str, Any]:
    async def use(client: Client) -> dict[str, Any]:
        result = await client.call_tool(tool, dict(arguments))
        text = "".join(part.text for part in result.content if part.type == "text")
        return {"error": text} if result.is_error else dict(result.structured_content or {})

    return with_client(base, embedder, use, scope)


def test_the_tools_read_and_change_nothing(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    async def use(client: Client) -> list[Any]:
        return list((await client.list_tools()).tools)

    tools = with_client(base, embedder, use)
    assert {tool.name for tool in tools} == {"search", "ask", "read_document"}
    for tool in tools:
        assert tool.annotations.read_only_hint
        assert not tool.annotations.destructive_hint
        assert tool.description
        assert tool.output_schema


def test_an_answer_comes_with_its_citations_and_receipt(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    found = call(base, embedder, "ask", question="Who opened the bridge?")
    assert "Lila Ortega" in found["answer"]
    assert found["supported"]
    cited = found["citations"][0]
    part = call(
        base, embedder, "read_document", document=cited["document"], start=cited["start"], length=len(cited["quote"])
    )
    assert part["text"] == cited["quote"]
    assert part["total"] == len(BRIDGE.rstrip("\n")) or part["total"] == len(BRIDGE)
    receipt = receipt_of(found["receipt"])
    assert not is_altered(receipt)
    assert receipt.knowledge_base == base.id
    silent = call(base, embedder, "ask", question="Which colour has the zeppelin?")
    assert (silent["answer"], silent["abstained"], silent["citations"]) == (ABSTENTION, True, [])


def test_passages_are_found_best_first(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    found = call(base, embedder, "search", query="Who opened the bridge?", limit=1)
    assert found["version"] == base.version
    assert [p["document"].rpartition("/")[2] for p in found["passages"]] == ["bridge.txt"]
    assert BRIDGE[found["passages"][0]["start"] : found["passages"][0]["end"]] == found["passages"][0]["text"]


def test_what_may_not_be_seen_is_as_what_does_not_exist(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    board = Scope(labels=frozenset({"board"}))
    secret = next(path for path in base.documents() if path.endswith("secret.txt"))
    assert "Otto Quill" in call(base, embedder, "read_document", board, document=secret)["text"]
    assert len(call(base, embedder, "search", board, query="Who opened the bridge?")["passages"]) == 2
    assert len(call(base, embedder, "search", query="Who opened the bridge?")["passages"]) == 1
    refused = call(base, embedder, "read_document", document=secret)["error"]
    absent = call(base, embedder, "read_document", document=secret.replace("secret", "absent"))["error"]
    assert refused.replace("secret.txt", "absent.txt") == absent
    for question in ("Who opened the bridge secretly?", "What says the confidential file?", "Who is Otto Quill?"):
        assert "Otto" not in json.dumps(call(base, embedder, "ask", question=question)).replace(question, "")


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("ask", {"question": "  "}, "The question is empty"),
        ("ask", {"question": "x" * 9000}, "at most 8,000"),
        ("ask", {}, "question"),
        ("search", {"query": "bridge", "limit": 0}, "limit"),
        ("search", {"query": "bridge", "limit": 51}, "limit"),
        ("search", {"query": ["bridge"]}, "query"),
        ("read_document", {"document": "../../etc/passwd"}, "There is no document"),
        ("read_document", {"document": "x", "length": MAX_CHARS + 1}, "length"),
        ("read_document", {"document": "x", "start": -1}, "start"),
    ],
)
def test_mistakes_come_back_as_a_sentence(
    tool: str, arguments: dict[str, Any], message: str, base: KnowledgeBase, embedder: HashEmbedder
) -> None:
    assert message in call(base, embedder, tool, **arguments)["error"]


def test_reading_past_the_end_gives_nothing(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    document = base.documents(EVERYTHING)[0]
    part = call(base, embedder, "read_document", document=document, start=10_000)
    assert part["text"] == ""
    assert part["start"] == part["total"]


def test_calls_at_the_same_time_do_not_meet(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    questions = ["Who opened the bridge?", "How many lanes has the bridge?", "Which colour has the zeppelin?"] * 4

    async def use(client: Client) -> list[str]:
        results = await asyncio.gather(*(client.call_tool("ask", {"question": q}) for q in questions))
        return [json.dumps(result.structured_content, sort_keys=True) for result in results]

    together = with_client(base, embedder, use)
    assert together[:3] * 4 == together
    alone = [json.dumps(call(base, embedder, "ask", question=q), sort_keys=True) for q in questions[:3]]
    assert together[:3] == alone


@pytest.mark.model
def test_a_client_starts_it_and_asks(
    tmp_path: Path, own_home: Path, embedder_reference: object, reader_reference: object
) -> None:
    """`openbook mcp` as an editor runs it, with the real models."""
    own_home.mkdir()
    (own_home / "models").symlink_to(MODEL_HOME / "models")
    (tmp_path / "ferry.md").write_text("# Ferry\n\nThe ferry leaves at noon from pier 4.\n")
    environment = {"OPENBOOK_HOME": str(own_home), "OPENBOOK_MODEL": "reader", "PATH": ""}
    command = [sys.executable, "-m", "openbook"]
    subprocess.run([*command, "add", str(tmp_path / "ferry.md")], env=environment, check=True, capture_output=True)
    parameters = StdioServerParameters(command=sys.executable, args=["-m", "openbook", "mcp"], env=environment)

    async def main() -> dict[str, Any]:
        async with Client(parameters) as client:
            result = await client.call_tool("ask", {"question": "When does the ferry leave?"})
            return dict(result.structured_content or {})

    found = asyncio.run(main())
    assert "noon" in found["answer"]
    assert found["receipt"]["model"]["name"] == "reader"
