"""`openbook sync`: a knowledge base equal to folders, once or for as long as they change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click

from openbook.errors import KnowledgeError

if TYPE_CHECKING:
    from openbook.knowledge import KnowledgeBase, Rules

    Job: TypeAlias = tuple[Path, Rules, frozenset[str]]


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--kb", type=click.Path(path_type=Path), help="The knowledge base (default: your own).")
@click.option("--include", multiple=True, help="Only files that fit this glob (repeatable; the syntax of .gitignore).")
@click.option("--exclude", multiple=True, help="No files that fit this glob (repeatable).")
@click.option("--label", "labels", multiple=True, help="Only who holds this access label may see them (repeatable).")
@click.option("--watch", is_flag=True, help="Go on: follow changes until interrupted.")
@click.option("--allow-empty", is_flag=True, help="Remove everything when the folder is empty.")
@click.option("--retry", is_flag=True, help="Read files again that failed before, though they did not change.")
@click.option("--ocr", help="Read scanned pages with Tesseract in these languages, such as eng+deu.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document for each run.")
@click.option("-v", "--verbose", is_flag=True, help="List every file, not only those that did not go in.")
def sync(
    folder: Path | None,
    kb: Path | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    labels: tuple[str, ...],
    watch: bool,
    allow_empty: bool,
    retry: bool,
    ocr: str | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """Make the knowledge base equal to FOLDER: what is new, changed, renamed or gone, as one new version.

    The folder and its rules are remembered. Without FOLDER, all remembered folders are brought up to date.
    """
    from openbook.cli import display_kb, session
    from openbook.knowledge import Rules
    from openbook.knowledge import sync as sync_folder
    from openbook.knowledge.discovery import check_exists
    from openbook.knowledge.scope import checked_labels

    current = session.settings(kb=kb, ocr=ocr)
    if folder is not None:
        check_exists(folder)
    elif include or exclude or labels:
        raise KnowledgeError("--include, --exclude and --label belong to a folder: openbook sync FOLDER --include ...")
    base, embedder = session.ensure_base(current)
    jobs = [(folder, Rules(include, exclude), checked_labels(labels))] if folder else _remembered(base)

    def run_all() -> None:
        for root, rules, own in jobs:
            with session.run_options(current, base, labels=tuple(own), retry=retry) as options:
                report = sync_folder(base, root, embedder, rules, options, allow_empty=allow_empty)
            display_kb.show_report(report, current.default_kb, as_json=as_json, verbose=verbose)

    run_all()
    if watch:
        _watch([root for root, _, _ in jobs], run_all)


def _remembered(base: KnowledgeBase) -> list[Job]:
    from openbook.knowledge.adding import sources

    jobs = [(Path(folder), rules, labels) for folder, rules, labels in sources(base)]
    if not jobs:
        raise KnowledgeError(f"No folder was synced into {base.folder} yet. Name one: openbook sync FOLDER")
    return jobs


def _watch(folders: list[Path], run_all: object) -> None:
    from openbook.cli.session import error_console
    from openbook.errors import KnowledgeBaseBusy
    from openbook.knowledge.watching import changes

    assert callable(run_all)
    console = error_console()
    console.print(f"Watching {', '.join(map(str, folders))}. Ctrl-C ends it.", markup=False, soft_wrap=True)
    for _ in changes(folders):
        try:
            run_all()
        except KnowledgeBaseBusy as error:  # another writer; the next change tries again
            console.print(f"{error}", markup=False, soft_wrap=True)
