"""Work on threads whose results come in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.core.parallel import in_order, never

LONG_S = 30.0


@given(st.lists(st.sampled_from([0.0, 0.001, 0.003]), max_size=20), st.integers(1, 5))
def test_results_come_in_the_order_of_the_items(delays: list[float], at_once: int) -> None:
    def work(item: tuple[int, float], _: Callable[[], bool]) -> int:
        time.sleep(item[1])
        return item[0] ** 2

    items = list(enumerate(delays))
    assert list(in_order(work, items, at_once, never)) == [(item, item[0] ** 2) for item in items]


def test_as_many_are_under_way_as_are_allowed() -> None:
    together = threading.Barrier(3, timeout=LONG_S)
    assert [found for _, found in in_order(lambda *_: together.wait() >= 0, range(6), 3, never)] == [True] * 6


def noted(items: Iterable[int], taken: list[int]) -> Iterator[int]:
    for item in items:
        taken.append(item)
        yield item


def test_one_at_a_time_needs_no_thread_and_takes_nothing_ahead() -> None:
    taken: list[int] = []
    for item, thread in in_order(lambda *_: threading.current_thread(), noted(range(3), taken), 1, never):
        assert thread is threading.current_thread()
        assert taken == list(range(item + 1))


def test_items_are_taken_at_most_twice_as_far_ahead() -> None:
    taken: list[int] = []
    with closing(in_order(lambda item, _: item, noted(range(20), taken), 2, never)) as found:
        for item, _ in found:
            assert len(taken) <= item + 4


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
    cancelled = threading.Event()
    threading.Timer(0.01, cancelled.set).start()
    found = in_order(lambda _, gives_up: waits(gives_up), range(3), 2, cancelled.is_set)
    assert [said for _, said in found] == ["gave up"] * 3
