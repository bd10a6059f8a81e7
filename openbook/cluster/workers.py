"""Parsing and embedding on a Ray cluster, with the same results as on one machine.

This process still finds files, stores and commits. File bytes travel to the actors, since machines share no disk;
nothing is written to a worker's disk. Each result comes once, in task order; a dead actor's task goes to another. An
actor whose software, or whose vectors of SAMPLE_TEXTS, would change results is refused before it works.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from openbook import __version__
from openbook.cluster.connection import ray_module
from openbook.core.errors import ClusterError, NotReadNow, OpenBookError, UnreadableFile, first_line
from openbook.core.records import Embedder, EmbedderIdentity, Vectors
from openbook.parsers import PARSER_VERSION
from openbook.parsers.files import file_bytes, unsupported_reason
from openbook.parsers.ocr import MAX_PAGES, ocr_engine
from openbook.parsers.sandbox.pool import ParserPool
from openbook.parsers.sandbox.protocol import Limits, Parsed

SAMPLE_TEXTS = ("A ferry leaves at nine.", "Überraschung, 東京, naïve: " * 100, "")
LIBRARIES = ("charset-normalizer", "lxml", "olefile", "pypdfium2", "python-calamine", "PyYAML", "striprtf")

MAX_DEATHS = 3  # of actors with the same task, or of an actor's successors before one works
AHEAD = 8  # per actor: tasks begun and not yet returned
MAX_BYTES_AHEAD = 64_000_000  # of their files, unless a single one is larger
EMBEDDED_AT_ONCE = 64  # texts
START_S = 120.0  # for the first actor to appear
STALLED_S = 600.0  # embedding actors that return nothing for so long count as dead
_AT_AN_ACTOR = 2  # so that it never waits for its next task


@dataclass(frozen=True, slots=True)
class WorkerFingerprint:
    """Everything that results depend on.

    `software`: what document text depends on, except the file. `vectors`: those of SAMPLE_TEXTS, as bytes.
    """

    host: str
    software: dict[str, str]
    embedder: EmbedderIdentity
    vectors: bytes


def fingerprint_of(embedder: Embedder) -> WorkerFingerprint:
    libraries = {name: importlib.metadata.version(name) for name in LIBRARIES}
    software = {"openbook": __version__, "openbook's parsers": PARSER_VERSION, **libraries}
    return WorkerFingerprint(
        platform.node(), software, embedder.identity, embedder.embed_passages(SAMPLE_TEXTS).tobytes()
    )


def why_refused(here: WorkerFingerprint, there: WorkerFingerprint) -> str:
    """The reason why results there would differ; empty if they would not."""
    for name, version in here.software.items():
        if (other := there.software.get(name)) != version:
            return f"The worker on {there.host} has {name} {other}, this machine {version}. Install the same on both."
    if there.embedder != here.embedder:
        return (
            f"The worker on {there.host} has the embedder {there.embedder.name!r} ({there.embedder.digest[:12]}), the knowledge "
            f"base needs {here.embedder.name!r} ({here.embedder.digest[:12]})."
        )
    if there.vectors != here.vectors:
        return (
            f"The worker on {there.host} computes other vectors than this machine, which comes of another processor or another "
            "onnxruntime. Use machines that agree."
        )
    return ""


# --- in the actor -----------------------------------------------------------------------------------------------------


class Worker:
    """A Ray actor for one core: it does one thing at a time."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._parsers: dict[tuple[Limits, str], ParserPool] = {}

    def fingerprint(self) -> WorkerFingerprint:
        return fingerprint_of(self._embedder)

    def parse(self, name: bytes, data: bytes, limits: Limits, ocr: str, engine: str) -> Parsed:
        """Parse in this machine's sandbox. `engine`: `ocr_engine` of the machine that began the run."""
        if (limits, ocr) not in self._parsers:
            if (here := ocr_engine(ocr)) != engine:
                raise ClusterError(
                    f"The worker on {platform.node()} reads scanned pages with {here!r}, this machine with {engine!r}. "
                    "Install the same OCR on both: pip install 'openbook[ocr]'"
                )
            while self._parsers:  # those of other folders are done
                self._parsers.popitem()[1].close()
            self._parsers[limits, ocr] = ParserPool(limits, workers=1, ocr=ocr, by_value=True)
        return self._parsers[limits, ocr].parse(Path(os.fsdecode(name)), data)

    def embed(self, texts: Sequence[str]) -> Vectors:
        return self._embedder.embed_passages(texts)


# --- in this process --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Task:
    """A method call, or a `result` known without one. `bytes`: the size of its file."""

    arguments: tuple[object, ...] = ()
    bytes: int = 0
    result: object = None  # never the value None
    deaths: int = 0


class LostTask:
    """The result of a task whose actor died MAX_DEATHS times."""


_Running: TypeAlias = dict[Any, tuple[Task, Any]]  # task and actor, by reference to the result


class Workers:
    """The actors of one run, at most `most` (default: one per core). They start with the first task.

    Use it in a `with`, in a process that has joined a cluster.
    """

    def __init__(self, embedder: Embedder, *, most: int = 0) -> None:
        self.embedder = ClusterEmbedder(self, embedder)
        self._ray = ray_module()
        self._local, self._most = embedder, most
        self._actors: list[Any] = []  # accepted
        self._starting: dict[Any, Any] = {}  # actors by reference to their fingerprint
        self._expected: WorkerFingerprint | None = None
        self._shared: Any = None  # reference to the embedder
        self._failed_starts = 0  # since an actor was accepted

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        for actor in (*self._actors, *self._starting.values()):
            self._kill(actor)
        self._actors, self._starting, self._shared = [], {}, None

    @contextmanager
    def parsers(self, limits: Limits, ocr: str) -> Iterator[ClusterParsers]:
        yield ClusterParsers(self, limits, ocr)

    def results(self, method: str, tasks: Iterable[Task], patience_s: float = STALLED_S) -> Iterator[object]:
        """Yield each task's result, in order; LostTask if no actor survived it. Tasks are taken ahead, within AHEAD and MAX_BYTES_AHEAD.

        Busy actors that all return nothing for `patience_s` count as dead. Raises ClusterError when an actor is refused
        or fails, or none appears; OpenBookError as the method raises it.
        """
        source, window, due = iter(tasks), deque[Task](), deque[Task]()
        running: _Running = {}
        while True:
            while (
                len(window) < AHEAD * max(1, len(self._actors))
                and sum(task.bytes for task in window) < MAX_BYTES_AHEAD
                and (task := next(source, None))
            ):
                window.append(task)
                if task.result is None:
                    due.append(task)
            if not window:
                return
            if due:
                self._start()
            while due and (actor := self._free(running)):
                task = due.popleft()
                with self._refusals():
                    running[getattr(actor, method).remote(*task.arguments)] = task, actor
            if window[0].result is None:
                due += self._collect(running, patience_s if running else START_S)
            else:
                due += self._collect(running, 0.0)
            if window[0].result is not None:
                yield window.popleft().result

    # --- actors -------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._shared is not None:
            return
        self._expected = fingerprint_of(self._local)
        with self._refusals():
            self._shared = self._ray.put(self._local)
            cores = int(self._ray.cluster_resources().get("CPU", 1)) or 1
        for _ in range(min(cores, self._most or cores)):
            self._add()

    def _add(self) -> None:
        with self._refusals():  # Ray does not restart it: it might come back on another machine, unchecked
            actor = self._ray.remote(num_cpus=1)(Worker).remote(self._shared)
            self._starting[actor.fingerprint.remote()] = actor

    def _kill(self, actor: Any) -> None:
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(actor)

    def _free(self, running: _Running) -> Any:
        """The least busy actor, if it can take another task."""
        tasks = Counter(actor for _, actor in running.values())
        least = min(self._actors, key=tasks.__getitem__, default=None)
        return least if least is not None and tasks[least] < _AT_AN_ACTOR else None

    def _collect(self, running: _Running, timeout_s: float) -> list[Task]:
        """Wait for one event and process it. Return the tasks of dead actors. `timeout_s` 0: only look."""
        ready: list[Any] = []
        if references := [*running, *self._starting]:
            with self._refusals():
                ready, _ = self._ray.wait(references, timeout=timeout_s)
        if not ready and timeout_s and not running:
            raise ClusterError(f"No worker of the cluster was there within {timeout_s:g} s. See: ray status")
        if not ready:
            stalled = {actor for _, actor in running.values()} if timeout_s else ()
            return [task for actor in stalled for task in self._lose(actor, running)]
        (reference,) = ready
        if reference in self._starting:
            self._accept(self._starting.pop(reference), reference)
            return []
        task, actor = running[reference]
        try:
            task.result = self._value(reference)
        except _ActorDied:
            return self._lose(actor, running)
        del running[reference]
        return []

    def _accept(self, actor: Any, reference: Any) -> None:
        """Let an actor work once its fingerprint arrived. Raises ClusterError when results would differ."""
        try:
            there: WorkerFingerprint = self._value(reference)
        except _ActorDied as death:
            self._failed_starts += 1
            if self._failed_starts >= MAX_DEATHS and not self._actors:
                raise ClusterError(
                    f"{MAX_DEATHS} workers in a row died before one of them did anything: {death}. Their logs say more: ray logs"
                ) from death
            self._add()
            return
        assert self._expected is not None
        if refusal := why_refused(self._expected, there):
            self._kill(actor)
            raise ClusterError(refusal)
        self._failed_starts = 0
        self._actors.append(actor)

    def _lose(self, actor: Any, running: _Running) -> list[Task]:
        """Replace a dead actor; return its tasks. After MAX_DEATHS deaths, a task's result is `LostTask`."""
        lost = {at: task for at, (task, its) in running.items() if its is actor}
        for at, task in lost.items():
            del running[at]
            task.deaths += 1
            task.result = LostTask() if task.deaths >= MAX_DEATHS else None
        if actor in self._actors:
            self._actors.remove(actor)
            self._kill(actor)  # it may only have been unreachable
            self._add()
        return [task for task in lost.values() if task.result is None]

    def _value(self, reference: Any) -> Any:
        """Raises _ActorDied, ClusterError for a bug, or OpenBookError as the method raises it."""
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, MemoryError):
                raise _ActorDied("out of memory") from error
            if isinstance(cause, OpenBookError):
                raise cause from None
            raise ClusterError(f"A worker failed: {type(cause).__name__}: {cause}.") from error
        except exceptions.RayError as error:
            raise _ActorDied(str(error).strip().splitlines()[-1]) from error

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except self._ray.exceptions.RayError as error:
            raise ClusterError(f"Ray refused: {first_line(error)}.") from error


class _ActorDied(Exception):
    pass


class ClusterParsers:
    """Replaces a ParserPool. Files are opened here, so disk errors read as on one machine."""

    def __init__(self, workers: Workers, limits: Limits, ocr: str) -> None:
        self._workers, self._limits, self._ocr = workers, limits, ocr

    def parse_all(self, paths: Iterable[Path]) -> Iterator[tuple[Path, Parsed]]:
        paths = list(paths)
        engine = ocr_engine(self._ocr)
        # A sandbox may be started twice for a file, and asked twice. Only an actor without memory takes longer: in
        # Python, the start of a thread hangs when there is no memory for it.
        patience_s = START_S + (4 + (MAX_PAGES if engine else 0)) * self._limits.timeout_s
        outcomes = self._workers.results("parse", (self._task(path, engine) for path in paths), patience_s)
        for path, outcome in zip(paths, outcomes, strict=True):
            if isinstance(outcome, LostTask):
                outcome = NotReadNow(f"{MAX_DEATHS} workers died while they read it")
            yield path, outcome  # type: ignore[misc]  # what Worker.parse returns

    def _task(self, path: Path, engine: str) -> Task:
        try:
            if reason := unsupported_reason(path, ocr=bool(engine)):
                raise UnreadableFile(reason)
            data = file_bytes(path, self._limits.max_file_bytes)
        except UnreadableFile as error:
            return Task(result=error)
        return Task((os.fsencode(path.name), data, self._limits, self._ocr, engine), len(data))


class ClusterEmbedder:
    """Replaces this process's embedder, which still embeds questions."""

    def __init__(self, workers: Workers, embedder: Embedder) -> None:
        self._workers, self._embedder = workers, embedder

    @property
    def identity(self) -> EmbedderIdentity:
        return self._embedder.identity

    def embed_query(self, text: str) -> Vectors:
        return self._embedder.embed_query(text)

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Raises ClusterError, EngineError."""
        starts = range(0, len(texts), EMBEDDED_AT_ONCE)
        parts = list(self.embed_batches(texts[start : start + EMBEDDED_AT_ONCE] for start in starts))
        return np.concatenate([np.empty((0, self.identity.dimensions), np.float32), *parts])

    def embed_batches(self, batches: Iterable[Sequence[str]]) -> Iterator[Vectors]:
        """As BatchEmbedder. Raises ClusterError, EngineError."""
        for vectors in self._workers.results("embed", (Task((list(batch),)) for batch in batches)):
            if isinstance(vectors, LostTask):
                raise ClusterError(
                    f"{MAX_DEATHS} workers died while they embedded the same passages. Their logs say why: ray logs"
                )
            yield vectors
