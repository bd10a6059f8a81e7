"""`create_app`: the server's routes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from openbook import __version__
from openbook.answers.reading import CLOSED_BOOK
from openbook.core.config import Settings
from openbook.core.errors import ConfigError
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from openbook.serving import (
    completions,
    documents,
    mcp,
    models,
    ollama,
    page,
    pages,
    receipts,
    responses,
    search,
    standing_questions,
    uploads,
    versions,
)
from openbook.serving.auth import Authenticator
from openbook.serving.concurrency import Places
from openbook.serving.configuration import Configuration
from openbook.serving.errors import ApiError, router_error
from openbook.serving.keys import KeyFile
from openbook.serving.middleware import Guard
from openbook.serving.model_reload import CurrentModel, ModelSource
from openbook.serving.service import Metrics, ServedEmbedder, Service, resolve_model

_ABOUT = (
    "Answers from a frozen model and a knowledge base, in the shape of OpenAI's API. Replies without a schema are as OpenAI or "
    "Ollama documents them. An error says why, as `{error: {message, type, param, code}}`. A value above a limit that no schema "
    "states gets the code `above_limit`. "
    "`x-right` is the right that a key needs. Bytes that are not HTTP get 400 in plain text, and the connection is closed."
)


_MODULES = (
    completions,
    responses,
    ollama,
    search,
    models,
    documents,
    pages,
    versions,
    uploads,
    standing_questions,
    mcp,
    page,
)


def create_app(
    configuration: Configuration,
    model: FrozenModel,
    bases: Mapping[str, KnowledgeBase],
    embedder: ServedEmbedder,
    source: ModelSource | None = None,
    more_models: Sequence[tuple[FrozenModel, ModelSource | None]] = (),
) -> FastAPI:
    """The ASGI application. The first of `bases` is the default. No `source`: the model is fixed. `more_models`: others that a request may name.

    Raises ConfigError, KnowledgeBaseInvalid for another embedder.
    """
    for base in bases.values():
        base.check_embedder(embedder.identity)
    models = [(model, source), *more_models]
    names = [each.identity.name for each, _ in models]
    if len(set(names)) < len(names):
        raise ConfigError(f"Each model is served once. There are: {', '.join(names)}.")
    _check_settings(configuration.settings, names, bases, embedder.identity.name)
    bounds = configuration.bounds
    service = Service(
        configuration=configuration,
        models=[CurrentModel(*each) for each in models],
        bases=bases,
        embedder=embedder,
        authenticator=Authenticator(configuration, KeyFile(configuration.settings.home)),
        metrics=Metrics(),
        reading=Places(bounds.running, bounds.waiting, share=bounds.running),
        uploading=Places(bounds.uploads, bounds.waiting, share=max(1, bounds.uploads - 1)),
        deleting=Places(1, bounds.waiting, share=1),
        pool=ThreadPoolExecutor(bounds.running + bounds.uploads + 1, "openbook-serve"),
    )

    for name in ("reading", "uploading", "deleting"):
        service.metrics.watch(name, getattr(service, name))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with app.state.mcp.run():
            yield
        service.ends.set()
        service.pool.shutdown(wait=True, cancel_futures=True)
        for each in service.models:
            each.end()

    app = FastAPI(
        title="OpenBook",
        version=__version__,
        description=_ABOUT,
        openapi_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # FastAPI's own telemetry would store addresses
        redirect_slashes=False,
        exception_handlers={HTTPException: router_error},
        lifespan=lifespan,
        generate_unique_id_function=_operation_id,
    )
    if origins := configuration.settings.cors_origins:  # behind the guard, which refuses other origins
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            allow_private_network=True,
        )
    app.add_middleware(Guard, service=service)
    routers = [module.router for module in _MODULES]
    routers += [receipts.router] if configuration.receipts is not None else []
    for router in routers:
        app.include_router(router)
    app.state.service = service
    app.state.mcp = mcp.make_manager(service)

    app.openapi = partial(_openapi, app, needs_key=configuration.needs_key)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI, *, needs_key: bool) -> dict[str, Any]:
    """Built on first use: that takes a third of a second."""
    if app.openapi_schema is None:
        found = FastAPI.openapi(app)
        key = {"type": "http", "scheme": "bearer", "description": "Make one with: openbook keys new NAME"}
        found["components"]["securitySchemes"] = {"key": key}
        for operation in (each for operations in found["paths"].values() for each in operations.values()):
            if "x-right" in operation:
                operation["security"] = [{"key": []}] if needs_key else [{}, {"key": []}]
    return app.openapi_schema or {}


def _check_settings(
    settings: Settings, served: Sequence[str], bases: Mapping[str, KnowledgeBase], embedder: str
) -> None:
    """Raise ConfigError for a name of what is not served."""
    if settings.fallback_model not in ("", *served):
        raise ConfigError(
            f"The fallback_model {settings.fallback_model!r} is not served. There are: {', '.join(served)}."
        )
    for alias, name in settings.aliases.items():
        try:
            if name != embedder:
                resolve_model(alias, served, bases, {alias: name})
        except ApiError as error:
            raise ConfigError(
                f"The alias {alias!r} stands for {name!r}, which is not served. Use 'default', 'default:NAME' of a knowledge "
                f"base, 'default:{CLOSED_BOOK}' or {embedder!r}."
            ) from error


def _operation_id(route: APIRoute) -> str:
    return re.sub(r"\W+", "_", f"{min(route.methods or ()).lower()}{route.path}").strip("_")
