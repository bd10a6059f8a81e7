"""`openbook add, sync, remove, purge`."""

from __future__ import annotations

import math
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from openbook.cli import context, display
from openbook.cli.options import EXISTING, JSON, KB, PATH, YES, cluster_option
from openbook.core.config import Place
from openbook.core.errors import ConfigError, FilesFailed, KnowledgeBaseBusy, KnowledgeError, SourceError, StorageError
from openbook.core.records import Outcome
from openbook.sources.registry import is_address

if TYPE_CHECKING:
    from openbook.knowledge import Report
    from openbook.knowledge.ingest.discovery import SyncedFolder
    from openbook.proofs.purge import PurgedEverywhere

RETRY_S = 5.0  # after another writer, or the disk, refused a run

_REQUIRE_LABEL = click.option(
    "--require-label", "labels", multiple=True, help="Only holders of this label may see the documents (repeatable)."
)
_OCR = click.option(
    "--ocr", help="Read scanned pages with Tesseract in these languages, such as eng+deu; none: do not read them."
)
_LENIENT = click.option("--lenient", is_flag=True, help="Exit with 0, not 8, when files could not be read.")
_CLUSTER = cluster_option("Parse and embed on all machines of", by_client=True)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=EXISTING)
@KB
@_REQUIRE_LABEL
@click.option("--unlabel", multiple=True, help="Remove this label from the documents (repeatable).")
@_OCR
@_CLUSTER
@_LENIENT
@JSON
def add(
    paths: tuple[Path, ...],
    kb: Place | None,
    labels: tuple[str, ...],
    unlabel: tuple[str, ...],
    ocr: str | None,
    cluster: str | None,
    lenient: bool,
    as_json: bool,
) -> None:
    """Add files to the knowledge base, as one new version.

    PATHS are files or folders. To also remove documents whose files are gone: openbook sync
    """
    settings = context.read_settings(kb=kb, ocr=ocr)
    library, workers = context.library(settings), partial(context.workers, cluster)
    with context.joined(cluster), display.stages() as progress:
        report = library.add(paths, require_labels=labels, unlabel=unlabel, progress=progress, workers=workers)
    _show(report, settings.kb_place, as_json)
    if not any(each.outcome in ("added", "updated", "unchanged", "duplicate") for each in report.verdicts):
        raise KnowledgeError(f"Nothing readable in {', '.join(map(str, paths))}: no document was added.")
    _refuse_failed(report, lenient=lenient)


def _refuse_failed(report: Report, synced: Collection[str] = (), *, lenient: bool) -> None:
    """Raises KnowledgeError if one of `synced` failed, FilesFailed for a file unless `lenient`."""
    failed = {each.path: each.reason for each in report.verdicts if each.outcome == "failed"}
    if away := [reason for path, reason in failed.items() if path in synced]:
        raise KnowledgeError(f"{len(away)} of {len(synced)} could not be synced: {away[0]}.")
    if failed and not lenient:
        raise FilesFailed(
            f"{display.count(len(failed), 'file')} could not be read: {display.short_paths(list(failed))}. The rest is in "
            "the knowledge base. To exit with 0 all the same: --lenient"
        )


def _show(report: Report, place: Place, as_json: bool) -> None:
    display.show(as_json, {"knowledge_base": str(place), **asdict(report)}, _print_report, report, place)


def _print_report(report: Report, place: Place) -> None:
    display.print_problems(report.verdicts, place)
    counts = Counter(each.outcome for each in report.verdicts)
    told = [f"{counts[outcome]} {outcome}" for outcome in get_args(Outcome) if counts[outcome]]
    tally = ", ".join(told) or "no files found"
    read = f"{display.characters(report.characters, report.source_characters)}. " if report.source_characters else ""
    display.say(f"{tally}. {read}{display.short_path(place)} is at version {report.version}.")
    if report.taken_over:
        path, labels = min(report.taken_over.items())
        display.say(
            f"A file with access labels is gone, and {display.short_paths(sorted(report.taken_over))} may be the same under another name. So the "
            f"labels hold there too. If it is another document: openbook add {display.short_path(path)} "
            + " ".join(f"--unlabel {label}" for label in labels),
            "yellow",
        )
    if report.unlabelled_copies:
        display.say(
            f"The label closes a document and not its text: {display.short_paths(report.unlabelled_copies)} holds the same text and "
            "carries no label. To close it too: openbook add FILE --require-label LABEL",
            "yellow",
        )


class _FolderOrAddress(click.Path):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if isinstance(value, str) and is_address(value) else super().convert(value, param, ctx)


def duration(text: str) -> float:
    """Seconds. Raises click.BadParameter."""
    found = re.fullmatch(r"([1-9][0-9]{0,5})([smh])", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not a duration such as 90s, 10m or 1h.")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


@click.command()
@click.argument("folder", metavar="[FOLDER|ADDRESS]", required=False, type=_FolderOrAddress(path_type=Path))
@KB
@click.option("--include", multiple=True, help="Only what matches this glob, as in .gitignore (repeatable).")
@click.option("--exclude", multiple=True, help="Nothing that matches this glob (repeatable).")
@_REQUIRE_LABEL
@_OCR
@_CLUSTER
@_LENIENT
@click.option("--reset", is_flag=True, help="Drop the remembered globs, labels and OCR.")
@click.option("--forget", is_flag=True, help="Stop syncing this folder or address. Its documents stay.")
@click.option("--watch", is_flag=True, help="Keep running: sync folders when they change, until Ctrl-C.")
@click.option("--every", type=duration, help="Keep running: sync again every 90s, 10m or 1h, until Ctrl-C.")
@JSON
def sync(
    folder: str | Path | None,
    kb: Place | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    labels: tuple[str, ...],
    ocr: str | None,
    cluster: str | None,
    lenient: bool,
    reset: bool,
    forget: bool,
    watch: bool,
    every: float | None,
    as_json: bool,
) -> None:
    """Update the documents of a folder, web site or other source.

    Adds new, changed and renamed documents and removes those that are gone, as one new version. An ADDRESS is a web
    site such as https://docs.example.org/, a mailbox, a bucket and more: see docs/sources.md. The command remembers the
    folder or address with its globs, labels and OCR until you give others, or --reset. Without FOLDER, it updates all
    that it remembers, and all in the file sources.toml in the knowledge base's folder.
    """
    settings = context.read_settings(kb=kb, ocr=ocr)
    if folder is None and (include or exclude or labels or ocr or reset or forget):
        raise ConfigError(
            "--include, --exclude, --require-label, --ocr, --reset and --forget need a folder: openbook sync FOLDER ..."
        )
    library, workers = context.library(settings), partial(context.workers, cluster)
    if folder is not None and forget:
        library.forget(folder)
        said = f"{folder} is no longer synced. To remove its documents: openbook remove {folder}"
        display.show(as_json, {"forgotten": str(folder)}, click.echo, said)
        return

    def run(folders: list[SyncedFolder]) -> None:
        with display.stages() as progress:
            report = library.sync_folders(folders, progress=progress, workers=workers)
        _show(report, settings.kb_place, as_json)
        _refuse_failed(report, {each.name for each in folders}, lenient=lenient or watch or bool(every))

    find = partial(library.to_sync, folder, include=include, exclude=exclude, require_labels=labels, reset=reset)
    folders = find()
    if watch and not every and all(each.address for each in folders):
        raise ConfigError("--watch follows folders. To fetch addresses again and again: --every 10m")
    with context.joined(cluster):
        if watch or every:
            with suppress(KeyboardInterrupt):  # Ctrl-C is the normal end
                _keep_syncing(find, run, every, watch=watch)
        else:
            run(folders)


def _keep_syncing(
    find: Callable[[], list[SyncedFolder]],
    run: Callable[[list[SyncedFolder]], None],
    every_s: float | None,
    *,
    watch: bool,
) -> None:
    """Run now, then folders after every change if `watch`, and `every_s` all that `find` finds then. Then also retry refused runs."""
    from openbook.knowledge.ingest.discovery import folder_changes

    folders = find()
    watched = [each for each in folders if watch and not each.address]
    changes = folder_changes([each.folder for each in watched])
    next(changes, 0)  # no change is missed from here on
    run(folders)
    said = [f"Watching {', '.join(each.name for each in watched)}."] if watched else []
    said += [f"Syncing again in {every_s:g} s."] if every_s else []
    display.note(f"{' '.join(said)} Ctrl-C ends it.")
    due: list[SyncedFolder] = []
    not_before, next_s = 0.0, time.monotonic() + (every_s or math.inf)
    for changed in changes:
        is_time = time.monotonic() >= next_s
        if changed and not due:
            due = watched
        if not (due or is_time) or time.monotonic() < not_before:
            continue
        try:
            if is_time:
                next_s = time.monotonic() + (every_s or math.inf)
                due = folders = find()
            what = "something changed" if due is watched else "syncing again"
            display.note(f"{datetime.now().astimezone():%H:%M:%S}: {what}.")
            run(due)
            due = []
        except (ConfigError, KnowledgeError, SourceError, StorageError) as error:
            if due is not watched and every_s and not isinstance(error, KnowledgeBaseBusy | StorageError):
                due = []  # a source that is away is not asked more often than `every_s`
                display.note(f"{error} The next sync tries again.")
            else:
                not_before = time.monotonic() + RETRY_S
                display.note(f"{error} Next try in {RETRY_S:g} s.")


@click.command()
@click.argument("documents", nargs=-1, required=True)
@KB
@JSON
def remove(documents: tuple[str, ...], kb: Place | None, as_json: bool) -> None:
    """Remove documents; older versions keep them.

    DOCUMENTS are paths of documents or folders. The result is one new version. To delete for good: openbook purge
    """
    from openbook.knowledge.ingest.mirror import mirrored_files
    from openbook.knowledge.store.names import path_displayed
    from openbook.knowledge.synced_folders import synced_folders

    settings = context.read_settings(kb=kb)
    library = context.library(settings)
    base, report = library.base, library.remove(documents)
    _show(report, settings.kb_place, as_json)
    folders = tuple(each.prefix for each in synced_folders(base))
    fetched = mirrored_files(base.folder, [each.path for each in report.verdicts])

    def is_there(path: str) -> bool:
        on_disk = not is_address(path) and path.startswith(folders) and os.path.lexists(path_displayed(path))
        return on_disk or path in fetched

    back = [each.path for each in report.verdicts if is_there(each.path)]
    if back and not as_json:
        display.say(
            f"Still at its source: {display.short_paths(back)}. The next sync adds it again unless you --exclude it."
        )


_DELETED_TOO = {
    "caches": "cached knowledge base",
    "runs": "stopped training run",
    "states": "computed state",
    "diagnoses": "diagnosis folder",
    "unfinished": "unfinished file",
}


@click.command()
@click.argument("documents", nargs=-1, required=True)
@KB
@click.option("--copies", is_flag=True, help="Also purge other documents that hold the same text.")
@YES
@click.option("--proof", type=PATH, help="Write a signed proof, without names and text. See: openbook verify")
@JSON
def purge(
    documents: tuple[str, ...], kb: Place | None, copies: bool, yes: bool, proof: Path | None, as_json: bool
) -> None:
    """Delete documents from all versions, and prove it.

    DOCUMENTS are paths of documents or folders. Deletes them from all versions, indexes and caches, then scans for
    traces. Exits with 4 if the documents are purged but a file in the home folder may still hold traces, and names it.
    """
    from openbook.answers.standing_questions import recorded_changes
    from openbook.knowledge.erasure import resolve_in_all_versions
    from openbook.proofs.purge import clear_remnants, finish_purge_everywhere, proof_of, purge_everywhere

    settings = context.read_settings(kb=kb)
    base = context.library(settings).base
    if proof is not None:
        context.check_signing(proof, settings)
    finished = finish_purge_everywhere(base, settings)
    try:
        paths = resolve_in_all_versions(base, documents)
    except KnowledgeError as error:
        if not finished:
            cleared = clear_remnants(base, settings)
            if found := ", ".join(display.count(number, what) for what, number in cleared.items() if number):
                raise KnowledgeError(f"Deleted what interrupted runs had left: {found}. {error}") from error
            raise
        said = f"A purge that was interrupted is finished now. {error} What it deleted cannot be scanned for any more."
        if proof is not None:
            raise KnowledgeError(f"{said} So no proof is written.") from error
        display.show(as_json, {"finished": True}, click.echo, said)
        return
    many = f"{display.count(len(paths), 'document')} ({display.short_paths(paths)})"
    changes = recorded_changes(settings)
    also = f", and {display.count(changes, 'recorded change')} of answers to standing questions" if changes else ""
    display.confirm(f"Delete {many} from all versions{also}? This cannot be undone.", yes=yes)
    done = purge_everywhere(base, documents, settings, copies=copies)
    if proof is not None:
        context.write_signed(proof, settings, proof_of(done, base))
    value = asdict(done.purged) | {f"{kind}_deleted": getattr(done.deleted, kind) for kind in _DELETED_TOO}
    value |= {"models_that_learned_it": done.carried, "proved": done.proved}
    value |= {"changes_deleted": changes, "scanned": done.scanned, "out_of_reach": done.out_of_reach}
    display.show(as_json, value, _print_purged, done, changes)
    if not done.proved:
        raise KnowledgeError(
            f"The purge is not proved: {display.count(len(done.not_clean), 'path')} below {settings.home} may hold "
            "traces of the documents. They are listed with what to do."
        )


def _print_purged(done: PurgedEverywhere, changes: int) -> None:
    purged, deleted = done.purged, done.deleted
    documents, passages = display.count(deleted.documents, "document"), display.count(deleted.passages, "passage")
    display.say(f"{documents} and {passages} purged from every version; version {purged.version} begins.")
    scanned = f"{display.count(done.files, 'file')}, {done.bytes:,} bytes scanned"
    if done.proved:
        display.say(
            f"Proof: {scanned}; nothing of the documents' text, names, keys or vectors is left, except what other documents hold too."
        )
    else:
        display.say(f"Not proved: {scanned}, but these may hold traces of them:", "red")
        for each in done.not_clean:
            display.say(f"{each.path} ({each.reason}): {each.advice}", "red", indent=2)
    counts = {what: getattr(deleted, kind) for kind, what in _DELETED_TOO.items()} | {"recorded answer change": changes}
    if found := [display.count(number, what) for what, number in counts.items() if number]:
        display.say(f"Deleted too: {', '.join(found)}.")
    if weights := done.unreached.get("weights"):
        display.say(
            f"Not scanned: {display.count(weights, 'file')} of models' numbers. A model that has learned from them is named."
        )
    if purged.partly_kept:
        names = display.short_paths(purged.partly_kept)
        display.say(
            f"These documents keep other texts in some version. If those must go too, purge them by name: {names}",
            "yellow",
        )
    lost = f"; without the labels {', '.join(purged.labels)}, unless you give them again" if purged.labels else ""
    for at_source, where in (
        (False, "on this disk, and taken in again by the next add or sync over it"),
        (True, "at its source, and fetched again by the next sync unless --exclude says not to"),
    ):
        if paths := [path for path in purged.still_on_disk if is_address(path) is at_source]:
            display.say(f"Still {where}{lost}: {display.short_paths(paths)}", "yellow")
    for model in done.carried:
        if model.found is None:
            display.say(f"Whether the model {model.name} has learned from it is {model.note}.")
        else:
            display.say(
                f"The model {model.name} ({model.model[:12]}) has learned from it, and a model cannot forget. Train it again "
                f"without these documents, or remove it: openbook models remove {model.name}"
            )
    for limit in purged.beyond_reach:
        display.say(f"Beyond reach: {limit}", "dim")
