"""Holds every response that a test gets against what /openapi.json says of it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import httpx
from jsonschema import Draft202012Validator

OPEN = {"Description", "JsonRpc", "JsonRpcError"}  # documents of other standards
OF_THE_ROUTER = {404: "unknown_url", 405: "method_not_allowed", 403: "foreign_origin", 421: "unknown_host"}


class Described:
    """A description whose objects are closed: a field that it does not name is a mistake."""

    def __init__(self, description: dict[str, Any]) -> None:
        self.paths: dict[str, Any] = description["paths"]
        self._components = copy.deepcopy(description["components"])
        for name, schema in self._components["schemas"].items():
            if name not in OPEN:
                for each in _objects(schema):
                    each.setdefault("additionalProperties", False)
        self._validator = lru_cache(maxsize=None)(self._made)

    def check(self, response: httpx.Response) -> None:
        """A hook of httpx. Raises AssertionError."""
        response.read()
        method, path = response.request.method, response.request.url.path
        where = f"{method} {path} {response.status_code}"
        operation = self._operation(method.lower(), path)
        if operation is None:
            assert response.json()["error"]["code"] == OF_THE_ROUTER[response.status_code], where
            return
        assert str(response.status_code) in operation["responses"], where
        content = operation["responses"][str(response.status_code)].get("content", {})
        kind = response.headers.get("content-type", "").partition(";")[0]
        assert kind in content if response.content else not kind, (where, kind)
        if kind == "application/json":
            self._hold(content[kind]["schema"], response.json(), where)
        elif kind == "text/event-stream":
            for data in events(response.text):
                shape = {"anyOf": [content[kind]["x-event"], {"$ref": "#/components/schemas/Error"}]}
                self._hold(shape, json.loads(data), where)

    def _operation(self, method: str, path: str) -> dict[str, Any] | None:
        for known, item in self.paths.items():
            some = "(.+)" if known == "/v1/models/{name}" else "([^/]+)"
            if re.fullmatch(re.sub(r"\\\{\w+\\\}", some, re.escape(known)), path) and method in item:
                found: dict[str, Any] = item[method]
                return found
        return None

    def _hold(self, schema: dict[str, Any], value: Any, where: str) -> None:
        problems = [
            f"{each.json_path}: {each.message}" for each in self._validator(json.dumps(schema)).iter_errors(value)
        ]
        assert not problems, (where, problems)

    def _made(self, schema: str) -> Draft202012Validator:
        return Draft202012Validator({**json.loads(schema), "components": self._components})


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema in this one that names the properties of an object."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            yield schema
        for each in schema.values():
            yield from _objects(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from _objects(each)


def events(text: str) -> list[str]:
    """The data of the events in a stream but that of its end."""
    found = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    return [each for each in found if each != "[DONE]"]
