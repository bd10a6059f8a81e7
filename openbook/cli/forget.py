"""`openbook remove` and `openbook purge`: documents out of the newest version, or out of all of them for good."""

from __future__ import annotations

from pathlib import Path

import click

from openbook.cli.verify import check_signing, write_signed
from openbook.errors import KnowledgeError


@click.command()
@click.argument("documents", nargs=-1, required=True)
@click.option("--kb", type=click.Path(path_type=Path), help="The knowledge base (default: your own).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def remove(documents: tuple[str, ...], kb: Path | None, as_json: bool) -> None:
    """Take DOCUMENTS (paths, or folders for all below) out as one new version. Older versions keep them; see purge."""
    import os

    from openbook.cli import display, display_kb, session
    from openbook.knowledge import KnowledgeBase
    from openbook.knowledge import remove as remove_documents
    from openbook.knowledge.discovery import display_path
    from openbook.knowledge.updates import sources

    current = session.settings(kb=kb)
    base = KnowledgeBase.open(current.default_kb)
    report = remove_documents(base, documents, lock_timeout_s=current.lock_timeout_s)
    display_kb.show_report(report, current.default_kb, as_json=as_json, verbose=True)
    folders = [f"{display_path(each.folder)}/" for each in sources(base)]
    back = [v.path for v in report.verdicts if v.path.startswith(tuple(folders)) and os.path.lexists(v.path)]
    if back and not as_json:
        names = ", ".join(map(display.short_path, back[:3]))
        click.echo(
            f"Still in a synced folder, so the next sync takes it in again unless --exclude says not to: {names}"
        )


@click.command()
@click.argument("documents", nargs=-1, required=True)
@click.option("--kb", type=click.Path(path_type=Path), help="The knowledge base (default: your own).")
@click.option("--copies", is_flag=True, help="Also purge other documents that hold the same text.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--proof",
    type=click.Path(path_type=Path),
    help="Write what was done to this file, signed, without names and text. See: openbook verify",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def purge(
    documents: tuple[str, ...], kb: Path | None, copies: bool, yes: bool, proof: Path | None, as_json: bool
) -> None:
    """Delete DOCUMENTS (paths, or folders for all below) from all versions, indexes and caches, and prove it by a scan.

    Exits with 4 when the documents are purged and some file in the home folder may still hold traces; it is then named.
    """
    import dataclasses

    from openbook.cli import display, display_kb, session
    from openbook.knowledge import KnowledgeBase
    from openbook.knowledge.erasure import named
    from openbook.purging import Places, finish, proof_of, purge_everywhere

    current = session.settings(kb=kb)
    base = KnowledgeBase.open(current.default_kb)
    if proof is not None:
        check_signing(proof, current.home)
    places = Places.of(current, session.states(current), session.store(current))
    finished = finish(base, places, lock_timeout_s=current.lock_timeout_s)
    try:
        paths = named(base, documents)
    except KnowledgeError as error:
        if not finished:
            raise
        said = f"A purge that was interrupted is finished now. {error} What it deleted cannot be scanned for any more."
        if proof is not None:
            raise KnowledgeError(f"{said} So no proof is written.") from error
        click.echo(said)
        return
    if not yes:
        shown = ", ".join(map(display.short_path, paths[:3])) + (", ..." if len(paths) > 3 else "")
        many = f"{len(paths)} document{'s' if len(paths) > 1 else ''}"
        click.confirm(f"Delete {many} ({shown}) from all versions? This cannot be undone.", abort=True, err=True)
    done = purge_everywhere(base, documents, places, copies=copies, lock_timeout_s=current.lock_timeout_s)
    if proof is not None:
        write_signed(proof, current.home, proof_of(done, base))
    if as_json:
        learned = [dataclasses.asdict(each) for each in done.carried]
        counts = {"caches_dropped": done.caches, "states_dropped": done.states, "diagnoses_dropped": done.diagnoses}
        unreached = [{**dataclasses.asdict(each), "path": str(each.path)} for each in done.out_of_reach]
        more = {
            "runs_dropped": done.runs,
            "unfinished_dropped": done.unfinished,
            "models_that_learned_it": learned,
            "proved": done.proved,
            "scanned": [dataclasses.asdict(each) for each in done.scanned],
            "out_of_reach": unreached,
        }
        display.print_json({**dataclasses.asdict(done.purged), **counts, **more})
    else:
        display_kb.print_purged(done)
    if not done.proved:
        raise KnowledgeError(
            f"The purge is not proved: {len(done.not_clean)} of the files and folders below "
            f"{current.home} may hold traces of them. They are listed with what to do."
        )
