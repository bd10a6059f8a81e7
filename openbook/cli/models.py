"""`openbook models`: the store of frozen models."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openbook.answers import opening
from openbook.cli import context, display
from openbook.cli.options import EXISTING, JSON, PATH, YES
from openbook.core.errors import ModelError

if TYPE_CHECKING:
    from openbook.diagnosis.gate import Check
    from openbook.models import ModelReference, ModelStore
    from openbook.models.lineage import Node

ANSWERS_COMPARED = 100  # for `merge`


@click.group()
def models() -> None:
    """List, fetch, check, name and remove frozen models."""


def _store() -> ModelStore:
    return context.store(context.read_settings())


@models.command("list")
@click.option("--available", is_flag=True, help="Show models that can be fetched by name: size, memory, licence.")
@JSON
def list_models(available: bool, as_json: bool) -> None:
    """Show the models here."""
    from openbook.models import CATALOGUE

    known = _store().named_models()
    here = [found for found in known.values() if not isinstance(found, str)]
    damaged = {name: found for name, found in known.items() if isinstance(found, str)}
    offered = [name for name in CATALOGUE if name not in known]
    if available:
        rows, cells = list[dict[str, Any]](), list[tuple[str, ...]]()
        for entry in CATALOGUE.values():
            row = {key: getattr(entry, key) for key in ("name", "kind", "description", "memory_mb", "licence")}
            size, stored = sum(file.bytes for file in entry.files), entry.name in known
            rows.append({**row, "bytes": size, "tried_here": entry.tried, "stored": stored})
            states = (", stored" if stored else "") + ("" if entry.tried else ", not tried here")
            needs = f"needs {entry.memory_mb / 1e3:.1f} GB of memory, {entry.licence}{states}"
            cells.append((entry.name, f"{size / 1e6:>5,.0f} MB", needs))
        display.show(as_json, {"available": rows}, display.say_each, display.table(cells))
    else:
        value = {"models": list(map(_summary, here)), "damaged": damaged, "catalogue": offered}
        display.show(as_json, value, _print_models, here, damaged, len(offered))


def _print_models(here: Sequence[ModelReference], damaged: Mapping[str, str], offered: int) -> None:
    rows = []
    for each in here:
        size = sum(file.bytes for file in each.manifest.files.values()) / 1e6
        rows.append((each.name, each.digest[:12], f"{each.manifest.kind}, {each.manifest.quantisation}, {size:.0f} MB"))
    display.say_each(display.table(rows))
    for name, reason in damaged.items():
        display.say(f"{name}  damaged: {reason}", "red")
    if offered:
        display.say(f"{offered} more can be fetched by name: openbook models list --available", "dim")


@models.command()
@click.argument("name")
def pull(name: str) -> None:
    """Fetch a model by its NAME, or hf://OWNER/REPO/FILE.gguf."""
    from openbook.inference.trial import check_usable
    from openbook.models import pull as pull_model

    with display.progress("fetch") as progress:
        reference = pull_model(_store(), name, announce=display.note, progress=progress, try_out=check_usable)
    display.say(f"{reference.name} is here: {reference.digest}")


@models.command("import")
@click.argument("file", type=EXISTING)
@click.option("--name", help="Its name in the store (default: the file's name).")
@click.option("--licence", help="Its licence, if the file does not say.")
@click.option("--knowledge-cutoff", help="YYYY-MM-DD: its training data holds nothing later.")
def import_file(file: Path, name: str | None, licence: str | None, knowledge_cutoff: str | None) -> None:
    """Copy a GGUF FILE into the store as a new frozen model.

    A separate process first loads it and runs a prompt.
    """
    from openbook.inference.trial import check_usable
    from openbook.models import import_gguf

    said = {"name": name, "licence": licence, "knowledge_cutoff": knowledge_cutoff}
    with display.progress("verify") as progress:
        reference = import_gguf(_store(), file, **said, progress=progress, try_out=check_usable)
    display.say(f"{reference.name} is here: {reference.digest}")


@models.command()
@click.argument("name")
@JSON
def show(name: str, as_json: bool) -> None:
    """Show a summary of the manifest of NAME (or a digest)."""
    summary = _summary(_store().resolve(name))
    display.show(as_json, summary, _print_summary, summary)


def _print_summary(summary: Mapping[str, Any]) -> None:
    for key, value in summary.items():
        if isinstance(value, dict):
            display.say(key.replace("_", " "))
            for part, text in value.items():
                display.say(f"{part.replace('_', ' '):<16} {'not stated' if text is None else text}", indent=2)
        elif value not in (None, ""):
            display.say(f"{key.replace('_', ' '):<18} {value}")


@models.command()
@click.argument("name")
@YES
def remove(name: str, yes: bool) -> None:
    """Remove NAME, and delete its model if it has no other name."""
    store = _store()
    store.check_removable(name)
    display.confirm(f"Remove the model {name!r}?", yes=yes)
    gone = [digest[:12] for digest in store.remove(name)]
    if gone:
        display.say(f"{name} is removed; deleted {', '.join(gone)}.")
    else:
        reason = "another name or an adapter needs it, or a damaged name might (see: openbook models list)"
        display.say(f"{name} is removed. Its model stays: {reason}.")


@models.command()
@click.argument("name")
@click.argument("digest")
@click.option("--reading", type=PATH, help="Questions with passages for the gate (JSON Lines).")
@click.option("--known", type=PATH, help="Questions to answer from memory (JSON Lines).")
@click.option("--without-gate", is_flag=True, help="Skip the comparison; the name then says nothing about quality.")
@JSON
def promote(
    name: str, digest: str, reading: Path | None, known: Path | None, without_gate: bool, as_json: bool
) -> None:
    """Point NAME at the model DIGEST, if it is no worse.

    It must be no worse at reading and at known facts than the model NAME points to now. A new NAME is compared with the
    catalogue's model of that name, or else with the base of DIGEST.
    """
    from openbook.diagnosis import gate

    settings = context.read_settings()
    with display.progress("gate") as progress:
        found = gate.promote(
            context.store(settings),
            name,
            digest,
            lambda model: context.ready_model(settings, model),
            partial(opening.open_stored, settings),
            progress,
            sets=None if without_gate else (reading or gate.READING, known or gate.KNOWN),
        )
    about = {"name": name, "model": found.model, "holder": found.holder}
    value = {**about, "passed": found.passed, "checks": found.checks}
    compared = f"{len(found.checks)} checks passed" if found.checks else "nothing to compare it with"
    means = f"{name} now points to {found.model} ({'without a gate' if without_gate else compared})."
    display.show(as_json, value, _print_checks, found.checks, means if found.passed else "")
    if not found.passed:
        raise ModelError(f"{found.model[:12]} does not pass the gate, so {name!r} is not changed.")


def _print_checks(checks: Sequence[Check], means: str) -> None:
    for check in checks:
        display.say(f"{'passed' if check.passed else 'FAILED'}  {check}", "" if check.passed else "red")
    if means:
        display.say(means)


@models.command()
@click.argument("model")
@click.option("--name", required=True, help="The name of the new model.")
@click.option("--quantisation", default="q8_0", show_default=True, help="f32, f16, bf16, q8_0, q4_1 or q4_0.")
@JSON
def merge(model: str, name: str, quantisation: str, as_json: bool) -> None:
    """Write an adapter and its base as one new model.

    MODEL is the adapter, or any other model. The command then says how many answers change.
    """
    from openbook.diagnosis.gate import READING, flips, load_eval_set
    from openbook.inference.trial import check_usable
    from openbook.models.gguf_writer import checked_quantisation
    from openbook.models.importer import merge as merge_models

    settings = context.read_settings()
    store = context.store(settings)
    before = dataclasses.replace(store.resolve(model), merged=None)
    after = merge_models(store, before, checked_quantisation(quantisation), name, try_out=check_usable)
    old, new = (opening.open_stored(settings, each) for each in (before, after))
    with closing(old), closing(new), display.progress("gate") as progress:
        probes = load_eval_set(READING)[:ANSWERS_COMPARED]
        changed = flips(old, new, probes, progress=progress)
    value = {"name": name, "model": after.digest, "questions": len(probes), "changed": changed}
    differ = f"{changed} of {len(probes)} greedy answers on passages differ from those of {before.name}."
    display.show(as_json, value, display.say_each, [f"{name} is here: {after.digest}", differ])


@models.command()
@click.argument("name")
@click.argument("folder", type=PATH)
def export(name: str, folder: Path) -> None:
    """Write NAME as safetensors, for other programs.

    The new FOLDER is for vLLM, Transformers and PEFT (needs the extra train). An adapter fits only the base that it was
    trained on: export that as well, since another quantisation does not match.
    """
    from openbook.cli.train import check_installed

    check_installed()
    settings = context.read_settings()
    reference = context.ready_model(settings, name)
    request = [reference.digest, str(folder.absolute()), str(settings.models_dir)]
    done = subprocess.run([sys.executable, "-P", "-m", "openbook.training.export", *request], check=False)
    if done.returncode:
        raise click.exceptions.Exit(done.returncode if done.returncode > 0 else 128 - done.returncode)
    display.say(f"{reference.name} ({reference.digest[:12]}) is in {folder}.")


@models.command()
@click.argument("name")
def rollback(name: str) -> None:
    """Point NAME at its previous model. Repeat to go back further."""
    display.say(f"{name} now points to {_store().rollback(name).digest}.")


@models.command()
@click.argument("name")
@JSON
def lineage(name: str, as_json: bool) -> None:
    """Show the ancestors and descendants of NAME."""
    from openbook.models.lineage import tree_of

    store = _store()
    reference = store.resolve(name)
    tree = tree_of(store, reference)
    display.show(as_json, {"asked": reference.digest, "tree": tree}, _print_lineage, tree, reference.digest)


def _print_lineage(tree: Node, digest: str) -> None:
    for depth, node in tree.walk():
        mark = " <" if node.digest == digest else ""
        names = f" ({', '.join(node.names)})" if node.names else ""
        display.say(f"{node.digest[:12]}{names}: {node.what}{mark}", indent=3 * depth)
        for line in node.details:
            display.say(line, "dim", indent=3 * depth + 2)


@models.command()
@click.argument("name")
@click.argument("document", type=EXISTING)
@JSON
def learned(name: str, document: Path, as_json: bool) -> None:
    """Say whether NAME was trained on the text of DOCUMENT, a file."""
    from openbook.models.lineage import memberships_of
    from openbook.parsers import parse_file

    settings = context.read_settings()
    store = context.store(settings)
    content, _ = parse_file(document, max_bytes=settings.max_file_mb * 1_000_000)
    found = memberships_of(store, store.resolve(name), content.text)
    display.show(as_json, {"document": document, "models": found}, display.say_each, map(str, found))


def _summary(reference: ModelReference) -> dict[str, Any]:
    manifest = reference.manifest
    same = ("kind", "architecture", "parameter_count", "context_tokens", "embedding_length", "quantisation", "licence")
    cutoff = manifest.knowledge_cutoff
    return {
        "name": reference.name,
        "digest": reference.digest,
        **{key: getattr(manifest, key) for key in same},
        "knowledge_cutoff": {"date": cutoff.date, "claimed_by": cutoff.claimed_by},
        "sections": dict(manifest.sections),
        "files": {name: f"{entry.sha256} ({entry.bytes:,} bytes)" for name, entry in manifest.files.items()},
        "source": dict(manifest.source.origins),
        "lineage": manifest.lineage,
        "path": str(reference.path),
    }
