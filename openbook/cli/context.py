"""Settings and the objects that they name, opened for commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from openbook.answers import opening
from openbook.cli import display
from openbook.core.config import Settings, load_settings
from openbook.core.errors import ConfigError
from openbook.core.files import check_replaceable, replace_file, storage_errors
from openbook.library import Library

if TYPE_CHECKING:
    from openbook.core.records import Embedder
    from openbook.inference.embedder import OnnxEmbedder
    from openbook.knowledge import RunOptions
    from openbook.models import ModelReference, ModelStore
    from openbook.proofs.signatures import Content


def read_settings(*, docs: Sequence[Path] = (), **flags: object) -> Settings:
    """Raises ConfigError, also if both documents and a knowledge base are given."""
    if docs and flags.get("kb") is not None:
        raise ConfigError("--docs and --kb exclude each other; give one of them.")
    return load_settings(flags=flags)


# --- models -----------------------------------------------------------------------------------------------------------


def library(settings: Settings, docs: Sequence[Path] = ()) -> Library:
    """The configured knowledge base, or one of exactly `docs`; shows progress."""
    clear_uploads(settings)
    return Library(settings, docs or None, announce=display.note, stages=display.stages)


def store(settings: Settings) -> ModelStore:
    from openbook.models import ModelStore

    return ModelStore(settings.models_dir)


def ready_model(settings: Settings, name: str) -> ModelReference:
    """A stored model, verified; pulled first if it is in the catalogue."""
    return Library(settings, announce=display.note, stages=display.stages).resources.fetch(name)


def open_embedder(settings: Settings, name: str = "") -> OnnxEmbedder:
    """Default: the configured embedder."""
    return opening.open_embedder(settings, name or settings.embedder, partial(ready_model, settings))


# --- knowledge bases --------------------------------------------------------------------------------------------------


def clear_uploads(settings: Settings) -> None:
    """Delete leftovers of killed uploads."""
    from openbook.knowledge.store.write_lock import clear_unlocked

    with suppress(OSError):  # a read-only home still serves readers
        clear_unlocked(settings.uploads_dir)


def prepared(library: Library, as_of: str | None = None, *, closed_book: bool = False, model: bool = True) -> Library:
    """The library after `View.prepare` for that version. Shows which files could not be read."""
    (library if as_of is None else library.as_of(as_of)).prepare(closed_book=closed_book, model=model)
    if library.resources.report is not None:
        display.print_problems(library.resources.report.verdicts)
    return library


def check_writable(file: Path | None) -> None:
    """Raise StorageError before the work, not after it."""
    if file is not None:
        with storage_errors(f"write {file}"):
            check_replaceable(file)


def check_signing(file: Path, settings: Settings) -> None:
    """Check before the work that its result can be signed and written. Raises ConfigError."""
    from openbook.proofs.signatures import public_key

    check_writable(file)
    public_key(settings.home)


def write_signed(file: Path, settings: Settings, content: Content) -> None:
    from openbook.proofs.signatures import sign

    with storage_errors(f"write {file}"):
        replace_file(file, sign(settings.home, content), mode=0o600)


@contextmanager
def joined(cluster: str | None) -> Iterator[None]:
    """Join the Ray cluster, if any. Raises ConfigError, ClusterError."""
    if cluster is None:
        yield
        return
    from openbook.cluster.connection import connect, disconnect

    connect(cluster)
    try:
        yield
    finally:
        disconnect()


@contextmanager
def workers(cluster: str | None, embedder: Embedder, options: RunOptions) -> Iterator[tuple[Embedder, RunOptions]]:
    """Adapt both to the joined cluster, if any."""
    if cluster is None:
        yield embedder, options
        return
    from openbook.cluster.workers import Workers

    with Workers(embedder) as there:
        yield there.embedder, replace(options, parsers=there.parsers)
