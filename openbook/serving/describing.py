"""GET /openapi.json: a description of the server, made from its table of routes and the models of bodies and replies."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from starlette.requests import Request
from starlette.responses import JSONResponse

from openbook import __version__
from openbook.serving.access import Caller
from openbook.serving.bodies import Body
from openbook.serving.configuration import Configuration
from openbook.serving.refusals import REASONS
from openbook.serving.routing import FORM, JSON, PNG, Endpoint
from openbook.serving.service import Service

_SCHEMAS = "#/components/schemas/{model}"
_KEY = "key"
_BINARY = {"type": "string", "format": "binary"}
_ABOUT = (
    "Answers from a frozen model and a knowledge base, in the shape of OpenAI's API. A refusal says why, as "
    "`{error: {message, type, param, code}}`. A value above a limit that no schema states gets the code `above_limit`. "
    "Bytes that are not HTTP get 400 (`invalid_http`), and the connection is closed."
)


async def openapi(service: Service, request: Request, caller: Caller) -> JSONResponse:
    """This description."""
    return JSONResponse(request.app.state.description)


def description(endpoints: Iterable[Endpoint], configuration: Configuration) -> dict[str, Any]:
    """An OpenAPI 3.1 document of `endpoints`, as a server of this configuration answers them."""
    endpoints = tuple(endpoints)
    refs, schemas = _schemas(tuple(dict.fromkeys(_models(endpoints))))
    paths: dict[str, dict[str, Any]] = {}
    for each in endpoints:
        paths.setdefault(_shown(each.path), {})[each.method.lower()] = _operation(each, configuration, refs)
    key = {"type": "http", "scheme": "bearer", "description": "Make one with: openbook keys new"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "OpenBook", "version": __version__, "description": _ABOUT},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {_KEY: key}},
    }


def _operation(endpoint: Endpoint, configuration: Configuration, refs: Mapping[type, dict[str, Any]]) -> dict[str, Any]:
    text = inspect.getdoc(endpoint.handler) or ""
    needs = "Open to all." if endpoint.right is None else f"Needs the right `{endpoint.right}`."
    found: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{endpoint.method.lower()}{endpoint.path}").strip("_"),
        "summary": text.partition("\n")[0],
        "description": f"{text}\n\n{needs}",
        "security": [] if endpoint.right is None else [{_KEY: []}] if configuration.needs_key else [{}, {_KEY: []}],
        "parameters": [*_path_parameters(endpoint.path), *_query_parameters(endpoint)],
        "responses": _responses(endpoint, refs),
    }
    if endpoint.body is not None:
        schema = _form(endpoint.body) if endpoint.content == FORM else refs[endpoint.body]
        found["requestBody"] = {"required": True, "content": {endpoint.content: {"schema": schema}}}
    return found


def _responses(endpoint: Endpoint, refs: Mapping[type, dict[str, Any]]) -> dict[str, Any]:
    schema = refs[endpoint.reply] if endpoint.reply else _BINARY if endpoint.media == (PNG,) else {"type": "string"}
    content: dict[str, Any] = {media: {"schema": schema} for media in endpoint.media}
    told = "Done."
    if endpoint.events is not None:
        content["text/event-stream"] = {"x-event": refs[endpoint.events]}
        told += " In a stream, the data of each event is an `x-event`; an error is the last event; `[DONE]` ends a stream of an older shape."
    found: dict[str, Any] = {"200": {"description": told, "content": content}}
    refusals = [refs[each] for each in endpoint.refusals]
    refusal = refusals[0] if len(refusals) == 1 else {"anyOf": refusals}
    for status in sorted(endpoint.refuses):
        found[str(status)] = {"description": REASONS[status], "content": {JSON: {"schema": refusal}}}
    return found | {str(status): each for status, each in endpoint.also.items()}


# --- schemas ----------------------------------------------------------------------------------------------------------


def _models(endpoints: Iterable[Endpoint]) -> Iterator[tuple[type[BaseModel], JsonSchemaMode]]:
    """All that bodies and replies are made of; a form has its own schema."""
    for each in endpoints:
        for reply in (each.reply, each.events, *each.refusals):
            if reply is not None:
                yield reply, "serialization"
        if each.body is not None and each.content != FORM:
            yield each.body, "validation"


@cache
def _schemas(
    models: tuple[tuple[type[BaseModel], JsonSchemaMode], ...],
) -> tuple[dict[type, dict[str, Any]], dict[str, Any]]:
    """(a reference to each model, all schemas by name)."""
    references, made = models_json_schema(models, ref_template=_SCHEMAS)
    schemas: dict[str, Any] = made["$defs"]
    refs = {model: dict(reference) for (model, _), reference in references.items()}
    for model, reference in refs.items():
        if issubclass(model, Body):
            schemas[reference["$ref"].rpartition("/")[2]]["properties"] |= _of_openai(model)
    return refs, schemas


def _of_openai(body: type[Body]) -> dict[str, Any]:
    """Other parameters of OpenAI's body: null or a value that changes nothing; or anything, which is ignored."""
    refused = {
        name: {"enum": [*allowed, None], "description": f"No other value is accepted. {why}"}
        for name, (allowed, why) in body.refused.items()
    }
    return refused | {name: {"description": f"Ignored. {why}"} for name, why in body.ignored.items()}


def _form(body: type[BaseModel]) -> dict[str, Any]:
    """The fields of a form and its files."""
    schema = body.model_json_schema()
    file = {**_BINARY, "contentMediaType": "application/octet-stream"}
    files = {
        "type": "array",
        "items": file,
        "minItems": 1,
        "description": "Names must be plain and unique within one upload. A file with another name gets the verdict `failed`.",
    }
    fields = {name: _not_null(each) for name, each in schema["properties"].items()}
    return {**schema, "properties": {"file": files, **fields}, "required": ["file"]}


def _query_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    if endpoint.query is None:
        return []
    schema = endpoint.query.model_json_schema()
    return [{"name": name, "in": "query", "schema": _not_null(each)} for name, each in schema["properties"].items()]


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Addresses and forms have no null: an optional value is left out."""
    options = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    return options[0] if len(options) == 1 else {k: v for k, v in schema.items() if k != "default"}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"\{(\w+)", path)
    ]


def _shown(path: str) -> str:
    """Without the kinds of parameters, which are Starlette's."""
    return re.sub(r"\{(\w+):\w+\}", r"{\1}", path)
