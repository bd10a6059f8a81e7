"""`openbook probe`: changes what the model reads and looks at what becomes of its answers."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from openbook.cli.asking import check_places, greedy_options, open_asked, surveyed

if TYPE_CHECKING:
    from openbook.config import Settings
    from openbook.diagnosis.probes import ProbeRun
    from openbook.diagnosis.questions import Question, Survey
    from openbook.knowledge import KnowledgeBase
    from openbook.records import Embedder


@click.command()
@click.argument("questions", type=click.Path(path_type=Path))
@click.option("--docs", multiple=True, type=click.Path(path_type=Path), help="Ask these files or folders (repeatable).")
@click.option("--kb", type=click.Path(path_type=Path), help="Ask this knowledge base (default: your own).")
@click.option("--model", help="Name of a stored model, or a model of the server at --base-url.")
@click.option("--base-url", help="Use an OpenAI-compatible server instead of a local model.")
@click.option("--probe", "probes", multiple=True, help="One of those above (repeatable; default: all).")
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, help="Only the first so many questions."
)
@click.option("--report", type=click.Path(path_type=Path), help="Write what was found as a page for a browser.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def probe(
    questions: Path,
    docs: tuple[Path, ...],
    kb: Path | None,
    model: str | None,
    base_url: str | None,
    probes: tuple[str, ...],
    limit: int,
    report: Path | None,
    as_json: bool,
) -> None:
    """Find out with QUESTIONS whether answers follow the passages, and what disturbs them.

    \b
    counterfactual  a value in the passage is altered: does the answer follow?
    abstention      the passage is withheld: does the model say so or invent?
    noise           the passage at each rank, among more and more others

    Documents are never changed. Ctrl-C stops and shows what was measured so far. `openbook diagnose --probes` does the
    same with all options of a diagnosis, and goes on where it was stopped.
    """  # noqa: D301  click keeps the lines after this control character as they are
    from openbook.cli import INTERRUPTED, display, display_diagnosis, session
    from openbook.diagnosis.probes import PROBES, checked_names, to_json
    from openbook.diagnosis.questions import load_questions, unchanged
    from openbook.diagnosis.report import write_probes_page
    from openbook.files import check_replaceable, storage_errors

    names = checked_names(probes or PROBES)
    check_places(docs, kb, questions)
    found = surveyed(questions, "", with_drafts=False)
    # Now, since the file may be another one when the last of them comes to its turn.
    asked = list(islice(unchanged(load_questions(questions), found), limit))
    if report is not None:
        with storage_errors(f"write {report}"):  # before the work, not after it
            check_replaceable(report)
    # What is computed of altered passages must not outlive the run: no purge of a document would find it.
    current = session.settings(kb=kb, kv_disk=0, model=model, base_url=base_url)
    base, embedder = open_asked(current, docs)
    probed = _probed(asked, found, names, current, base, embedder)
    if as_json:
        display.print_json(to_json(probed))
    else:
        display_diagnosis.print_probes(probed)
    if report is not None:  # last: should the disk refuse it, what was found has been shown
        write_probes_page(report, f"Probes with {questions.name}", probed)
    if found.questions > limit:
        click.echo(f"The first {limit} of {found.questions:,} questions were taken; more with --limit.", err=True)
    if probed.stopped:
        click.echo("Interrupted: what was measured until then is above.", err=True)
        raise click.exceptions.Exit(INTERRUPTED)


def _probed(
    asked: Sequence[Question],
    found: Survey,
    names: Sequence[str],
    current: Settings,
    base: KnowledgeBase,
    embedder: Embedder,
) -> ProbeRun:
    """Put the probes to the model of the settings."""
    from openbook.cli import session
    from openbook.diagnosis.probes import run_probes
    from openbook.diagnosis.runner import Bench

    model = session.model_opener(current)()
    try:
        bench = Bench(model, base, embedder, options=greedy_options(current))
        with session.add_progress() as progress, _until_interrupted() as interrupted:
            return run_probes(
                asked,
                bench,
                found.digest,
                names,
                total=len(asked),
                progress=lambda done, total: progress("probe", done, total),
                cancelled=interrupted,
            )
    finally:
        model.close()


@contextmanager
def _until_interrupted() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed. The first one only asks to stop; a second ends the process as it does elsewhere."""
    asked = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def on_interrupt(_signal: int, _frame: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
