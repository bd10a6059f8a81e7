"""`openbook models`: the store of frozen models."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openbook.errors import ModelNotVerified, UnknownModel

if TYPE_CHECKING:
    from openbook.models import ModelReference

ANSWERS_COMPARED = 100  # by `merge`


@click.group()
def models() -> None:
    """List, fetch, check, name and remove frozen models."""


@models.command("list")
@click.option(
    "--available", is_flag=True, help="Show models that can be fetched by name: size, memory needed, license."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_models(available: bool, as_json: bool) -> None:
    """Show the models here."""
    from openbook.cli import display, session
    from openbook.models import CATALOGUE

    store = session.store(session.settings())
    here, damaged = store.list(), store.damaged()
    known = {r.name for r in here} | set(damaged)
    if available:
        _list_available(known, as_json)
        return
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
    if offered:
        text = f"{len(offered)} more can be fetched by name: openbook models list --available"
        display.say(out, text, style="dim")


def _list_available(known: set[str], as_json: bool) -> None:
    """The catalogue. `known`: the names in the store."""
    from openbook.cli import display
    from openbook.models import CATALOGUE

    if as_json:
        rows = [
            {
                "name": entry.name,
                "kind": entry.kind,
                "description": entry.description,
                "bytes": sum(file.bytes for file in entry.files),
                "memory_mb": entry.memory_mb,
                "licence": entry.licence,
                "tried_here": entry.tried,
                "stored": entry.name in known,
            }
            for entry in CATALOGUE.values()
        ]
        display.print_json({"available": rows})
        return
    out = display.console()
    for entry in CATALOGUE.values():
        size = f"{sum(file.bytes for file in entry.files) / 1e6:,.0f} MB"
        states = [*(["stored"] if entry.name in known else []), *([] if entry.tried else ["not tried here"])]
        text = f"{entry.name:<28} {size:>8}, needs {entry.memory_mb / 1e3:.1f} GB of memory, {entry.licence}"
        display.say(out, f"{text}{''.join(f', {state}' for state in states)}")


@models.command()
@click.argument("name")
def pull(name: str) -> None:
    """Fetch NAME from the catalogue, or hf://OWNER/REPO/FILE.gguf from the hub."""
    from openbook.cli import display, session
    from openbook.inference.trial import try_model
    from openbook.models import pull as pull_model

    store = session.store(session.settings())
    with session.download_progress() as (announce, progress):
        reference = pull_model(store, name, announce=announce, progress=progress, try_out=try_model)
    display.say(display.console(), f"{reference.name} is here: {reference.digest}")


@models.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="Its name in the store (default: the file's name).")
@click.option("--licence", help="Its licence, if the file does not say.")
@click.option("--knowledge-cutoff", help="YYYY-MM-DD: its training data holds nothing later.")
def import_file(file: Path, name: str | None, licence: str | None, knowledge_cutoff: str | None) -> None:
    """Copy a GGUF FILE into the store as a new frozen model, after a separate process has loaded it and run a prompt."""
    from openbook.cli import display, session
    from openbook.inference.trial import try_model
    from openbook.knowledge.discovery import check_exists
    from openbook.models import import_gguf

    check_exists(file)
    store = session.store(session.settings())
    with session.download_progress() as (_, progress):
        reference = import_gguf(
            store,
            file,
            name=name,
            licence=licence,
            knowledge_cutoff=knowledge_cutoff,
            progress=progress,
            try_out=try_model,
        )
    display.say(display.console(), f"{reference.name} is here: {reference.digest}")


@models.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest, without its list of tensors.")
def show(name: str, as_json: bool) -> None:
    """Show a summary of the manifest of NAME (or a digest)."""
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
    parts = [reference, *([reference.needed_base] if reference.manifest.kind == "adapter" else [])]
    with session.download_progress() as (_, progress):
        for part in parts:
            if found := store.findings(part, progress):
                raise ModelNotVerified(f"{part.name} is not what its digest says: {'; '.join(found)}.")
    for part in parts:
        display.say(display.console(), f"{part.name}: verified, {part.digest}")


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
        else "its model stays: another name or an adapter needs it, or a damaged name might (see: openbook models list)"
    )
    display.say(display.console(), f"{name} is removed; {what}.")


@models.command()
@click.argument("name")
@click.argument("digest")
@click.option("--reading", type=click.Path(path_type=Path), help="Questions with passages for the gate (JSON Lines).")
@click.option("--known", type=click.Path(path_type=Path), help="Questions to answer from memory (JSON Lines).")
@click.option(
    "--margin",
    type=click.FloatRange(0.0, 1.0),
    default=0.02,
    show_default=True,
    help="The largest loss that still counts as no loss.",
)
@click.option("--without-gate", is_flag=True, help="Skip the comparison; the name then says nothing about quality.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def promote(
    name: str, digest: str, reading: Path | None, known: Path | None, margin: float, without_gate: bool, as_json: bool
) -> None:
    """Make NAME mean the model DIGEST, if it reads and knows no worse than the present holder.

    A name that is new is held by the model of that name that OpenBook ships, if there is one, or else by the base of DIGEST.
    """
    import dataclasses

    from openbook.cli import display, session
    from openbook.diagnosis.gate import compare, load_sets, target_checks
    from openbook.errors import ModelError
    from openbook.inference import load_model
    from openbook.inference.trial import try_model
    from openbook.models import CATALOGUE
    from openbook.models.aliases import checked_name

    current = session.settings()
    store = session.store(current)
    checked_name(name)
    candidate = store.resolve(digest)
    store.check_fast(candidate)
    try_model(candidate)
    history = store.history(name)
    held = history[-1] if history else candidate.manifest.lineage
    if not history and not without_gate and name in CATALOGUE:
        held = session.ready_model(current, name).digest
    holder = None
    if held and held != candidate.digest and not without_gate:
        try:
            holder = store.resolve(held)
        except UnknownModel as error:
            raise UnknownModel(
                f"There is nothing to compare with: {error} Or promote it with --without-gate; the name then says nothing about quality."
            ) from error
    checks = [] if without_gate else target_checks(candidate)
    if holder is not None:
        sets = load_sets(reading, known)
        candidate, holder = (session.ready_model(current, each.digest) for each in (candidate, holder))
        new, old = (load_model(each, **session.engine_sizes(current)) for each in (candidate, holder))
        with closing(new), closing(old), session.add_progress() as progress:
            checks += compare(new, old, sets, margin=margin, progress=lambda done, total: progress("gate", done, total))
    passed = all(check.passed for check in checks)
    if passed:
        store.point(name, candidate.digest)
    if as_json:
        value = {"name": name, "model": candidate.digest, "holder": holder.digest if holder else None, "passed": passed}
        display.print_json(value | {"checks": [dataclasses.asdict(check) for check in checks]})
    else:
        out = display.console()
        for check in checks:
            display.say(out, f"{'passed' if check.passed else 'FAILED'}  {check}", style="" if check.passed else "red")
    if not passed:
        raise ModelError(f"{candidate.digest[:12]} does not pass the gate, so {name!r} keeps its meaning.")
    if not as_json:
        how = (
            "without a gate"
            if without_gate
            else f"{len(checks)} checks passed"
            if checks
            else "nothing to compare it with"
        )
        display.say(display.console(), f"{name} now means {candidate.digest} ({how}).")


@models.command()
@click.argument("model")
@click.option("--name", required=True, help="The name of the new model.")
@click.option("--quantisation", default="q8_0", show_default=True, help="f32, f16, bf16, q8_0, q4_1 or q4_0.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def merge(model: str, name: str, quantisation: str, as_json: bool) -> None:
    """Write MODEL (an adapter together with its base, or any model) as one new model, and say how many answers change."""
    import dataclasses

    from openbook.cli import display, session
    from openbook.diagnosis.gate import flips, load_sets
    from openbook.inference import load_model
    from openbook.inference.trial import try_model
    from openbook.models.gguf_writer import checked_quantisation
    from openbook.models.importer import merge as merge_models

    current = session.settings()
    store = session.store(current)
    before = dataclasses.replace(store.resolve(model), merged=None)
    after = merge_models(store, before, checked_quantisation(quantisation), name, try_out=try_model)
    old, new = (load_model(each, **session.engine_sizes(current)) for each in (before, after))
    with closing(old), closing(new), session.add_progress() as progress:
        probes = load_sets().reading[:ANSWERS_COMPARED]
        changed = flips(old, new, probes, progress=lambda at, total: progress("gate", at, total))
    if as_json:
        display.print_json({"name": name, "model": after.digest, "questions": len(probes), "changed": changed})
        return
    out = display.console()
    display.say(out, f"{name} is here: {after.digest}")
    display.say(out, f"{changed} of {len(probes)} greedy answers on passages differ from those of {before.name}.")


@models.command()
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
def export(name: str, folder: Path) -> None:
    """Write NAME into the new FOLDER as safetensors, for vLLM, Transformers and PEFT (needs the extra train).

    An adapter is written for the base that it was made on: export that as well, since other quantisations of it have other
    numbers.
    """
    import subprocess
    import sys

    from openbook.cli import display, session
    from openbook.cli.train import check_installed

    check_installed()
    current = session.settings()
    reference = session.ready_model(current, name)
    command = [sys.executable, "-m", "openbook.training.export", reference.digest, str(folder.absolute())]
    done = subprocess.run([*command, "--store", str(current.models_dir)], check=False)
    if done.returncode:
        raise click.exceptions.Exit(done.returncode if done.returncode > 0 else 128 - done.returncode)
    display.say(display.console(), f"{reference.name} ({reference.digest[:12]}) is in {folder}.")


@models.command()
@click.argument("name")
def rollback(name: str) -> None:
    """Make NAME mean what it meant before; again, and it goes back further."""
    from openbook.cli import display, session

    reference = session.store(session.settings()).rollback(name)
    display.say(display.console(), f"{name} now means {reference.digest}.")


@models.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def lineage(name: str, as_json: bool) -> None:
    """Show what NAME was trained from, how, and what was trained from it."""
    import dataclasses

    from openbook.cli import display, session
    from openbook.models.lineage import tree_of

    store = session.store(session.settings())
    reference = store.resolve(name)
    tree = tree_of(store, reference)
    if as_json:
        display.print_json({"asked": reference.digest, "tree": dataclasses.asdict(tree)})
        return
    out = display.console()
    for depth, node in tree.walk():
        mark = " <" if node.digest == reference.digest else ""
        names = f" ({', '.join(node.names)})" if node.names else ""
        display.say(out, f"{node.digest[:12]}{names}: {node.what}{mark}", indent=3 * depth)
        for line in node.details:
            display.say(out, line, indent=3 * depth + 2, style="dim")


@models.command()
@click.argument("name")
@click.argument("document", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def why(name: str, document: Path, as_json: bool) -> None:
    """Say whether the text of DOCUMENT (a file) was in the training data of NAME, or of what NAME was trained from."""
    import dataclasses

    from openbook.cli import display, session
    from openbook.knowledge.discovery import check_exists
    from openbook.models.lineage import learned
    from openbook.parsers import parse_file

    check_exists(document)
    current = session.settings()
    store = session.store(current)
    content, _ = parse_file(document, max_bytes=current.max_file_mb * 1_000_000)
    found = learned(store, store.resolve(name), content.text)
    if as_json:
        display.print_json({"document": str(document), "models": [dataclasses.asdict(each) for each in found]})
        return
    for each in found:
        display.say(display.console(), str(each))


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
