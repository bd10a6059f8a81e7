"""What clients send, recorded or written from their sources: answered with a warning for each part that is ignored, or refused by name."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from openbook.core.config import Settings
from openbook.core.errors import ConfigError
from openbook.knowledge import KnowledgeBase
from openbook.serving.configuration import Configuration
from tests.conftest import ROOT
from tests.serving.conftest import CHAT, OPENED, QUESTION, TOWER, Running, Serve, code, events_of, refusal

FILES = sorted((ROOT / "tests" / "data" / "clients").glob("*.json"))


def sent(server: Running, request: dict[str, Any]) -> httpx.Response:
    body = request["body"]
    return server.client.get(request["path"]) if body is None else server.client.post(request["path"], json=body)


def said(response: httpx.Response) -> list[str]:
    """The warnings in a response, whole or streamed."""
    kind = response.headers["content-type"].partition(";")[0]
    if kind == "application/json":
        values = [response.json()]
    elif kind == "text/event-stream":
        values = [json.loads(each) for each in events_of(response.text) if each != "[DONE]"]
    else:
        assert kind == "application/x-ndjson"
        values = [json.loads(line) for line in response.text.splitlines()]
    assert not [each for each in values if each.get("error")]
    found = [each.get("response", each) if "type" in each else each for each in values]
    return [text for each in found if "openbook" in each for text in each["openbook"].get("warnings", ())]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_client_is_answered_or_told_which_part_is_refused(server: Running, path: Any) -> None:
    for request in json.loads(path.read_text(encoding="utf-8"))["requests"]:
        response = sent(server, request)
        if refused := request.get("refused"):
            assert response.status_code == request.get("status", 400), (request, response.text)
            param = refusal(response)[2]
            assert param == refused or (param is None and refused in response.text), (request, response.text)
        else:
            assert response.status_code == 200, (request, response.text)
            warnings = said(response)
            for each in request["warns"]:
                assert any(each in warning for warning in warnings), (request, warnings)
            assert request["warns"] or not warnings, (request, warnings)


# --- parameters -------------------------------------------------------------------------------------------------------


def test_equal_answers_are_computed_once_and_others_have_their_own_receipts(with_receipts: Running) -> None:
    def choices(**more: Any) -> list[dict[str, Any]]:
        value = with_receipts.ask(QUESTION, n=3, **more).json()
        found: list[dict[str, Any]] = value["choices"]
        assert [(each["index"], each["message"]["content"]) for each in found] == [(i, OPENED) for i in range(3)]
        whole = value["usage"]["completion_tokens"], [value["openbook"]["receipt"]["decoding"]["seed"]]
        return [{"openbook": each.get("openbook"), "usage": whole} for each in found]

    log = list(choices())
    assert [each["openbook"] for each in log] == [None] * 3
    seeded = choices(temperature=0.5, seed=2**63 - 2)
    assert seeded[0]["openbook"] is None
    assert [each["openbook"]["receipt"]["decoding"]["seed"] for each in seeded[1:]] == [2**63 - 1, -(2**63)]
    assert (log[0]["usage"][0] * 3, seeded[0]["usage"][1]) == (seeded[0]["usage"][0], [2**63 - 2])
    digests = {each["openbook"]["receipt"]["digest"] for each in seeded[1:]}
    assert all(with_receipts.client.get(f"/v1/receipts/{each}").status_code == 200 for each in digests)
    assert len(digests) == 2


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
@pytest.mark.parametrize("temperature", [0, 1])
def test_a_stream_holds_every_choice(server: Running, path: str, temperature: int) -> None:
    body = {"prompt": QUESTION} if path != CHAT else {"messages": [{"role": "user", "content": QUESTION}]}
    more = {"stream_options": {"include_usage": True}, "stream": True, "n": 2, "temperature": temperature}
    response = server.client.post(path, json={"model": "echo", **body, **more})
    chunks = [json.loads(each) for each in events_of(response.text)[:-1]]
    texts, ends = ["", ""], list[int]()
    for each in (choice for chunk in chunks for choice in chunk["choices"]):
        texts[each["index"]] += each.get("text") or each.get("delta", {}).get("content") or ""
        ends += [each["index"]] if each["finish_reason"] == "stop" else []
    assert (texts, ends) == ([OPENED, OPENED], [0, 1])
    assert chunks[-1]["usage"]["completion_tokens"] == len(OPENED.split()) * (1 + temperature)
    assert len([each for each in chunks if "openbook" in each]) == 1 + temperature


def test_an_answer_may_be_as_long_as_half_the_context(serve: Serve) -> None:
    server, bounded = serve(), serve(answer_tokens=500)
    for most, each in ((2048, server), (500, bounded)):
        for asked in (most, most + 1):
            answer = each.ask(QUESTION, max_tokens=asked).json()["openbook"]
            assert answer["receipt"]["decoding"]["max_tokens"] == most
            lowered = f"'max_tokens' is lowered from {asked:,} to {most:,}, the most that this server allows."
            assert answer["warnings"] == ([lowered] if asked > most else [])


# --- aliases ----------------------------------------------------------------------------------------------------------

ALIASES = {
    "gpt-4o-mini": "default",
    "gpt-4o": "default:towers",
    "o3": "echo:closed-book",
    "text-embedding-3-small": "hash",
}


def test_an_alias_stands_for_a_model_a_knowledge_base_or_the_embedder(
    serve: Serve, configuration: Configuration, towers: KnowledgeBase
) -> None:
    server = serve(others={"towers": towers}, settings=Settings(configuration.settings.home, aliases=ALIASES))
    value = server.ask(QUESTION, model="gpt-4o-mini").json()
    assert (value["model"], value["choices"][0]["message"]["content"]) == ("gpt-4o-mini", OPENED)
    assert "55" in server.ask(TOWER, model="gpt-4o").json()["openbook"]["answer"]
    assert server.ask(QUESTION, model="o3").json()["openbook"]["receipt"]["strategy"] == "closed-book"
    made = server.client.post("/v1/embeddings", json={"model": "text-embedding-3-small", "input": "x"})
    assert made.status_code == 200
    listed = {each["id"]: each["openbook"] for each in server.client.get("/v1/models").json()["data"]}
    assert [listed[each]["mode"] for each in ALIASES] == ["open-book", "open-book", "closed-book", "embedder"]
    assert [each["name"] for each in listed["gpt-4o"]["knowledge_bases"]] == ["towers"]
    tags = [each["name"] for each in server.client.get("/api/tags").json()["models"]]
    assert tags == list(listed)
    for name in ALIASES:
        assert server.client.get(f"/v1/models/{name}").json()["openbook"] == listed[name]
    for meaning in ("llama3", "default:nothing", "gpt-4o-mini"):
        with pytest.raises(ConfigError, match="which is not served"):
            serve(settings=Settings(configuration.settings.home, aliases={"x": meaning}))


# --- pages of other origins -------------------------------------------------------------------------------------------

PAGE = "https://chat.example.org"


def test_a_page_of_an_allowed_origin_may_ask_and_no_other(serve: Serve, configuration: Configuration) -> None:
    settings = Settings(configuration.settings.home, cors_origins=(PAGE,))
    for require_key in (False, True):
        server = serve(settings=settings, require_key=require_key)
        wanted = "authorization, x-stainless-os"
        asks = {"access-control-request-method": "POST", "access-control-request-headers": wanted}
        allowed = server.client.options(CHAT, headers={"origin": PAGE, **asks})
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == PAGE
        assert allowed.headers["access-control-allow-headers"] == wanted
        assert "access-control-allow-credentials" not in allowed.headers
        page = {"origin": PAGE, "sec-fetch-site": "cross-site"}
        answered = server.ask(QUESTION, {**page, **server.key()})
        assert (answered.status_code, answered.headers["access-control-allow-origin"]) == (200, PAGE)
        refused = server.ask(QUESTION, {**page, "authorization": "Bearer ob-wrong"})
        assert code(refused)[0] == 401
        assert refused.headers["access-control-allow-origin"] == PAGE  # the page can read why
        others = f"https://evil.example.org null {PAGE}.evil.example {PAGE}:8443 http://chat.example.org"
        for other in others.split():
            for response in (
                server.client.options(CHAT, headers={"origin": other, **asks}),
                server.ask(QUESTION, {"origin": other, **server.key()}),
            ):
                assert refusal(response)[:2] == (403, "foreign_origin")
                assert "access-control-allow-origin" not in response.headers
        assert code(server.client.get("/v1/models", headers={"sec-fetch-site": "cross-site"})) == (403, "foreign_site")
