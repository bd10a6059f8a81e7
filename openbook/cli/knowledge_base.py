"""`openbook status, history, diff, tag, restore, prune, reembed, precompute`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from itertools import islice
from typing import TYPE_CHECKING

import click

from openbook.answers import opening
from openbook.cli import context, display, on_cluster
from openbook.cli.options import JSON, KB, MODEL, cluster_option
from openbook.core.config import Place
from openbook.core.errors import ConfigError, ContextOverflow

if TYPE_CHECKING:
    from openbook.core.records import Passage, Verdict
    from openbook.inference import FrozenModel
    from openbook.inference.kv_cache import CacheStats
    from openbook.knowledge import KnowledgeBase
    from openbook.knowledge.base import Status
    from openbook.knowledge.versions import Difference

_MAX_CHANGES = 40  # documents
_MAX_CHANGE_CHARS = 2_000  # of each, with the words around
_MAX_VERSIONS = 20


@click.command()
@KB
@JSON
def status(kb: Place | None, as_json: bool) -> None:
    """Show what the knowledge base holds, and what it does not."""
    from openbook.inference.embedder import model_digest_of
    from openbook.knowledge import KnowledgeBase

    settings = context.read_settings(kb=kb)
    place = settings.kb_place
    base = KnowledgeBase.open(place)
    found, states = base.status(), opening.kv_cache(settings).kept()
    digest = model_digest_of(found.embedder, [each.digest for each in context.store(settings).all_models()])
    found = replace(found, embedder=replace(found.embedder, digest=digest))
    labels = sorted({label for held in base.labels().values() for label in held})
    value = {"folder": str(place), **asdict(found), "labels": labels, "kept_states": states}
    display.show(as_json, value, _print_status, place, found, labels, states, settings.kv_disk)


def _print_status(place: Place, status: Status, labels: Sequence[str], states: CacheStats, most_mb: int) -> None:
    copies = f" ({status.texts:,} different)" if status.texts != status.documents else ""
    kept = f"{display.count(states.states, 'state')}, {states.bytes / 1e6:,.1f} of at most {most_mb:,} MB"
    rows = {
        "Knowledge base": display.short_path(place),
        "Version": f"{status.version} ({status.versions_kept} kept)",
        "Documents": f"{status.documents:,}{copies}",
        "Access labels": ", ".join(labels),
        "Passages": f"{status.passages:,}",
        "Text": display.characters(status.characters, status.source_characters),
        "Embedder": f"{status.embedder.name} ({status.embedder.digest[:12]}, {status.embedder.dimensions} dimensions)",
        "On disk": f"{status.bytes_on_disk / 1e6:,.1f} MB",
        "Synced from": ", ".join(map(display.short_path, status.sources)),
        "Kept states": f"{kept}, of all knowledge bases",
        "In no version": f"{display.count(status.unreferenced, 'text')} of runs that are under way or were interrupted"
        if status.unreferenced
        else "",
    }
    display.say_each(display.table(each for each in rows.items() if each[1]))
    if status.not_indexed:
        display.say(f"\nFiles not in the knowledge base ({len(status.not_indexed)}):")
    by_reason: dict[tuple[str, str], list[Verdict]] = {}
    for each in sorted(status.not_indexed, key=lambda v: (v.outcome, v.reason)):
        by_reason.setdefault((each.outcome, each.reason), []).append(each)
    for (outcome, reason), files in by_reason.items():
        display.say(f"{outcome:<8} {display.count(len(files), 'file')}: {reason}", indent=2)
        for each in files:
            display.say(display.short_path(each.path), indent=11)
        for said in display.remedies(files, place):
            display.say(said, indent=11)


@click.command()
@KB
@JSON
def history(kb: Place | None, as_json: bool) -> None:
    """List the kept versions, newest first."""
    found = context.library(context.read_settings(kb=kb)).history()
    rows = []
    for each in found[:_MAX_VERSIONS]:
        tags = f"  [{', '.join(each.tags)}]" if each.tags else ""
        time = each.created_at.replace("+00:00", "Z")
        rows.append((each.version, time, display.count(each.documents, "document"), f"{each.summary}{tags}"))
    lines = display.table(rows)
    if len(found) > _MAX_VERSIONS:
        lines.append(f"... and {len(found) - _MAX_VERSIONS} older; --json lists all.")
    display.show(as_json, {"versions": found}, display.say_each, lines)


@click.command()
@click.argument("before")
@click.argument("after", required=False)
@KB
@JSON
def diff(before: str, after: str | None, kb: Place | None, as_json: bool) -> None:
    """Show what changed from one version to another.

    Lists the documents that differ between BEFORE and AFTER (default: the newest), and shows the words that changed.
    A version is its number, a tag or a time such as 2026-01-31T12:00.
    """
    library = context.library(context.read_settings(kb=kb))
    found = library.diff(before, after)
    display.show(as_json, found, _print_difference, found, library.base)


def _print_difference(found: Difference, base: KnowledgeBase) -> None:
    from openbook.knowledge.lookup import compare

    display.say(
        f"From version {found.before} to {found.after}: {display.count(len(found.added), 'document')} added, "
        f"{len(found.changed)} changed, {len(found.removed)} removed, {len(found.metadata_changed)} with other metadata or labels; "
        f"{display.count(len(found.passages_added), 'passage')} added, {len(found.passages_removed)} removed."
    )
    for sign, paths, style in (
        ("+", found.added, "green"),
        ("~", found.changed, "yellow"),
        ("@", found.metadata_changed, "yellow"),
        ("-", found.removed, "red"),
    ):
        for path in paths:
            display.say(f"{sign} {display.short_path(path)}", style)
    for path in found.changed[:_MAX_CHANGES]:
        display.say(f"\n~ {display.short_path(path)}", "yellow")
        display.print_words(compare(base, path, found.before, found.after, max_chars=_MAX_CHANGE_CHARS)[1])
    if len(found.changed) > _MAX_CHANGES:
        display.say(f"... and {len(found.changed) - _MAX_CHANGES} more changed documents; --json lists all passages.")


@click.command()
@click.argument("name")
@click.argument("version", required=False)
@KB
@click.option("--drop", is_flag=True, help="Delete the tag instead.")
def tag(name: str, version: str | None, kb: Place | None, drop: bool) -> None:
    """Give VERSION (default: the newest) a NAME. A tagged version is never pruned."""
    from openbook.knowledge.versions import drop_tag

    if drop and version:
        raise ConfigError(f"--drop takes the name of a tag alone, not the version {version!r} too.")
    library = context.library(context.read_settings(kb=kb))
    if drop:
        drop_tag(library.base, name)
        click.echo(f"Dropped the tag {name}.")
    else:
        click.echo(f"{name} is version {library.tag(name, version)}.")


@click.command()
@click.argument("version")
@KB
def restore(version: str, kb: Place | None) -> None:
    """Bring back the documents of VERSION as a new version.

    The new version holds exactly these documents. VERSION is a number, a tag or a time.
    """
    library = context.library(context.read_settings(kb=kb))
    before, number = library.base.version, library.restore(version)
    click.echo(f"Version {number} has the documents of version {version}{' already' if number == before else ''}.")


@click.command()
@KB
@click.option("--keep", type=click.IntRange(1), help="Keep the N newest versions.")
@click.option("--save", is_flag=True, help="Do the same after each later change.")
@JSON
def prune(kb: Place | None, keep: int | None, save: bool, as_json: bool) -> None:
    """Delete old versions and what only they hold. The newest and tagged versions always stay."""
    from openbook.knowledge.store.version_rows import version_ranges

    pruned = context.library(context.read_settings(kb=kb)).prune(keep, save=save)
    value = {"pruned": pruned.versions, "texts_deleted": pruned.contents, "kept": pruned.kept}
    deleted = f"{display.count(pruned.versions, 'version')} and {display.count(pruned.contents, 'text')} deleted"
    said = f"{deleted}. Kept: {version_ranges(pruned.kept)}."
    display.show(as_json, value, click.echo, said)


@click.command()
@click.argument("embedder")
@KB
def reembed(embedder: str, kb: Place | None) -> None:
    """Embed all passages again, with another EMBEDDER.

    EMBEDDER is a name from `openbook models list --available`. Search uses the old vectors until the new ones are complete.
    """
    settings = context.read_settings(kb=kb)
    with display.stages() as progress:
        done = context.library(settings).reembed(embedder, progress=progress)
    if done is None:
        click.echo(f"{settings.kb_place} has the embedder {embedder} already.")
    else:
        click.echo(f"{done[1]:,} texts embedded with {embedder}. {settings.kb_place} is at version {done[0]}.")


@click.command()
@KB
@MODEL
@click.option("-n", "--limit", type=click.IntRange(1), help="How many passages at most, of the newest documents first.")
@cluster_option("Let replicas read on")
@click.option("--replicas", type=click.IntRange(1, 9999), help="How many replicas (default: 1).")
def precompute(
    kb: Place | None, model: str | None, limit: int | None, cluster: str | None, replicas: int | None
) -> None:
    """Precompute passages so that first answers are fast.

    The results are kept on disk, up to the setting kv_disk. Passages that do not fit are skipped, and so are documents
    with access labels. After an interruption, run the same command again. With --cluster, results are
    kept where `serve` looks for them with the same --cluster and --replicas.
    """
    from openbook.answers.reading import strategy_of
    from openbook.core.records import Decoding

    bounds = on_cluster.replica_bounds((replicas, replicas) if replicas else None, cluster)
    settings = context.read_settings(kb=kb, model=model)
    if settings.base_url:
        raise ConfigError("A model behind a server cannot read ahead; unset base_url.")
    base = context.library(settings).base
    states = opening.kv_cache(settings)
    before = states.kept()
    with ExitStack() as stack:
        if cluster is None:
            opened, at_once = opening.open_stored(settings, context.ready_model(settings, settings.model), states), 1
        else:
            open_model, at_once = stack.enter_context(on_cluster.replicas(settings, cluster, bounds))
            opened = open_model(settings)
        stack.enter_context(closing(opened))
        by_passage = strategy_of(settings.strategy, opened, Decoding()) == "each"  # otherwise it reads windows
        tokens = _read_ahead(base, opened, limit, at_once, by_passage=by_passage)
    read, too_long, left = sum(map(bool, tokens)), tokens.count(None), tokens.count(0)
    said = f"{read:,} of {len(tokens):,} passages are precomputed ({sum(filter(None, tokens)):,} tokens)"
    if cluster is None:
        kept = states.kept()
        said += f"; {kept.states:,} states of {kept.bytes / 1e6:,.1f} MB are kept, {kept.states - before.states:,} of them new"
    click.echo(f"{said}.")
    if too_long:
        click.echo(f"{too_long:,} passages are longer than the context of {opened.context_tokens:,} tokens.")
    if states.problem:
        click.echo(f"Not all could be kept: {states.problem}.")
    elif left:
        room = "on the machines of the replicas" if cluster else f"(now {settings.kv_disk:,} MB)"
        click.echo(f"There is no room for the other {left:,}. Raise kv_disk {room} to precompute them too.")


def _read_ahead(
    base: KnowledgeBase, model: FrozenModel, limit: int | None, at_once: int, *, by_passage: bool
) -> list[int | None]:
    """Tokens read of each passage, newest documents first. 0: there was no room; None: too long."""
    from openbook.answers.prompts import open_book_prompt
    from openbook.core.parallel import Cancelled, in_order, never
    from openbook.knowledge.cite.windows import in_windows
    from openbook.knowledge.index.scope import UNLABELLED

    model = model.for_request()
    by_document = map(base.passages, base.documents(UNLABELLED, newest_first=True))
    to_read = (each for found in by_document for each in (found if by_passage else in_windows(found)))
    passages = list(islice(to_read, limit))

    def read(passage: Passage, _: Cancelled) -> int | None:
        try:
            return model.read_ahead(open_book_prompt("?", [passage], model.reader))
        except ContextOverflow:
            return None

    tokens: list[int | None] = []
    with display.progress("precompute") as show, closing(in_order(read, passages, at_once, never)) as done:
        for number, (_, found) in enumerate(done, start=1):
            tokens.append(found)
            show(number, len(passages))
    return tokens
