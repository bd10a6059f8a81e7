"""Work that can be told to stop and says how far it is; the same on many items at a time, with the results in their order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
Cancelled: TypeAlias = Callable[[], bool]
Progress: TypeAlias = Callable[[int, int], None]
"""Called with (how many are done, how many in total)."""
StagedProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with (stage, how many are done in it, how many in total)."""


def never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Listener:
    """Who follows an answer: `on_text` gets its pieces, `progress` counts the parts of whole documents that are read, and when
    `cancelled` is true the answer ends.
    """

    on_text: Callable[[str], None] | None = None
    progress: Progress = lambda done, total: None
    cancelled: Cancelled = never


def in_order(
    work: Callable[[_Item, Cancelled], _Result], items: Iterable[_Item], at_once: int, cancelled: Cancelled
) -> Generator[tuple[_Item, _Result], None, None]:
    """Yields each item with what `work` returns for it, in the order of the items. Raises what `work` raises.

    `work` gets an item and whether to give up. Up to `at_once` threads do it; with 1 it is done here, item by item. `items` are
    taken here, at most twice `at_once` ahead of what is yielded. Use it in `closing`: when it is closed, or raises, the work
    that is under way is told to give up, and is waited for.
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
