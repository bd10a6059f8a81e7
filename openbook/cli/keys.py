"""`openbook keys`: who may use the server, and what they may see."""

from __future__ import annotations

import click


@click.group()
def keys() -> None:
    """API keys for `openbook serve`, kept as hashes in the home folder."""


@keys.command("new")
@click.argument("name")
@click.option(
    "--right",
    type=click.Choice(["read", "write", "admin"]),
    default="read",
    show_default=True,
    help="read: ask and search; write: also add and remove documents; admin: also purge, and metrics.",
)
@click.option("--label", "labels", multiple=True, help="An access label that its holder has (repeatable).")
def new(name: str, right: str, labels: tuple[str, ...]) -> None:
    """Make a key, and show it this once. NAME says whose it is."""
    from openbook.cli import session
    from openbook.serving.keys import KeyFile

    key, token = KeyFile(session.settings().home).new(name, right, labels)
    click.echo(f"The key {key.id} of {key.name!r}, shown this once:", err=True)
    click.echo(token)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_keys(as_json: bool) -> None:
    """Show all keys: who, what they may do, which labels they hold. The keys themselves are nowhere."""
    import dataclasses

    from openbook.cli import display, session
    from openbook.serving.keys import KeyFile

    found = KeyFile(session.settings().home).keys()
    if as_json:
        shown = [{k: v for k, v in dataclasses.asdict(key).items() if k != "hash"} for key in found]
        display.print_json({"keys": shown})
        return
    for key in found:
        held = ", ".join(key.labels) or "no labels"
        click.echo(display.printable(f"{key.id}  {key.right:5}  {key.created_at}  {key.name}  ({held})"))
    if not found:
        click.echo("There are no keys. Make one with: openbook keys new NAME")


@keys.command("revoke")
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """Take back the key of that id. A server that runs refuses it from the next request on."""
    from openbook.cli import session
    from openbook.serving.keys import KeyFile

    key = KeyFile(session.settings().home).revoke(key_id)
    click.echo(f"The key {key.id} of {key.name!r} opens nothing any more.")
