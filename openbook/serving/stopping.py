"""Work that is no generation looks now and then whether somebody waits for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from openbook.serving.running import Stop

_T = TypeVar("_T")


def go_on(stop: Stop) -> None:
    """Between two pieces of work. Raises what breaking off means, if it should end."""
    if stop():
        stop.check()


def each(items: Iterable[_T], stop: Stop) -> Iterator[_T]:
    """`items`, for as long as the work on them should go on. Raises as `go_on` does."""
    for item in items:
        go_on(stop)
        yield item
