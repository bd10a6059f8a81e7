"""Parses files in worker processes, so that a file that hangs, crashes or unpacks without end affects no other.

Workers start on first use and end with their parent. `tasks` is their code, `protocol` what they say.
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
from contextlib import AbstractContextManager
from dataclasses import asdict
from io import BufferedReader
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

from openbook.core.errors import NotReadNow, UnreadableFile
from openbook.parsers.characters import one_line
from openbook.parsers.files import NEEDS_MEMORY
from openbook.parsers.ocr import MAX_PAGES, ocr_engine
from openbook.parsers.sandbox import protocol
from openbook.parsers.sandbox.protocol import Limits, Parsed

MAX_ANSWER_BYTES = 512_000_000
MAX_FILES_PER_WORKER = 500  # libraries' leaked memory must not pile up
TOOK_TOO_LONG = "took longer than "  # prefix of the reason
_AHEAD = 4  # files parsed ahead, for each worker
_START_S = 60.0
_LOOK_S = 0.05  # between checks of a deadline

_T = TypeVar("_T")


class Parsers(Protocol):
    """A ParserPool, or the same on other machines."""

    def parse_all(self, paths: Iterable[Path]) -> Iterator[tuple[Path, Parsed]]:
        """Yield each path with its outcome, in order. At most a few files are parsed ahead."""
        ...


# Given the limits and the setting of OCR.
OpenParsers: TypeAlias = Callable[[Limits, str], AbstractContextManager[Parsers]]


class ParserPool:
    """Use it in a `with`. `ocr`: as in `ocr_engine`.

    `by_value`: `parse` gets the bytes of each file. `command`: another worker.
    """

    def __init__(
        self, limits: Limits, ocr: str = "", *, workers: int = 2, by_value: bool = False, command: Sequence[str] = ()
    ) -> None:
        self._limits = limits
        self._count = workers
        settings = {**asdict(limits), "task": protocol.TASK_PARSE, "ocr": ocr_engine(ocr), "by_value": by_value}
        self._command = [*(command or _worker_command()), json.dumps(settings)]
        self._threads = ThreadPoolExecutor(self._count, "openbook-parse")
        self._mine = threading.local()  # the worker of each thread
        self._workers: set[Worker] = set()  # of all threads
        self._is_closed = False

    def __enter__(self) -> ParserPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def parse_all(self, paths: Iterable[Path]) -> Iterator[tuple[Path, Parsed]]:
        waiting: deque[tuple[Path, Future[Parsed]]] = deque()
        for path in paths:
            waiting.append((path, self._threads.submit(self.parse, path)))
            if len(waiting) > _AHEAD * self._count:
                first, outcome = waiting.popleft()
                yield first, outcome.result()
        for path, outcome in waiting:
            yield path, outcome.result()

    def close(self) -> None:
        """End all workers, even those that are parsing."""
        self._is_closed = True
        for worker in list(self._workers):
            worker.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in list(self._workers):
            worker.reap()

    def parse(self, path: Path, data: bytes | None = None) -> Parsed:
        """Parse in a worker of the calling thread. `data`: the file's bytes, if the pool is `by_value`."""
        try:
            worker = self._worker()
            was_fresh = worker.files == 0
            outcome = self._ask(worker, path, data)
            if outcome is None and not was_fresh and not worker.is_late:
                # The file before may have broken the worker, so try again with a fresh one.
                worker = self._worker()
                outcome = self._ask(worker, path, data)
        except NotReadNow as error:
            return error
        return outcome or worker.last_words(self._limits)

    def _worker(self) -> Worker:
        worker: Worker | None = getattr(self._mine, "worker", None)
        if worker is None:
            worker = self._mine.worker = Worker(self._command)
            self._workers.add(worker)
            if self._is_closed:  # after adding it: either `close` saw it or it is killed here
                worker.kill()
        return worker

    def _ask(self, worker: Worker, path: Path, data: bytes | None) -> Parsed | None:
        """The worker's answer; None if it ended instead, and is reaped."""
        name = os.fsencode(path)
        question = [name] if data is None else [len(name).to_bytes(protocol.NUMBER_BYTES, "big"), name, data]
        is_broken = False
        try:
            answer = worker.ask(question, self._limits.timeout_s)
            outcome = None if answer is None else protocol.decode_answer(answer)
        except ValueError:  # the worker may have been taken over
            outcome, is_broken = UnreadableFile(protocol.NONSENSE), True
        if outcome is None or is_broken or worker.is_late or worker.files >= MAX_FILES_PER_WORKER:
            worker.reap()
            self._workers.discard(worker)
            self._mine.worker = None
        return outcome


class Worker:
    """One process. One thread at a time asks it; any may kill it. Call `reap` at the end."""

    def __init__(self, command: Sequence[str]) -> None:
        """Raises NotReadNow if it cannot be started."""
        try:
            # A session of its own: Ctrl-C goes to the program only, and the whole group can be killed.
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
                start_new_session=True, env=_environment(),
            )  # fmt: skip
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise NotReadNow(f"the parser could not be started ({why})") from error
        assert self.process.stdout is not None
        self._answers = BufferedReader(self.process.stdout)  # type: ignore[type-var]  # a raw file
        self._lock = threading.Lock()
        self._is_ready = False
        self._stderr_tail = b""
        self.files = 0
        self.is_late = False
        self._listener = threading.Thread(target=self._listen, name="openbook-stderr", daemon=True)
        self._listener.start()

    def ask(
        self,
        question: Sequence[bytes],
        timeout_s: float,
        max_bytes: int = MAX_ANSWER_BYTES,
        stop: Callable[[], bool] = lambda: False,
    ) -> bytes | None:
        """The answer to a question given in parts; None if the worker ended or was killed.

        It is killed at its timeout, or soon after `stop` is true. Raises ValueError for an answer to another request.
        """
        self.files += 1
        self._stderr_tail = b""  # said about earlier files
        if not self._is_ready:
            self._is_ready = self._exchange([], _START_S, protocol.NAME_BYTES, stop) == protocol.HELLO
            if not self._is_ready:
                return None
        name = secrets.token_bytes(protocol.NAME_BYTES)
        size = len(name) + sum(map(len, question))
        frame = self._exchange(
            [size.to_bytes(4, "big"), name, *question], timeout_s, protocol.NAME_BYTES + max_bytes, stop
        )
        until = time.monotonic() + MAX_PAGES * timeout_s
        while frame == name and time.monotonic() < until:  # OCR makes progress
            frame = self._exchange([], timeout_s, protocol.NAME_BYTES + max_bytes, stop)
        if frame == name:
            self.is_late = True
            return None
        if frame and frame[: protocol.NAME_BYTES] != name:
            raise ValueError(protocol.NONSENSE)
        return frame[protocol.NAME_BYTES :] if frame else None

    def _exchange(self, parts: Sequence[bytes], timeout_s: float, max_bytes: int, stop: Callable[[], bool]) -> bytes:
        """The frame of the answer; empty if there is none."""
        assert self.process.stdin is not None
        done, deadline = threading.Event(), time.monotonic() + timeout_s

        def watch() -> None:
            while not done.wait(_LOOK_S):
                self.is_late = self.is_late or time.monotonic() > deadline
                if self.is_late or stop():
                    self.kill()

        watcher = threading.Thread(target=watch, name="openbook-deadline", daemon=True)
        watcher.start()
        try:
            for part in parts:
                rest = memoryview(part)
                while rest:  # a pipe may take less than all of it
                    rest = rest[self.process.stdin.write(rest) :]
            return protocol.read_frame(self._answers, max_bytes)
        except (OSError, ValueError, MemoryError):  # it is gone, or the pool was closed
            return b""
        finally:
            done.set()
            watcher.join()

    def kill(self) -> None:
        with self._lock, contextlib.suppress(ProcessLookupError, PermissionError):
            if self.process.returncode is not None:
                return  # reaped: another process may have its id by now
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()

    def reap(self) -> None:
        self.kill()
        with self._lock:
            self.process.wait()
        for pipe in (self.process.stdin, self._answers):
            if pipe is not None:
                pipe.close()
        self._listener.join(timeout=1.0)

    def last_words(self, limits: Limits) -> UnreadableFile:
        """Why there was no answer. Call it after `reap`."""
        tail = self._stderr_tail.decode("utf-8", "replace")
        said = one_line(tail.strip().rpartition("\n")[2])
        code = self.process.returncode
        if not self._is_ready:
            return NotReadNow(f"the parser did not start{f' ({said})' if said and not self.is_late else ''}")
        if self.is_late or code == -getattr(signal, "SIGALRM", 0):
            return UnreadableFile(f"{TOOK_TOO_LONG}{limits.timeout_s:g} s to read")
        if any(word in tail.lower() for word in ("memory", "bad_alloc", "cannot allocate")):
            return UnreadableFile(f"needs more than {limits.memory_mb} {NEEDS_MEMORY}")
        if code < 0:
            return UnreadableFile(f"the parser crashed (signal {-code})")
        return UnreadableFile(f"the parser ended by itself (exit code {code}{': ' if said else ''}{said})")

    def _listen(self) -> None:
        pipe = self.process.stderr
        assert pipe is not None
        with pipe:
            while part := pipe.read(65_536):
                self._stderr_tail = (self._stderr_tail + part)[-4_000:]


def ask_once(
    task: str,
    question: Sequence[bytes],
    limits: Limits,
    max_bytes: int,
    prefix: bytes,
    decode: Callable[[bytes], _T],
    stop: Callable[[], bool],
    command: Sequence[str],
) -> _T:
    """The decoded answer, without its prefix, of a worker for this question only.

    `decode` raises ValueError for nonsense. Raises NotReadNow, UnreadableFile.
    """
    worker = Worker([*(command or _worker_command()), json.dumps({**asdict(limits), "task": task})])
    try:
        answer = worker.ask(question, limits.timeout_s, max_bytes, stop)
        if answer is not None and answer.startswith(prefix):
            return decode(answer[len(prefix) :])
        outcome = None if answer is None else protocol.decode_answer(answer)
        if isinstance(outcome, tuple):
            raise ValueError(protocol.NONSENSE)
    except ValueError as error:
        raise UnreadableFile(protocol.NONSENSE) from error
    finally:
        worker.reap()
    raise outcome or (NotReadNow("it was stopped") if stop() else worker.last_words(limits))


def _worker_command() -> list[str]:
    return [sys.executable, "-X", "utf8", "-m", "openbook.parsers.sandbox.tasks"]


def _environment() -> dict[str, str]:
    """The worker finds the modules that this process finds, but none in the current folder."""
    root = str(Path(__file__).parents[3])
    places = [place for place in sys.path if place and place != root]
    ignored = sys.flags.ignore_environment
    kept = {name: value for name, value in os.environ.items() if not (ignored and name.startswith("PYTHON"))}
    one_thread = {"OMP_THREAD_LIMIT": "1", "OPENBLAS_NUM_THREADS": "1"}  # OCR: each thread takes memory
    return {**kept, **one_thread, "PYTHONPATH": os.pathsep.join([root, *places]), "PYTHONSAFEPATH": "1"}
