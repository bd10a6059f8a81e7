"""What settings name, opened: model, embedder and knowledge base, each once, for a library or a command."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from openbook.core.config import MEMORY_PER_FILE, Settings, parse_place
from openbook.core.errors import KnowledgeBaseInvalid, KnowledgeBaseMissing
from openbook.core.files import make_folder, replace_file
from openbook.core.parallel import StagedProgress

if TYPE_CHECKING:
    from openbook.core.config import Place
    from openbook.core.records import Embedder
    from openbook.inference import FrozenModel
    from openbook.inference.embedder import OnnxEmbedder
    from openbook.inference.kv_cache import KVCache
    from openbook.knowledge import KnowledgeBase, Report, RunOptions
    from openbook.models import ModelReference

API_KEY = "OPENAI_API_KEY"  # the variable with the key of the server at `base_url`; the key is never stored

Fetch: TypeAlias = "Callable[[str], ModelReference]"
Stages: TypeAlias = Callable[[], AbstractContextManager[StagedProgress]]


def kv_cache(settings: Settings) -> KVCache:
    from openbook.inference.kv_cache import KVCache

    return KVCache.of(settings)


def open_stored(settings: Settings, reference: ModelReference, states: KVCache | None = None) -> FrozenModel:
    """Open a model with the context and threads of the settings. Raises EngineError."""
    from openbook.inference import load_model

    return load_model(reference, states=states, context_tokens=settings.context_tokens, threads=settings.threads)


def run_options(settings: Settings) -> RunOptions:
    from openbook.knowledge import RunOptions
    from openbook.parsers.sandbox.protocol import Limits

    memory_mb = max(2048, MEMORY_PER_FILE * settings.max_file_mb)
    limits = Limits(settings.read_timeout_s, memory_mb, settings.max_file_mb * 1_000_000)
    return RunOptions(limits, ocr=settings.ocr)


def new_base(settings: Settings, place: Place, embedder: Embedder) -> KnowledgeBase:
    """An empty knowledge base in `place`, or one that another process made there meanwhile."""
    from openbook.knowledge import KnowledgeBase
    from openbook.knowledge.ingest.splitter import Sizing

    return KnowledgeBase.ensure(place, embedder.identity, sizing=Sizing(settings.passage_chars))


def remember_place(settings: Settings, base: KnowledgeBase) -> None:
    """Note where this knowledge base is, without a password, for `replay`: a receipt names only its id."""
    note, where = settings.bases_dir / base.id, os.fsencode(str(base.store.place))
    with suppress(OSError):  # asking must work with a read-only home
        if base.id.isalnum() and not (note.is_file() and note.read_bytes() == where):
            make_folder(settings.bases_dir)
            replace_file(note, where)


def remembered_place(settings: Settings, base_id: str) -> Place | None:
    note = settings.bases_dir / base_id
    try:
        return parse_place(os.fsdecode(note.read_bytes()), source=str(note)) if base_id.isalnum() else None
    except OSError:
        return None


def open_embedder(settings: Settings, name: str, fetch: Fetch) -> OnnxEmbedder:
    """Open an embedder, fetched if missing. Raises EngineError, PullError."""
    from openbook.inference import load_embedder

    return load_embedder(fetch(name), threads=settings.threads)


def model_opener(settings: Settings, fetch: Fetch) -> Callable[[], FrozenModel]:
    """Fetch and verify the model of the settings now. The returned function opens it, on any thread. Raises PullError."""
    from openbook.inference import connect_model

    if settings.base_url:
        at = {"base_url": settings.base_url, "api_key": os.environ.get(API_KEY, "")}
        return partial(connect_model, settings.model, **at, context_tokens=settings.context_tokens)
    return partial(open_stored, settings, fetch(settings.model), kv_cache(settings))


class Resources:
    """The parts that a library and its views share. Each opens once, on first use, on any thread."""

    def __init__(
        self,
        settings: Settings,
        docs: Sequence[Path] | None,
        model: FrozenModel | None,
        embedder: Embedder | None,
        announce: Callable[[str], None],
        stages: Stages,
    ) -> None:
        self.settings, self.docs, self.announce, self.stages = settings, docs, announce, stages
        self.report: Report | None = None  # of `docs`, if their files were read now
        self._asked_versions = set[str | int | None]()  # known to hold documents
        self._lock = threading.RLock()
        self._base: KnowledgeBase | None = None
        self._embedder = embedder
        self._is_given, self._opening = model is not None, None if model is None else _done(model)
        self._open_fallback: Callable[[], FrozenModel] | None = None
        self._fallback: FrozenModel | None = None

    def fetch(self, name: str) -> ModelReference:
        """The stored model of that name, pulled first if the catalogue has it, and verified."""
        from openbook.inference.trial import check_usable
        from openbook.models import ModelStore, ensure

        with self.stages() as show:
            store = ModelStore(self.settings.models_dir)
            return ensure(store, name, announce=self.announce, progress=partial(show, "fetch"), try_out=check_usable)

    def open_model(self) -> Future[FrozenModel]:
        """Open the model on another thread."""
        with self._lock:
            failed = self._opening is not None and self._opening.done() and self._opening.exception() is not None
            if self._opening is None or failed:
                opener = ThreadPoolExecutor(1, "openbook-model")
                self._opening = opener.submit(model_opener(self.settings, self.fetch))
                opener.shutdown(wait=False)
            return self._opening

    def fallback(self) -> Callable[[], FrozenModel] | None:
        """Fetch the fallback model of the settings now, if there is one; the returned function opens it, once."""
        name = self.settings.fallback_model
        if not name or (name == self.settings.model and not self._is_given):
            return None
        with self._lock:
            if self._open_fallback is None:
                self._open_fallback = model_opener(replace(self.settings, model=name), self.fetch)
            return partial(self._opened_fallback, self._open_fallback)

    def _opened_fallback(self, open_model: Callable[[], FrozenModel]) -> FrozenModel:
        with self._lock:
            if self._fallback is None:
                self._fallback = open_model()
            return self._fallback

    def embedder(self) -> Embedder:
        """The embedder that the knowledge base was made with; for a new one, that of the settings."""
        with self._lock:
            if self._embedder is None:
                name = self._base.embedder.name if self._base else self.settings.embedder
                self._embedder = open_embedder(self.settings, name, self.fetch)
            return self._embedder

    def base(self, *, create: bool = False) -> KnowledgeBase:
        """With `create`, a new knowledge base if there is none. Raises KnowledgeBaseMissing, KnowledgeBaseInvalid."""
        from openbook.knowledge.base import KnowledgeBase

        with self._lock:
            if self._base is None and self.docs is not None:
                self._base = self._of_docs()
            if self._base is None:
                try:
                    self._base = KnowledgeBase.open(self.settings.kb_place)
                except KnowledgeBaseMissing:
                    if not create:
                        raise
                    self._base = new_base(self.settings, self.settings.kb_place, self.embedder())
                remember_place(self.settings, self._base)
            return self._base

    def version(self, as_of: str | int | None) -> int | None:
        """The number of the version that `as_of` names; None: the newest one. Raises UnknownVersion."""
        if as_of is None:
            return None
        from openbook.knowledge.versions import resolve_version

        return resolve_version(self.base(), str(as_of))

    def _of_docs(self) -> KnowledgeBase:
        from openbook.knowledge.docs_cache import for_documents
        from openbook.knowledge.ingest.splitter import Sizing

        embedder, settings = self.embedder(), self.settings
        with self.stages() as show:
            options = replace(run_options(settings), progress=show)
            base, self.report = for_documents(
                self.docs or (), settings.derived_dir, embedder, options, Sizing(settings.passage_chars)
            )
        return base

    def prepare(
        self, as_of: str | int | None = None, *, closed_book: bool = False
    ) -> tuple[Future[FrozenModel], Callable[[], FrozenModel] | None]:
        """Open what questions about a version need. Return the model, which may still be opening, and the fallback.

        A knowledge base without documents is reported before any download. Raises as `prepare_documents` does.
        """
        if closed_book:
            return self.open_model(), None
        if self.docs is not None:
            self.open_model()  # while the documents are read
        self.prepare_documents(as_of)
        return self.open_model(), self.fallback()

    def prepare_documents(self, as_of: str | int | None = None) -> None:
        """Open the documents. A version that is emptied later is still asked, and the answer declines.

        Raises KnowledgeBaseInvalid if there are no documents to ask, KnowledgeBaseMissing, UnknownVersion.
        """
        base = self.base()
        if as_of in self._asked_versions:
            return
        if base.is_empty(self.version(as_of)):
            where = str(self.settings.kb_place) if self.docs is None else ", ".join(map(str, self.docs))
            where = where if as_of is None else f"version {as_of} of {where}"
            raise KnowledgeBaseInvalid(f"Nothing readable in {where}: no document went in, so there is nothing to ask.")
        self._asked_versions.add(as_of)

    def close(self) -> None:
        with self._lock:
            if self._opening is not None and not self._is_given:
                if self._opening.exception() is None:
                    self._opening.result().close()
                self._opening = None
            if self._fallback is not None:
                self._fallback.close()
                self._fallback = None
            if self._base is not None:
                self._base.close()
                self._base = None
                self._asked_versions.clear()


def _done(model: FrozenModel) -> Future[FrozenModel]:
    future: Future[FrozenModel] = Future()
    future.set_result(model)
    return future
