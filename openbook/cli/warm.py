"""`openbook warm`: let the model read passages before somebody asks."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from openbook.cli.scoping import scope_of, scope_options

if TYPE_CHECKING:
    from openbook.config import Settings
    from openbook.knowledge import KnowledgeBase
    from openbook.knowledge.scope import Scope


@click.command()
@click.option("--kb", type=click.Path(path_type=Path), help="The knowledge base (default: your own).")
@click.option("--model", help="Name of the stored model that will be asked.")
@click.option("--top", type=click.IntRange(1), help="Read at most N passages, of the newest documents first.")
@scope_options
def warm(
    kb: Path | None, model: str | None, top: int | None, as_of: str | None, where: str, labels: tuple[str, ...]
) -> None:
    """Read passages ahead, so that the first question on them is answered as fast as the second.

    What was read is kept on disk, up to the setting kv_disk; passages beyond it are not read. If interrupted, the same command
    continues.
    """
    from openbook.cli import session
    from openbook.knowledge import KnowledgeBase

    current = session.settings(kb=kb, model=model)
    base = KnowledgeBase.open(current.default_kb)
    for line in read_ahead(current, base, scope_of(base, as_of, where, labels), top):
        click.echo(line)


def read_ahead(current: Settings, base: KnowledgeBase, scope: Scope, top: int | None = None) -> list[str]:
    """Let the model of the settings read what `scope` sees, as far as there is room. What was done, in sentences."""
    from openbook.cli import session
    from openbook.errors import ConfigError, ContextOverflow
    from openbook.inference import load_model
    from openbook.knowledge.passages import in_windows
    from openbook.prompts import open_book_prompt

    if current.base_url:
        raise ConfigError("A model behind a server cannot read ahead; unset base_url.")
    documents = base.documents(scope, newest_first=True)
    states = session.states(current)
    reference = session.ready_model(current, current.model)
    reader = load_model(reference, states=states, **session.engine_sizes(current))
    in_order = (base.passages(document, scope.as_of) for document in documents)
    alone = reader.reads_each and not reader.reads_parallel  # and else windows are read
    passages = [p for found in in_order for p in (found if alone else in_windows(found))][:top]
    read = tokens = too_long = 0
    before = states.kept()
    with closing(reader), session.add_progress() as progress:
        for number, passage in enumerate(passages):
            try:
                tokens += reader.read_ahead(open_book_prompt("?", [passage], reader.reader))
                read += 1
            except ContextOverflow:
                too_long += 1
            progress("warm", number + 1, len(passages))
            if states.full:
                break
    kept = states.kept()
    summary = (
        f"{read:,} of {len(passages):,} passages are read ({tokens:,} tokens); {kept.states:,} states of "
        f"{kept.bytes / 1e6:,.1f} MB are kept, {kept.states - before.states:,} of them new."
    )
    lines = [summary]
    if too_long:
        lines.append(f"{too_long:,} passages are longer than the context of {reader.context_tokens:,} tokens.")
    if states.problem:
        lines.append(f"Not all could be kept: {states.problem}.")
    if left := len(passages) - read - too_long:
        lines.append(
            f"The room for them is used up. Raise kv_disk (now {current.kv_disk:,} MB) to read the other {left:,} too."
        )
    return lines
