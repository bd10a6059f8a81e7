"""`openbook status`: what is in a knowledge base, and what is not and why."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--kb", type=click.Path(path_type=Path), help="The knowledge base (default: your own).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def status(kb: Path | None, as_json: bool) -> None:
    """Show the knowledge base's version and size, its embedder, and the files that did not go in."""
    import dataclasses

    from openbook.cli import display, session
    from openbook.knowledge import KnowledgeBase

    folder = session.settings(kb=kb).default_kb
    current = KnowledgeBase.open(folder).status()
    if as_json:
        display.print_json({"folder": str(folder), **dataclasses.asdict(current)})
    else:
        display.print_status(folder, current)
