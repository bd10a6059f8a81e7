"""`openbook status`: what is in a knowledge base, what is not and why, and whether its indexes tell the truth."""

from __future__ import annotations

from pathlib import Path

import click

from openbook.errors import KnowledgeBaseDamaged


@click.command()
@click.option("--kb", type=click.Path(path_type=Path), help="The knowledge base (default: your own).")
@click.option("--documents", is_flag=True, help="List the documents instead, with their access labels.")
@click.option("--check", is_flag=True, help="Also compare the indexes with the truth, byte by byte.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def status(kb: Path | None, documents: bool, check: bool, as_json: bool) -> None:
    """Show the knowledge base's version and size, its embedder, and the files that were not added."""
    import dataclasses

    from openbook.cli import display, display_kb, private, session
    from openbook.inference.embedder import model_digest_of
    from openbook.knowledge import KnowledgeBase
    from openbook.knowledge.check import check as check_base

    settings = session.settings(kb=kb)
    folder, states = settings.default_kb, session.states(settings).kept()
    base = KnowledgeBase.open(folder, damaged=check)
    if documents:
        paths, labels = base.documents(), base.labels()
        if as_json:
            display.print_json({"folder": str(folder), "documents": paths, "labels": labels})
        else:
            display_kb.print_documents(paths, labels)
        return
    checked = check_base(base) if check else None
    if checked is not None and checked.damaged:
        if as_json:
            display.print_json({"folder": str(folder), "check": dataclasses.asdict(checked)})
        else:
            display_kb.print_check(checked)
        raise KnowledgeBaseDamaged(
            f"The knowledge base in {folder} is damaged: {checked.damaged[0]}. Restore it from a backup, or move it away "
            "and add the documents again."
        )
    current = base.status()
    named = model_digest_of(current.embedder, [each.digest for each in session.store(settings).everything()])
    current = dataclasses.replace(current, embedder=dataclasses.replace(current.embedder, digest=named))
    opened = list(private.open_folders([settings.home, folder]))
    if as_json:
        value = {"folder": str(folder), **dataclasses.asdict(current), "kept_states": dataclasses.asdict(states)}
        value["open_folders"] = [str(each) for each in opened]
        if checked is not None:
            value["check"] = dataclasses.asdict(checked)
        display.print_json(value)
    else:
        display_kb.print_status(folder, current)
        display_kb.print_states(states, settings.kv_disk)
        for each in opened:
            click.echo(display.printable(private.sentence(each)))
        if checked is not None:
            display_kb.print_check(checked)
