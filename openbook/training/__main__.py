"""`python -m openbook.training RECIPE`: what `openbook train` starts, in a process of its own.

So the process that answers questions never loads a framework that could change a weight.
"""

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
from typing import TYPE_CHECKING, Any

import click

from openbook.errors import OpenBookError, StorageError

if TYPE_CHECKING:
    from openbook.training.loop import Evaluated, Progress
    from openbook.training.running import Watcher

INTERRUPTED = 130
SAME_INTERRUPT_S = 1.0  # a terminal sends Ctrl-C to this process and to the one that started it, which passes it on


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
    import torch

    from openbook.config import available_cores
    from openbook.models import ModelStore
    from openbook.models.digest import hash_file
    from openbook.training import running
    from openbook.training.processes import processes
    from openbook.training.recipe import Data, load_recipe
    from openbook.training.report import write_report

    loaded = load_recipe(recipe)
    if documents is not None:
        digest, _ = hash_file(documents)
        loaded = loaded.with_documents(
            Data(file=str(documents.absolute()), sha256=digest, knowledge_base=knowledge_base)
        )
    models = ModelStore(store)
    on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(1, available_cores() // on_this_machine))
    if dry_run:
        with tempfile.TemporaryDirectory() as scrap:
            ready = running.prepared(loaded, recipe.parent, models, Path(scrap))
            for sentence in running.brief(ready.problems):
                click.echo(sentence, err=True)
            found = running.measure(loaded, ready, running.checked_device(device))
        _print_measured(found, as_json=as_json)
        return
    with processes() as together:
        with _stopping() as stop, _watching(quiet=as_json or not together.first) as watcher:
            reference = running.train(
                loaded,
                recipe.parent,
                models,
                folder,
                watcher,
                resume=resume,
                should_stop=lambda: bool(stop),
                processes=together,
                device=running.checked_device(device, together),
            )
        if not together.first:
            return
    write_report(folder)
    missed = json.loads((folder / "result.json").read_bytes())["missed"]
    if as_json:
        click.echo(
            json.dumps({"model": reference.digest, "name": reference.name, "run": str(folder), "missed": missed})
        )
        return
    click.echo(f"{reference.name} is here: {reference.digest}")
    click.echo(f"Report: {folder / 'report.html'}")
    for sentence in missed:
        click.echo(f"Short of its target: {sentence}.")
    click.echo(
        f"Try it: openbook ask --model {reference.name} ...  Make it {loaded.name!r}: openbook models promote {loaded.name} {reference.digest[:12]}"
    )


def _print_measured(found: dict[str, float], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"examples            {found['examples']:,.0f}, {found['epoch_tokens']:,.0f} tokens in an epoch")
    click.echo(f"learned parameters  {found['learned_parameters']:,.0f}")
    click.echo(f"steps               {found['steps']:,.0f}")
    click.echo(f"speed               {found['tokens_per_second']:,.0f} tokens a second")
    click.echo(f"memory              {found['memory_mib']:,.0f} MiB")
    click.echo(f"time, estimated     {_duration(found['estimated_seconds'])}, without evaluations")


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return (
        f"{hours:.1f} hours" if hours >= 2 else f"{minutes:.0f} minutes" if minutes >= 2 else f"{seconds:.0f} seconds"
    )


@contextmanager
def _stopping() -> Iterator[list[float]]:
    """A list that Ctrl-C fills: the run ends after the step under way. A second Ctrl-C ends it at once."""
    asked: list[float] = []

    def on_interrupt(_signal: int, _frame: object) -> None:
        now = time.monotonic()
        if asked and now - asked[0] > SAME_INTERRUPT_S:
            raise KeyboardInterrupt
        if not asked:
            asked.append(now)
            click.echo("\nEnding after this step, with a checkpoint. Ctrl-C again ends at once.", err=True)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _watching(*, quiet: bool) -> Iterator[Watcher]:
    """A bar on a terminal; lines in a log."""
    from openbook.training.running import Watcher

    def say(sentence: str) -> None:
        click.echo(sentence, err=True)

    def tell(evaluated: Evaluated) -> None:
        numbers = ", ".join(f"{name} {value:.3f}" for name, value in sorted(evaluated.numbers.items()))
        say(f"step {evaluated.step}: {numbers}")

    if quiet or not sys.stderr.isatty():
        last = [time.monotonic()]

        def step(progress: Progress) -> None:
            if not quiet and time.monotonic() - last[0] > 60:
                last[0] = time.monotonic()
                say(f"step {progress.step} of {progress.steps}: {_state(progress)}")

        yield Watcher(step, (lambda _: None) if quiet else tell, say)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True, highlight=False)
    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bar:
        task = bar.add_task("Training", total=None, state="")

        def moved(progress: Progress) -> None:
            bar.update(task, completed=progress.step, total=progress.steps, state=_state(progress))

        yield Watcher(moved, tell, say)


def _state(progress: Progress) -> str:
    from openbook.training.running import memory_mib

    return f"loss {progress.loss:.3f}, {progress.tokens / progress.seconds:.0f} tokens/s, {memory_mib():,.0f} MiB"


def main() -> None:
    from openbook.training.running import Stopped

    try:
        train.main(standalone_mode=False)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            # All is done; but threads of the connection may abort the process while Python takes itself apart.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
    except OpenBookError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        click.echo(f"Error: The operating system refused: {error.strerror or error}{where}.", err=True)
        sys.exit(StorageError.exit_code)
    except Stopped as stopped:
        click.echo(str(stopped), err=True)
        sys.exit(INTERRUPTED)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted. The last checkpoint is kept; go on with --resume.", err=True)
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
