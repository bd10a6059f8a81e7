"""A knowledge base together with the model and embedder that answer from it.

`openbook.open` makes a `Library`; the command line and the MCP server use it too. Methods that read or write a
knowledge base raise StorageError, KnowledgeBaseBusy or another KnowledgeError.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from openbook.config import MEMORY_PER_FILE, Settings, load_settings, parse_place
from openbook.derived import of_older_layout
from openbook.errors import ConfigError, KnowledgeBaseInvalid, KnowledgeBaseMissing, KnowledgeError
from openbook.files import delete, make_folder, replace_file
from openbook.parallel import Listener, StagedProgress

if TYPE_CHECKING:
    from types import TracebackType

    from openbook.config import Place
    from openbook.inference import FrozenModel
    from openbook.inference.embedder import OnnxEmbedder
    from openbook.inference.kv_cache import KVCache
    from openbook.knowledge import KnowledgeBase, Report, RunOptions
    from openbook.knowledge.versions import Difference, Version
    from openbook.models import ModelReference
    from openbook.purge import PurgedEverywhere
    from openbook.records import Answer, Embedder, Hit, Receipt
    from openbook.replay import ReplayResult
    from openbook.retrieval import Corpus

API_KEY = "OPENAI_API_KEY"  # the variable with the key of the server at `base_url`; the key is never stored

PathOrPaths: TypeAlias = "str | Path | Sequence[str | Path]"
Documents: TypeAlias = PathOrPaths  # by the names that `documents` gives, or the ends of them
Labels: TypeAlias = "str | Sequence[str]"
Fetch: TypeAlias = "Callable[[str], ModelReference]"
Stages: TypeAlias = Callable[[], AbstractContextManager[StagedProgress]]

_log = logging.getLogger("openbook")


def _silent(stage: str, done: int, total: int) -> None:
    """Shows no progress."""


def each_path(paths: PathOrPaths) -> list[Path]:
    return [Path(paths)] if isinstance(paths, str | Path) else list(map(Path, paths))


# --- what settings name, opened ---------------------------------------------------------------------------------------


def kv_cache(settings: Settings) -> KVCache:
    """The cache of model states. Deletes caches of older layouts."""
    from openbook.inference.kv_cache import KVCache

    for older in of_older_layout(settings.home):
        with suppress(OSError):
            delete(older)
    return KVCache.of(settings)


def open_stored(settings: Settings, reference: ModelReference, states: KVCache | None = None) -> FrozenModel:
    """Open a model with the context and threads of the settings. Raises EngineError."""
    from openbook.inference import load_model

    return load_model(reference, states=states, context_tokens=settings.context_tokens, threads=settings.threads)


def run_options(settings: Settings) -> RunOptions:
    from openbook.knowledge import RunOptions
    from openbook.parsers.sandbox import Limits

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


class _Resources:
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
        self._holds_documents = False
        self._lock = threading.RLock()
        self._base: KnowledgeBase | None = None
        self._embedder = embedder
        self._is_given, self._opening = model is not None, None if model is None else _done(model)

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

    def embedder(self) -> Embedder:
        """The embedder that the knowledge base was made with; for a new one, that of the settings."""
        with self._lock:
            if self._embedder is None:
                name = self._base.embedder.name if self._base else self.settings.embedder
                self._embedder = open_embedder(self.settings, name, self.fetch)
            return self._embedder

    def base(self, *, create: bool = False) -> KnowledgeBase:
        """With `create`, a new knowledge base if there is none. Raises KnowledgeBaseMissing, KnowledgeBaseInvalid."""
        from openbook.knowledge import KnowledgeBase

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

    def check_holds_documents(self) -> None:
        """Raise KnowledgeBaseInvalid if there are no documents to ask."""
        self._holds_documents = self._holds_documents or bool(self.base().documents())
        if not self._holds_documents:
            where = str(self.settings.kb_place) if self.docs is None else ", ".join(map(str, self.docs))
            raise KnowledgeBaseInvalid(f"Nothing readable in {where}: no document went in, so there is nothing to ask.")

    def close(self) -> None:
        with self._lock:
            if self._opening is not None and not self._is_given:
                if self._opening.exception() is None:
                    self._opening.result().close()
                self._opening = None
            if self._base is not None:
                self._base.close()
                self._base = None


def _done(model: FrozenModel) -> Future[FrozenModel]:
    future: Future[FrozenModel] = Future()
    future.set_result(model)
    return future


# --- the door ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class View:
    """The documents that one reader sees: of one version, matching a condition, with labels that the reader holds.

    Views share model and knowledge base with their library. All methods are thread-safe.

    >>> kb.ask("Who signs travel expenses?").declined
    False
    >>> [hit.passage.text.strip() for hit in kb.search("travel expenses", limit=1)]
    ['Travel expenses are signed by the head of unit.']
    """

    resources: _Resources
    version: str | int | None = None
    condition: str = ""
    held: frozenset[str] = frozenset()

    # The view

    def as_of(self, version: str | int) -> View:
        """The documents of a kept version: its number, a tag, or a time such as "2026-01-31T12:00".

        >>> kb.as_of(1).documents() == kb.documents()
        True
        """
        return View(self.resources, version, self.condition, self.held)

    def where(self, condition: str) -> View:
        """Only the documents whose metadata match, such as "date >= 2026-01-01".

        >>> kb.where("author = 'Lee'").documents()
        []
        """
        both = f"({self.condition}) and ({condition})" if self.condition else condition
        return View(self.resources, self.version, both, self.held)

    def labels(self, *labels: str) -> View:
        """Also the documents that need these access labels.

        >>> kb.labels("board").documents() == kb.documents()
        True
        """
        from openbook.knowledge.index.scope import checked_labels

        return View(self.resources, self.version, self.condition, self.held | checked_labels(labels))

    @property
    def model(self) -> FrozenModel:
        """The frozen model, opened on first use. Raises EngineError, PullError.

        >>> kb.model.identity.evidence
        'verified'
        """
        return self.resources.open_model().result()

    @property
    def corpus(self) -> Corpus:
        """The documents to search. Opens the knowledge base on first use."""
        from openbook.knowledge import Scope
        from openbook.knowledge.versions import resolve_version
        from openbook.retrieval import Corpus

        base = self.resources.base()
        version = None if self.version is None else resolve_version(base, str(self.version))
        return Corpus(base, self.resources.embedder(), Scope(version, self.condition.strip(), self.held))

    def documents(self) -> list[str]:
        """Paths of the documents, in order."""
        return self.corpus.documents()

    # Questions

    def ask(
        self,
        question: str,
        *,
        instruction: str = "",
        earlier: Sequence[str] = (),
        quote: bool = False,
        closed_book: bool = False,
        listener: Listener = Listener(),
    ) -> Answer:
        """Answer a question from the documents, with citations. `str(answer)` is its text.

        `instruction`: how to answer, such as "in German". `earlier`: questions before this one, to which it may refer.
        `quote`: answer only with a verbatim span of a passage. `closed_book`: ask the model alone.

        Raises QuestionError, ContextOverflow, EngineError, KnowledgeError.

        >>> answer = kb.ask("Who signs travel expenses?")
        >>> print(answer)
        Travel expenses are signed by the head of unit.
        >>> answer.citations[0].quote
        'Travel expenses are signed by the head of unit.'
        """
        from openbook.answer import ask
        from openbook.prompts import checked_question
        from openbook.retrieval import Options

        question, resources = checked_question(question), self.resources
        options = Options.of(resources.settings)
        decoding = replace(options.decoding, quote=quote)
        options = replace(options, instruction=instruction, earlier=tuple(earlier), decoding=decoding)
        if not closed_book and resources.docs is None:
            resources.check_holds_documents()  # before a model is fetched
        model, corpus = resources.open_model(), None  # the model opens while the documents do
        if not closed_book:
            resources.check_holds_documents()
            corpus = self.corpus
        return ask(question, model.result(), corpus, options, listener)

    def search(self, text: str, limit: int = 5) -> list[Hit]:
        """The best passages for a question or words, best first. Raises QuestionError, KnowledgeError.

        >>> kb.search("travel")[0].passage.document.endswith("travel.md")
        True
        """
        from openbook.prompts import checked_question

        return self.corpus.search(checked_question(text), limit)[1]

    def stream(self, question: str, *, instruction: str = "", earlier: Sequence[str] = ()) -> AnswerStream:
        """The pieces of an answer while the model writes it; then `stream.answer` is the whole answer.

        >>> stream = kb.stream("Who signs travel expenses?")
        >>> "".join(stream) == stream.answer.answer
        True
        """
        return AnswerStream(partial(self.ask, question, instruction=instruction, earlier=earlier))

    def chat(self) -> Chat:
        """A conversation: questions may refer to earlier ones."""
        return Chat(self)

    async def ask_async(self, question: str, *, instruction: str = "", earlier: Sequence[str] = ()) -> Answer:
        """As `ask`, for asyncio. Cancelling the task ends the answer.

        >>> import asyncio
        >>> str(asyncio.run(kb.ask_async("Who signs travel expenses?")))
        'Travel expenses are signed by the head of unit.'
        """
        ended = threading.Event()
        listener = Listener(cancelled=ended.is_set)
        asked = partial(self.ask, question, instruction=instruction, earlier=earlier, listener=listener)
        try:
            return await asyncio.to_thread(asked)
        finally:
            ended.set()

    async def search_async(self, text: str, limit: int = 5) -> list[Hit]:
        """As `search`, for asyncio."""
        return await asyncio.to_thread(self.search, text, limit)

    async def stream_async(
        self, question: str, *, instruction: str = "", earlier: Sequence[str] = ()
    ) -> AsyncIterator[str]:
        """As `stream`, for asyncio."""
        with self.stream(question, instruction=instruction, earlier=earlier) as pieces:
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                yield piece


class Library(View):
    """A knowledge base that can be changed, with the model and embedder that answer from it. Use it in a `with`
    statement.

    >>> report = kb.add("leave.md")
    >>> report.version, report.verdicts[0].outcome
    (2, 'added')
    >>> kb.remove("leave.md").version
    3
    >>> [version.version for version in kb.history()]
    [3, 2, 1, 0]
    """

    __slots__ = ()

    def __init__(
        self,
        settings: Settings,
        docs: PathOrPaths | None = None,
        *,
        model: FrozenModel | None = None,
        embedder: Embedder | None = None,
        announce: Callable[[str], None] = _log.info,
        stages: Stages = lambda: nullcontext(_silent),
    ) -> None:
        """`announce` gets one line before a download; `stages` shows the progress of one piece of work."""
        super().__init__(
            _Resources(settings, None if docs is None else each_path(docs), model, embedder, announce, stages)
        )

    @classmethod
    def opened(
        cls,
        place: str | Path | None,
        docs: PathOrPaths | None,
        model: str | FrozenModel | None,
        embedder: str | Embedder | None,
        settings: Mapping[str, object],
    ) -> Library:
        """From the arguments of `openbook.open`. Raises ConfigError."""
        if docs is not None and place is not None:
            raise ConfigError("Documents and a knowledge base exclude each other; give one of them.")
        if docs is not None and not each_path(docs):
            raise ConfigError("No documents are given: docs is empty.")
        if not (model is None or isinstance(model, str) or hasattr(model, "for_request")):
            raise ConfigError(f"model must be a model's name or a FrozenModel, not {model!r}.")
        names = {
            key: each if isinstance(each, str) else None for key, each in (("model", model), ("embedder", embedder))
        }
        return cls(
            load_settings(flags={**settings, **names, "kb": place}),
            docs,
            model=None if isinstance(model, str) else model,
            embedder=None if isinstance(embedder, str) else embedder,
        )

    def __enter__(self) -> Library:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the model and the knowledge base. Later use opens them again."""
        self.resources.close()

    @property
    def base(self) -> KnowledgeBase:
        """The knowledge base itself, for what this class does not offer."""
        return self.resources.base()

    def _to_write(self, labels: Labels, progress: StagedProgress) -> tuple[KnowledgeBase, Embedder, RunOptions]:
        from openbook.knowledge.index.scope import checked_labels

        resources = self.resources
        self._check_may_change()
        base = resources.base(create=True)
        labels = [labels] if isinstance(labels, str) else labels
        options = replace(run_options(resources.settings), labels=checked_labels(labels), progress=progress)
        return base, resources.embedder(), options

    def _check_may_change(self) -> None:
        if self.resources.docs is not None:
            raise ConfigError(
                "This library was opened for exactly these documents; open a knowledge base to change it."
            )

    def _named(self, documents: Documents) -> tuple[KnowledgeBase, list[str]]:
        """The knowledge base, which may be changed, and the names."""
        self._check_may_change()
        named = [str(documents)] if isinstance(documents, str | Path) else list(map(str, documents))
        if not named:
            raise KnowledgeError("No document is named; name at least one.")
        return self.base, named

    def add(self, paths: PathOrPaths, *, require_labels: Labels = (), progress: StagedProgress = _silent) -> Report:
        """Add files, and all files below folders.

        `require_labels`: access labels that a reader must hold. `progress` gets (stage, done, total).
        """
        from openbook.knowledge import add

        base, embedder, options = self._to_write(require_labels, progress)
        return add(base, each_path(paths), embedder, replace(options, retry=True))

    def sync(
        self,
        folder: str | Path,
        *,
        require_labels: Labels = (),
        reset: bool = False,
        progress: StagedProgress = _silent,
    ) -> Report:
        """Make the documents below `folder` equal to the folder: new, changed, renamed and deleted files.

        The labels that the folder was synced with before hold until others are given, or `reset`. Other arguments as of `add`.

        >>> kb.sync("docs").version  # nothing changed, so there is no new version
        3
        """
        from openbook.knowledge.ingest.discovery import SyncedFolder
        from openbook.knowledge.updates import as_synced_before, sync_folders

        base, embedder, options = self._to_write(require_labels, progress)
        wanted = SyncedFolder(Path(os.path.abspath(folder)), labels=options.labels, ocr=options.ocr)
        return sync_folders(base, [wanted if reset else as_synced_before(base, wanted)], embedder, options)

    def remove(self, documents: Documents) -> Report:
        """Remove documents from the newest version; older versions keep them."""
        from openbook.knowledge import remove

        return remove(*self._named(documents))

    def purge(self, documents: Documents, *, copies: bool = False) -> PurgedEverywhere:
        """Delete documents from all versions, indexes and caches, and scan what is left.

        `copies`: also delete other documents with the same text. `proved` of the result says whether no trace was
        found. Raises TextIsElsewhere.

        >>> kb.purge("leave.md").proved
        True
        """
        from openbook.purge import finish_purge_everywhere, purge_everywhere

        base, named = self._named(documents)
        finish_purge_everywhere(base, self.resources.settings)
        return purge_everywhere(base, named, self.resources.settings, copies=copies)

    def restore(self, version: str | int) -> int:
        """Make a new version with the documents of a kept one. Returns its number. Raises UnknownVersion."""
        from openbook.knowledge.versions import resolve_version, restore

        self._check_may_change()
        return restore(self.base, resolve_version(self.base, str(version)))

    def history(self) -> list[Version]:
        """The kept versions, newest first."""
        from openbook.knowledge.versions import history

        return history(self.base)

    def tag(self, name: str, version: str | int | None = None) -> int:
        """Name a version (default: the newest), so that it is kept. Returns its number.

        >>> kb.tag("v1", 1)
        1
        """
        from openbook.knowledge.versions import resolve_version, tag

        self._check_may_change()
        return tag(self.base, name, None if version is None else resolve_version(self.base, str(version)))

    def diff(self, before: str | int, after: str | int | None = None) -> Difference:
        """The difference between two versions (default: to the newest). Raises UnknownVersion.

        >>> kb.diff("v1").added
        ()
        """
        from openbook.knowledge.versions import diff, resolve_version

        base = self.base
        return diff(
            base,
            resolve_version(base, str(before)),
            base.version if after is None else resolve_version(base, str(after)),
        )

    def replay(self, receipt: Receipt | Answer) -> ReplayResult:
        """Answer again from a receipt of this knowledge base and compare, byte for byte. Raises KnowledgeError,
        EngineError.

        >>> kb.replay(kb.ask("Who signs travel expenses?")).identical
        True
        """
        from openbook.records import Receipt
        from openbook.replay import knowledge_base_of, replay

        found = receipt if isinstance(receipt, Receipt) else receipt.receipt
        return replay(found, self.model, knowledge_base_of(found, [self.base]))


class Chat:
    """A conversation. Only this object keeps its questions. Not thread-safe.

    >>> chat = kb.chat()
    >>> str(chat.ask("Who signs travel expenses?"))
    'Travel expenses are signed by the head of unit.'
    >>> chat.questions
    ['Who signs travel expenses?']
    """

    def __init__(self, view: View, questions: Sequence[str] = ()) -> None:
        """`questions`: earlier ones, oldest first, to resume a conversation."""
        self._view = view
        self.questions = list(questions)

    def ask(self, question: str, *, instruction: str = "", listener: Listener = Listener()) -> Answer:
        """Answer a question that may refer to earlier ones. Raises as `View.ask` does."""
        earlier = tuple(self.questions)
        answer = self._view.ask(question, instruction=instruction, earlier=earlier, listener=listener)
        self.questions.append(question)
        return answer

    def stream(self, question: str, *, instruction: str = "") -> AnswerStream:
        """As `ask`, in pieces."""
        return AnswerStream(lambda listener: self.ask(question, instruction=instruction, listener=listener))


class AnswerStream(Iterator[str]):
    """The pieces of an answer, in order. `close`, or the end of its `with` block, stops the model."""

    def __init__(self, ask: Callable[..., Answer]) -> None:
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        listener = Listener(on_text=self._pieces.put, cancelled=self._ended.is_set)
        writer = ThreadPoolExecutor(1, "openbook-answer")
        self._answer = writer.submit(ask, listener=listener)
        self._answer.add_done_callback(lambda _: self._pieces.put(None))
        writer.shutdown(wait=False)
        self._shown = ""

    def __iter__(self) -> AnswerStream:
        return self

    def __next__(self) -> str:
        if self._ended.is_set():
            raise StopIteration
        piece = self._pieces.get()
        if piece is not None:
            self._shown += piece
            return piece
        self._ended.set()
        text = self._answer.result().answer
        rest = text[len(self._shown) :] if text.startswith(self._shown) else ""
        if rest:
            return rest
        raise StopIteration

    @property
    def answer(self) -> Answer:
        """The whole answer, once written. Raises what `View.ask` raises."""
        return self._answer.result()

    def close(self) -> None:
        """End the answer."""
        self._ended.set()

    def __enter__(self) -> AnswerStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
