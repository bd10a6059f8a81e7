"""Reads files in worker processes, so that one that hangs, crashes or unpacks without end costs nothing but itself.

A worker may be taken over by the file it reads. So it answers in JSON and never in pickle, and each answer is checked:
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
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from openbook.errors import NotReadNow, UnreadableFile
from openbook.parsers.cleaning import LONGEST_TITLE_CHARS, clean, one_line
from openbook.parsers.metadata import normalised
from openbook.parsers.worker import HELLO, NAME_BYTES, read_frame
from openbook.records import Content, Digest, HeadingMark, Metadata, PageSpan

MOST_ANSWER_BYTES = 512_000_000
MOST_FILES_A_WORKER = 2_000
_AHEAD = 4  # files read ahead, for each worker
_START_S = 60.0
_LONGEST_REASON_CHARS = 1_000
NONSENSE = "the reader gave an answer that makes no sense"

Outcome: TypeAlias = tuple[Content, Digest] | UnreadableFile


@dataclass(frozen=True, slots=True)
class Limits:
    """For one file: wall-clock seconds, MB of a worker's address space where the platform can limit it, size."""

    timeout_s: float = 60.0
    memory_mb: int = 2048
    max_file_bytes: int = 100_000_000


@dataclass(frozen=True, slots=True)
class Reading:
    """What became of one file: its content with the SHA-256 of the bytes it was read from, or why it has none."""

    path: Path
    outcome: Outcome


class ReaderPool:
    """Use it in a `with`. `ocr` names Tesseract's languages, such as `eng+deu`; empty: images are not read.

    `command` starts another worker than the program's own.
    """

    def __init__(self, limits: Limits, *, workers: int = 2, ocr: str = "", command: Sequence[str] = ()) -> None:
        self._limits = limits
        self._workers = max(workers, 1)
        self._command = list(command) or worker_command()
        self._settings = json.dumps({**asdict(limits), "ocr": ocr})
        self._lock = threading.Lock()
        self._all: set[Worker] = set()
        self._idle: list[Worker] = []
        self._closed = threading.Event()
        self._threads: ThreadPoolExecutor | None = None

    def __enter__(self) -> ReaderPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def read_all(self, paths: Iterable[Path]) -> Iterator[Reading]:
        """One `Reading` for each of `paths`, in their order; at most a few files are read ahead."""
        threads = self._start()
        waiting: deque[tuple[Path, Future[Outcome]]] = deque()
        for path in paths:
            waiting.append((path, threads.submit(self._read, path)))
            if len(waiting) > _AHEAD * self._workers:
                first, outcome = waiting.popleft()
                yield Reading(first, outcome.result())
        for path, outcome in waiting:
            yield Reading(path, outcome.result())

    def close(self) -> None:
        """Ends the workers, also those that are reading."""
        self._closed.set()
        with self._lock:
            for worker in self._all:
                worker.kill()
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in list(self._all):
            self._discard(worker)

    def _start(self) -> ThreadPoolExecutor:
        if self._closed.is_set():
            raise ValueError("the pool is closed")
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._workers, "openbook-read")
            threading.Thread(target=self._watch, name="openbook-deadlines", daemon=True).start()
        return self._threads

    def _watch(self) -> None:
        while not self._closed.wait(min(0.1, self._limits.timeout_s / 4)):
            with self._lock:
                for worker in self._all:
                    worker.kill_if_late()

    def _read(self, path: Path) -> Outcome:
        try:
            worker = self._take()
            outcome = self._ask(worker, path)
            if outcome is None and worker.files > 1 and not worker.late:
                # What broke it may be the file before; this one deserves a fresh worker.
                worker = self._take(fresh=True)
                outcome = self._ask(worker, path)
            return outcome or worker.last_words(self._limits)
        except OSError as error:
            return NotReadNow(f"the reader could not be started ({(error.strerror or str(error)).lower()})")

    def _ask(self, worker: Worker, path: Path) -> Outcome | None:
        """What `worker` answers; None when it ended instead, and is reaped."""
        try:
            answer = worker.ask(os.fsencode(path), self._limits.timeout_s)
        except ValueError as error:
            answer = UnreadableFile(str(error))
            worker.files = MOST_FILES_A_WORKER  # taken over, or broken: not to be asked again
        if answer is not None and worker.is_good_for_more(self._limits):
            with self._lock:
                self._idle.append(worker)
        else:
            self._discard(worker)
        return answer

    def _take(self, *, fresh: bool = False) -> Worker:
        with self._lock:
            if self._idle and not fresh:
                return self._idle.pop()
            if self._closed.is_set():
                raise OSError("the pool is closed")
            worker = Worker([*self._command, self._settings])
            self._all.add(worker)
            return worker

    def _discard(self, worker: Worker) -> None:
        worker.reap()
        with self._lock:
            self._all.discard(worker)


class Worker:
    """One process. Asked by one thread at a time; killed from any."""

    def __init__(self, command: list[str]) -> None:
        # A session of its own: Ctrl-C in the terminal is for the program, and the whole group can be killed.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
            start_new_session=True, env=_environment(),
        )  # fmt: skip
        self._lock = threading.Lock()
        self._deadline: float | None = None
        self._reaped = False
        self._said = b""
        self._peak_mb = 0
        self._ready = False
        self.files = 0
        self.late = False
        self._listener = threading.Thread(target=self._listen, name="openbook-stderr", daemon=True)
        self._listener.start()

    def ask(self, path: bytes, timeout_s: float) -> Outcome | None:
        """What it answers about the file; None when it ended or was killed. Raises ValueError for nonsense."""
        answer = self.exchange([path], timeout_s)
        if answer is None:
            return None
        outcome, self._peak_mb = _checked(answer)
        return outcome

    def exchange(
        self, question: Sequence[bytes], timeout_s: float, most_bytes: int = MOST_ANSWER_BYTES
    ) -> bytes | None:
        """The body of its answer to a question, which comes in parts; None when it ended or was killed.

        Raises ValueError when it answers something else.
        """
        self.files += 1
        if not self._ready:
            self._ready = self._send([], _START_S, NAME_BYTES)[:NAME_BYTES] == HELLO
            if not self._ready:
                return None
        name = secrets.token_bytes(NAME_BYTES)
        size = len(name) + sum(map(len, question))
        frame = self._send([size.to_bytes(4, "big") + name, *question], timeout_s, NAME_BYTES + most_bytes)
        if not frame:
            return None
        if frame[:NAME_BYTES] != name:
            raise ValueError(NONSENSE)
        return frame[NAME_BYTES:]

    def _send(self, parts: Sequence[bytes], timeout_s: float, most_bytes: int) -> bytes:
        """The frame that it answers with; empty where there is none."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._deadline = time.monotonic() + timeout_s
        try:
            for part in parts:
                rest = memoryview(part)
                while rest:  # a pipe may take less than all of it
                    rest = rest[self._process.stdin.write(rest) :]
            return read_frame(self._process.stdout, most_bytes)  # type: ignore[arg-type]  # a raw file
        except (OSError, ValueError):  # it is gone, or the pool was closed
            return b""
        finally:
            with self._lock:
                self._deadline = None

    def kill_if_late(self) -> None:
        with self._lock:
            if self._deadline is not None and time.monotonic() > self._deadline:
                self.late = True
                self._kill()

    def kill(self) -> None:
        with self._lock:
            self._kill()

    def _kill(self) -> None:
        if self._reaped:
            return  # its number may be another process's by now
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def reap(self) -> None:
        """Ends it, waits for it and closes its pipes."""
        self.kill()
        with self._lock:
            if self._reaped:
                return
            self._process.wait()
            self._reaped = True
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._listener.join(timeout=1.0)

    def is_good_for_more(self, limits: Limits) -> bool:
        return not self.late and self.files < MOST_FILES_A_WORKER and self._peak_mb < limits.memory_mb / 2

    def last_words(self, limits: Limits) -> UnreadableFile:
        """Why it gave no answer. Call it when it is reaped."""
        said = one_line(self._said.decode("utf-8", "replace").strip().rpartition("\n")[2])
        if not self._ready:
            return NotReadNow(
                f"the reader did not start ({said})" if said and not self.late else "the reader did not start"
            )
        return UnreadableFile(self._reason(said, limits))

    def _reason(self, said: str, limits: Limits) -> str:
        code = self._process.returncode
        if self.late or code == -getattr(signal, "SIGXCPU", 0):
            return f"took longer than {limits.timeout_s:g} s to read"
        if any(word in said.lower() for word in ("memoryerror", "bad_alloc", "out of memory", "cannot allocate")):
            return f"needs more than {limits.memory_mb} MB of memory to read"
        if code < 0:
            return f"the reader crashed (signal {-code})"
        return f"the reader ended by itself (exit code {code}{': ' if said else ''}{said})"

    def _listen(self) -> None:
        pipe = self._process.stderr
        assert pipe is not None
        with pipe:
            while part := pipe.read(65_536):
                self._said = (self._said + part)[-4_000:]


def worker_command() -> list[str]:
    return [sys.executable, "-X", "utf8", "-m", "openbook.parsers.worker"]


def _environment() -> dict[str, str]:
    """The child finds the modules that this process finds, and none in the folder it happens to be in."""
    root = str(Path(__file__).parents[3])
    places = [place for place in sys.path if place and place != root]
    ignored = sys.flags.ignore_environment
    kept = {name: value for name, value in os.environ.items() if not (ignored and name.startswith("PYTHON"))}
    return {**kept, "PYTHONPATH": os.pathsep.join([root, *places]), "PYTHONSAFEPATH": "1"}


# --- answers ----------------------------------------------------------------------------------------------------------


def _checked(body: bytes) -> tuple[Outcome, int]:
    """What an answer says, and its worker's peak of memory in MB.

    Raises:
        ValueError: it is not what an honest worker says.

    """
    try:
        answer = json.loads(body)
        peak_mb = _count(answer.pop("peak_mb"))
        if "reason" in answer:
            again = answer.pop("again", False)
            _require(set(answer) == {"reason"} and type(again) is bool)
            kind = NotReadNow if again else UnreadableFile
            return kind(one_line(_text(answer["reason"], _LONGEST_REASON_CHARS)) or "not readable"), peak_mb
        digest = _text(answer.pop("digest"), 64)
        _require(len(digest) == 64 and not digest.strip("0123456789abcdef"))
        return (_content(**answer), digest), peak_mb
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, UnreadableFile) as error:
        raise ValueError(NONSENSE) from error


def _content(
    text: Any, media_type: Any, title: Any, pages: Any, headings: Any, source_chars: Any, metadata: Any
) -> Content:
    _require(clean(_text(text, MOST_ANSWER_BYTES)) == text)
    return Content(
        text,
        _text(media_type, 100),
        _text(title, LONGEST_TITLE_CHARS),
        tuple(_pages(pages, len(text))),
        tuple(_headings(headings, len(text))),
        None if source_chars is None else _count(source_chars),
        _metadata(metadata),
    )


def _pages(pages: Any, length: int) -> Iterator[PageSpan]:
    at = number_before = 0
    for number, start, end in pages:
        _require(number_before < _count(number) and at <= _count(start) <= _count(end) <= length)
        yield PageSpan(number, start, end)
        at, number_before = end, number


def _headings(headings: Any, length: int) -> Iterator[HeadingMark]:
    at = 0
    for start, level, title in headings:
        _require(at <= _count(start) < length and 1 <= _count(level) <= 1_000)
        yield HeadingMark(start, level, _text(title, LONGEST_TITLE_CHARS))
        at = start


def _metadata(said: Any) -> Metadata:
    _require(type(said) is dict)
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in said.items()}
    kept = normalised(fields)
    _require(kept == tuple(sorted(fields.items())))
    return kept


def _text(value: Any, most_chars: int) -> str:
    _require(type(value) is str and len(value) <= most_chars)
    text: str = value
    return text


def _count(value: Any) -> int:
    _require(type(value) is int and 0 <= value < 2**53)
    count: int = value
    return count


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError
