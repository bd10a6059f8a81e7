"""Parses files in worker processes, so that one that hangs, crashes or unpacks without end costs nothing but itself.

A worker may be taken over by the file it parses. So it answers in JSON and never in pickle, and each answer is checked:
types, sizes, offsets, characters. Workers are started when first needed, and end with the process that started them.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec

from openbook.errors import NoSuchPage, NotReadNow, UnreadableFile
from openbook.parsers.characters import LONGEST_TITLE_CHARS, clean, one_line
from openbook.parsers.metadata import normalised
from openbook.parsers.worker import HELLO, NAME_BYTES, read_frame
from openbook.records import Content, Digest, HeadingMark, PageSpan

MOST_ANSWER_BYTES = 512_000_000
MOST_FILES_A_WORKER = 500  # the memory that libraries keep must not pile up
NONSENSE = "the parser gave an answer that makes no sense"
_AHEAD = 4  # files parsed ahead, for each worker
_START_S = 60.0
_LOOK_S = 0.05  # how often deadlines are looked at

Outcome: TypeAlias = tuple[Content, Digest] | UnreadableFile


@dataclass(frozen=True, slots=True)
class Limits:
    """For one file: wall-clock seconds, MB of a worker's address space where the platform can limit it, size."""

    timeout_s: float = 60.0
    memory_mb: int = 2048
    max_file_bytes: int = 100_000_000


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """What became of one file: its content with the SHA-256 of the bytes that were parsed, or why it has none."""

    path: Path
    outcome: Outcome


class ParserPool:
    """Use it in a `with`. `ocr` names Tesseract's languages, such as `eng+deu`; empty: images are not read.

    `command` starts another worker than the program's own.
    """

    def __init__(self, limits: Limits, *, workers: int = 2, ocr: str = "", command: Sequence[str] = ()) -> None:
        self._limits = limits
        self._count = max(workers, 1)
        self._command = [*(command or worker_command()), json.dumps({**asdict(limits), "ocr": ocr})]
        self._lock = threading.Lock()
        self._workers: set[Worker] = set()
        self._idle: list[Worker] = []
        self._closed = threading.Event()
        self._threads: ThreadPoolExecutor | None = None

    def __enter__(self) -> ParserPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def parse_all(self, paths: Iterable[Path]) -> Iterator[ParsedFile]:
        """One `ParsedFile` for each of `paths`, in their order; at most a few files are parsed ahead."""
        if self._closed.is_set():
            raise ValueError("the pool is closed")
        self._threads = self._threads or ThreadPoolExecutor(self._count, "openbook-parse")
        waiting: deque[tuple[Path, Future[Outcome]]] = deque()
        for path in paths:
            waiting.append((path, self._threads.submit(self._parse, path)))
            if len(waiting) > _AHEAD * self._count:
                first, outcome = waiting.popleft()
                yield ParsedFile(first, outcome.result())
        for path, outcome in waiting:
            yield ParsedFile(path, outcome.result())

    def close(self) -> None:
        """Ends the workers, also those that are parsing."""
        self._closed.set()
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            worker.kill()
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in list(self._workers):
            self._discard(worker)

    def _parse(self, path: Path) -> Outcome:
        try:
            worker = self._take()
            outcome = self._ask(worker, path)
            if outcome is None and worker.files > 1 and not worker.is_late:
                # What broke it may be the file before; this one deserves a fresh worker.
                worker = self._take(fresh=True)
                outcome = self._ask(worker, path)
            return outcome or worker.last_words(self._limits)
        except OSError as error:
            return NotReadNow(f"the parser could not be started ({(error.strerror or str(error)).lower()})")

    def _ask(self, worker: Worker, path: Path) -> Outcome | None:
        """What `worker` answers; None when it ended instead, and is reaped."""
        try:
            answer = worker.ask([os.fsencode(path)], self._limits.timeout_s)
            outcome = None if answer is None else _outcome(answer)
        except ValueError:  # taken over, or broken: not to be asked again
            outcome, worker.files = UnreadableFile(NONSENSE), MOST_FILES_A_WORKER
        if outcome is None or worker.is_late or worker.files >= MOST_FILES_A_WORKER:
            self._discard(worker)
        else:
            with self._lock:
                self._idle.append(worker)
        return outcome

    def _take(self, *, fresh: bool = False) -> Worker:
        with self._lock:
            if self._idle and not fresh:
                return self._idle.pop()
            if self._closed.is_set():
                raise OSError("the pool is closed")
            worker = Worker(self._command)
            self._workers.add(worker)
            return worker

    def _discard(self, worker: Worker) -> None:
        worker.reap()
        with self._lock:
            self._workers.discard(worker)


class Worker:
    """One process. Asked by one thread at a time; killed from any. Call `reap` at the end."""

    def __init__(self, command: Sequence[str]) -> None:
        # A session of its own: Ctrl-C in the terminal is for the program, and the whole group can be killed.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
            start_new_session=True, env=_environment(),
        )  # fmt: skip
        self._lock = threading.Lock()
        self._is_reaped = False
        self._is_ready = False
        self._said = b""
        self.files = 0
        self.is_late = False
        self._listener = threading.Thread(target=self._listen, name="openbook-stderr", daemon=True)
        self._listener.start()

    def ask(
        self,
        question: Sequence[bytes],
        timeout_s: float,
        most_bytes: int = MOST_ANSWER_BYTES,
        stop: Callable[[], bool] = lambda: False,
    ) -> bytes | None:
        """The body of its answer to a question, which comes in parts; None when it ended or was killed.

        It is killed when it is late, and within a moment after `stop` says so. Raises ValueError for an answer to
        something else.
        """
        self.files += 1
        if not self._is_ready:
            self._is_ready = self._exchange([], _START_S, NAME_BYTES, stop)[:NAME_BYTES] == HELLO
            if not self._is_ready:
                return None
        name = secrets.token_bytes(NAME_BYTES)
        size = len(name) + sum(map(len, question))
        parts = [size.to_bytes(4, "big") + name, *question]
        frame = self._exchange(parts, timeout_s, NAME_BYTES + most_bytes, stop)
        if frame and frame[:NAME_BYTES] != name:
            raise ValueError(NONSENSE)
        return frame[NAME_BYTES:] if frame else None

    def _exchange(self, parts: Sequence[bytes], timeout_s: float, most_bytes: int, stop: Callable[[], bool]) -> bytes:
        """The frame that it answers with; empty where there is none."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with self._deadline(timeout_s, stop):
            try:
                for part in parts:
                    rest = memoryview(part)
                    while rest:  # a pipe may take less than all of it
                        rest = rest[self.process.stdin.write(rest) :]
                return read_frame(self.process.stdout, most_bytes)  # type: ignore[arg-type]  # a raw file
            except (OSError, ValueError):  # it is gone, or the pool was closed
                return b""

    @contextlib.contextmanager
    def _deadline(self, timeout_s: float, stop: Callable[[], bool]) -> Iterator[None]:
        """Kills it meanwhile when it is late or `stop` says so."""
        done, deadline = threading.Event(), time.monotonic() + timeout_s

        def watch() -> None:
            while not done.wait(_LOOK_S):
                self.is_late = self.is_late or time.monotonic() > deadline
                if self.is_late or stop():
                    self.kill()

        watcher = threading.Thread(target=watch, name="openbook-deadline", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def kill(self) -> None:
        with self._lock, contextlib.suppress(ProcessLookupError, PermissionError):
            if self._is_reaped:
                return  # its number may be another process's by now
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()

    def reap(self) -> None:
        """Ends it, waits for it and closes its pipes."""
        self.kill()
        with self._lock:
            self.process.wait()
            self._is_reaped = True
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self._listener.join(timeout=1.0)

    def last_words(self, limits: Limits) -> UnreadableFile:
        """Why it gave no answer. Call it when it is reaped."""
        said = one_line(self._said.decode("utf-8", "replace").strip().rpartition("\n")[2])
        code = self.process.returncode
        if not self._is_ready:
            return NotReadNow(f"the parser did not start{f' ({said})' if said and not self.is_late else ''}")
        if self.is_late or code == -getattr(signal, "SIGALRM", 0):
            return UnreadableFile(f"took longer than {limits.timeout_s:g} s to read")
        if any(word in said.lower() for word in ("memory", "bad_alloc", "cannot allocate")):
            return UnreadableFile(f"needs more than {limits.memory_mb} MB of memory to read")
        if code < 0:
            return UnreadableFile(f"the parser crashed (signal {-code})")
        return UnreadableFile(f"the parser ended by itself (exit code {code}{': ' if said else ''}{said})")

    def _listen(self) -> None:
        pipe = self.process.stderr
        assert pipe is not None
        with pipe:
            while part := pipe.read(65_536):
                self._said = (self._said + part)[-4_000:]


def worker_command() -> list[str]:
    return [sys.executable, "-X", "utf8", "-m", "openbook.parsers.worker"]


def _environment() -> dict[str, str]:
    """The child finds the modules that this process finds, and none in the folder it happens to be in."""
    root = str(Path(__file__).parents[2])
    places = [place for place in sys.path if place and place != root]
    ignored = sys.flags.ignore_environment
    kept = {name: value for name, value in os.environ.items() if not (ignored and name.startswith("PYTHON"))}
    return {**kept, "PYTHONPATH": os.pathsep.join([root, *places]), "PYTHONSAFEPATH": "1"}


# --- answers ----------------------------------------------------------------------------------------------------------

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
_Title: TypeAlias = Annotated[str, msgspec.Meta(max_length=LONGEST_TITLE_CHARS)]
_Level: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=1_000)]


class _Page(msgspec.Struct, forbid_unknown_fields=True):
    number: _Count
    start: _Count
    end: _Count


class _Heading(msgspec.Struct, forbid_unknown_fields=True):
    start: _Count
    level: _Level
    title: _Title


class _Content(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    media_type: Annotated[str, msgspec.Meta(max_length=100)]
    title: _Title
    pages: list[_Page]
    headings: list[_Heading]
    source_chars: _Count | None
    metadata: list[tuple[str, str | int | float | bool | list[str]]]


class _Answer(msgspec.Struct, forbid_unknown_fields=True):
    content: _Content | None = None
    digest: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")] = ""
    reason: Annotated[str, msgspec.Meta(max_length=1_000)] = ""
    kind: Literal["unreadable", "not now", "no such page"] = "unreadable"


def decode_answer(body: bytes) -> _Answer:
    """Raises ValueError: it is not what an honest worker says."""
    try:
        return msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(NONSENSE) from error


def refusal(answer: _Answer) -> UnreadableFile:
    """Raises ValueError: it gives no reason."""
    if not answer.reason:
        raise ValueError(NONSENSE)
    kinds = {"unreadable": UnreadableFile, "not now": NotReadNow, "no such page": NoSuchPage}
    return kinds[answer.kind](one_line(answer.reason) or "not readable")


def _outcome(body: bytes) -> Outcome:
    """What an answer says. Raises ValueError as `decode_answer`."""
    answer = decode_answer(body)
    said = answer.content
    if said is None:
        return refusal(answer)
    size = len(said.text)
    edges = [edge for page in said.pages for edge in (page.start, page.end)] + [size]
    numbers = [0, *(page.number for page in said.pages)]
    starts = [mark.start for mark in said.headings]
    metadata = tuple((key, tuple(v) if isinstance(v, list) else v) for key, v in said.metadata)
    try:
        is_orderly = (
            answer.digest != ""
            and clean(said.text) == said.text
            and all(a <= b for a, b in pairwise(edges))
            and all(a < b for a, b in pairwise(numbers))
            and all(a <= b for a, b in pairwise(starts))
            and max(starts, default=-1) < size
            and normalised(dict(metadata)) == metadata
        )
    except UnreadableFile:  # a label that cannot be one
        is_orderly = False
    if not is_orderly:
        raise ValueError(NONSENSE)
    pages = tuple(PageSpan(page.number, page.start, page.end) for page in said.pages)
    headings = tuple(HeadingMark(mark.start, mark.level, mark.title) for mark in said.headings)
    content = Content(said.text, said.media_type, said.title, pages, headings, said.source_chars, metadata)
    return content, answer.digest
