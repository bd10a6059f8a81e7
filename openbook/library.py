"""A knowledge base together with the model and embedder that answer from it.

`openbook.open` makes a `Library`; the command line and the MCP server use it too. Methods that read or write a
knowledge base raise StorageError, KnowledgeBaseBusy or another KnowledgeError.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from openbook.answers.conversation import AnswerStream, Chat
from openbook.answers.opening import Resources, Stages, run_options
from openbook.core.config import Settings, load_settings
from openbook.core.errors import ConfigError, KnowledgeError
from openbook.core.parallel import Listener, StagedProgress

if TYPE_CHECKING:
    from types import TracebackType

    from openbook.answers.retrieval import Corpus
    from openbook.core.records import Answer, Embedder, Hit, Receipt
    from openbook.inference import FrozenModel
    from openbook.knowledge import KnowledgeBase, Report, RunOptions, Scope
    from openbook.knowledge.ingest.discovery import SyncedFolder
    from openbook.knowledge.lookup import Heading, Matches, Part
    from openbook.knowledge.store.version_rows import PruneResult
    from openbook.knowledge.versions import Difference, Version
    from openbook.proofs.purge import PurgedEverywhere
    from openbook.proofs.replay import ReplayResult

PathOrPaths: TypeAlias = "str | Path | Sequence[str | Path]"
Documents: TypeAlias = PathOrPaths  # by the names that `documents` gives, or the ends of them
Labels: TypeAlias = "str | Sequence[str]"
Workers: TypeAlias = "Callable[[Embedder, RunOptions], AbstractContextManager[tuple[Embedder, RunOptions]]]"

_log = logging.getLogger("openbook")


def _silent(stage: str, done: int, total: int) -> None:
    """Shows no progress."""


def _here(embedder: Embedder, options: RunOptions) -> AbstractContextManager[tuple[Embedder, RunOptions]]:
    """Parses and embeds in this process."""
    return nullcontext((embedder, options))


def _labels(labels: Labels) -> frozenset[str]:
    from openbook.knowledge.index.scope import checked_labels

    return checked_labels([labels] if isinstance(labels, str) else labels)


def each_path(paths: PathOrPaths) -> list[Path]:
    return [Path(paths)] if isinstance(paths, str | Path) else list(map(Path, paths))


@dataclass(frozen=True, slots=True)
class View:
    """The documents that one reader sees: of one version, matching a condition, with labels that the reader holds.

    Views share model and knowledge base with their library. All methods are thread-safe.

    >>> kb.ask("Who signs travel expenses?").declined
    False
    >>> [hit.passage.text.strip() for hit in kb.search("travel expenses", limit=1)]
    ['Travel expenses are signed by the head of unit.']
    """

    resources: Resources
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
        from openbook.answers.retrieval import Corpus

        return Corpus(self.resources.base(), self.resources.embedder(), self.scope)

    @property
    def scope(self) -> Scope:
        """What this view limits: version, condition, labels."""
        from openbook.knowledge.index.scope import Scope

        return Scope(self.resources.version(self.version), self.condition.strip(), self.held)

    def documents(self) -> list[str]:
        """Paths of the documents, in order."""
        return self.corpus.documents()

    # Questions

    def prepare(self, *, closed_book: bool = False, model: bool = True) -> None:
        """Open what questions need, so that the first does not wait for it. `ask` does the same.

        `model`: also the models, on another thread. A missing knowledge base is reported before any download.
        Raises KnowledgeError, PullError.
        """
        if model:
            self.resources.prepare(self.version, closed_book=closed_book)
        else:
            self.resources.prepare_documents(self.version)

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
        from openbook.answers.ask import ask_with_fallback
        from openbook.answers.retrieval import Options

        options = Options.of(self.resources.settings)
        decoding = replace(options.decoding, quote=quote)
        options = replace(options, instruction=instruction, earlier=tuple(earlier), decoding=decoding)
        model, fallback = self.resources.prepare(self.version, closed_book=closed_book)
        corpus = None if closed_book else self.corpus
        return ask_with_fallback(question, model.result(), fallback, corpus, options, listener)

    def search(self, text: str, limit: int = 5) -> list[Hit]:
        """The best passages for a question or words, best first. Raises QuestionError, KnowledgeError.

        >>> kb.search("travel")[0].passage.document.endswith("travel.md")
        True
        """
        from openbook.answers.ask import search

        return search(text, self.corpus, limit)[1]

    def find(self, name: str) -> list[str]:
        """Documents whose path contains `name`, or matches it, as in "*.md".

        >>> [path.rpartition("/")[2] for path in kb.find("trav")]
        ['travel.md']
        """
        from openbook.knowledge import lookup

        return lookup.find(self.resources.base(), self.scope, name)

    def grep(
        self, pattern: str, *, expression: bool = False, case: bool = False, limit: int = 50, skip: int = 0
    ) -> Matches:
        """The lines that contain exact words, or match a regular expression (syntax of RE2). Raises QuestionError.

        >>> [match.line for match in kb.grep("head of unit").matches]
        ['Travel expenses are signed by the head of unit.']
        """
        from openbook.knowledge import lookup

        return lookup.grep(
            self.resources.base(), self.scope, pattern, expression=expression, case=case, limit=limit, skip=skip
        )

    def read(self, document: str, *, start: int = 0, length: int | None = None, page: int | None = None) -> Part:
        """The text of a document, or a part of it. Raises QuestionError.

        >>> kb.read("travel.md", length=15).text
        'Travel expenses'
        """
        from openbook.knowledge import lookup

        return lookup.read(self.resources.base(), self.scope, document, start=start, length=length, page=page)

    def outline(self, document: str) -> list[Heading]:
        """The headings of a document, in order; without any, its pages. Raises QuestionError."""
        from openbook.knowledge import lookup

        return lookup.outline(self.resources.base(), self.scope, document)

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
            Resources(settings, None if docs is None else each_path(docs), model, embedder, announce, stages)
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

    def _to_write(self, progress: StagedProgress) -> tuple[KnowledgeBase, Embedder, RunOptions]:
        resources = self.resources
        self._check_may_change()
        base = resources.base(create=True)
        return base, resources.embedder(), replace(run_options(resources.settings), progress=progress)

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

    def add(
        self,
        paths: PathOrPaths,
        *,
        require_labels: Labels = (),
        unlabel: Labels = (),
        progress: StagedProgress = _silent,
        workers: Workers = _here,
    ) -> Report:
        """Add files, and all files below folders.

        `require_labels`: access labels that a reader must hold. `unlabel`: labels to take away. `progress` gets (stage,
        done, total). `workers`: what parses and embeds.
        """
        from openbook.knowledge import add

        base, embedder, options = self._to_write(progress)
        options = replace(options, labels=_labels(require_labels), unlabel=_labels(unlabel), retry=True)
        with workers(embedder, options) as (embedder, options):
            return add(base, each_path(paths), embedder, options)

    def sync(
        self,
        folder: str | Path | None = None,
        *,
        require_labels: Labels = (),
        reset: bool = False,
        progress: StagedProgress = _silent,
    ) -> Report:
        """Make the documents below `folder`, or of the source at that address, equal to what is there: new, changed, renamed and gone.

        None: all that was synced before. The labels that it was synced with before hold until others are given, or
        `reset`. Other arguments as of `add`.

        >>> kb.sync("docs").version  # nothing changed, so there is no new version
        3
        """
        return self.sync_folders(self.to_sync(folder, require_labels=require_labels, reset=reset), progress=progress)

    def to_sync(
        self,
        folder: str | Path | None = None,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        require_labels: Labels = (),
        reset: bool = False,
    ) -> list[SyncedFolder]:
        """Folders and sources for `sync_folders`. None: all that was synced before, and all in `sources.toml`.

        `include` and `exclude`: globs as in .gitignore. Raises KnowledgeError if there are none.
        """
        from openbook.knowledge.ingest.discovery import Rules, check_exists
        from openbook.knowledge.synced_folders import SOURCES_FILE, all_to_sync, to_sync
        from openbook.sources.registry import is_address

        settings = self.resources.settings
        if folder is None:
            self._check_may_change()
            base = self.resources.base(create=Path(str(settings.kb_place), SOURCES_FILE).exists())
            if not (known := all_to_sync(base, settings.ocr)):
                raise KnowledgeError(f"No folder was synced into {base.store} yet. Name one: openbook sync FOLDER")
            return known
        if not is_address(str(folder)):
            check_exists(Path(folder))  # before a knowledge base is made
        base, rules = self._to_write(_silent)[0], Rules(tuple(include), tuple(exclude))
        return [to_sync(base, folder, rules, _labels(require_labels), settings.ocr, reset=reset)]

    def sync_folders(
        self, folders: Sequence[SyncedFolder], *, progress: StagedProgress = _silent, workers: Workers = _here
    ) -> Report:
        """Sync folders of `to_sync` as one new version."""
        from openbook.knowledge.updates import sync_folders

        base, embedder, options = self._to_write(progress)
        with workers(embedder, options) as (embedder, options):
            return sync_folders(base, folders, embedder, options)

    def forget(self, folder: str | Path) -> None:
        """Stop syncing a folder or source; its documents stay. Raises KnowledgeError if it was not synced."""
        from openbook.knowledge.synced_folders import forget_synced_folder

        self._check_may_change()
        forget_synced_folder(self.base, folder)

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
        from openbook.proofs.purge import finish_purge_everywhere, purge_everywhere

        base, named = self._named(documents)
        finish_purge_everywhere(base, self.resources.settings)
        return purge_everywhere(base, named, self.resources.settings, copies=copies)

    def restore(self, version: str | int) -> int:
        """Make a new version with the documents of a kept one. Returns its number. Raises UnknownVersion."""
        from openbook.knowledge.versions import resolve_version, restore

        self._check_may_change()
        return restore(self.base, resolve_version(self.base, str(version)))

    def prune(self, keep: int | None = None, *, save: bool = False) -> PruneResult:
        """Delete all but the `keep` newest versions and the tagged ones. None: as many as were saved.

        `save`: do the same after each later change. Raises ConfigError if nothing says what to keep.
        """
        from openbook.knowledge import versions
        from openbook.knowledge.store.version_rows import retention

        self._check_may_change()
        keep = retention(self.base.connection) if keep is None else keep
        if keep is None:
            raise ConfigError("Say what to keep: give --keep N.")
        pruned = versions.prune(self.base, keep)
        if save:
            versions.set_retention(self.base, keep)
        return pruned

    def reembed(self, embedder: str, *, progress: StagedProgress = _silent) -> tuple[int, int] | None:
        """Embed all passages again with the named embedder. Returns (new version, texts embedded); None if nothing changed."""
        from openbook.answers.opening import open_embedder
        from openbook.knowledge.updates import reembed

        self._check_may_change()
        base, resources = self.base, self.resources
        opened = open_embedder(resources.settings, embedder, resources.fetch)
        return None if opened.identity == base.embedder else reembed(base, opened, progress=progress)

    def history(self) -> list[Version]:
        """The kept versions, newest first."""
        from openbook.knowledge.versions import history

        return history(self.base)

    def tag(self, name: str, version: str | int | None = None) -> int:
        """Name a version (default: the newest), so that it is kept. Returns its number.

        >>> kb.tag("v1", 1)
        1
        """
        from openbook.knowledge.versions import tag

        self._check_may_change()
        return tag(self.base, name, self.resources.version(version))

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
        from openbook.core.records import Receipt
        from openbook.proofs.replay import knowledge_base_of, replay

        found = receipt if isinstance(receipt, Receipt) else receipt.receipt
        model, fallback = self.model, self.resources.fallback()
        if fallback is not None and found.model.digest != model.identity.digest:
            model = fallback()
        return replay(found, model, knowledge_base_of(found, [self.base]))
