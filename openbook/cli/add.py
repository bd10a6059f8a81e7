"""`openbook add`: files and folders into a knowledge base."""

from __future__ import annotations

from pathlib import Path

import click

from openbook.errors import KnowledgeError


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--kb", type=click.Path(path_type=Path), help="The knowledge base (default: your own).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("-v", "--verbose", is_flag=True, help="List every file, not only those that did not go in.")
def add(paths: tuple[Path, ...], kb: Path | None, as_json: bool, verbose: bool) -> None:
    """Put PATHS (files, and all files below folders) into the knowledge base as one new version."""
    import dataclasses

    from openbook.cli import display, session
    from openbook.knowledge import KnowledgeBase
    from openbook.knowledge import add as add_files
    from openbook.knowledge.discovery import check_exists

    current = session.settings(kb=kb)
    for path in paths:
        check_exists(path)
    folder = current.default_kb
    embedder = session.open_embedder(current)
    base = KnowledgeBase.ensure(folder, embedder.identity, lock_timeout_s=current.lock_timeout_s)
    with session.add_progress() as progress:
        report = add_files(
            base,
            paths,
            embedder,
            max_file_bytes=current.max_file_mb * 1_000_000,
            lock_timeout_s=current.lock_timeout_s,
            progress=progress,
        )
    if as_json:
        display.print_json({"knowledge_base": str(folder), **dataclasses.asdict(report)})
    else:
        display.print_verdicts(report.verdicts, only_problems=not verbose)
        display.print_tally(report, folder)
    if not any(v.outcome in ("added", "updated", "unchanged") for v in report.verdicts):
        raise KnowledgeError(f"Nothing readable in {', '.join(map(str, paths))}: no document went in.")
