"""`openbook add`: files and folders into a knowledge base."""

from __future__ import annotations

from pathlib import Path

import click

from openbook.errors import KnowledgeError


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--kb", type=click.Path(path_type=Path), help="The knowledge base (default: your own).")
@click.option("--label", "labels", multiple=True, help="Only callers with this access label may see them (repeatable).")
@click.option("--unlabel", multiple=True, help="Take this access label away from them (repeatable).")
@click.option("--retry", is_flag=True, help="Also retry unchanged files that failed before.")
@click.option("--ocr", help="Read scanned pages with Tesseract in these languages, such as eng+deu.")
@click.option("--warm", is_flag=True, help="Then let the model read new passages ahead, like openbook warm.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("-v", "--verbose", is_flag=True, help="List every file, not only those that were not added.")
def add(
    paths: tuple[Path, ...],
    kb: Path | None,
    labels: tuple[str, ...],
    unlabel: tuple[str, ...],
    retry: bool,
    ocr: str | None,
    warm: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Put PATHS (files, and all files below folders) into the knowledge base as one new version."""
    from openbook.cli import display_kb, session
    from openbook.cli.warm import read_ahead
    from openbook.knowledge import add as add_files
    from openbook.knowledge.discovery import check_exists
    from openbook.knowledge.scope import EVERYTHING

    current = session.settings(kb=kb, ocr=ocr)
    for path in paths:
        check_exists(path)
    base, embedder = session.ensure_base(current)
    with session.run_options(current, labels=labels, unlabel=unlabel, retry=retry) as options:
        report = add_files(base, paths, embedder, options)
    display_kb.show_report(report, current.default_kb, as_json=as_json, verbose=verbose)
    if not any(v.outcome in ("added", "updated", "unchanged", "duplicate") for v in report.verdicts):
        raise KnowledgeError(f"Nothing readable in {', '.join(map(str, paths))}: no document went in.")
    if warm:
        for line in read_ahead(current, base, EVERYTHING):
            click.echo(line, err=True)
