"""What several verbs need: settings from flags, stored models, progress on the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from openbook.cli import private
from openbook.config import Settings, load_settings
from openbook.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from openbook.answer import Strategy
    from openbook.inference import FrozenModel
    from openbook.inference.embedder import OnnxEmbedder
    from openbook.inference.kv_cache import KVCache
    from openbook.knowledge import KnowledgeBase, RunOptions
    from openbook.knowledge.splitter import Sizing
    from openbook.models import ModelReference, ModelStore
    from openbook.records import Embedder


def settings(**flags: object) -> Settings:
    current = load_settings(flags=flags)
    private.share_as([current.home, current.default_kb])
    return current


def store(current: Settings) -> ModelStore:
    from openbook.models import ModelStore

    return ModelStore(current.models_dir)


def error_console() -> Console:
    """Progress and notes go to standard error, so that standard output holds the answer alone."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def open_embedder(current: Settings, name: str = "", *, full_check: bool = False) -> OnnxEmbedder:
    """The embedder of that name (default: the one of the settings)."""
    from openbook.inference import load_embedder

    return load_embedder(ready_model(current, name or current.embedder, full_check=full_check), threads=current.threads)


def open_base(current: Settings, *, full_check: bool = False) -> tuple[KnowledgeBase, Embedder]:
    """The knowledge base of the settings and the embedder that it was made with."""
    from openbook.knowledge import KnowledgeBase

    base = KnowledgeBase.open(current.default_kb)
    embedder = open_embedder(current, base.embedder.name, full_check=full_check)
    base.check_embedder(embedder.identity)
    remember_place(current, base)
    return base, embedder


def remember_place(current: Settings, base: KnowledgeBase) -> None:
    """Where the knowledge base of this id lies, for `openbook replay`: a receipt names the id alone."""
    from openbook.files import make_folder, replace_file

    note, place = current.bases_dir / base.id, os.fsencode(base.folder)
    with suppress(OSError):  # a home that cannot be written still answers
        if base.id.isalnum() and not (note.is_file() and note.read_bytes() == place):
            make_folder(current.bases_dir)
            replace_file(note, place)


def remembered_place(current: Settings, base_id: str) -> Path | None:
    try:
        return Path(os.fsdecode((current.bases_dir / base_id).read_bytes())) if base_id.isalnum() else None
    except OSError:
        return None


def ensure_base(current: Settings) -> tuple[KnowledgeBase, Embedder]:
    """As `open_base`; where there is none yet, a new one with the embedder of the settings."""
    from openbook.errors import KnowledgeBaseMissing

    try:
        return open_base(current)
    except KnowledgeBaseMissing:
        embedder = open_embedder(current)
        return new_base(current, current.default_kb, embedder), embedder


def new_base(current: Settings, folder: Path, embedder: Embedder) -> KnowledgeBase:
    """An empty one in `folder`, as the settings have it; the one that is there, if another process made it meanwhile."""
    from openbook.knowledge import KnowledgeBase

    sizing, timeout_s = sizing_of(current), current.lock_timeout_s
    return KnowledgeBase.ensure(folder, embedder.identity, sizing=sizing, lock_timeout_s=timeout_s)


def sizing_of(current: Settings) -> Sizing:
    """How large the passages of a new knowledge base are."""
    from openbook.knowledge.splitter import Sizing

    return Sizing(current.passage_chars, current.passage_overlap)


@contextmanager
def run_options(
    current: Settings,
    *,
    labels: tuple[str, ...] = (),
    unlabel: tuple[str, ...] = (),
    retry: bool = False,
) -> Iterator[RunOptions]:
    """How a run over files reads, by the settings, with bars on standard error."""
    from openbook.knowledge import RunOptions
    from openbook.knowledge.scope import checked_labels
    from openbook.parsers.sandbox import Limits

    limits = Limits(current.read_timeout_s, current.read_memory_mb, current.max_file_mb * 1_000_000)
    held, dropped = checked_labels(labels), checked_labels(unlabel)
    with add_progress() as progress:
        yield RunOptions(limits, held, dropped, retry, current.ocr, current.lock_timeout_s, progress)


def model_opener(current: Settings, *, full_check: bool = False) -> Callable[[], FrozenModel]:
    """Fetch and verify the model to ask now; the function returned opens it, on any thread.

    The model is one of the server at `base_url`, when that is set, otherwise one of the store.
    """
    from openbook.inference import connect_model, load_model

    if current.base_url:
        key = os.environ.get(current.api_key_env, "")
        context_tokens = current.context_tokens
        return lambda: connect_model(
            current.model, base_url=current.base_url, api_key=key, context_tokens=context_tokens
        )
    reference = ready_model(current, current.model, full_check=full_check)
    kept, sizes = states(current), engine_sizes(current)
    return lambda: load_model(reference, states=kept, **sizes)


class EngineSizes(TypedDict):
    """What decides how a model computes, besides itself."""

    context_tokens: int
    threads: int
    kv_bits: int


def engine_sizes(current: Settings) -> EngineSizes:
    return EngineSizes(context_tokens=current.context_tokens, threads=current.threads, kv_bits=current.kv_bits)


def strategy(current: Settings) -> Strategy:
    """How passages are read. Raises ConfigError."""
    from openbook.answer import STRATEGIES

    if current.strategy not in STRATEGIES:
        raise ConfigError(f"strategy must be one of {', '.join(STRATEGIES)}, not {current.strategy!r}.")
    return STRATEGIES[STRATEGIES.index(current.strategy)]


def states(current: Settings) -> KVCache:
    """What models computed of passages, kept for later processes."""
    from openbook.inference.kv_cache import KVCache

    return KVCache(current.states_dir, memory_bytes=current.kv_memory << 20, disk_bytes=current.kv_disk << 20)


def ready_model(current: Settings, name: str, *, full_check: bool = False) -> ModelReference:
    """The stored model of that name, pulled first if the catalogue has it, and verified."""
    from openbook.inference.trial import try_model
    from openbook.models import ensure

    models = store(current)
    with download_progress() as (announce, progress):
        reference = ensure(models, name, announce=announce, progress=progress, try_out=try_model)
    if full_check:
        models.verify(reference)
    return reference


def ready_base(current: Settings, recipe: Path) -> None:
    """Pull the base that a recipe names, when only the catalogue has it. What is wrong with a recipe, training says."""
    import tomllib

    from openbook.models import CATALOGUE

    try:
        base = tomllib.loads(recipe.read_text(encoding="utf-8")).get("base")
    except (OSError, ValueError):
        return
    name = base.get("model") if isinstance(base, dict) else None
    if isinstance(name, str) and name in CATALOGUE:
        ready_model(current, name)


@contextmanager
def download_progress() -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None]]]:
    """(announce a line, show bytes done of total); the bar appears with the first call and is gone at the end."""

    def announce(line: str) -> None:
        error_console().print(line, markup=False, soft_wrap=True)

    with _bars("download") as show:
        yield announce, lambda done, total: show("Fetching", done, total)


@contextmanager
def add_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Bars on standard error: files read, passages embedded."""
    titles = {
        "digest": "Comparing files",
        "read": "Reading files",
        "embed": "Embedding passages",
        "gate": "Comparing answers",
        "warm": "Reading ahead",
        "diagnose": "Asking questions",
        "probe": "Probing answers",
        "judge": "Judging answers",
        "draft": "Drafting questions",
    }
    with _bars("count") as show:
        yield lambda stage, done, total: show(titles[stage], done, total)


@contextmanager
def _bars(unit: Literal["download", "count"]) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each title, made when it is first shown: what is quick shows none and loads nothing."""
    opened: list[Progress] = []
    tasks: dict[str, TaskID] = {}

    def show(title: str, done: int, total: int) -> None:
        if not sys.stderr.isatty():  # a log wants no bars, nor the empty lines they leave
            return
        if not opened:
            opened.append(_new_progress(unit))
            opened[0].start()
        if title not in tasks:
            tasks[title] = opened[0].add_task(title, total=total or None)
        opened[0].update(tasks[title], completed=done, total=total or None)

    try:
        yield show
    finally:
        for progress in opened:
            progress.stop()


def _new_progress(unit: Literal["download", "count"]) -> Progress:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    amount: list[ProgressColumn] = [MofNCompleteColumn()]
    if unit == "download":
        amount = [DownloadColumn(), TransferSpeedColumn()]
    columns = (TextColumn("{task.description}"), BarColumn(), *amount, TimeRemainingColumn())
    return Progress(*columns, console=error_console(), transient=True)
