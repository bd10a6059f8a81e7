"""What several verbs need: the settings, and what they name, opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import openbook
from openbook.cli import display, private
from openbook.config import MEMORY_PER_FILE, Place, Settings, load_settings, parse_place
from openbook.derived import of_older_layout
from openbook.errors import ConfigError, KnowledgeBaseInvalid, KnowledgeBaseMissing
from openbook.files import check_replaceable, delete, make_folder, replace_file, storage_errors

if TYPE_CHECKING:
    from openbook import FrozenModel, KnowledgeBase, ModelStore
    from openbook.inference.embedder import OnnxEmbedder
    from openbook.inference.kv_cache import KVCache
    from openbook.knowledge import RunOptions
    from openbook.models import ModelReference
    from openbook.records import Embedder
    from openbook.signatures import Content

API_KEY = "OPENAI_API_KEY"  # the variable that holds the key of the server at `base_url`; it is never stored


def read_settings(*, docs: Sequence[Path] = (), **flags: object) -> Settings:
    """Raises ConfigError, also for documents and a knowledge base at once."""
    if docs and flags.get("kb") is not None:
        raise ConfigError("--docs and --kb exclude each other; give one of them.")
    settings = load_settings(flags=flags)
    private.share_as([settings.home, settings.kb_place])
    return settings


# --- models -----------------------------------------------------------------------------------------------------------


def store(settings: Settings) -> ModelStore:
    return openbook.ModelStore(settings.models_dir)


def kv_cache(settings: Settings) -> KVCache:
    """The cache of what models computed of passages, for later processes too."""
    from openbook.inference.kv_cache import KVCache

    for older in of_older_layout(settings.home):
        with suppress(OSError):
            delete(older)
    return KVCache.of(settings)


def ready_model(settings: Settings, name: str) -> ModelReference:
    """The stored model of that name, pulled first if the catalogue has it, and verified."""
    from openbook.inference.trial import check_usable

    with display.progress("fetch") as show:
        return openbook.ensure(store(settings), name, announce=display.note, progress=show, try_out=check_usable)


def open_stored(
    settings: Settings, reference: ModelReference, states: KVCache | None = None, slots: int = 0
) -> FrozenModel:
    """Open a stored model, with the context and threads of the settings."""
    sizes = {"context_tokens": settings.context_tokens, "threads": settings.threads, "slots": slots}
    return openbook.load_model(reference, states=states, **sizes)


def open_embedder(settings: Settings, name: str = "") -> OnnxEmbedder:
    """The embedder of that name (default: the one of the settings)."""
    return openbook.load_embedder(ready_model(settings, name or settings.embedder), threads=settings.threads)


def model_opener(settings: Settings, slots: int = 0) -> Callable[[], FrozenModel]:
    """Fetch and verify the model to ask now; the function returned opens it, on any thread.

    The model is one of the server at `base_url`, when that is set, otherwise one of the store. `slots`: of a model of the store.
    """
    if settings.base_url:
        at = {"base_url": settings.base_url, "api_key": os.environ.get(API_KEY, "")}
        return partial(openbook.connect_model, settings.model, **at, context_tokens=settings.context_tokens)
    reference = ready_model(settings, settings.model)
    return partial(open_stored, settings, reference, kv_cache(settings), slots)


@contextmanager
def opened_beside(settings: Settings) -> Iterator[Future[FrozenModel]]:
    """The model to ask, which a thread opens while the caller opens the documents."""
    open_model = model_opener(settings)
    with ThreadPoolExecutor(1) as opening:
        model = opening.submit(open_model)
        try:
            yield model
        finally:
            if model.exception() is None:
                model.result().close()


# --- knowledge bases --------------------------------------------------------------------------------------------------


def clear_uploads(settings: Settings) -> None:
    """Delete the files of uploads that were killed."""
    from openbook.knowledge.write_lock import clear_unlocked

    with suppress(OSError):  # a home that cannot be written still reads
        clear_unlocked(settings.uploads_dir)


def open_base(settings: Settings) -> KnowledgeBase:
    """The knowledge base of the settings."""
    clear_uploads(settings)
    return openbook.KnowledgeBase.open(settings.kb_place)


def open_searchable(settings: Settings) -> tuple[KnowledgeBase, Embedder]:
    """The knowledge base of the settings and the embedder that it was made with."""
    base = open_base(settings)
    embedder = open_embedder(settings, base.embedder.name)
    base.check_embedder(embedder.identity)
    remember_place(settings, base)
    return base, embedder


def ensure_base(settings: Settings) -> tuple[KnowledgeBase, Embedder]:
    """As `open_searchable`; where there is none yet, a new one with the embedder of the settings."""
    try:
        return open_searchable(settings)
    except KnowledgeBaseMissing:
        embedder = open_embedder(settings)
        return new_base(settings, settings.kb_place, embedder), embedder


def new_base(settings: Settings, place: Place, embedder: Embedder) -> KnowledgeBase:
    """An empty knowledge base in `place`; the one that is there, if another process made it meanwhile."""
    from openbook.knowledge.splitter import Sizing

    return openbook.KnowledgeBase.ensure(place, embedder.identity, sizing=Sizing(settings.passage_chars))


def check_writable(file: Path | None) -> None:
    """Raises StorageError, before the work and not after it, where the file could not be written."""
    if file is not None:
        with storage_errors(f"write {file}"):
            check_replaceable(file)


def check_signing(file: Path, settings: Settings) -> None:
    """Call this before the work: checks that its result can be signed and written to `file`. Raises ConfigError, StorageError."""
    from openbook.signatures import public_key

    check_writable(file)
    public_key(settings.home)


def write_signed(file: Path, settings: Settings, content: Content) -> None:
    """Raises ConfigError, StorageError."""
    from openbook.signatures import sign

    with storage_errors(f"write {file}"):
        replace_file(file, sign(settings.home, content), mode=0o600)


def open_asked(settings: Settings, docs: tuple[Path, ...]) -> tuple[KnowledgeBase, Embedder]:
    """The knowledge base of exactly `docs`; without any, the one of the settings.

    Raises KnowledgeBaseInvalid if it holds no document.
    """
    from openbook.knowledge.docs_cache import for_documents
    from openbook.knowledge.splitter import Sizing

    if not docs:
        base, embedder = open_searchable(settings)
        return must_hold_documents(base, str(settings.kb_place)), embedder
    embedder = open_embedder(settings)
    with display.stages() as show:
        options = replace(run_options(settings), progress=show)
        base, report = for_documents(docs, settings.derived_dir, embedder, options, Sizing(settings.passage_chars))
    if report is not None:
        display.print_problems(report.verdicts)
    return must_hold_documents(base, ", ".join(map(str, docs))), embedder


def must_hold_documents(base: KnowledgeBase, where: str) -> KnowledgeBase:
    if not base.documents():
        raise KnowledgeBaseInvalid(f"Nothing readable in {where}: no document went in, so there is nothing to ask.")
    return base


def run_options(settings: Settings) -> RunOptions:
    """How a run over files reads, by the settings."""
    from openbook.knowledge import RunOptions
    from openbook.parsers.sandbox import Limits

    memory_mb = max(2048, MEMORY_PER_FILE * settings.max_file_mb)
    limits = Limits(settings.read_timeout_s, memory_mb, settings.max_file_mb * 1_000_000)
    return RunOptions(limits, ocr=settings.ocr)


@contextmanager
def joined(cluster: str | None) -> Iterator[None]:
    """This process in the Ray cluster at that address, if there is one. Raises ConfigError, ClusterError."""
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
    """Both as they are; with a cluster, which this process has joined, for work on all its machines."""
    if cluster is None:
        yield embedder, options
        return
    from openbook.cluster.workers import Workers

    with Workers(embedder) as there:
        yield there.embedder, replace(options, parsers=there.parsers)


def remember_place(settings: Settings, base: KnowledgeBase) -> None:
    """Note where this knowledge base is, without a password, for `openbook replay`: a receipt names its id alone."""
    note, where = settings.bases_dir / base.id, os.fsencode(str(base.store.place))
    with suppress(OSError):  # a home that cannot be written still answers
        if base.id.isalnum() and not (note.is_file() and note.read_bytes() == where):
            make_folder(settings.bases_dir)
            replace_file(note, where)


def remembered_place(settings: Settings, base_id: str) -> Place | None:
    note = settings.bases_dir / base_id
    try:
        return parse_place(os.fsdecode(note.read_bytes()), source=str(note)) if base_id.isalnum() else None
    except OSError:
        return None
