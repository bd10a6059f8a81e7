"""What several verbs need: the settings, and what they name, opened."""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from openbook.cli import display, private
from openbook.config import Place, Settings, available_cores, load_settings, place
from openbook.errors import ConfigError, KnowledgeBaseInvalid
from openbook.files import check_replaceable, make_folder, replace_file, storage_errors

if TYPE_CHECKING:
    from openbook.answer import Options
    from openbook.inference import FrozenModel
    from openbook.inference.embedder import OnnxEmbedder
    from openbook.inference.kv_cache import KVCache
    from openbook.knowledge import KnowledgeBase, RunOptions
    from openbook.knowledge.splitter import Sizing
    from openbook.models import ModelReference, ModelStore
    from openbook.records import Decoding, Digest, Embedder

OpenModel: TypeAlias = "Callable[[Settings], FrozenModel]"

API_KEY = "OPENAI_API_KEY"  # the variable that holds the key of the server at `base_url`; it is never stored


def settings(**flags: object) -> Settings:
    current = load_settings(flags=flags)
    private.share_as([current.home, *([kb] if isinstance(kb := current.default_kb, Path) else [])])
    return current


# --- models -----------------------------------------------------------------------------------------------------------


def store(current: Settings) -> ModelStore:
    from openbook.models import ModelStore

    return ModelStore(current.models_dir)


def states(current: Settings) -> KVCache:
    """The cache of what models computed of passages, for later processes too."""
    from openbook.inference.kv_cache import KVCache

    return KVCache(current.states_dir, memory_bytes=current.kv_memory << 20, disk_bytes=current.kv_disk << 20)


def ready_model(current: Settings, name: str) -> ModelReference:
    """The stored model of that name, pulled first if the catalogue has it, and verified."""
    from openbook.inference.trial import try_model
    from openbook.models import ensure

    with display.progress() as show:
        fetching = partial(show, "fetch")
        return ensure(store(current), name, announce=display.note, progress=fetching, try_out=try_model)


def load(current: Settings, reference: ModelReference, states: KVCache | None = None, slots: int = 0) -> FrozenModel:
    """Open a stored model, with the context and threads of the settings."""
    from openbook.inference import load_model

    sizes = {"context_tokens": current.context_tokens, "threads": current.threads, "slots": slots}
    return load_model(reference, states=states, **sizes)


def open_embedder(current: Settings, name: str = "") -> OnnxEmbedder:
    """The embedder of that name (default: the one of the settings)."""
    from openbook.inference import load_embedder

    return load_embedder(ready_model(current, name or current.embedder), threads=current.threads)


def model_opener(current: Settings, slots: int = 0) -> Callable[[], FrozenModel]:
    """Fetch and verify the model to ask now; the function returned opens it, on any thread.

    The model is one of the server at `base_url`, when that is set, otherwise one of the store. `slots`: of a model of the store.
    """
    if current.base_url:
        from openbook.inference import connect_model

        at = {"base_url": current.base_url, "api_key": os.environ.get(API_KEY, "")}
        return partial(connect_model, current.model, **at, context_tokens=current.context_tokens)
    reference = ready_model(current, current.model)
    return partial(load, current, reference, states(current), slots)


def open_on_node(name: str, digest: Digest, flags: dict[str, int]) -> FrozenModel:
    """For a process on another machine: the model of that digest, from the home there; pulled first if the catalogue has it.

    `flags`: settings that stand above those of that machine. Raises as `ready_model` and `load` do, and ModelNotVerified when
    `name` means another model there.
    """
    from openbook.errors import ModelNotVerified, UnknownModel
    from openbook.inference.trial import try_model
    from openbook.models import ensure

    own = load_settings(flags=flags)
    try:
        reference = ensure(store(own), digest, try_out=try_model)
    except UnknownModel:
        reference = ensure(store(own), name, try_out=try_model)
    if reference.digest != digest:
        raise ModelNotVerified(
            f"{name!r} means {reference.digest[:12]} on {platform.node()}, and {digest[:12]} at the server. Import the model "
            "there, or share the home folder."
        )
    return load(own, replace(reference, name=name), states(own))


def follow_on_node(purge_list: bytes) -> int:
    """For a process on another machine: delete what models computed there of the passages on this list. Raises StorageError."""
    cache = states(load_settings())
    with storage_errors(f"delete what models computed of purged documents in {cache.place}"):
        return cache.follow(purge_list)


@contextmanager
def replicas(cluster: str, current: Settings, bounds: tuple[int, int] | None = None) -> Iterator[tuple[OpenModel, int]]:
    """(what opens the model of settings in replicas on the Ray cluster at that address, how many requests keep them busy).

    `bounds`: the least and the most replicas; None: as many as there is room for, each with the threads that the model would
    have here. Raises ConfigError, ClusterError.
    """
    from openbook.cluster.connection import AUTO, CLIENT, connect, disconnect
    from openbook.inference import prompt_counter

    if current.base_url:
        raise ConfigError("--cluster and --base-url exclude each other: the server at --base-url computes the answers.")
    address = os.environ.get("RAY_ADDRESS", cluster) if cluster == AUTO else cluster
    if address.startswith(CLIENT):
        raise ConfigError(
            f"{address}: answers cannot be streamed through Ray's client. Run this on a machine of the cluster, with "
            "--cluster auto."
        )
    connect(cluster)
    before = signal.signal(signal.SIGTERM, _end_in_order)  # else the replicas would stay
    try:
        from openbook.cluster.replicas import RUNNING, Replicas

        if bounds is None:
            there = Replicas.filling(current.threads or available_cores())
        else:
            there = Replicas.on_cluster(*bounds, current.threads)

        def open_model(own: Settings) -> FrozenModel:
            reference = ready_model(own, own.model)
            flags = {"context_tokens": own.context_tokens, "threads": there.threads}
            if own.kv_disk == 0:  # what must not be kept here must not be kept there
                flags["kv_disk"] = 0
            return there.open(
                partial(open_on_node, reference.name, reference.digest, flags),
                follow_on_node,
                digest=reference.digest,
                count=prompt_counter(reference),
                purge_list=states(own).purge_list,
            )

        yield open_model, RUNNING * there.most
    finally:
        disconnect()
        signal.signal(signal.SIGTERM, before)


def check_replicas(cluster: str | None, replicas: tuple[int, int] | None) -> None:
    """Raises ConfigError for --replicas without --cluster."""
    if replicas and cluster is None:
        raise ConfigError("--replicas needs --cluster; `--cluster local` tries it on this machine.")


def _end_in_order(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


@contextmanager
def computing(current: Settings, cluster: str | None) -> Iterator[tuple[OpenModel, int]]:
    """(what opens the model of settings, how many requests keep it busy): in this process, or on all machines of a cluster."""
    if cluster is None:
        yield lambda own: model_opener(own)(), 1
        return
    with replicas(cluster, current) as there:
        yield there


@contextmanager
def opened_model(current: Settings) -> Iterator[FrozenModel]:
    with closing(model_opener(current)()) as model:
        yield model


def answer_options(current: Settings, decoding: Decoding | None = None) -> Options:
    """How questions are answered, by the settings. Without `decoding`, equal questions get equal answers."""
    from openbook.answer import Options
    from openbook.records import Decoding

    return Options(current.passages, current.strategy, decoding or Decoding(max_tokens=current.max_tokens))


# --- knowledge bases --------------------------------------------------------------------------------------------------


def open_base(current: Settings) -> KnowledgeBase:
    from openbook.knowledge import KnowledgeBase

    return KnowledgeBase.open(current.default_kb)


def open_searchable(current: Settings) -> tuple[KnowledgeBase, Embedder]:
    """The knowledge base of the settings and the embedder that it was made with."""
    base = open_base(current)
    embedder = open_embedder(current, base.embedder.name)
    base.check_embedder(embedder.identity)
    remember_place(current, base)
    return base, embedder


def ensure_base(current: Settings) -> tuple[KnowledgeBase, Embedder]:
    """As `open_searchable`; where there is none yet, a new one with the embedder of the settings."""
    from openbook.errors import KnowledgeBaseMissing

    try:
        return open_searchable(current)
    except KnowledgeBaseMissing:
        embedder = open_embedder(current)
        return new_base(current, current.default_kb, embedder), embedder


def new_base(current: Settings, place: Place, embedder: Embedder) -> KnowledgeBase:
    """An empty knowledge base in `place`; the one that is there, if another process made it meanwhile."""
    from openbook.knowledge import KnowledgeBase

    return KnowledgeBase.ensure(place, embedder.identity, sizing=sizing_of(current))


def check_one_place(docs: Sequence[Path], kb: Place | None) -> None:
    """Raises ConfigError for documents and a knowledge base at once."""
    if docs and kb is not None:
        raise ConfigError("--docs and --kb exclude each other; give one of them.")


def check_writable(file: Path | None) -> None:
    """Raises StorageError, before the work and not after it, where the file could not be written."""
    if file is not None:
        with storage_errors(f"write {file}"):
            check_replaceable(file)


def open_asked(current: Settings, docs: tuple[Path, ...]) -> tuple[KnowledgeBase, Embedder]:
    """The knowledge base of exactly `docs`; without any, the one of the settings.

    Raises KnowledgeBaseInvalid if it holds no document.
    """
    from openbook.knowledge.docs_cache import for_documents

    if not docs:
        base, embedder = open_searchable(current)
        return must_hold_documents(base, str(current.default_kb)), embedder
    embedder = open_embedder(current)
    with display.progress() as show:
        options = replace(run_options(current), progress=show)
        base, report = for_documents(docs, current.cache_dir, embedder, options, sizing_of(current))
    if report is not None:
        display.print_problems(report.verdicts)
    return must_hold_documents(base, ", ".join(map(str, docs))), embedder


def must_hold_documents(base: KnowledgeBase, where: str) -> KnowledgeBase:
    if not base.documents():
        raise KnowledgeBaseInvalid(f"Nothing readable in {where}: no document went in, so there is nothing to ask.")
    return base


def sizing_of(current: Settings) -> Sizing:
    """How large the passages of a new knowledge base are."""
    from openbook.knowledge.splitter import Sizing

    return Sizing(current.passage_chars)


def run_options(current: Settings) -> RunOptions:
    """How a run over files reads, by the settings."""
    from openbook.knowledge import RunOptions
    from openbook.parsers.sandbox import Limits

    limits = Limits(current.read_timeout_s, current.read_memory_mb, current.max_file_mb * 1_000_000)
    return RunOptions(limits, ocr=current.ocr)


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


def remember_place(current: Settings, base: KnowledgeBase) -> None:
    """Note where this knowledge base is, without a password, for `openbook replay`: a receipt names its id alone."""
    note, where = current.bases_dir / base.id, os.fsencode(str(base.store.place))
    with suppress(OSError):  # a home that cannot be written still answers
        if base.id.isalnum() and not (note.is_file() and note.read_bytes() == where):
            make_folder(current.bases_dir)
            replace_file(note, where)


def remembered_place(current: Settings, base_id: str) -> Place | None:
    note = current.bases_dir / base_id
    try:
        return place(os.fsdecode(note.read_bytes()), source=str(note)) if base_id.isalnum() else None
    except OSError:
        return None
