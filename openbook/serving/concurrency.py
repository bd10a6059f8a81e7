"""Handing a request's work to a thread: bounded, in turn among callers, and with an end when the client goes."""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager, nullcontext
from contextvars import ContextVar
from typing import TypeVar

from starlette.types import Receive

from openbook.serving.errors import ApiError, ClientGone, server_full, server_stops

# The id of the caller whose request this is. Tasks that the request starts inherit it.
caller_id: ContextVar[str] = ContextVar("caller_id", default="")

_T = TypeVar("_T")


class Gate:
    """At most `running` requests at a time, `each` of one caller; at most `waiting` wait, three quarters of them of one caller.

    A free place goes to the waiting caller who holds the fewest, and among those to the one who got a place longest ago.
    The requests of one caller keep their order. For one event loop.
    """

    def __init__(self, running: int, waiting: int, each: int | None = None) -> None:
        self._most_running, self._most_waiting, self._each = running, waiting, each or running
        self._held: Counter[str] = Counter()
        self._last: dict[str, int] = {}  # when each caller last got a place, as a running number
        self._numbers = itertools.count()
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}

    @property
    def running(self) -> int:
        return self._held.total()

    @property
    def waiting(self) -> int:
        return sum(map(len, self._queues.values()))

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Raises ApiError (429) when too many wait."""
        caller = caller_id.get()
        if self.running < self._most_running and self._held[caller] < self._each:  # then nobody waits who could have it
            self._give(caller)
        else:
            await self._wait(caller)
        try:
            yield
        finally:
            self._leave(caller)

    async def _wait(self, caller: str) -> None:
        own = len(self._queues.get(caller, ()))
        if self.waiting >= self._most_waiting or own >= max(1, self._most_waiting * 3 // 4):
            raise server_full()
        turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(caller, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._queues[caller].remove(turn)
                self._drop_if_empty(caller)
            else:  # it had just got a place
                self._leave(caller)
            raise

    def _leave(self, caller: str) -> None:
        self._held[caller] -= 1
        able = [each for each in self._queues if self._held[each] < self._each]
        if able:
            following = min(able, key=lambda each: (self._held[each], self._last.get(each, -1)))
            self._give(following)
            self._queues[following].popleft().set_result(None)
            self._drop_if_empty(following)

    def _give(self, caller: str) -> None:
        self._held[caller] += 1
        self._last[caller] = next(self._numbers)

    def _drop_if_empty(self, caller: str) -> None:
        if not self._queues[caller]:
            del self._queues[caller]


class RateLimit:
    """`per_minute` requests at once, and as many in each minute after that, for every caller; 0: no limit.

    `clock`: seconds that never go back.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = per_minute, clock
        self._buckets: dict[str, tuple[float, float]] = {}  # (requests left, as of when)

    def take(self, caller: str) -> None:
        """Count a request. Raises ApiError (429) when the caller has none left; that one does not count."""
        if not self._most:
            return
        now, per_second = self._clock(), self._most / 60
        left, before = self._buckets.get(caller, (float(self._most), now))
        left = min(self._most, left + (now - before) * per_second)
        if left < 1:
            message = f"Each key may send {self._most} requests a minute. Try again in a moment."
            wait_s = max(1, math.ceil((1 - left) / per_second))
            raise ApiError(429, message, code="rate_limit_exceeded", retry_after_s=wait_s)
        self._buckets[caller] = left - 1, now


class Stop:
    """Whether work should end, asked from its thread: the client is gone, time is up, or the server stops."""

    def __init__(self, limit_s: float, server_ends: threading.Event) -> None:
        self._limit_s, self._server_ends = limit_s, server_ends
        self._until = math.inf
        self._gone = threading.Event()

    def start(self) -> None:
        """Time counts from here, not from when the request began to wait."""
        self._until = time.monotonic() + self._limit_s

    def client_is_gone(self) -> None:
        self._gone.set()

    def __call__(self) -> bool:
        return self._gone.is_set() or self._server_ends.is_set() or time.monotonic() >= self._until

    def check(self) -> None:
        """Between two pieces of work. Raises if the work should end."""
        if self._gone.is_set():
            raise ClientGone
        if self._server_ends.is_set():
            raise server_stops()
        if self():
            raise ApiError(504, f"It took longer than {self._limit_s:g} s and was stopped.", code="timeout")

    def each(self, items: Iterable[_T]) -> Iterator[_T]:
        """`items`, as long as work on them should go on."""
        for item in items:
            self.check()
            yield item


async def compute(
    pool: Executor,
    gate: Gate | None,
    receive: Receive,
    stop: Stop,
    work: Callable[[Stop], _T],
    *,
    until_done: bool = False,
) -> _T:
    """What `work` returns, from a thread of `pool`, after a turn at `gate`. The request's body has been read.

    Raises ClientGone, ApiError and what `work` raises. With `until_done`, work that has begun is finished even if the
    client goes: half a change is worse than one that nobody heard of.
    """
    watcher = asyncio.create_task(_watch(receive, stop))
    try:
        async with gate.place() if gate else nullcontext():
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
