"""`openbook search`: the passages for a query, without a language model."""

from __future__ import annotations

from pathlib import Path

import click

from openbook.cli.scoping import scope_of, scope_options


@click.command()
@click.argument("query")
@click.option("--kb", type=click.Path(path_type=Path), help="The knowledge base (default: your own).")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many passages.")
@scope_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def search(
    query: str, kb: Path | None, limit: int, as_of: str | None, where: str, labels: tuple[str, ...], as_json: bool
) -> None:
    """Find the passages that match QUERY best, by meaning and by words."""
    import dataclasses

    from openbook.answer import checked_question
    from openbook.cli import display, session

    query = checked_question(query)
    base, embedder = session.open_base(session.settings(kb=kb))
    version, hits = base.search(query, embedder, limit, scope_of(base, as_of, where, labels))
    if as_json:
        found = [dataclasses.asdict(h) for h in hits]
        display.print_json({"query": query, "knowledge_base": base.id, "version": version, "hits": found})
    else:
        display.print_hits(query, hits)
