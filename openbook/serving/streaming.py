"""Server-sent events: pieces of an answer as they come, and an end to the work when nobody reads them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from starlette.types import Receive, Scope, Send

from openbook.serving.refusals import ClientGone, Refusal, refusal_of
from openbook.wording import tidy

DONE = b"data: [DONE]\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
_T = TypeVar("_T")
_BEGINS_LIKE_A_MARK = re.compile(r"\s*(?:a|an|ans|answ|answe|answer)?\s*:?\s*", re.IGNORECASE)


def event(value: dict[str, Any]) -> bytes:
    """One event. JSON has no line feed outside its escapes, so that text can never end an event or begin another.

    It is ASCII: some clients take other characters, such as U+2028, for the end of a line too.
    """
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def named_event(name: str, value: dict[str, Any]) -> bytes:
    """An event whose kind is told beside its data."""
    return b"event: " + name.encode() + b"\n" + event(value)


class Shown:
    """What of a model's raw text can be shown before it is complete.

    Law: what was shown, followed by `rest`, is the answer; except where a model abstains in words of its own, which are
    only known when they are complete. Then those words stand, and nothing follows. `held`: sentences that are held back
    whole, because another stands for them in the answer.
    """

    def __init__(self, held: Sequence[str]) -> None:
        self._held = tuple(held)
        self._raw = ""
        self._shown = ""

    def feed(self, piece: str) -> str:
        self._raw += piece
        text = tidy(self._raw)
        if _BEGINS_LIKE_A_MARK.fullmatch(self._raw) or any(each.startswith(text) for each in self._held):
            return ""
        new, self._shown = text[len(self._shown) :], text
        return new

    def rest(self, answer: str) -> str:
        return answer[len(self._shown) :] if answer.startswith(self._shown) else ""


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
