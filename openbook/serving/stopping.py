"""Long work other than generation checks from time to time whether a client still waits for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from openbook.serving.running import Stop

_T = TypeVar("_T")


def go_on(stop: Stop) -> None:
    """Called between two pieces of work. Raises if the work should end."""
    if stop():
        stop.check()


def each(items: Iterable[_T], stop: Stop) -> Iterator[_T]:
    """`items`, as long as work on them should go on. Raises as `go_on` does."""
    for item in items:
        go_on(stop)
        yield item
