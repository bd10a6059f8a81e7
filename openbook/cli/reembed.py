"""`openbook reembed`: another embedder for a knowledge base."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--embedder", required=True, help="Name of an embedder: openbook models list")
@click.option("--kb", type=click.Path(path_type=Path), help="The knowledge base (default: your own).")
def reembed(embedder: str, kb: Path | None) -> None:
    """Embed all passages with another embedder, beside the old vectors, then switch at once."""
    from openbook.cli import session
    from openbook.knowledge import KnowledgeBase
    from openbook.knowledge.embeddings import reembed as embed_anew

    current = session.settings(kb=kb)
    base = KnowledgeBase.open(current.default_kb)
    opened = session.open_embedder(current, embedder)
    if opened.identity == base.embedder:
        click.echo(f"{current.default_kb} has the embedder {embedder} already.")
        return
    with session.add_progress() as progress:
        version, count = embed_anew(base, opened, lock_timeout_s=current.lock_timeout_s, progress=progress)
    click.echo(f"{count:,} texts embedded with {embedder}. {current.default_kb} is at version {version}.")
