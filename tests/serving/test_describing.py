"""/openapi.json: whole, valid, and true of what the server does. Beside it, all tests here hold responses against it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from openbook.serving.app import ENDPOINTS, WITH_RECEIPTS
from openbook.serving.bodies import ChatBody
from openbook.serving.replies import ChatCompletion
from tests.serving.conftest import Running
from tests.serving.described import Described


def described(server: Running) -> dict[str, Any]:
    value: dict[str, Any] = server.client.get("/openapi.json").json()
    return value


def test_every_route_is_in_it_and_nothing_else(with_receipts: Running, server: Running) -> None:
    for running, endpoints in ((with_receipts, ENDPOINTS + WITH_RECEIPTS), (server, ENDPOINTS)):
        description = described(running)
        there = {(method.upper(), path) for path, item in description["paths"].items() for method in item}
        assert there == {(each.method, each.path.replace(":path}", "}")) for each in endpoints}
        for item in description["paths"].values():
            for operation in item.values():
                assert operation["summary"].strip()
                assert operation["responses"]["200"]["content"]


def test_every_reference_leads_somewhere_and_every_schema_is_one(with_receipts: Running) -> None:
    description = described(with_receipts)
    schemas = description["components"]["schemas"]
    text = json.dumps(description)
    used = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert used == set(schemas)
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    operations = [each["operationId"] for item in description["paths"].values() for each in item.values()]
    assert len(operations) == len(set(operations))


def test_it_says_who_may(server: Running, keyed: Running) -> None:
    known: list[tuple[Running, list[dict[str, list[str]]]]] = [(server, [{}, {"key": []}]), (keyed, [{"key": []}])]
    for running, security in known:
        headers = running.key()
        description = running.client.get("/openapi.json", headers=headers).json()
        assert description["paths"]["/v1/search"]["post"]["security"] == security
        assert description["paths"]["/health"]["get"]["security"] == []
        assert "`admin`" in description["paths"]["/metrics"]["get"]["description"]
    assert keyed.client.get("/openapi.json").status_code == 401


def test_bodies_are_those_that_are_validated(server: Running) -> None:
    schema = described(server)["components"]["schemas"]["ChatBody"]
    assert set(schema["properties"]) == set(ChatBody.model_fields) | {*ChatBody.refused, *ChatBody.ignored}
    assert schema["properties"]["n"]["enum"] == [1, None]
    assert schema["properties"]["tools"] == {
        "description": "Ignored. The model answers from passages and calls no tools."
    }
    assert schema["additionalProperties"] is True
    assert described(server)["components"]["schemas"]["AskOptions"]["additionalProperties"] is False
    assert schema["required"] == ["model", "messages"]
    parameters = described(server)["paths"]["/v1/documents"]["get"]["parameters"]
    assert {each["name"] for each in parameters} == {"knowledge_base", "as_of", "where", "after", "limit"}
    form = described(server)["paths"]["/v1/documents"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert set(form["schema"]["properties"]) == {"file", "labels", "knowledge_base"}


def test_an_answer_that_is_not_as_described_is_seen(server: Running) -> None:
    """That the check of all other tests can fail."""
    known = Described(described(server))
    good = server.ask("When was the bridge opened by the mayor?").json()
    assert ChatCompletion.model_validate(good)
    request = httpx.Request("POST", "http://localhost/v1/chat/completions")
    for value in (good | {"more": 1}, {**good, "id": 7}, good | {"openbook": good["openbook"] | {"more": 1}}):
        with pytest.raises(AssertionError):
            known.check(httpx.Response(200, json=value, request=request))
    with pytest.raises(AssertionError):
        known.check(httpx.Response(418, json=good, request=request))
    known.check(httpx.Response(200, json=good, request=request))
