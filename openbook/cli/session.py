"""What several verbs need: settings from flags, stored models, progress on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from openbook.config import Settings, load_settings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from openbook.inference import FrozenModel
    from openbook.models import ModelReference, ModelStore
    from openbook.records import Embedder


def settings(**flags: object) -> Settings:
    return load_settings(flags=flags)


def store(current: Settings) -> ModelStore:
    from openbook.models import ModelStore

    return ModelStore(current.models_dir)


def error_console() -> Console:
    """Progress and notes go to standard error, so that standard output holds the answer alone."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def open_embedder(current: Settings, *, full_check: bool = False) -> Embedder:
    from openbook.inference import load_embedder

    return load_embedder(ready_model(current, current.embedder, full_check=full_check), threads=current.threads)


def open_model(current: Settings, *, full_check: bool = False) -> FrozenModel:
    """The model to ask: behind a server when `base_url` is set, otherwise from the store, verified."""
    import os

    from openbook.inference import connect_model, load_model

    if current.base_url:
        key = os.environ.get(current.api_key_env, "")
        return connect_model(
            current.model, base_url=current.base_url, api_key=key, context_tokens=current.context_tokens
        )
    reference = ready_model(current, current.model, full_check=full_check)
    return load_model(reference, context_tokens=current.context_tokens, threads=current.threads)


def ready_model(current: Settings, name: str, *, full_check: bool = False) -> ModelReference:
    """The stored model of that name, pulled first if the catalogue has it, and verified."""
    from openbook.models import ensure

    models = store(current)
    with download_progress() as (announce, progress):
        reference = ensure(models, name, announce=announce, progress=progress)
    if full_check:
        models.verify(reference)
    return reference


@contextmanager
def download_progress() -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None]]]:
    """(announce a line, show bytes done of total); the bar appears with the first call and is gone at the end."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    console = error_console()
    shown: list[Progress] = []

    def announce(line: str) -> None:
        console.print(line, markup=False)

    def show(done: int, total: int) -> None:
        if not shown:
            columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
            bar = Progress(*columns, console=console, transient=True)
            bar.start()
            bar.add_task("download", total=total or None)
            shown.append(bar)
        shown[0].update(shown[0].task_ids[0], completed=done, total=total or None)

    try:
        yield announce, show
    finally:
        for bar in shown:
            bar.stop()


@contextmanager
def add_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Two bars on standard error: files read, passages embedded."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    titles = {"read": "Reading files", "embed": "Embedding passages"}
    with Progress(*columns, console=error_console(), transient=True) as bars:
        tasks: dict[str, object] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(titles[stage], total=total)
            bars.update(tasks[stage], completed=done, total=total)  # type: ignore[arg-type]

        yield show
