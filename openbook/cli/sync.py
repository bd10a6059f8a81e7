"""`openbook sync`: a knowledge base equal to folders, once or for as long as they change."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from openbook.errors import ConfigError, KnowledgeError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from openbook.knowledge import KnowledgeBase
    from openbook.knowledge.discovery import SyncedFolder

RETRY_S = 5.0  # after another writer, or a disk, refused a run


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--kb", type=click.Path(path_type=Path), help="The knowledge base (default: your own).")
@click.option(
    "--include", multiple=True, help="Only files that match this glob (repeatable; the syntax of .gitignore)."
)
@click.option("--exclude", multiple=True, help="No files that match this glob (repeatable).")
@click.option("--label", "labels", multiple=True, help="Only callers with this access label may see them (repeatable).")
@click.option("--reset", is_flag=True, help="Forget the rules and labels that FOLDER had before.")
@click.option("--forget", is_flag=True, help="Stop syncing FOLDER. Its documents stay.")
@click.option("--watch", is_flag=True, help="Keep running and follow changes until interrupted.")
@click.option("--allow-empty", is_flag=True, help="Remove everything when the folder is empty.")
@click.option("--retry", is_flag=True, help="Also retry unchanged files that failed before.")
@click.option("--ocr", help="Read scanned pages with Tesseract in these languages, such as eng+deu.")
@click.option("--warm", is_flag=True, help="Then let the model read new passages ahead, like openbook warm.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document for each run.")
@click.option("-v", "--verbose", is_flag=True, help="List every file, not only those that were not added.")
def sync(
    folder: Path | None,
    kb: Path | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    labels: tuple[str, ...],
    reset: bool,
    forget: bool,
    watch: bool,
    allow_empty: bool,
    retry: bool,
    ocr: str | None,
    warm: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Make the knowledge base equal to FOLDER: what is new, changed, renamed or gone, as one new version.

    FOLDER, its globs, labels and OCR are remembered and hold until others are given, or --reset. Without FOLDER, all
    remembered folders are brought up to date together.
    """
    from openbook.cli import display_kb, session
    from openbook.cli.warm import read_ahead
    from openbook.knowledge.discovery import check_exists, display_path
    from openbook.knowledge.scope import EVERYTHING, checked_labels
    from openbook.knowledge.updates import forget_source, sync_folders

    current = session.settings(kb=kb, ocr=ocr)
    if folder is None and (include or exclude or labels or reset or forget):
        raise ConfigError("--include, --exclude, --label, --reset and --forget need a folder: openbook sync FOLDER ...")
    if folder is not None and forget:
        from openbook.knowledge import KnowledgeBase

        forget_source(KnowledgeBase.open(current.default_kb), folder, lock_timeout_s=current.lock_timeout_s)
        click.echo(f"{folder} is no longer synced. To remove its documents: openbook remove {folder}")
        return
    if folder is not None:
        check_exists(folder)
    base, embedder = session.ensure_base(current) if folder else session.open_base(current)
    folders = _remembered(base)
    if folder is not None:
        folders = [_merged(folder, folders, include, exclude, checked_labels(labels), current.ocr, reset=reset)]
    elif not folders:
        raise KnowledgeError(f"No folder was synced into {base.folder} yet. Name one: openbook sync FOLDER")

    def run_all() -> None:
        with session.run_options(current, retry=retry) as options:
            report = sync_folders(base, folders, embedder, options, allow_empty=allow_empty)
        display_kb.show_report(report, current.default_kb, as_json=as_json, verbose=verbose)
        if closed := [v for v in report.verdicts if v.outcome == "failed" and v.path in roots]:
            raise KnowledgeError(f"{len(closed)} of {len(folders)} folders could not be synced: {closed[0].reason}.")
        if warm:
            for line in read_ahead(current, base, EVERYTHING):
                click.echo(line, err=True)

    roots = {display_path(each.folder) for each in folders}
    if watch:
        with suppress(KeyboardInterrupt):  # how it is meant to end
            _watch([each.folder for each in folders], run_all)
    else:
        run_all()


def _remembered(base: KnowledgeBase) -> list[SyncedFolder]:
    from openbook.knowledge.updates import sources

    return sources(base)


def _merged(
    folder: Path,
    known: Sequence[SyncedFolder],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    labels: frozenset[str],
    ocr: str,
    *,
    reset: bool,
) -> SyncedFolder:
    """What is asked of `folder`, and where nothing is asked what was remembered of it."""
    from openbook.knowledge import Rules
    from openbook.knowledge.discovery import SyncedFolder

    folder = Path(os.path.abspath(folder))
    before = next((each for each in known if each.folder == folder and not reset), SyncedFolder(folder))
    rules = Rules(include, exclude) if include or exclude else before.rules
    return SyncedFolder(folder, rules, labels or before.labels, ocr or before.ocr)


def _watch(folders: list[Path], run: Callable[[], None]) -> None:
    """Run once, and again whenever something changed; what is refused now is tried again."""
    from openbook.cli.session import error_console
    from openbook.knowledge.updates import folder_changes

    console = error_console()
    first = due = True
    not_before = 0.0
    for changed in folder_changes(folders):
        due = due or changed > 0
        if not due or time.monotonic() < not_before:
            continue
        if not first:
            console.print(f"{datetime.now().astimezone():%H:%M:%S}", end=" ")
        try:
            run()
            due = False
        except (KnowledgeError, StorageError) as error:
            if first:
                raise
            console.print(f"{error} Next try in {RETRY_S:g} s.", markup=False, soft_wrap=True)
            not_before = time.monotonic() + RETRY_S
        if first:
            console.print(f"Watching {', '.join(map(str, folders))}. Ctrl-C ends it.", markup=False, soft_wrap=True)
            first = False
