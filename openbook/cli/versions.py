"""`openbook history, diff, tag, restore, prune`: the versions of a knowledge base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from openbook.errors import ConfigError

_KB = click.option("--kb", type=click.Path(path_type=Path), help="The knowledge base (default: your own).")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.command()
@_KB
@_JSON
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="How many versions to list, newest first.",
)
def history(kb: Path | None, as_json: bool, limit: int) -> None:
    """List the kept versions: when, what changed, how many documents, tags."""
    import dataclasses

    from openbook.cli import display, display_kb
    from openbook.knowledge.versions import history as versions_of

    found = versions_of(_open(kb))
    if as_json:
        display.print_json({"versions": [dataclasses.asdict(v) for v in found[:limit]]})
    else:
        display_kb.print_history(found, limit)


@click.command()
@click.argument("before")
@click.argument("after", required=False)
@_KB
@_JSON
def diff(before: str, after: str | None, kb: Path | None, as_json: bool) -> None:
    """Show which documents and passages changed from version BEFORE to AFTER (default: the newest).

    A version is its number, a tag or a time such as 2026-01-31T12:00.
    """
    import dataclasses

    from openbook.cli import display, display_kb
    from openbook.knowledge.versions import diff as difference
    from openbook.knowledge.versions import resolve_version

    base = _open(kb)
    found = difference(base, resolve_version(base, before), resolve_version(base, after) if after else base.version)
    if as_json:
        display.print_json(dataclasses.asdict(found))
    else:
        display_kb.print_difference(found)


@click.command()
@click.argument("name")
@click.argument("version", required=False)
@_KB
@click.option("--drop", is_flag=True, help="Delete the tag instead.")
def tag(name: str, version: str | None, kb: Path | None, drop: bool) -> None:
    """Give VERSION (default: the newest) a NAME. A tagged version is never pruned."""
    from openbook.knowledge import versions

    base, timeout_s = _open(kb), _timeout_s(kb)
    if drop:
        versions.drop_tag(base, name, lock_timeout_s=timeout_s)
        click.echo(f"Dropped the tag {name}.")
        return
    number = versions.resolve_version(base, version) if version else None
    click.echo(f"{name} is version {versions.tag(base, name, number, lock_timeout_s=timeout_s)}.")


@click.command()
@click.argument("version")
@_KB
def restore(version: str, kb: Path | None) -> None:
    """Make a new version that holds exactly the documents of VERSION (a number, a tag or a time)."""
    from openbook.knowledge import versions

    base = _open(kb)
    before = base.version
    wanted = versions.resolve_version(base, version)
    number = versions.restore(base, wanted, lock_timeout_s=_timeout_s(kb))
    same = number == before
    click.echo(f"Version {number} has the documents of version {wanted}{' already' if same else ''}.")


@click.command()
@_KB
@click.option("--keep", type=click.IntRange(1), help="Keep the N newest versions.")
@click.option("--keep-days", type=click.FloatRange(0.0), help="Keep versions that were in use in the last N days.")
@click.option("--save", is_flag=True, help="Apply this after every later change too.")
@_JSON
def prune(kb: Path | None, keep: int | None, keep_days: float | None, save: bool, as_json: bool) -> None:
    """Delete old versions and what only they hold. The newest and tagged versions always stay."""
    from openbook.cli import display
    from openbook.knowledge import versions
    from openbook.knowledge.base import spans

    base, timeout_s = _open(kb), _timeout_s(kb)
    policy = versions.Retention(keep, keep_days)
    if policy == versions.Retention():
        policy = versions.retention(base.connection)
        if policy == versions.Retention():
            raise ConfigError("Say what to keep: give --keep N, --keep-days N or both.")
    pruned = versions.prune(base, policy, lock_timeout_s=timeout_s)
    if save:
        versions.set_retention(base, policy, lock_timeout_s=timeout_s)
    if as_json:
        value: dict[str, Any] = {"pruned": pruned.versions, "texts_dropped": pruned.contents, "kept": list(pruned.kept)}
        display.print_json(value)
    else:
        click.echo(f"{pruned.versions} versions and {pruned.contents} texts deleted. Kept: {spans(pruned.kept)}.")


def _open(kb: Path | None) -> Any:
    from openbook.cli import session
    from openbook.knowledge import KnowledgeBase

    return KnowledgeBase.open(session.settings(kb=kb).default_kb)


def _timeout_s(kb: Path | None) -> float:
    from openbook.cli import session

    return session.settings(kb=kb).lock_timeout_s
