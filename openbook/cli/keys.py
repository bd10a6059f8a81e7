"""`openbook keys`: who may use the server, and what they may see."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from openbook.cli import context, display
from openbook.cli.options import JSON

if TYPE_CHECKING:
    from openbook.serving.keys import KeyFile


@click.group()
def keys() -> None:
    """API keys for `openbook serve`, kept as hashes in the home folder."""


def _file() -> KeyFile:
    from openbook.serving.keys import KeyFile

    return KeyFile(context.settings().home)


@keys.command()
@click.argument("name")
@click.option("--right", type=click.Choice(["read", "write", "admin"]), default="read", help="Default: read.")
@click.option("--label", "labels", multiple=True, help="An access label that its holder has (repeatable).")
@click.option("--days", type=int, help="Days until the key expires (default: never).")
def new(name: str, right: str, labels: tuple[str, ...], days: int | None) -> None:
    """Make a key, and show it this once. NAME says whose it is.

    The right `read` may ask and search; `write` may also add and remove documents; `admin` may also purge, and see metrics.
    """
    key, token = _file().new(name, right, labels, days=days)
    lasts = "never expires; --days N sets an expiry" if days is None else _lasts(days)
    click.echo(f"Key {key.id} for {key.name!r}. It is shown only once ({lasts}):", err=True)
    click.echo(token)


@keys.command()
@click.argument("key_id")
def rotate(key_id: str) -> None:
    """Give a key a new secret, and show it this once. The old secret stops working at the next request.

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
    """Show all keys: who, what they may do, which labels they hold, when each expires. Secrets are not stored."""
    file = _file()
    found = file.keys()
    if as_json:
        shown = [{**dataclasses.asdict(key), "days_left": file.days_left(key)} for key in found]
        display.print_json({"keys": [{k: v for k, v in each.items() if k != "hash"} for each in shown]})
        return
    for key in found:
        labels, lasts = ", ".join(key.labels) or "no labels", _lasts(file.days_left(key))
        display.say(f"{key.id}  {key.right:5}  {key.created_at}  {key.name}  ({labels})  {lasts}")
    if not found:
        display.say("There are no keys. Make one with: openbook keys new NAME")


def _lasts(days: int | None) -> str:
    if days is None:
        return "never expires"
    return f"{days} {'day' if days == 1 else 'days'} left" if days else "expired"


@keys.command()
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """Revoke a key. A running server rejects it from the next request on."""
    key = _file().revoke(key_id)
    click.echo(f"The key {key.id} of {key.name!r} no longer works.")
