"""Limits on concurrent work, and the signal that ends it."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.types import Receive

from openbook.core.parallel import silent
from openbook.serving.errors import ApiError, ClientGone, server_stops

_T = TypeVar("_T")


class Places:
    """At most `running` requests compute, at most `share` of one caller; up to `waiting` others wait.

    One caller may hold three quarters of all places. Its requests beyond `share` wait behind other callers. For one
    event loop.
    """

    def __init__(self, running: int, waiting: int, share: int) -> None:
        self._most = running + waiting
        self._free = asyncio.Semaphore(running)
        self._shares = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(share))  # per caller
        self._held: Counter[str] = Counter()
        self.running = 0

    @property
    def waiting(self) -> int:
        return self._held.total() - self.running

    @asynccontextmanager
    async def place(self, caller: str, on_wait: Callable[[], None] = silent) -> AsyncIterator[None]:
        """`on_wait`: called if no place is free at once. Raises ApiError (429) when no place is left."""
        if self._held.total() >= self._most or self._held[caller] >= max(1, self._most * 3 // 4):
            message = "The server has too many requests. Try again in a moment."
            raise ApiError(429, message, code="rate_limit_exceeded", retry_after_s=2)
        self._held[caller] += 1
        try:
            if self._shares[caller].locked() or self._free.locked():
                on_wait()
            async with self._shares[caller], self._free:
                self.running += 1
                try:
                    yield
                finally:
                    self.running -= 1
        finally:
            self._held[caller] -= 1


class Stop:
    """The signal to end work, polled from the worker thread."""

    def __init__(self, limit_s: float, server_ends: threading.Event) -> None:
        self._limit_s, self._server_ends, self._until = limit_s, server_ends, math.inf
        self.client_gone = threading.Event()

    def start(self) -> None:
        """Start the clock: waiting for a place does not count."""
        self._until = time.monotonic() + self._limit_s

    async def watch(self, receive: Receive) -> None:
        """Return when the client disconnects. The request's body must have been read."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.client_gone.set()

    def __call__(self) -> bool:
        return self.client_gone.is_set() or self._server_ends.is_set() or time.monotonic() >= self._until

    def check(self) -> None:
        """Raise ClientGone or ApiError if the work should end."""
        if self.client_gone.is_set():
            raise ClientGone
        if self._server_ends.is_set():
            raise server_stops()
        if self():
            raise ApiError(504, f"It took longer than {self._limit_s:g} s and was stopped.", code="timeout")

    def each(self, items: Iterable[_T]) -> Iterator[_T]:
        for item in items:
            self.check()
            yield item
