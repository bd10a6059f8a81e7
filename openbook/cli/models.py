"""`openbook models`: the store of frozen models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openbook.errors import ModelNotVerified

if TYPE_CHECKING:
    from openbook.models import ModelReference


@click.group()
def models() -> None:
    """List, fetch, check and remove frozen models."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_models(as_json: bool) -> None:
    """Show the models here, and those of the catalogue that can be pulled."""
    from openbook.cli import display, session
    from openbook.models import CATALOGUE

    store = session.store(session.settings())
    here, damaged = store.list(), store.damaged()
    known = {r.name for r in here} | set(damaged)
    offered = [entry for name, entry in CATALOGUE.items() if name not in known]
    if as_json:
        value: dict[str, Any] = {"models": [_summary(r) for r in here], "damaged": damaged}
        display.print_json(value | {"catalogue": [e.name for e in offered]})
        return
    out = display.console()
    for reference in here:
        manifest = reference.manifest
        size = sum(f.bytes for f in manifest.files.values()) / 1e6
        display.say(
            out,
            f"{reference.name:<24} {reference.digest[:12]}  {manifest.kind}, {manifest.quantisation}, {size:.0f} MB",
        )
    for name, reason in damaged.items():
        display.say(out, f"{name:<24} damaged: {reason}", style="red")
    for entry in offered:
        size = entry.download_bytes / 1e6
        display.say(
            out,
            f"{entry.name:<24} (not here)    {entry.description}, {size:.0f} MB to pull",
            style="dim",
        )


@models.command()
@click.argument("name")
def pull(name: str) -> None:
    """Fetch NAME from the catalogue, or hf://OWNER/REPO/FILE.gguf from the hub."""
    from openbook.cli import display, session
    from openbook.models import pull as pull_model

    store = session.store(session.settings())
    with session.download_progress() as (announce, progress):
        reference = pull_model(store, name, announce=announce, progress=progress)
    display.say(display.console(), f"{reference.name} is here: {reference.digest}")


@models.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="What to call it (default: the file's name).")
@click.option("--licence", help="Its licence, if the file does not say.")
@click.option("--knowledge-cutoff", help="YYYY-MM-DD: its training data holds nothing later.")
def import_file(file: Path, name: str | None, licence: str | None, knowledge_cutoff: str | None) -> None:
    """Copy a GGUF FILE into the store as a new frozen model."""
    from openbook.cli import display, session
    from openbook.knowledge.discovery import check_exists
    from openbook.models import import_gguf

    check_exists(file)
    store = session.store(session.settings())
    with session.download_progress() as (_, progress):
        reference = import_gguf(
            store, file, name=name, licence=licence, knowledge_cutoff=knowledge_cutoff, progress=progress
        )
    display.say(display.console(), f"{reference.name} is here: {reference.digest}")


@models.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest, without its list of tensors.")
def show(name: str, as_json: bool) -> None:
    """Show what NAME (or a digest) is: its manifest in short."""
    from openbook.cli import display, session

    summary = _summary(session.store(session.settings()).resolve(name))
    if as_json:
        display.print_json(summary)
        return
    out = display.console()
    for key, value in summary.items():
        if isinstance(value, dict):
            display.say(out, key.replace("_", " "))
            for part, text in value.items():
                display.say(out, f"{part.replace('_', ' '):<16} {text if text is not None else 'not stated'}", indent=2)
        elif value not in (None, ""):
            display.say(out, f"{key.replace('_', ' '):<18} {value}")


@models.command()
@click.argument("name")
def verify(name: str) -> None:
    """Read every byte of NAME and compare it with its digest."""
    from openbook.cli import display, session

    store = session.store(session.settings())
    reference = store.resolve(name)
    with session.download_progress() as (_, progress):
        found = store.findings(reference, progress)
    if found:
        raise ModelNotVerified(f"{reference.name} is not what its digest says: {'; '.join(found)}.")
    display.say(display.console(), f"{reference.name}: verified, {reference.digest}")


@models.command()
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def remove(name: str, yes: bool) -> None:
    """Drop NAME, and delete the model if no other name means it."""
    from openbook.cli import display, session

    store = session.store(session.settings())
    if not yes and not click.confirm(f"Remove the model {name!r}?"):
        display.say(display.console(), "Nothing was removed.")
        return
    gone = store.remove(name)
    what = (
        f"deleted {', '.join(d[:12] for d in gone)}"
        if gone
        else "its model stays: another name means it, or is damaged and might (see: openbook models list)"
    )
    display.say(display.console(), f"{name} is removed; {what}.")


def _summary(reference: ModelReference) -> dict[str, Any]:
    manifest = reference.manifest
    cutoff = manifest.knowledge_cutoff
    return {
        "name": reference.name,
        "digest": reference.digest,
        "kind": manifest.kind,
        "architecture": manifest.architecture,
        "parameter_count": manifest.parameter_count,
        "context_tokens": manifest.context_tokens,
        "embedding_length": manifest.embedding_length,
        "quantisation": manifest.quantisation,
        "licence": manifest.licence,
        "knowledge_cutoff": {"date": cutoff.date, "claimed_by": cutoff.claimed_by},
        "sections": dict(manifest.sections),
        "files": {name: f"{entry.sha256} ({entry.bytes:,} bytes)" for name, entry in manifest.files.items()},
        "source": dict(manifest.source.origins),
        "lineage": manifest.lineage,
        "path": str(reference.path),
    }
