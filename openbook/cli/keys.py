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
@click.option("--days", type=int, help="Days until the key expires (default: never).")
def new(name: str, right: str, labels: tuple[str, ...], days: int | None) -> None:
    """Make a key, and show it this once. NAME says whose it is."""
    from openbook.cli import session
    from openbook.serving.keys import KeyFile

    key, token = KeyFile(session.settings().home).new(name, right, labels, days=days)
    lasts = "never expires; --days N sets an expiry" if days is None else _lasts(days)
    click.echo(f"Key {key.id} for {key.name!r}. It is shown only once ({lasts}):", err=True)
    click.echo(token)


@keys.command("rotate")
@click.argument("key_id")
def rotate(key_id: str) -> None:
    """Give a key a new secret, and show it this once. The old secret stops working at the next request.

    Name, right, labels and uploads stay. A key with an expiry gets the same lifetime again.
    """
    from openbook.cli import session
    from openbook.serving.keys import KeyFile

    key, token = KeyFile(session.settings().home).rotate(key_id)
    lasts = _lasts(KeyFile(session.settings().home).days_left(key))
    click.echo(
        f"New secret of key {key.id} for {key.name!r}. It is shown only once ({lasts}). The old one no longer works:",
        err=True,
    )
    click.echo(token)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_keys(as_json: bool) -> None:
    """Show all keys: who, what they may do, which labels they hold, when each expires. Secrets are not stored."""
    import dataclasses

    from openbook.cli import display, session
    from openbook.serving.keys import KeyFile

    file = KeyFile(session.settings().home)
    found = file.keys()
    if as_json:
        shown = [{**dataclasses.asdict(key), "days_left": file.days_left(key)} for key in found]
        shown = [{name: value for name, value in each.items() if name != "hash"} for each in shown]
        display.print_json({"keys": shown})
        return
    for key in found:
        held = ", ".join(key.labels) or "no labels"
        line = f"{key.id}  {key.right:5}  {key.created_at}  {key.name}  ({held})  {_lasts(file.days_left(key))}"
        click.echo(display.printable(line))
    if not found:
        click.echo("There are no keys. Make one with: openbook keys new NAME")


def _lasts(days: int | None) -> str:
    if days is None:
        return "never expires"
    return f"{days} {'day' if days == 1 else 'days'} left" if days else "expired"


@keys.command("revoke")
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """Revoke a key. A running server rejects it from the next request on."""
    from openbook.cli import session
    from openbook.serving.keys import KeyFile

    key = KeyFile(session.settings().home).revoke(key_id)
    click.echo(f"The key {key.id} of {key.name!r} no longer works.")
