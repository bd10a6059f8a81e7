"""Places and the queue behind them, shared out among callers. Nothing here depends on how long something takes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from openbook.serving.configuration import Configuration
from openbook.serving.refusals import Refusal
from openbook.serving.running import Gate, caller_id
from tests.serving.conftest import LONG_S, Running, running
from tests.serving.test_mcp_http import call
from tests.serving.test_running import QUESTION, WaitingEngine, bounded, eventually


class Desk:
    """Requests at a gate, each of which is named by its caller and a number: `a1`, `a2`, `b1`."""

    def __init__(self, running: int, waiting: int) -> None:
        self.gate = Gate(running, waiting)
        self.inside: list[str] = []
        self.refused: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.ends: dict[str, asyncio.Event] = {}

    async def come(self, *names: str) -> None:
        for name in names:
            self.ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._request(name))
            await settle()

    async def end(self, *names: str) -> None:
        for name in names:
            self.ends[name].set()
            await settle()

    async def give_up(self, name: str) -> None:
        self.tasks[name].cancel()
        await settle()

    async def _request(self, name: str) -> None:
        caller_id.set(name[0])
        try:
            async with self.gate.place():
                self.inside.append(name)
                await self.ends[name].wait()
        except Refusal:
            self.refused.append(name)
        finally:
            if name in self.inside:
                self.inside.remove(name)


async def settle() -> None:
    """Until everybody has done what can be done now."""
    for _ in range(10):
        await asyncio.sleep(0)


def at(desk: Desk, story: Callable[[Desk], Awaitable[None]]) -> None:
    async def main() -> None:
        await story(desk)
        while desk.inside:
            await desk.end(*desk.inside)
        assert (desk.gate.running, desk.gate.waiting) == (0, 0)

    asyncio.run(main())


def test_places_go_round_the_callers_and_within_one_in_the_order_of_coming() -> None:
    async def story(desk: Desk) -> None:
        await desk.come("a1", "a2", "a3", "a4", "b1", "b2", "c1")
        served = []
        while desk.inside:
            served += desk.inside
            await desk.end(*desk.inside)
        assert served == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]

    at(Desk(1, 9), story)


def test_nobody_gets_another_place_while_somebody_without_one_waits() -> None:
    async def story(desk: Desk) -> None:
        await desk.come("a1", "a2", "a3", "a4", "b1", "b2", "b3")
        assert desk.inside == ["a1", "a2", "a3"]
        await desk.end("a1")
        assert desk.inside == ["a2", "a3", "b1"]
        await desk.end("b1")  # quick ones leave no room to slow ones while more of them wait
        assert desk.inside == ["a2", "a3", "b2"]
        await desk.end("a2")
        assert desk.inside == ["a3", "b2", "a4"]  # one each: now it is the turn of who waits longer
        await desk.end("a4")
        assert desk.inside == ["a3", "b2", "b3"]

    at(Desk(3, 9), story)


def test_who_is_alone_may_fill_the_queue_and_another_finds_a_place_all_the_same() -> None:
    async def story(desk: Desk) -> None:
        await desk.come("a1", "a2", "a3", "a4", "a5", "a6")
        assert (desk.inside, desk.gate.waiting, desk.refused) == (["a1"], 4, ["a6"])
        await desk.come("b1", "b2")
        assert desk.refused == ["a6", "a5", "a4"]  # the newest
        await desk.come("b3", "a7")  # half each: neither takes more
        assert desk.refused == ["a6", "a5", "a4", "b3", "a7"]
        await desk.come("c1")  # of two with equally many, one gives up its newest
        assert len(desk.refused) == 6
        assert desk.refused[-1] in ("a3", "b2")
        await desk.end("a1")
        assert desk.inside == ["b1"]

    at(Desk(1, 4), story)


@pytest.mark.parametrize("waiting", [0, 1])
def test_a_queue_too_short_to_share_refuses_who_comes_last(waiting: int) -> None:
    async def story(desk: Desk) -> None:
        await desk.come(*["a1", "a2"][: 1 + waiting], "b1")
        assert desk.refused == ["b1"]

    at(Desk(1, waiting), story)


def test_who_gives_up_leaves_its_place_to_the_next() -> None:
    async def story(desk: Desk) -> None:
        await desk.come("a1", "a2", "b1", "b2")
        await desk.give_up("b1")
        assert desk.gate.waiting == 2
        await desk.give_up("a1")
        assert desk.inside == ["b2"]
        desk.ends["b2"].set()
        await asyncio.sleep(0)
        assert (desk.gate.running, desk.inside) == (1, [])
        await desk.give_up("a2")  # in the moment in which its place comes
        await desk.come("c1")
        assert desk.inside == ["c1"]
        assert desk.refused == []

    at(Desk(1, 4), story)


@given(
    st.integers(1, 3), st.integers(0, 5), st.lists(st.tuples(st.sampled_from("abcxy"), st.integers(0, 9)), max_size=40)
)
def test_the_bounds_hold_no_place_stays_free_and_every_caller_finds_room(
    running: int, waiting: int, steps: list[tuple[str, int]]
) -> None:
    async def story(desk: Desk) -> None:
        for number, (who, which) in enumerate(steps):
            known = [name for name in desk.tasks if not desk.tasks[name].done()]
            if who == "x" and desk.inside:
                await desk.end(desk.inside[which % len(desk.inside)])
            elif who == "y" and known:
                await desk.give_up(known[which % len(known)])
            elif who in "abc":
                before = Counter(name[0] for name in known if name not in desk.inside)
                await desk.come(f"{who}{number}")
                if f"{who}{number}" in desk.refused:
                    assert before.total() == waiting
                    assert max(before.values(), default=0) <= before[who] + 1
            assert len(desk.inside) == desk.gate.running <= running
            assert desk.gate.waiting <= waiting
            assert desk.gate.running == running or desk.gate.waiting == 0

    at(Desk(running, waiting), story)


# --- over HTTP --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Crowd:
    """A server where one key, `greedy`, has the only place and fills the queue of three. `found`: what came of its four."""

    server: Running
    engine: WaitingEngine
    clients: ThreadPoolExecutor
    greedy: dict[str, str]
    found: list[httpx.Response]


@contextmanager
def crowded(configuration: Configuration, base: KnowledgeBase) -> Iterator[Crowd]:
    engine, found = WaitingEngine(), list[httpx.Response]()
    with (
        running(bounded(configuration, running=1, waiting=3), FrozenModel(engine), {"kb": base}) as server,
        ThreadPoolExecutor(5) as clients,
    ):
        greedy = server.key()

        def ask(stream: bool) -> None:
            found.append(server.ask(QUESTION, greedy, stream=stream))

        def queue(number: int) -> None:
            clients.submit(ask, number % 2 == 1)
            eventually(lambda: server.service.reading.waiting == number)

        try:
            clients.submit(ask, False)
            assert engine.begun.acquire(timeout=LONG_S)
            for number in range(1, 4):
                queue(number)
            yield Crowd(server, engine, clients, greedy, found)
        finally:
            engine.go_on.set()


def test_a_key_that_fills_the_server_keeps_no_other_out(configuration: Configuration, base: KnowledgeBase) -> None:
    with crowded(configuration, base) as crowd:
        server = crowd.server
        assert server.client.get("/v1/documents", headers=crowd.greedy).status_code == 429
        listed = crowd.clients.submit(server.client.get, "/v1/documents", headers=server.key())
        eventually(lambda: bool(crowd.found) or listed.done())
        assert [response.json()["error"]["code"] for response in crowd.found] == ["rate_limit_exceeded"]  # its newest
        assert int(crowd.found[0].headers["retry-after"]) > 0
        assert server.service.reading.waiting == 3
        crowd.engine.go_on.set()
        assert listed.result(LONG_S).status_code == 200
    assert sorted(response.status_code for response in crowd.found) == [200, 200, 200, 429]


def test_tools_count_for_the_key_that_calls_them(configuration: Configuration, base: KnowledgeBase) -> None:
    with crowded(configuration, base) as crowd:
        for mode in ("auto", "legacy"):
            refused = call(crowd.server, "search", crowd.greedy, mode=mode, query="bridge")
            assert "too many requests" in refused["error"]
        assert crowd.found == []
        other = crowd.server.key()
        searched = crowd.clients.submit(call, crowd.server, "search", other, query="bridge")
        eventually(lambda: bool(crowd.found) or searched.done())
        assert [response.status_code for response in crowd.found] == [429]
        crowd.engine.go_on.set()
        assert searched.result(LONG_S)["passages"]
