"""Work on threads whose results come in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openbook.core.parallel import in_order, never

LONG_S = 60.0


@given(st.permutations(range(5)), st.integers(1, 5))
@settings(max_examples=20)
def test_results_come_in_the_order_of_the_items(finishing: list[int], at_once: int) -> None:
    """Work ends in any order that the number of threads allows."""
    ended = [threading.Event() for _ in range(6)]
    ended[5].set()
    after = dict(zip(finishing, [5, *finishing], strict=False)) if at_once == 5 else {}

    def work(item: int, _: Callable[[], bool]) -> int:
        assert ended[after.get(item, 5)].wait(LONG_S)
        ended[item].set()
        return item**2

    assert list(in_order(work, range(5), at_once, never)) == [(item, item**2) for item in range(5)]


def test_as_many_are_under_way_as_are_allowed() -> None:
    together = threading.Barrier(3, timeout=LONG_S)
    assert [found for _, found in in_order(lambda *_: together.wait() >= 0, range(6), 3, never)] == [True] * 6


def noted(items: Iterable[int], taken: list[int]) -> Iterator[int]:
    for item in items:
        taken.append(item)
        yield item


def test_items_are_taken_at_most_twice_as_far_ahead() -> None:
    for at_once, ahead in ((1, 1), (2, 4)):
        taken: list[int] = []
        with closing(in_order(lambda *_: threading.current_thread(), noted(range(20), taken), at_once, never)) as found:
            for item, thread in found:
                assert len(taken) <= item + ahead
                assert (thread is threading.current_thread()) == (at_once == 1)


def waits(gives_up: Callable[[], bool]) -> str:
    until = time.monotonic() + LONG_S
    while not gives_up():
        assert time.monotonic() < until
        time.sleep(0.001)
    return "gave up"


def test_an_error_comes_in_its_turn_and_ends_what_is_under_way() -> None:
    said: list[str] = []
    begun = threading.Event()

    def work(item: int, gives_up: Callable[[], bool]) -> int:
        if item == 1:
            assert begun.wait(LONG_S)
            raise ValueError("item 1")
        if item == 2:
            begun.set()
            said.append(waits(gives_up))
        return item

    found = in_order(work, range(9), 2, never)
    assert next(found) == (0, 0)
    with pytest.raises(ValueError, match="item 1"):
        next(found)
    assert said == ["gave up"]


def test_closing_ends_what_is_under_way_and_begins_nothing_more() -> None:
    said, begun = [], []

    def work(item: int, gives_up: Callable[[], bool]) -> None:
        begun.append(item)
        if item:
            said.append(waits(gives_up))

    with closing(in_order(work, range(9), 2, never)) as found:
        assert next(found) == (0, None)
    assert len(said) == len(begun) - 1 <= 3


def test_a_caller_that_cancels_is_heard_by_the_work() -> None:
    begun, cancelled = threading.Event(), threading.Event()

    def work(_: int, gives_up: Callable[[], bool]) -> str:
        begun.set()
        return waits(gives_up)

    def cancel() -> None:
        begun.wait(LONG_S)
        cancelled.set()

    threading.Thread(target=cancel).start()
    assert [said for _, said in in_order(work, range(3), 2, cancelled.is_set)] == ["gave up"] * 3
