"""`openbook serve, mcp`: the knowledge base over HTTP, and as tools for editors, agents and other programs."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openbook.cli import context, private
from openbook.cli.options import BASE_URL, KB, LABEL, MODEL, PATH
from openbook.errors import ConfigError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from openbook.config import Settings
    from openbook.inference import FrozenModel
    from openbook.inference.embedder import OnnxEmbedder
    from openbook.knowledge import KnowledgeBase, RunOptions
    from openbook.serving.configuration import Configuration
    from openbook.serving.model_reload import Source


@click.command()
@click.option(
    "--kb",
    "folders",
    multiple=True,
    type=PATH,
    help="A knowledge base (repeatable; default: your own). One that is not there yet is made.",
)
@MODEL
@BASE_URL
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on. Any but this machine's own demands an API key.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free one.")
@click.option(
    "--allow-host",
    "allowed_hosts",
    multiple=True,
    help="A name by which clients reach the server, for example through a proxy (repeatable); demands an API key. "
    "Behind a proxy or a port forward, give this or --require-key.",
)
@click.option("--require-key", is_flag=True, help="Demand an API key on this machine too.")
@click.option("--label", "labels", multiple=True, help="An access label for callers without a key (repeatable).")
@click.option("--receipts", type=PATH, help="Keep receipts in the log in this folder, and replay from it.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Show this report of a diagnosis at /report, with all the passages in it, to callers with the right admin.",
)
def serve(folders: tuple[Path, ...], **options: Any) -> None:
    """Answer over HTTP until Ctrl-C: a web page, and an API in the shape of OpenAI's."""
    from openbook.knowledge.scope import checked_labels

    _check_extra()
    from openbook.serving.configuration import Configuration
    from openbook.serving.server import listen, make_server

    current = context.settings(model=options.pop("model"), base_url=options.pop("base_url"))
    used = [current.home, *(folders or [current.default_kb])]
    private.share_as(used)
    labels = checked_labels(options.pop("labels"))
    configuration = Configuration(settings=current, labels=labels, **options)
    for advice in private.open_folders(used).values():
        click.echo(advice, err=True)
    # Before the weights are mapped: a port that is taken shows at once.
    with listen(configuration.host, configuration.port) as door:
        configuration = dataclasses.replace(configuration, port=door.getsockname()[1])
        with _application(configuration, folders) as app:
            _log_to_standard_error()
            _first_key(configuration)
            names = ", ".join(f"{name} ({base.folder})" for name, base in app.state.service.bases.items())
            click.echo(f"Knowledge base: {names}", err=True)
            _announce(configuration)
            try:
                make_server(app).run(sockets=[door])
            except KeyboardInterrupt:  # raised again by the server, after it ended in order
                click.echo("Ended.", err=True)


@contextmanager
def _application(configuration: Configuration, folders: tuple[Path, ...]) -> Iterator[FastAPI]:
    from openbook.serving.app import create_app
    from openbook.serving.telemetry import provider_of

    current = configuration.settings
    bases, embedder = _open_bases(current, folders)
    reading = {name: _reading(current) for name in bases}
    configuration = dataclasses.replace(configuration, reading=reading)
    tracers = provider_of()
    opened = context.model_opener(current)()
    try:
        yield create_app(configuration, opened, bases, embedder, tracers, _source(current))
    finally:
        opened.close()
        if tracers is not None:
            tracers.shutdown()


def _source(current: Settings) -> Source | None:
    """Where the name of the model may come to mean another one: in the store, and not at another server."""
    from openbook.serving.model_reload import named_in_store

    if current.base_url:
        return None

    def open_model() -> FrozenModel:
        return context.model_opener(current)()

    return named_in_store(current.models_dir, current.model, open_model)


def _announce(configuration: Configuration) -> None:
    shown = f"[{configuration.host}]" if ":" in configuration.host else configuration.host
    click.echo(f"Web page: http://{shown}:{configuration.port}/", err=True)
    if not configuration.needs_key:
        click.echo(
            "Whatever connects from this machine may do everything, without a key; that includes a proxy or a port forward: "
            "behind one, give --allow-host NAME or --require-key.",
            err=True,
        )
    click.echo(f"Listening on http://{shown}:{configuration.port}/v1. Ctrl-C ends.", err=True)


def _check_extra() -> None:
    try:
        import openbook.serving.app
        import openbook.serving.server  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("openbook"):
            raise
        raise ConfigError(
            f"Serving needs the extra 'serve' ({error.name} is not installed): pip install 'openbook[serve]'"
        ) from error


def _open_bases(current: Settings, folders: tuple[Path, ...]) -> tuple[dict[str, KnowledgeBase], OnnxEmbedder]:
    """By the names of their folders, all with one embedder. One that is not there yet is made."""
    from openbook.errors import KnowledgeBaseMissing
    from openbook.knowledge import KnowledgeBase

    there: dict[str, KnowledgeBase | None] = {}
    places = [folder.absolute() for folder in folders or (current.default_kb,)]
    for folder in places:
        if folder.name in there:
            raise ConfigError(
                f"Two knowledge bases are named {folder.name!r}, after their folders; rename the folder of one."
            )
        try:
            there[folder.name] = KnowledgeBase.open(folder)
        except KnowledgeBaseMissing:
            there[folder.name] = None
    made_with = next((base.embedder.name for base in there.values() if base), "")
    embedder = context.open_embedder(current, made_with)
    bases: dict[str, KnowledgeBase] = {}
    for folder in places:
        base = there[folder.name]
        if base is None:
            base = context.new_base(current, folder, embedder)
            click.echo(
                f"There was no knowledge base in {folder}; an empty one was made. Put documents into it on the web page, or "
                f"with: openbook add FILES --kb {folder}",
                err=True,
            )
        context.remember_place(current, base)
        bases[folder.name] = base
    return bases, embedder


def _reading(current: Settings) -> RunOptions:
    """How uploads are read, without the bars of a terminal."""
    from openbook.knowledge import RunOptions

    with context.run_options(current) as options:
        return dataclasses.replace(options, progress=RunOptions().progress)


def _first_key(configuration: Configuration) -> None:
    """Where a key is demanded and there is none yet, make one and show it, this once."""
    from openbook.serving.keys import KeyFile

    keys = KeyFile(configuration.settings.home)
    if configuration.needs_key and not keys.keys():
        _, token = keys.new("first", "admin", configuration.labels)
        click.echo(
            "This server needs an API key. This key may do everything. It is shown only once; the server keeps a hash:",
            err=True,
        )
        click.echo(token)


def _log_to_standard_error() -> None:
    import logging

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s[%(process)d] %(message)s", level=logging.WARNING)
    logging.getLogger("openbook.serving").setLevel(logging.INFO)
    logging.getLogger("mcp").setLevel(logging.CRITICAL)  # it quotes what it was sent


@click.command()
@KB
@MODEL
@LABEL
def mcp(kb: Path | None, model: str | None, labels: tuple[str, ...]) -> None:
    """Offer the knowledge base to another program over the Model Context Protocol: search, ask, read_document.

    It talks over standard input and output. `openbook serve` offers the same tools over HTTP, at /mcp.
    """
    from openbook.knowledge.scope import Scope, checked_labels

    if importlib.util.find_spec("mcp") is None:
        raise ConfigError("The Model Context Protocol needs its extra: pip install 'openbook[serve]'")
    from openbook.serving.mcp import make_server

    current = context.settings(kb=kb, model=model)
    base, embedder = context.open_searchable(current)
    context.must_hold_documents(base, str(current.default_kb))
    # Fetched and verified before the other program waits for an answer; opened when the first is asked for.
    open_model = functools.cache(context.model_opener(current))
    scope, options = Scope(labels=checked_labels(labels)), context.answer_options(current)
    server = make_server(base, embedder, open_model, scope=scope, options=options)
    server.run()
