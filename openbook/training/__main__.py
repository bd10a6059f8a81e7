"""`python -m openbook.training RECIPE`, which `openbook train` starts as a process of its own.

So the process that answers questions never loads a framework that could change a weight.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from openbook.config import available_cores
from openbook.errors import OpenBookError, StorageError
from openbook.models import ModelStore
from openbook.models.digest import hash_file

if TYPE_CHECKING:
    from openbook.training.run import Event, ShouldStop, Watch

INTERRUPTED = 130
SAME_INTERRUPT_S = 1.0  # Ctrl-C reaches this process twice: from the terminal and from `openbook train`
LOG_EVERY_S = 60.0  # if there is no terminal


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
    import torch  # takes seconds

    from openbook.training import run
    from openbook.training.distributed import connect
    from openbook.training.recipe import Data, load_recipe
    from openbook.training.report import write_report

    loaded = load_recipe(recipe)
    if documents is not None:
        sha256 = hash_file(documents).sha256
        loaded = loaded.with_documents(
            Data(file=str(documents.absolute()), sha256=sha256, knowledge_base=knowledge_base)
        )
    processes_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(1, available_cores() // processes_here))
    if dry_run:
        found = run.dry_run(loaded, recipe.parent, ModelStore(store), _say, run.choose_device(device))
        click.echo(json.dumps(found) if as_json else _estimate(found))
        return
    with connect() as processes, _stop_on_interrupt() as should_stop:
        try:
            reference = run.train(
                loaded,
                recipe.parent,
                ModelStore(store),
                folder,
                _watcher(quiet=as_json or not processes.first),
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
    _clear_line()
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
def _stop_on_interrupt() -> Iterator[ShouldStop]:
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


def _watcher(*, quiet: bool) -> Watch:
    """Shows messages, and unless `quiet` how far the run is: on a terminal in one line, in a log now and then."""
    from openbook.training.loop import EvalResult
    from openbook.training.run import peak_memory_mib

    logged_at = time.monotonic()

    def watch(event: Event) -> None:
        nonlocal logged_at
        if isinstance(event, str):
            _say(event)
        elif quiet:
            return
        elif isinstance(event, EvalResult):
            numbers = ", ".join(f"{name} {value:.3f}" for name, value in sorted(event.numbers.items()))
            _say(f"step {event.step}: {numbers}")
        elif sys.stderr.isatty() or time.monotonic() - logged_at > LOG_EVERY_S:
            logged_at = time.monotonic()
            minutes = (event.steps - event.step) * event.seconds / 60
            state = f"loss {event.loss:.3f}, {event.tokens / event.seconds:.0f} tokens/s, {peak_memory_mib():,.0f} MiB"
            _say(f"step {event.step} of {event.steps}: {state}, {minutes:,.1f} minutes left", stays=False)

    return watch


def _say(sentence: str, *, stays: bool = True) -> None:
    """A line on standard error. On a terminal the next one takes the place of one that does not stay."""
    _clear_line()
    click.echo(sentence, nl=stays or not sys.stderr.isatty(), err=True)


def _clear_line() -> None:
    if sys.stderr.isatty():
        click.echo("\r\033[K", nl=False, err=True)


def main() -> None:
    try:
        train.main(standalone_mode=False)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            # Everything is done, but threads of the connection may abort the process while Python shuts down.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
    except OpenBookError as error:
        _say(f"Error: {error}")
        sys.exit(error.exit_code)
    except OSError as error:
        file = f" ({error.filename})" if error.filename else ""
        _say(f"Error: The operating system refused: {error.strerror or error}{file}.")
        sys.exit(StorageError.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _say("Interrupted. The last checkpoint is kept. Go on with --resume.")
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
