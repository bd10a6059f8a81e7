"""Calls that may never return, on a thread of their own."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

_POLL_S = 0.2
_END_S = 2.0


class TookTooLong(Exception):
    """A call did not return in time. Its thread is left behind."""


class Caller:
    """Makes calls one after another, all on the same thread while none takes too long. What `check_cancelled` raises ends the waiting."""

    def __init__(self, check_cancelled: Callable[[], None] = lambda: None) -> None:
        self._check_cancelled = check_cancelled
        self._waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] | None = None

    def call(self, work: Callable[[], Any], timeout_s: float = math.inf) -> Any:
        """What `work` returns or raises. Raises TookTooLong."""
        until = time.monotonic() + timeout_s
        if self._waiting is None:
            self._waiting = queue.SimpleQueue()
            threading.Thread(target=_work, args=(self._waiting,), name="openbook-fetch", daemon=True).start()
        future: Future[Any] = Future()
        self._waiting.put((future, work))
        while not future.done():
            with suppress(TimeoutError):
                future.exception(min(_POLL_S, max(until - time.monotonic(), 0.0)))
                break
            self._check_cancelled()
            if time.monotonic() >= until:
                self._waiting.put(None)
                self._waiting = None
                raise TookTooLong
        return future.result()

    def end(self, work: Callable[[], object]) -> None:
        """Call `work` last, and do not wait long for it."""
        if self._waiting is not None:
            future: Future[Any] = Future()
            self._waiting.put((future, work))
            self._waiting.put(None)
            with suppress(TimeoutError):
                future.exception(_END_S)


def _work(waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]) -> None:
    while (each := waiting.get()) is not None:
        future, work = each
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  raised in the waiting thread
            future.set_exception(error)
