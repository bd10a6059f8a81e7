"""Cancellable work with progress, and the same on many items in parallel, with results in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

if TYPE_CHECKING:
    from openbook.core.records import Hit

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
Cancelled: TypeAlias = Callable[[], bool]
Progress: TypeAlias = Callable[[int, int], None]
"""Called with (how many are done, how many in total)."""
StagedProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with (stage, how many are done in it, how many in total)."""


def never() -> bool:
    return False


def silent(*_: object) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Callbacks of one answer; `cancelled` ends it.

    `on_found` gets the query and the hits to read, in reading order; `progress`, while the model reads, the tokens read and the
    tokens to read, unless the engine cannot tell; `on_text` the answer's pieces.
    """

    on_text: Callable[[str], None] | None = None
    on_found: Callable[[str, Sequence[Hit]], None] = silent
    progress: Progress = silent
    cancelled: Cancelled = never


def in_order(
    work: Callable[[_Item, Cancelled], _Result], items: Iterable[_Item], at_once: int, cancelled: Cancelled
) -> Generator[tuple[_Item, _Result], None, None]:
    """Yield each item with the result of `work`, in the order of the items. Raises what `work` raises.

    `work` gets an item and a function that says whether to give up. Up to `at_once` threads run it; with 1, the
    caller's thread. `items` are taken in the caller's thread, at most twice `at_once` ahead. Use it in `closing`: that
    tells running work to give up, and waits for it.
    """
    if at_once == 1:
        for item in items:
            yield item, work(item, cancelled)
        return
    ended = threading.Event()

    def gives_up() -> bool:
        return ended.is_set() or cancelled()

    pool = ThreadPoolExecutor(at_once, "openbook-work")
    begun: deque[tuple[_Item, Future[_Result]]] = deque()
    try:
        for item in items:
            begun.append((item, pool.submit(work, item, gives_up)))
            if len(begun) == 2 * at_once:
                first, future = begun.popleft()
                yield first, future.result()
        for last, future in begun:
            yield last, future.result()
    finally:
        ended.set()
        pool.shutdown(cancel_futures=True)
