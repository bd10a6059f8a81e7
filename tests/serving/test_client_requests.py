"""What clients send, recorded or written from their sources: answered with a warning for each part that is ignored, or refused by name."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from openbook.core.config import Settings
from openbook.serving.configuration import Configuration
from tests.conftest import ROOT
from tests.serving.conftest import CHAT, OPENED, QUESTION, Running, Serve, code, events_of, refusal

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
def test_client_is_answered_or_told_which_part_is_refused(shared: Running, path: Any) -> None:
    for request in json.loads(path.read_text(encoding="utf-8"))["requests"]:
        response = sent(shared, request)
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


def test_equal_answers_are_computed_once(shared: Running) -> None:
    equal, sampled = (shared.ask(QUESTION, n=3, temperature=each, seed=2**63 - 2).json() for each in (0, 0.5))
    for value in (equal, sampled):
        texts = [(each["index"], each["message"]["content"]) for each in value["choices"]]
        assert texts == [(i, OPENED) for i in range(3)]
    assert equal["usage"]["completion_tokens"] * 3 == sampled["usage"]["completion_tokens"]
    assert [each.get("openbook") for each in equal["choices"]] == [None] * 3
    receipts = [each.get("openbook", sampled["openbook"])["receipt"] for each in sampled["choices"]]
    assert [each["decoding"]["seed"] for each in receipts] == [2**63 - 2, 2**63 - 1, -(2**63)]
    assert all(shared.client.get(f"/v1/receipts/{each['digest']}").status_code == 200 for each in receipts)


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
@pytest.mark.parametrize("temperature", [0, 1])
def test_stream_holds_every_choice(shared: Running, path: str, temperature: int) -> None:
    body = {"prompt": QUESTION} if path != CHAT else {"messages": [{"role": "user", "content": QUESTION}]}
    more = {"stream_options": {"include_usage": True}, "stream": True, "n": 2, "temperature": temperature}
    response = shared.client.post(path, json={"model": "echo", **body, **more})
    chunks = [json.loads(each) for each in events_of(response.text)[:-1]]
    texts, ends = ["", ""], list[int]()
    for each in (choice for chunk in chunks for choice in chunk["choices"]):
        texts[each["index"]] += each.get("text") or each.get("delta", {}).get("content") or ""
        ends += [each["index"]] if each["finish_reason"] == "stop" else []
    assert (texts, ends) == ([OPENED, OPENED], [0, 1])
    assert chunks[-1]["usage"]["completion_tokens"] == len(OPENED.split()) * (1 + temperature)
    assert len([each for each in chunks if "openbook" in each]) == 1 + temperature


def test_answer_is_at_most_half_the_context(shared: Running, serve: Serve) -> None:
    for most, server in ((2048, shared), (500, serve(answer_tokens=500))):
        for asked in (most, most + 1):
            answer = server.ask(QUESTION, max_tokens=asked).json()["openbook"]
            assert answer["receipt"]["decoding"]["max_tokens"] == most
            lowered = f"'max_tokens' is lowered from {asked:,} to {most:,}, the most that this server allows."
            assert answer["warnings"] == ([lowered] if asked > most else [])


# --- pages of other origins -------------------------------------------------------------------------------------------

PAGE = "https://chat.example.org"


@pytest.mark.parametrize("require_key", [False, True])
def test_only_pages_of_allowed_origins_may_ask(serve: Serve, configuration: Configuration, require_key: bool) -> None:
    server = serve(settings=Settings(configuration.settings.home, cors_origins=(PAGE,)), require_key=require_key)
    wanted = "authorization, x-stainless-os"
    asks = {"access-control-request-method": "POST", "access-control-request-headers": wanted}
    allowed = server.client.options(CHAT, headers={"origin": PAGE, **asks})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, PAGE)
    assert allowed.headers["access-control-allow-headers"] == wanted
    assert "access-control-allow-credentials" not in allowed.headers
    page = {"origin": PAGE, "sec-fetch-site": "cross-site"}
    for key, status in ((server.key(), 200), ({"authorization": "Bearer ob-wrong"}, 401)):  # the page can read why
        answered = server.ask(QUESTION, {**page, **key})
        assert (answered.status_code, answered.headers["access-control-allow-origin"]) == (status, PAGE)
    others = f"https://evil.example.org null {PAGE}.evil.example {PAGE}:8443 http://chat.example.org"
    for other in others.split():
        for response in (
            server.client.options(CHAT, headers={"origin": other, **asks}),
            server.ask(QUESTION, {"origin": other, **server.key()}),
        ):
            assert refusal(response)[:2] == (403, "foreign_origin")
            assert "access-control-allow-origin" not in response.headers
    assert code(server.client.get("/v1/models", headers={"sec-fetch-site": "cross-site"})) == (403, "foreign_site")
