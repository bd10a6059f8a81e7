"""Handing a request's work to a thread: bounded, with a queue that says when it is full, and an end when the client goes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.types import Receive

from openbook.serving.refusals import ClientGone, Refusal

RETRY_AFTER_S = 2

_T = TypeVar("_T")


class Gate:
    """At most `running` at a time, in the order of their coming, and at most `waiting` behind them."""

    def __init__(self, running: int, waiting: int) -> None:
        self._places = asyncio.Semaphore(running)
        self._most_waiting = waiting
        self.running = 0
        self.waiting = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Raises Refusal (429) when the queue is full."""
        if self._places.locked() and self.waiting >= self._most_waiting:
            message = "The server has as many requests as it takes. Try again in a moment."
            raise Refusal(429, message, code="rate_limit_exceeded", retry_after_s=RETRY_AFTER_S)
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._places.release()


class Stop:
    """Whether work should end, asked from its thread: the client is gone, time is up, or the server ends."""

    def __init__(self, limit_s: float, server_ends: threading.Event) -> None:
        self._limit_s, self._server_ends = limit_s, server_ends
        self._until: float | None = None
        self._gone = threading.Event()

    def start(self) -> None:
        """Time counts from here, not from when the request began to wait."""
        self._until = time.monotonic() + self._limit_s

    def client_is_gone(self) -> None:
        self._gone.set()

    @property
    def is_late(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until

    def __call__(self) -> bool:
        return self._gone.is_set() or self._server_ends.is_set() or self.is_late

    def check(self) -> None:
        """Raises what an answer that was broken off means."""
        if self._gone.is_set():
            raise ClientGone
        if self._server_ends.is_set():
            raise Refusal(503, "The server is ending.", code="shutting_down", retry_after_s=5)
        message = f"The answer took longer than {self._limit_s:g} s and was broken off."
        raise Refusal(504, message, code="timeout")


async def compute(
    pool: Executor, gate: Gate, receive: Receive, stop: Stop, work: Callable[[Stop], _T], *, until_done: bool = False
) -> _T:
    """What `work` returns, from a thread of `pool`; the body of the request has been read.

    Raises ClientGone when nobody waits for it any more, Refusal when there is no place, and what `work` raises. With
    `until_done` it is finished whether or not somebody waits: half a change is worse than one that nobody heard of.
    """
    watcher = asyncio.create_task(_watch(receive, stop))
    try:
        async with gate.place():
            if stop():
                stop.check()
            stop.start()
            running = asyncio.get_running_loop().run_in_executor(pool, work, stop)
            return await (asyncio.shield(running) if until_done else running)
    finally:
        stop.client_is_gone()
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)


async def _watch(receive: Receive, stop: Stop) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    stop.client_is_gone()
