"""`openbook serve, mcp, keys`."""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openbook.answers import opening
from openbook.cli import context, display, on_cluster
from openbook.cli.options import BASE_URL, JSON, KB, LABEL, MODEL, PATH, PLACE, REPLICAS, cluster_option
from openbook.core.config import Place
from openbook.core.errors import ConfigError, KnowledgeBaseMissing, needs_extra

if TYPE_CHECKING:
    from openbook.core.config import Settings
    from openbook.inference import FrozenModel
    from openbook.inference.embedder import OnnxEmbedder
    from openbook.knowledge import KnowledgeBase
    from openbook.serving.configuration import Configuration
    from openbook.serving.keys import KeyFile
    from openbook.serving.model_reload import ModelSource


@click.command()
@click.option("--kb", "places", multiple=True, type=PLACE, help="A knowledge base, created if missing (repeatable).")
@click.option(
    "--model", "models", multiple=True, help="A model that requests may name; the first is the default (repeatable)."
)
@BASE_URL
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on. Any address but this machine's own needs an API key.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes any free port.")
@click.option(
    "--allow-host",
    "allowed_hosts",
    multiple=True,
    help="A name by which clients reach the server, for example through a proxy (repeatable); needs an API key. "
    "Behind a proxy or a port forward, give this or --require-key.",
)
@click.option("--require-key", is_flag=True, help="Require an API key on this machine too.")
@click.option("--label", "labels", multiple=True, help="An access label for callers without a key (repeatable).")
@click.option("--receipts", type=PATH, help="Keep receipts in the log in this folder, and replay from it.")
@cluster_option("Let replicas compute the answers on")
@REPLICAS
def serve(
    places: tuple[Place, ...],
    models: tuple[str, ...],
    base_url: str | None,
    port: int,
    labels: tuple[str, ...],
    cluster: str | None,
    replicas: tuple[int, int] | None,
    **options: Any,
) -> None:
    """Answer over HTTP: a web page, and an API like OpenAI's."""
    with needs_extra("This", "serve"):
        from openbook.serving.app import create_app
        from openbook.serving.model_reload import named_in_store
        from openbook.serving.server import http_server, listen
    from openbook.knowledge.index.scope import checked_labels
    from openbook.proofs.receipts import LOG_FILE
    from openbook.serving.configuration import Bounds, Configuration

    settings = context.read_settings(model=models[0] if models else None, base_url=base_url)
    names = dict.fromkeys(filter(None, [*(models or [settings.model]), settings.fallback_model]))
    each_model = [replace(settings, model=name) for name in names]
    least, most = on_cluster.replica_bounds(replicas, cluster)
    places = tuple(each.absolute() if isinstance(each, Path) else each for each in places or [settings.kb_place])
    configuration = Configuration(
        settings=settings,
        labels=checked_labels(labels),
        bounds=Bounds(running=Bounds().running * most),
        ingest=opening.run_options(settings),
        **options,
    )
    # Before the weights are mapped, so that a taken port shows at once.
    with listen(configuration.host, port) as listener, ExitStack() as stack:
        open_model_of, _ = stack.enter_context(on_cluster.models(settings, cluster, (least, most)))
        context.check_writable(configuration.receipts and configuration.receipts / LOG_FILE)
        bases, embedder = _open_bases(settings, places)
        opened: list[tuple[FrozenModel, ModelSource | None]] = []
        for own in each_model:
            open_model = partial(open_model_of, own)
            model = stack.enter_context(closing(open_model()))
            # A name in the store may change its meaning; another server's model is not watched.
            opened.append((model, None if base_url else named_in_store(settings.models_dir, own.model, open_model)))
        (model, source), *more = opened
        app = create_app(configuration, model, bases, embedder, source, more)
        _log_to_standard_error()
        _first_key(configuration)
        _announce(configuration, listener.getsockname()[1], places)
        try:
            http_server(app).run(sockets=[listener])
        except KeyboardInterrupt:  # the server raises it again after an orderly stop
            click.echo("Ended.", err=True)


def _log_to_standard_error() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s[%(process)d] %(message)s", level=logging.WARNING)
    logging.getLogger("openbook.serving").setLevel(logging.INFO)
    logging.getLogger("mcp").setLevel(logging.CRITICAL)  # it quotes what it was sent


def _announce(configuration: Configuration, port: int, places: tuple[Place, ...]) -> None:
    shown = f"[{configuration.host}]" if ":" in configuration.host else configuration.host
    click.echo(f"Knowledge base: {', '.join(f'{place.name} ({place})' for place in places)}", err=True)
    click.echo(f"Web page: http://{shown}:{port}/", err=True)
    if not configuration.needs_key:
        click.echo(
            "Whatever connects from this machine may do everything, without a key; that includes a proxy or a port forward: "
            "behind one, give --allow-host NAME or --require-key.",
            err=True,
        )
    click.echo(f"Listening on http://{shown}:{port}/v1. Ctrl-C ends.", err=True)


def _open_bases(settings: Settings, places: tuple[Place, ...]) -> tuple[dict[str, KnowledgeBase], OnnxEmbedder]:
    """By name of folder or database, all with one embedder; created if missing."""
    from openbook.answers.reading import CLOSED_BOOK
    from openbook.knowledge import KnowledgeBase

    context.clear_uploads(settings)
    there: dict[str, KnowledgeBase | None] = {}
    for place in places:
        if place.name == CLOSED_BOOK:
            raise ConfigError(f"{place}: {CLOSED_BOOK!r} names answers without a knowledge base here; rename this one.")
        if place.name.encode("utf-8", "replace").decode() != place.name:
            raise ConfigError(
                f"The name of the folder {place.name!r} is not UTF-8, so no request can name it. Rename it."
            )
        if place.name in there:
            raise ConfigError(
                f"Two knowledge bases are named {place.name!r}, after their folders or databases; rename one."
            )
        there[place.name] = None
        with suppress(KnowledgeBaseMissing):
            there[place.name] = KnowledgeBase.open(place)
    made_with = next((base.embedder.name for base in there.values() if base), "")
    embedder = context.open_embedder(settings, made_with)
    bases: dict[str, KnowledgeBase] = {}
    for place in places:
        if (base := there[place.name]) is None:
            base = opening.new_base(settings, place, embedder)
            click.echo(
                f"Created an empty knowledge base in {place}. Add documents on the web page, or "
                f"with: openbook add FILES --kb {place}",
                err=True,
            )
        opening.remember_place(settings, base)
        bases[place.name] = base
    return bases, embedder


def _first_key(configuration: Configuration) -> None:
    """If a key is required and there is none, create one and show it once."""
    from openbook.serving.keys import KeyFile

    keys = KeyFile(configuration.settings.home)
    if configuration.needs_key and not keys.keys():
        _, token = keys.new("first", "admin", configuration.labels)
        click.echo(
            "This server needs an API key. This key may do everything. It is shown only once; the server keeps a hash:",
            err=True,
        )
        click.echo(token)


@click.command()
@KB
@MODEL
@LABEL
def mcp(kb: Place | None, model: str | None, labels: tuple[str, ...]) -> None:
    """Offer the knowledge base to a program that speaks MCP.

    Its tools over the Model Context Protocol ask, search, look up and compare documents. It talks over standard
    input and output. `openbook serve` offers the same tools over HTTP, at /mcp.
    """
    with needs_extra("This", "serve"):
        from openbook.serving.mcp import stdio_server
    with context.library(context.read_settings(kb=kb, model=model)) as library:
        # Fetch the model before the client waits for an answer.
        server = stdio_server(context.prepared(library).labels(*labels))
        try:
            server.run()
        except ExceptionGroup as errors:
            if errors.split(BrokenPipeError)[1] is not None:
                raise
            raise BrokenPipeError from None  # the client no longer listens


# --- keys -------------------------------------------------------------------------------------------------------------


@click.group()
def keys() -> None:
    """API keys for `openbook serve`, kept as hashes."""


def _file() -> KeyFile:
    from openbook.serving.keys import KeyFile

    return KeyFile(context.read_settings().home)


def _lasts(days: int | None) -> str:
    if days is None:
        return "never expires"
    return f"{display.count(days, 'day')} left" if days else "expired"


@keys.command()
@click.argument("name")
@click.option(
    "--right",
    type=click.Choice(["read", "write", "admin"]),
    default="read",
    show_default=True,
    help="What its holder may do.",
)
@click.option("--label", "labels", multiple=True, help="An access label that its holder has (repeatable).")
@click.option("--days", type=int, help="Days until the key expires (default: never).")
def new(name: str, right: str, labels: tuple[str, ...], days: int | None) -> None:
    """Create a key and show it once. NAME says whose it is.

    The right `read` may ask and search; `write` may also add and remove documents; `admin` may also purge, and see metrics.
    """
    key, token = _file().new(name, right, labels, days=days)
    lasts = "never expires; --days N sets an expiry" if days is None else _lasts(days)
    click.echo(f"Key {key.id} for {key.name!r}. It is shown only once ({lasts}):", err=True)
    click.echo(token)


@keys.command()
@click.argument("key_id")
def rotate(key_id: str) -> None:
    """Give a key a new secret and show it once. The old secret stops working at the next request.

    Name, right, labels and uploads stay. A key with an expiry gets the same lifetime again.
    """
    file = _file()
    key, token = file.rotate(key_id)
    lasts = _lasts(file.days_left(key))
    said = f"New secret of key {key.id} for {key.name!r}. It is shown only once ({lasts}). The old one no longer works:"
    click.echo(said, err=True)
    click.echo(token)


@keys.command("list")
@JSON
def list_keys(as_json: bool) -> None:
    """Show all keys: whose, their rights, labels and days left."""
    file = _file()
    found = file.keys()
    value = [{**asdict(key), "days_left": file.days_left(key)} for key in found]
    for each in value:
        del each["hash"]
    rows = [
        (
            key.id,
            key.right,
            key.created_at,
            key.name,
            f"({', '.join(key.labels) or 'no labels'})",
            _lasts(file.days_left(key)),
        )
        for key in found
    ]
    none = ["There are no keys. Create one: openbook keys new NAME"]
    display.show(as_json, {"keys": value}, display.say_each, display.table(rows) or none)


@keys.command()
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """Revoke a key. A running server rejects it from the next request on."""
    key = _file().revoke(key_id)
    click.echo(f"The key {key.id} of {key.name!r} no longer works.")
