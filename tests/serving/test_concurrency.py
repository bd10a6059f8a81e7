"""Places, time, and clients that go away. Nothing here depends on how long something takes."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.answers.ask import ask
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from openbook.proofs.receipts import append_receipt
from openbook.serving import server as server_module
from openbook.serving.concurrency import Places
from openbook.serving.configuration import Configuration
from openbook.serving.errors import ApiError
from openbook.testing import echo_model
from tests.serving.conftest import (
    CHAT,
    LONG_S,
    QUESTION,
    RESPONSES,
    Running,
    Serve,
    WaitingEngine,
    asking,
    code,
    connected,
    eventually,
    posted,
    running,
)


class Desk:
    """Requests, each of which is named by its caller and a number: `a1`, `a2`, `b1`."""

    def __init__(self, places: Places) -> None:
        self.places = places
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
        try:
            async with self.places.place(name[0]):
                self.inside.append(name)
                await self.ends[name].wait()
        except ApiError:
            self.refused.append(name)
        finally:
            if name in self.inside:
                self.inside.remove(name)


async def settle() -> None:
    """Until every task has done what it can do now."""
    for _ in range(10):
        await asyncio.sleep(0)


def at(places: Places, story: Callable[[Desk], Awaitable[None]]) -> None:
    async def main() -> None:
        desk = Desk(places)
        await story(desk)
        while desk.inside:
            await desk.end(*desk.inside)
        assert (desk.places.running, desk.places.waiting) == (0, 0)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("running", "share", "served"),
    [
        (1, 1, "a1 b1 c1 a2 b2 a3 a4"),
        (2, 1, "a1 b1 c1 a2 b2 a3 a4"),
        (2, 2, "a1 a2 b1 b2 c1 a3 a4"),
        (3, 3, "a1 a2 a3 b1 b2 c1 a4"),
    ],
)
def test_callers_take_turns_and_keep_their_own_order(running: int, share: int, served: str) -> None:
    async def story(desk: Desk) -> None:
        await desk.come("a1", "a2", "a3", "a4", "b1", "b2", "c1")
        found = []
        while desk.inside:
            found += desk.inside
            await desk.end(*desk.inside)
        assert found == served.split()

    at(Places(running, 9, share), story)


def test_caller_holds_at_most_three_quarters_of_all_places() -> None:
    async def story(desk: Desk) -> None:
        await desk.come("a1", "a2", "a3", "a4", "a5")
        assert (desk.inside, desk.places.waiting, desk.refused) == (["a1"], 2, ["a4", "a5"])
        await desk.come("b1", "b2", "c1")
        assert desk.refused == ["a4", "a5", "b2", "c1"]
        await desk.end("a1")
        assert desk.inside == ["b1"]

    at(Places(1, 3, 1), story)


@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 5),
    st.lists(st.tuples(st.sampled_from("abcxy"), st.integers(0, 9)), max_size=40),
)
def test_bounds_hold_and_no_place_stays_free(
    running: int, share: int, waiting: int, steps: list[tuple[str, int]]
) -> None:
    """Whoever comes (a, b, c), ends (x) or gives up (y)."""

    async def story(desk: Desk) -> None:
        for number, (who, which) in enumerate(steps):
            known = [name for name in desk.tasks if not desk.tasks[name].done()]
            if who == "x" and desk.inside:
                await desk.end(desk.inside[which % len(desk.inside)])
            elif who == "y" and known:
                await desk.give_up(known[which % len(known)])
            elif who in "abc":
                await desk.come(f"{who}{number}")
            assert len(desk.inside) == desk.places.running <= running
            assert desk.places.running + desk.places.waiting <= running + waiting
            inside = Counter(name[0] for name in desk.inside)
            assert all(count <= share for count in inside.values())
            held = Counter(name[0] for name, task in desk.tasks.items() if not task.done())
            if desk.places.running < running:
                assert all(inside[each] == min(held[each], share) for each in "abc")

    at(Places(running, waiting, share), story)


@pytest.mark.parametrize("stream", [False, True])
def test_generation_ends_when_the_client_leaves(serve: Serve, stream: bool) -> None:
    server = serve(engine := WaitingEngine())
    connection = asking(server, stream=stream)
    assert engine.begun.acquire(timeout=LONG_S)
    if stream:
        assert b"200 OK" in connection.recv(65536)
    connection.close()
    assert engine.was_cancelled.wait(LONG_S)
    eventually(lambda: server.service.reading.running == 0)
    assert server.client.get("/health").status_code == 200


def test_requests_beyond_the_queue_are_refused_and_none_is_lost(serve: Serve) -> None:
    server = serve(engine := WaitingEngine(), running=1, waiting=3)
    with ThreadPoolExecutor(3) as clients:
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


def test_request_whose_client_left_while_waiting_is_never_computed(serve: Serve) -> None:
    server = serve(engine := WaitingEngine(), running=1)
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


def test_answer_that_takes_too_long_ends_with_an_error(serve: Serve) -> None:
    server = serve(WaitingEngine(), answer_s=0.2)
    for path in (CHAT, RESPONSES):
        assert code(server.ask(QUESTION, path=path)) == (504, "timeout")
        streamed = server.ask(QUESTION, path=path, stream=True).text
        assert json.loads(streamed.strip().rpartition("data: ")[2])["error"]["code"] == "timeout"


@pytest.mark.parametrize("in_time", [True, False])
def test_server_that_stops_lets_answers_end_or_tells_their_clients(
    configuration: Configuration, base: KnowledgeBase, monkeypatch: pytest.MonkeyPatch, in_time: bool
) -> None:
    engine, body = WaitingEngine(), {"model": "echo", "messages": [{"role": "user", "content": QUESTION}]}
    monkeypatch.setattr(server_module, "GRACE_S", LONG_S if in_time else 0)
    monkeypatch.setattr(server_module, "CANCELLING_S", LONG_S)
    with ThreadPoolExecutor(2) as clients:
        with running(configuration, FrozenModel(engine), {"kb": base}) as server:
            post = partial(httpx.post, f"{server.url}{CHAT}", timeout=LONG_S, trust_env=False)
            asked = clients.submit(post, json={**body, "stream": not in_time})
            assert engine.begun.acquire(timeout=LONG_S)
            if in_time:
                clients.submit(refused_then, server, engine.go_on.set)
        answered = asked.result(LONG_S)
    if in_time:
        assert answered.status_code == 200
    else:
        *_, last = answered.text.strip().splitlines()
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "shutting_down"


def refused_then(server: Running, do: Callable[[], None]) -> None:
    """Once the server takes no connection any more."""

    def is_refused() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", server.port), LONG_S):
                return False
        except OSError:
            return True

    eventually(is_refused)
    do()


READS = [
    ("GET", "/v1/versions", None),
    ("GET", "/v1/versions/difference?before=1", None),
    ("GET", "/v1/documents", None),
    ("GET", "/v1/documents/text?path=x", None),
    ("GET", "/v1/documents/history?path=x", None),
    ("GET", "/v1/documents/difference?path=x&before=1", None),
    ("GET", "/v1/examples", None),
    ("GET", "/v1/verdicts", None),
    ("GET", f"/v1/receipts/{'0' * 64}", None),
    ("POST", "/v1/replay", {"id": "0" * 64}),
    ("POST", "/v1/search", {"query": "bridge"}),
    ("POST", "/v1/embeddings", {"model": "hash", "input": ["bridge", "ferry"]}),
]


def test_every_long_read_ends_when_time_is_up(serve: Serve, tmp_path: Path) -> None:
    """There is no time at all, so the first look finds that it is up."""
    append_receipt(tmp_path / "log", ask(QUESTION, echo_model()).receipt)
    server = serve(answer_s=0.0, receipts=tmp_path / "log")
    for method, path, body in READS:
        assert code(server.client.request(method, path, json=body)) == (504, "timeout"), path


@pytest.mark.parametrize("model", ["echo", "echo:closed-book"])
def test_replay_ends_when_the_client_leaves_and_when_time_is_up(serve: Serve, tmp_path: Path, model: str) -> None:
    server = serve(engine := WaitingEngine(), receipts=tmp_path / "log")
    engine.go_on.set()
    digest = server.ask(QUESTION, model=model).json()["openbook"]["receipt"]["digest"]
    assert engine.begun.acquire(timeout=LONG_S)
    engine.go_on.clear()
    connection = connected(server, *posted("/v1/replay", {"id": digest}))
    assert engine.begun.acquire(timeout=LONG_S)
    connection.close()
    assert engine.was_cancelled.wait(LONG_S)
    eventually(lambda: server.service.reading.running == 0)
    hurried = serve(engine, receipts=tmp_path / "log", answer_s=0.2)
    assert code(hurried.client.post("/v1/replay", json={"id": digest})) == (504, "timeout")
