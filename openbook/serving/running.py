"""Handing a request's work to a thread: bounded, in turn among callers, and with an end when the client goes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.types import Receive

from openbook.serving.refusals import ClientGone, Refusal

RETRY_AFTER_S = 2

# The id of the caller whose request this is, set where the request is let in; what it starts inherits it.
caller_id: ContextVar[str] = ContextVar("caller_id", default="")

_T = TypeVar("_T")


@dataclass(eq=False, slots=True)
class _Turn:
    """One request that waits. `comes` is set when its waiting is over: it has a place, or another took its place in the queue."""

    caller: str
    comes: asyncio.Event = field(default_factory=asyncio.Event)
    has_place: bool = False


class Gate:
    """At most `running` at a time, `each` of one caller, and at most `waiting` behind them, shared out among callers.
    Used from one event loop.

    A place that comes free goes to the waiting caller who holds the fewest, and among those to who got one longest ago;
    what one caller sent is taken in the order of its coming. When the queue is full, a newcomer takes the last place of
    the caller who has the most in it, if that one then still has as many as the newcomer. So one alone may fill it, and
    another finds room all the same.
    """

    def __init__(self, running: int, waiting: int, each: int | None = None) -> None:
        self._most_running, self._most_waiting = running, waiting
        self._each = running if each is None else each
        self._held: Counter[str] = Counter()  # places by caller
        self._queue: list[_Turn] = []  # in the order of coming; short, so a list will do
        self._last: Counter[str] = Counter()  # when each caller last got a place, as a running number
        self._given = 0

    @property
    def running(self) -> int:
        return self._held.total()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Raises Refusal (429) when the queue is full, or when a caller with less in it needed the room."""
        caller = caller_id.get()
        await self._enter(caller)
        try:
            yield
        finally:
            self._leave(caller)

    async def _enter(self, caller: str) -> None:
        if self.running < self._most_running and self._held[caller] < self._each:  # then nobody waits who could have it
            self._give(caller)
            return
        self._make_room(caller)
        turn = _Turn(caller)
        self._queue.append(turn)
        try:
            await turn.comes.wait()
        except asyncio.CancelledError:
            if turn.has_place:
                self._leave(caller)
            elif turn in self._queue:
                self._queue.remove(turn)
            raise
        if not turn.has_place:
            raise _full()

    def _make_room(self, caller: str) -> None:
        """For one more in the queue. Raises Refusal."""
        if self.waiting < self._most_waiting:
            return
        lengths = Counter(turn.caller for turn in self._queue)
        longest = max(lengths, key=lambda each: lengths[each], default=caller)
        if lengths[longest] < lengths[caller] + 2:
            raise _full()
        newest = [turn for turn in self._queue if turn.caller == longest][-1]
        self._queue.remove(newest)
        newest.comes.set()

    def _give(self, caller: str) -> None:
        self._held[caller] += 1
        self._given += 1
        self._last[caller] = self._given

    def _leave(self, caller: str) -> None:
        self._held[caller] -= 1
        if able := [turn for turn in self._queue if self._held[turn.caller] < self._each]:
            turn = min(able, key=lambda each: (self._held[each.caller], self._last[each.caller]))
            self._queue.remove(turn)
            self._give(turn.caller)
            turn.has_place = True
            turn.comes.set()


def _full() -> Refusal:
    message = "The server has too many requests. Try again in a moment."
    return Refusal(429, message, code="rate_limit_exceeded", retry_after_s=RETRY_AFTER_S)


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
        message = f"It took longer than {self._limit_s:g} s and was broken off."
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
