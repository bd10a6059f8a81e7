"""Places, turns, rates, time, and clients that go away. Nothing here depends on how long something takes."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.config import Settings
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from openbook.serving.concurrency import Gate, RateLimit, Stop, caller_id
from openbook.serving.configuration import Bounds, Configuration
from openbook.serving.errors import ApiError, ClientGone
from openbook.testing import echo_model
from tests.serving.conftest import (
    LONG_S,
    QUESTION,
    WaitingEngine,
    asking,
    bounded,
    connected,
    eventually,
    running,
)


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
        except ApiError:
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


def test_one_caller_cannot_fill_the_queue_and_the_next_gets_the_last_place() -> None:
    async def story(desk: Desk) -> None:
        await desk.come("a1", "a2", "a3", "a4", "a5")
        assert (desk.inside, desk.gate.waiting, desk.refused) == (["a1"], 3, ["a5"])
        await desk.come("b1", "b2")
        assert desk.refused == ["a5", "b2"]
        await desk.end("a1")
        assert desk.inside == ["b1"]

    at(Desk(1, 4), story)


def test_a_place_beyond_the_share_of_one_caller_stays_for_another() -> None:
    async def story(desk: Desk) -> None:
        desk.gate = Gate(2, 4, each=1)
        await desk.come("a1", "a2", "b1")
        assert desk.inside == ["a1", "b1"]

    at(Desk(2, 4), story)


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
def test_the_bounds_hold_and_no_place_stays_free(running: int, waiting: int, steps: list[tuple[str, int]]) -> None:
    async def story(desk: Desk) -> None:
        for number, (who, which) in enumerate(steps):
            known = [name for name in desk.tasks if not desk.tasks[name].done()]
            if who == "x" and desk.inside:
                await desk.end(desk.inside[which % len(desk.inside)])
            elif who == "y" and known:
                await desk.give_up(known[which % len(known)])
            elif who in "abc":
                await desk.come(f"{who}{number}")
            assert len(desk.inside) == desk.gate.running <= running
            assert desk.gate.waiting <= waiting
            assert desk.gate.running == running or desk.gate.waiting == 0

    at(Desk(running, waiting), story)


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def passes(rates: RateLimit, caller: str = "a") -> bool:
    try:
        rates.take(caller)
    except ApiError:
        return False
    return True


def test_a_minutes_requests_at_once_then_one_as_time_goes_by() -> None:
    clock = Clock()
    rates = RateLimit(6, clock)
    assert [passes(rates) for _ in range(7)] == [True] * 6 + [False]
    clock.seconds += 10
    assert [passes(rates) for _ in range(2)] == [True, False]
    clock.seconds += 3600
    assert [passes(rates) for _ in range(7)] == [True] * 6 + [False]
    assert passes(rates, "b")
    assert all(passes(RateLimit(0, clock)) for _ in range(100))


@given(st.integers(1, 100), st.lists(st.floats(0, 100), min_size=1, max_size=60))
def test_never_more_than_the_bucket_and_what_time_gave_and_waiting_as_told_helps(
    per_minute: int, pauses: list[float]
) -> None:
    clock = Clock()
    rates, began, passed = RateLimit(per_minute, clock), clock.seconds, 0
    for pause in pauses:
        clock.seconds += pause
        passed += passes(rates)
        assert passed <= per_minute + (clock.seconds - began) * per_minute / 60 + 1e-6
    while passes(rates):
        pass
    with pytest.raises(ApiError) as refused:
        rates.take("a")
    clock.seconds += float((refused.value.headers or {})["retry-after"])
    assert passes(rates)


def test_over_http_a_key_that_asks_too_often_gets_429_and_others_their_answers(
    configuration: Configuration, base: KnowledgeBase
) -> None:
    bounds = replace(Bounds(), requests_per_minute=1)
    with running(replace(configuration, bounds=bounds), echo_model(), {"kb": base}) as server:
        one, other = server.key(), server.key()
        found = [server.client.get("/v1/models", headers=one) for _ in range(3)]
        assert found[0].status_code == 200
        assert found[-1].status_code == 429
        assert found[-1].json()["error"]["code"] == "rate_limit_exceeded"
        assert 1 <= int(found[-1].headers["retry-after"]) <= 60
        assert server.client.get("/v1/models", headers=other).status_code == 200
        assert server.client.get("/health").status_code == 200
        wrong = {"authorization": "Bearer ob-" + "0" * 8 + "-" + "x" * 43}
        assert [server.client.get("/v1/models", headers=wrong).status_code for _ in range(3)] == [401] * 3


# --- over HTTP --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_the_generation_ends_when_the_client_goes(
    configuration: Configuration, base: KnowledgeBase, stream: bool
) -> None:
    engine = WaitingEngine()
    with running(configuration, FrozenModel(engine), {"kb": base}) as server:
        connection = asking(server, stream=stream)
        assert engine.begun.acquire(timeout=LONG_S)
        if stream:
            assert b"200 OK" in connection.recv(65536)
        connection.close()
        assert engine.was_cancelled.wait(LONG_S)
        eventually(lambda: server.service.reading.running == 0)
        assert server.client.get("/health").status_code == 200


def test_beyond_the_queue_a_request_is_sent_away_and_none_is_lost(
    configuration: Configuration, base: KnowledgeBase
) -> None:
    engine = WaitingEngine()
    with (
        running(bounded(configuration, running=1, waiting=3), FrozenModel(engine), {"kb": base}) as server,
        ThreadPoolExecutor(3) as clients,
    ):
        first = clients.submit(server.ask, QUESTION)
        assert engine.begun.acquire(timeout=LONG_S)
        others = [clients.submit(server.ask, QUESTION) for _ in range(2)]
        eventually(lambda: server.service.reading.waiting == 2)
        for response in (server.ask(QUESTION), server.ask(QUESTION, stream=True), server.client.get("/v1/documents")):
            assert response.status_code == 429
            assert int(response.headers["retry-after"]) > 0
            assert response.json()["error"]["type"] == "requests"
        assert 'openbook_waiting{gate="reading"} 2.0' in server.client.get("/metrics").text
        engine.go_on.set()
        assert [each.result(LONG_S).status_code for each in (first, *others)] == [200, 200, 200]


def test_who_goes_while_waiting_is_never_computed_for(configuration: Configuration, base: KnowledgeBase) -> None:
    engine = WaitingEngine()
    with running(bounded(configuration, running=1), FrozenModel(engine), {"kb": base}) as server:
        first = asking(server, stream=True)
        assert engine.begun.acquire(timeout=LONG_S)
        second = asking(server, stream=False)
        eventually(lambda: server.service.reading.waiting == 1)
        second.close()
        third = asking(server, stream=True)
        eventually(lambda: server.service.reading.waiting == 2)
        first.close()
        assert engine.begun.acquire(timeout=LONG_S)
        eventually(lambda: server.service.reading.waiting == 0)
        engine.go_on.set()
        assert b"200 OK" in third.recv(65536)
        third.close()
        eventually(lambda: server.service.reading.running == 0)
        assert not engine.begun.acquire(blocking=False)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_is_broken_off_and_says_so(
    configuration: Configuration, base: KnowledgeBase, stream: bool
) -> None:
    with running(bounded(configuration, answer_s=0.2), FrozenModel(WaitingEngine()), {"kb": base}) as server:
        response = server.ask(QUESTION, stream=stream)
        assert '"code":"timeout"' in response.text.replace(" ", "")
        assert "[DONE]" not in response.text
        if not stream:
            assert response.status_code == 504


def test_a_server_that_ends_lets_answers_end(configuration: Configuration, base: KnowledgeBase) -> None:
    engine = WaitingEngine()
    with ThreadPoolExecutor(1) as clients:
        with running(configuration, FrozenModel(engine), {"kb": base}) as server:
            asked = clients.submit(server.ask, QUESTION)
            assert engine.begun.acquire(timeout=LONG_S)
            threading.Timer(0.05, engine.go_on.set).start()
        assert asked.result(LONG_S).status_code == 200


def test_pieces_come_for_as_long_as_somebody_waits() -> None:
    stop = Stop(LONG_S, threading.Event())
    stop.start()
    pieces = stop.each(range(5))
    assert [next(pieces), next(pieces)] == [0, 1]
    stop.client_is_gone()
    with pytest.raises(ClientGone):
        next(pieces)


READS = [
    ("GET", "/v1/versions", None),
    ("GET", "/v1/versions/difference?before=1", None),
    ("GET", "/v1/documents", None),
    ("GET", "/v1/documents/text?path=x", None),
    ("POST", "/v1/search", {"query": "bridge"}),
    ("POST", "/v1/embeddings", {"model": "hash", "input": ["bridge", "ferry"]}),
]


@pytest.mark.parametrize(("method", "path", "body"), READS)
def test_every_long_read_ends_when_time_is_up(
    configuration: Configuration, base: KnowledgeBase, method: str, path: str, body: object
) -> None:
    """There is no time at all, so the first look finds that it is up."""
    with running(bounded(configuration, answer_s=0.0), echo_model(), {"kb": base}) as server:
        response = server.client.request(method, path, json=body)
        assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout"), response.text
    with running(configuration, echo_model(), {"kb": base}) as server:
        assert server.client.request(method, path, json=body).status_code in (200, 404)  # 404: there is no document x


def test_looking_for_a_receipt_ends_when_time_is_up(
    configuration: Configuration, base: KnowledgeBase, tmp_path: Path
) -> None:
    configuration = replace(configuration, receipts=tmp_path / "log")
    with running(configuration, echo_model(), {"kb": base}) as server:
        digest = server.ask(QUESTION).json()["openbook"]["receipt"]["digest"]
    with running(bounded(configuration, answer_s=0.0), echo_model(), {"kb": base}) as server:
        for response in (
            server.client.get(f"/v1/receipts/{digest}"),
            server.client.post("/v1/replay", json={"id": digest}),
        ):
            assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout"), response.text


@pytest.mark.parametrize("model", ["echo", "echo:closed-book"])
def test_a_replay_ends_its_generation_when_the_client_goes(
    configuration: Configuration, base: KnowledgeBase, tmp_path: Path, model: str
) -> None:
    engine = WaitingEngine()
    with running(replace(configuration, receipts=tmp_path / "log"), FrozenModel(engine), {"kb": base}) as server:
        engine.go_on.set()
        digest = server.ask(QUESTION, model=model).json()["openbook"]["receipt"]["digest"]
        assert engine.begun.acquire(timeout=LONG_S)
        engine.go_on.clear()
        body = json.dumps({"id": digest}).encode()
        head = "POST /v1/replay HTTP/1.1\nHost: localhost\nContent-Type: application/json\n"
        connection = connected(server, f"{head}Content-Length: {len(body)}\n\n", body)
        assert engine.begun.acquire(timeout=LONG_S)
        connection.close()
        assert engine.was_cancelled.wait(LONG_S)
        eventually(lambda: server.service.reading.running == 0)
        engine.go_on.set()
        assert server.client.post("/v1/replay", json={"id": digest}).json()["identical"]


def test_a_replay_that_takes_too_long_says_so_and_not_that_the_answer_differs(
    configuration: Configuration, base: KnowledgeBase, tmp_path: Path
) -> None:
    engine, configuration = WaitingEngine(), replace(configuration, receipts=tmp_path / "log")
    engine.go_on.set()
    with running(configuration, FrozenModel(engine), {"kb": base}) as server:
        digest = server.ask(QUESTION).json()["openbook"]["receipt"]["digest"]
    engine.go_on.clear()
    with running(bounded(configuration, answer_s=0.2), FrozenModel(engine), {"kb": base}) as server:
        response = server.client.post("/v1/replay", json={"id": digest})
        assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout"), response.text


def test_workers_share_out_what_one_may_take() -> None:
    from openbook.cli.serve import shared
    from openbook.config import available_cores

    settings = Settings(Path(), kv_memory=256)
    assert shared(settings, 1) == settings
    assert shared(settings, 4).kv_memory == 64
    assert shared(settings, 2).threads == max(1, available_cores() // 2)
    assert shared(Settings(Path(), threads=3), 2).threads == 3
    bounds = Bounds(running=4, waiting=33, uploads=4).shared_by(4)
    assert (bounds.running, bounds.waiting, bounds.uploads, bounds.connections) == (1, 9, 2, 256)
    assert Bounds().shared_by(1) == Bounds()
