"""Numbers that are none and keys that stand twice, in every place of a body on every route: refused with 400."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from openbook.serving.app import ENDPOINTS, WITH_RECEIPTS
from openbook.serving.bodies import Body
from openbook.serving.routing import JSON, Endpoint
from tests.serving.conftest import LONG_S, Running

PLACE = "put-it-here"
CHOOSING: dict[str, Any] = {"knowledge_base": "kb", "as_of": 1, "where": ""}
ANSWERING: dict[str, Any] = {
    "model": "echo",
    "temperature": 0.5,
    "top_p": 0.5,
    "seed": 1,
    "max_tokens": 8,
    "stop": ["x"],
    "stream": False,
    "stream_options": {"include_usage": True},
    "user": "somebody",
    "openbook": {**CHOOSING, "passages": 1, "strategy": "together", "quote": False},
}
PART = {"type": "output_text", "text": "x", "annotations": [{"at": [0.5]}], "logprobs": [{"logprob": -0.5}]}
CALL = {"name": "search", "arguments": {"query": "bridge", "limit": 1}, "_meta": {"any": [0.5]}}
RPC = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": CALL}

# A body for each route, with everything that it may say.
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        **ANSWERING,
        "messages": [
            {"role": "system", "content": "x", "name": "x", "annotations": None},
            {"role": "user", "content": [{"type": "text", "text": "bridge"}]},
        ],
    },
    "/v1/responses": {
        **ANSWERING,
        "instructions": "x",
        "input": [
            {"type": "message", "role": "assistant", "content": [PART], "id": "x", "status": "x"},
            {"role": "user", "content": "bridge"},
        ],
    },
    "/v1/embeddings": {"model": "hash", "input": ["x"], "encoding_format": "float", "dimensions": 64, "user": "x"},
    "/v1/search": {**CHOOSING, "query": "bridge", "limit": 1},
    "/v1/documents/remove": {"documents": ["x"], "knowledge_base": "kb"},
    "/v1/documents/purge": {"documents": ["x"], "knowledge_base": "kb", "copies": False},
    "/v1/replay": {"id": "0" * 64},
    "/mcp": RPC,
    "/mcp/{knowledge_base}": RPC,
}


def of_json() -> list[Endpoint]:
    return [each for each in ENDPOINTS + WITH_RECEIPTS if each.content == JSON]


def whole(endpoint: Endpoint) -> dict[str, Any]:
    """With what OpenAI's body may have and this one only takes in one form."""
    kind = endpoint.body
    known = {*kind.refused, *kind.ignored} if kind is not None and issubclass(kind, Body) else set()
    return {**{name: [{"any": 1}] for name in sorted(known)}, **BODIES[endpoint.path]}


def places(value: Any) -> Iterator[Any]:
    """`value` with PLACE instead of each part of it, and beside the parts of each object and list."""
    if isinstance(value, dict):
        for key in value:
            yield from ({**value, key: each} for each in (PLACE, *places(value[key])))
        yield {**value, "more": PLACE}
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from ([*value[:i], each, *value[i + 1 :]] for each in (PLACE, *places(inner)))
        yield [*value, PLACE]


def doubled(value: Any) -> Iterator[tuple[str, str]]:
    """(JSON of `value` in which one object has a key twice, that key), for each key of each object in it."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in parts:
        whole = json.dumps(value)
        if isinstance(key, str):
            yield f"{whole[:-1]}, {json.dumps(key)}: {json.dumps(each)}}}", key
            escaped = "".join(f"\\u{ord(char):04x}" for char in key)
            yield f'{whole[:-1]}, "{escaped}": null}}', key
        for inner, twice in doubled(each):
            other = {**value, key: PLACE} if isinstance(value, dict) else [*value[:key], PLACE, *value[key + 1 :]]
            yield json.dumps(other).replace(json.dumps(PLACE), inner), twice


def test_every_route_that_takes_json_is_tried() -> None:
    assert {each.path for each in of_json()} == set(BODIES)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN"])
def test_a_number_that_is_none_is_refused_wherever_it_stands(with_receipts: Running, number: str) -> None:
    tried = 0
    for endpoint in of_json():
        path = endpoint.path.replace("{knowledge_base}", "kb")
        for body in places(whole(endpoint)):
            data = json.dumps(body).replace(json.dumps(PLACE), number)
            assert number in data
            headers = {"content-type": JSON, "accept": JSON}
            response = with_receipts.client.post(path, content=data, headers=headers)
            assert response.status_code == 400, (path, data, response.text)
            assert response.json()["error"]["code"] == "invalid_json", (path, data)
            tried += 1
    assert tried > 150


@pytest.mark.parametrize("beside", ["", '"more": 1' + "0" * 5000 + ", "])
def test_a_key_that_stands_twice_is_refused_by_name_wherever_it_stands(with_receipts: Running, beside: str) -> None:
    tried = 0
    for endpoint in of_json():
        path = endpoint.path.replace("{knowledge_base}", "kb")
        for data, key in doubled(BODIES[endpoint.path]):
            headers = {"content-type": JSON, "accept": JSON}
            response = with_receipts.client.post(path, content="{" + beside + data[1:], headers=headers)
            assert response.status_code == 400, (path, data, response.text)
            error = response.json()["error"]
            assert error["code"] == "invalid_json", (path, data)
            assert beside or f"duplicate key {key!r}" in error["message"], (path, data)
            tried += 1
    assert tried > 150


@pytest.mark.parametrize("number", [repr(1.7976931348623157e308), "1e-999", "1" + "0" * 400])
def test_the_largest_and_the_smallest_numbers_make_nothing_fail(with_receipts: Running, number: str) -> None:
    assert not isinstance(json.loads(number), float) or math.isfinite(json.loads(number))
    headers = {"content-type": JSON, "accept": JSON}
    # Without the check of the description: an id that is no whole number is to the SDK as none, and its 202 has a type.
    with httpx.Client(base_url=with_receipts.url, timeout=LONG_S, trust_env=False, headers=headers) as client:
        for endpoint in of_json():
            path = endpoint.path.replace("{knowledge_base}", "kb")
            for body in places(BODIES[endpoint.path]):
                data = json.dumps(body).replace(json.dumps(PLACE), number)
                response = client.post(path, content=data)
                assert response.status_code < 500, (path, data, response.text)


@pytest.mark.parametrize("number", ["1e999", "NaN", "-inf"])
def test_in_an_address_and_in_a_filter_too(with_receipts: Running, number: str) -> None:
    for endpoint in ENDPOINTS:
        if endpoint.query is None:
            continue
        for name in endpoint.query.model_fields:
            params = {"path": "x", "before": "0"} if name not in ("path", "before") else {}
            params = {key: value for key, value in params.items() if key in endpoint.query.model_fields}
            for value in (number, f"date > {number}"):
                response = with_receipts.client.get(endpoint.path, params={**params, name: value})
                assert response.status_code < 500, (endpoint.path, name, response.text)
    for where in (f"x > {number}", f"x = {number}"):
        response = with_receipts.client.post("/v1/search", json={"query": "bridge", "where": where})
        assert response.status_code == 400, response.text
