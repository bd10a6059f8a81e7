"""The command line of training: options, progress, and what it prints at the end."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from openbook.config import available_cores
from openbook.models import ModelStore
from openbook.models.digest import hash_file
from openbook.training import run
from openbook.training.distributed import connect
from openbook.training.loop import EvalResult
from openbook.training.recipe import Data, load_recipe
from openbook.training.report import write_report

INTERRUPTED = 130
SAME_INTERRUPT_S = 1.0  # Ctrl-C reaches this process twice: from the terminal and from `openbook train`
LOG_EVERY_S = 60.0  # if there is no terminal for a progress bar


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--store", type=click.Path(path_type=Path), required=True)
@click.option("--folder", type=click.Path(path_type=Path), required=True)
@click.option("--threads", type=int, default=0)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("--documents", type=click.Path(path_type=Path))
@click.option("--knowledge-base")
@click.option("--resume", is_flag=True)
@click.option("--dry-run", is_flag=True)
@click.option("--json", "as_json", is_flag=True)
def train(
    recipe: Path,
    store: Path,
    folder: Path,
    threads: int,
    device: str,
    documents: Path | None,
    knowledge_base: str | None,
    resume: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Do the run that RECIPE determines."""
    loaded = load_recipe(recipe)
    if documents is not None:
        digest, _ = hash_file(documents)
        data = Data(file=str(documents.absolute()), sha256=digest, knowledge_base=knowledge_base)
        loaded = loaded.with_documents(data)
    processes_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(1, available_cores() // processes_here))
    if dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            inputs = run.load_inputs(loaded, recipe.parent, ModelStore(store), Path(scratch))
            run.report_problems(inputs.problems, _say)
            found = run.dry_run(loaded, inputs, run.choose_device(device))
        click.echo(json.dumps(found) if as_json else _estimate(found))
        return
    with connect() as processes:
        with _stop_on_interrupt() as should_stop, _progress(quiet=as_json or not processes.first) as watch:
            try:
                reference = run.train(
                    loaded,
                    recipe.parent,
                    ModelStore(store),
                    folder,
                    watch,
                    resume=resume,
                    should_stop=should_stop,
                    processes=processes,
                    device=run.choose_device(device, processes),
                )
            except run.RunStopped as stopped:
                _say(str(stopped))
                sys.exit(INTERRUPTED)
        if not processes.first:
            return
    write_report(folder)
    missed = json.loads((folder / "result.json").read_bytes())["missed"]
    if as_json:
        result = {"model": reference.digest, "name": reference.name, "run": str(folder), "missed": missed}
        click.echo(json.dumps(result))
        return
    click.echo(f"{reference.name} is here: {reference.digest}")
    click.echo(f"Report: {folder / 'report.html'}")
    for sentence in missed:
        click.echo(f"Short of its target: {sentence}.")
    click.echo(
        f"Try it: openbook ask --model {reference.name} ...  Make it {loaded.name!r}: openbook models promote {loaded.name} {reference.digest[:12]}"
    )


def _estimate(found: dict[str, float]) -> str:
    return (
        f"examples            {found['examples']:,.0f}, {found['epoch_tokens']:,.0f} tokens in an epoch\n"
        f"learned parameters  {found['learned_parameters']:,.0f}\n"
        f"steps               {found['steps']:,.0f}\n"
        f"speed               {found['tokens_per_second']:,.0f} tokens a second\n"
        f"memory              {found['memory_mib']:,.0f} MiB\n"
        f"time, estimated     {found['estimated_seconds'] / 60:,.1f} minutes, without evaluations"
    )


@contextmanager
def _stop_on_interrupt() -> Iterator[run.ShouldStop]:
    """After Ctrl-C the function returns true, so the run ends after this step. A second Ctrl-C ends it at once."""
    asked_at: list[float] = []

    def on_interrupt(_signal: int, _frame: object) -> None:
        now = time.monotonic()
        if asked_at and now - asked_at[0] > SAME_INTERRUPT_S:
            raise KeyboardInterrupt
        if not asked_at:
            asked_at.append(now)
            _say("\nThe run stops after this step, with a checkpoint. Ctrl-C again ends it at once.")

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield lambda: bool(asked_at)
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[run.Watch]:
    """A progress bar on a terminal, lines in a log. `quiet`: messages only."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False),
        transient=True,
        disable=quiet or not sys.stderr.isatty(),
    )
    task = bar.add_task("Training", total=None, state="")
    logged_at = time.monotonic()

    def watch(event: run.Event) -> None:
        nonlocal logged_at
        if isinstance(event, str):
            _say(event)
        elif quiet:
            return
        elif isinstance(event, EvalResult):
            numbers = ", ".join(f"{name} {value:.3f}" for name, value in sorted(event.numbers.items()))
            _say(f"step {event.step}: {numbers}")
        else:
            speed = event.tokens / event.seconds
            state = f"loss {event.loss:.3f}, {speed:.0f} tokens/s, {run.peak_memory_mib():,.0f} MiB"
            bar.update(task, completed=event.step, total=event.steps, state=state)
            if bar.disable and time.monotonic() - logged_at > LOG_EVERY_S:
                logged_at = time.monotonic()
                _say(f"step {event.step} of {event.steps}: {state}")

    with bar:
        yield watch


def _say(sentence: str) -> None:
    click.echo(sentence, err=True)
