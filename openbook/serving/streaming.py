"""Server-sent events: pieces of an answer as they come. The work ends when nobody reads them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from starlette.types import Receive, Scope, Send

from openbook.serving.refusals import ClientGone, Refusal, refusal_of

DONE = b"data: [DONE]\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
_T = TypeVar("_T")


def event(value: dict[str, Any]) -> bytes:
    """One event. JSON has no line feed outside its escapes, so that text can never end an event or begin another.

    It is ASCII: some clients take other characters, such as U+2028, for the end of a line too.
    """
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def named_event(name: str, value: dict[str, Any]) -> bytes:
    """An event whose kind is told beside its data."""
    return b"event: " + name.encode() + b"\n" + event(value)


class EventStream:
    """An answer of events, or a refusal when they fail before the first. They are closed when the client goes."""

    def __init__(self, events: Callable[[Receive], AsyncGenerator[bytes, None]]) -> None:
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        try:
            async with aclosing(self._events(receive)) as events:
                async for data in events:
                    if not started:
                        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
                        started = True
                    await send({"type": "http.response.body", "body": data, "more_body": True})
        except ClientGone:
            return
        except Exception as error:  # noqa: BLE001  told as far as the client may know, and logged
            refusal = refusal_of(error)
            if not started:
                await refusal.response()(scope, receive, send)
                return
            await send({"type": "http.response.body", "body": event(refusal.body), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@dataclass(frozen=True, slots=True)
class Done(Generic[_T]):
    value: _T


async def pieces_of(start: Callable[[Callable[[str], None]], asyncio.Task[_T]]) -> AsyncGenerator[str | Done[_T], None]:
    """The pieces that a thread shows, in order, then what its task gave. `start(show)` begins it.

    Raises what the task raises. The task is cancelled when the generator is closed before its end.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str | None] = asyncio.Queue()

    def show(piece: str) -> None:
        try:
            loop.call_soon_threadsafe(queue.put_nowait, piece)
        except RuntimeError as error:  # the loop is closed
            raise Refusal(503, "The server is ending.", code="shutting_down") from error

    task = start(show)
    task.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (piece := await queue.get()) is not None:
            yield piece
        yield Done(task.result())
    finally:
        task.cancel()
