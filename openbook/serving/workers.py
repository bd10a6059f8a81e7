"""Several processes that answer at one address: started, watched, replaced when one dies, and ended together.

All of them accept from the one listening socket that the supervisor opened. A connection that nobody has accepted yet
belongs to none of them, so it is not lost with a process that dies: another takes it. What that process was answering
is lost, and nothing else.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import uvicorn

READY = b"ready\n"  # what a worker writes to standard output when it takes requests
ENDS_S = 25.0  # after it was told to end, a worker is killed; longer than a server waits for its answers (GRACE_S)

_LOOK_S = 0.05
_SHORT_LIFE_S = 1.0  # a worker that lived shorter is replaced this long after its beginning, not at once


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    started: float
    ready: bool = False


class Workers:
    """`count` processes of `command`, to which the number of the socket's file descriptor is added.

    The first starts alone, so that what is done once (fetching a model, making a knowledge base) is done by one. `say`
    gets a line when all are ready, and for each that is replaced; `died` its process id.
    """

    def __init__(
        self,
        command: Sequence[str],
        door: socket.socket,
        count: int,
        *,
        environment: Mapping[str, str] | None = None,
        ends_s: float = ENDS_S,
        say: Callable[[str], None] = lambda line: None,
        died: Callable[[int], None] = lambda process: None,
    ) -> None:
        self._command, self._door, self._count = tuple(command), door, count
        self._environment, self._ends_s, self._say, self._died = environment, ends_s, say, died
        self._workers: list[_Worker] = []
        self._all_were_ready = False

    @property
    def processes(self) -> tuple[int, ...]:
        """The ids of those that take requests now."""
        return tuple(worker.process.pid for worker in self._workers if worker.ready)

    def run(self, ends: threading.Event) -> int:
        """Until `ends`, then 0. When a worker ends before all were ready once, all end, and its exit code is returned."""
        try:
            self._workers.append(self._start())
            while not ends.wait(_LOOK_S):
                code = self._look()
                if code is not None:
                    return code
            return 0
        finally:
            self._end()

    def _start(self) -> _Worker:
        number = self._door.fileno()
        process = subprocess.Popen(
            [*self._command, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
            pass_fds=(number,),
            start_new_session=True,  # Ctrl-C in a terminal goes to the supervisor, which tells them
        )
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        return _Worker(process, time.monotonic())

    def _look(self) -> int | None:
        """Take notice of what became of them. The exit code of one that could not begin, or None."""
        for worker in self._workers:
            worker.ready = worker.ready or _says_ready(worker.process)
        for place, worker in enumerate(self._workers):
            code = worker.process.poll()
            if code is None:
                continue
            if not self._all_were_ready:
                return code if code > 0 else 1
            if time.monotonic() - worker.started >= _SHORT_LIFE_S:
                self._say(f"Worker {worker.process.pid} ended ({_ending(code)}); a new one starts.")
                self._died(worker.process.pid)
                _close(worker.process)
                self._workers[place] = self._start()
            worker.ready = False
        if not self._all_were_ready and all(worker.ready for worker in self._workers):
            if len(self._workers) < self._count:
                self._workers += [self._start() for _ in range(self._count - len(self._workers))]
            else:
                self._all_were_ready = True
                self._say(f"{self._count} workers take requests.")
        return None

    def _end(self) -> None:
        """Tell all to end, and kill those that do not."""
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + self._ends_s
        for worker in self._workers:
            try:
                worker.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            _close(worker.process)


def _says_ready(process: subprocess.Popen[bytes]) -> bool:
    assert process.stdout is not None
    return READY in (process.stdout.read() or b"")  # not blocking: None when there is nothing


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


def _close(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()


def serve_as_worker(server: uvicorn.Server, door: socket.socket) -> None:
    """In a worker: serve, say when it takes requests, and end when the supervisor tells it or is gone."""

    def tell() -> None:
        while not server.started:
            time.sleep(_LOOK_S)
        os.write(sys.stdout.fileno(), READY)
        while os.read(sys.stdin.fileno(), 1):  # nothing ever comes: it returns when the other end is closed
            pass
        server.should_exit = True

    threading.Thread(target=tell, name="supervisor", daemon=True).start()
    server.run(sockets=[door])
