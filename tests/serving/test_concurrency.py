"""Places, time, and clients that go away: an upload ends between two slices and leaves nothing. Nothing here depends on
how long something takes."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from openbook.answers.ask import ask
from openbook.core.records import Vectors
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.check import check
from openbook.proofs.receipts import append_receipt
from openbook.serving import server as server_module
from openbook.serving.concurrency import Places
from openbook.serving.configuration import Configuration
from openbook.serving.errors import ApiError
from openbook.testing import HashEmbedder, echo_model
from tests.serving.conftest import (
    CHAT,
    LONG_S,
    QUESTION,
    RESPONSES,
    Serve,
    WaitingEngine,
    add_file,
    asking,
    code,
    connected,
    eventually,
    posted,
    running,
)
from tests.serving.test_documents import listed, upload


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
    shut = uvicorn.Server.shutdown

    async def shutdown(server: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        if in_time:
            engine.go_on.set()
        await shut(server, sockets)

    monkeypatch.setattr(uvicorn.Server, "shutdown", shutdown)
    with ThreadPoolExecutor() as clients:
        with running(configuration, FrozenModel(engine), {"kb": base}) as server:
            post = partial(httpx.post, f"{server.url}{CHAT}", timeout=LONG_S, trust_env=False)
            asked = clients.submit(post, json={**body, "stream": not in_time})
            assert engine.begun.acquire(timeout=LONG_S)
        answered = asked.result(LONG_S)
    if in_time:
        assert answered.status_code == 200
    else:
        assert json.loads(answered.text.strip().rpartition("data: ")[2])["error"]["code"] == "shutting_down"


READS = [
    *(f"/v1/{path}" for path in ("documents", "examples", "verdicts", "versions", "versions/difference?before=1")),
    *(f"/v1/documents/{path}" for path in ("text?path=x", "history?path=x", "difference?path=x&before=1")),
    f"/v1/receipts/{'0' * 64}",
]
WORKS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/replay", {"id": "0" * 64}),
    ("/v1/search", {"query": "bridge"}),
    ("/v1/embeddings", {"model": "hash", "input": ["bridge", "ferry"]}),
]


def test_every_long_read_ends_when_time_is_up(serve: Serve, tmp_path: Path) -> None:
    """There is no time at all, so the first look finds that it is up."""
    append_receipt(tmp_path / "log", ask(QUESTION, echo_model()).receipt)
    server = serve(WaitingEngine(), answer_s=0.0, receipts=tmp_path / "log")
    for path, body in (*((path, None) for path in READS), *WORKS):
        asked = server.client.request("POST" if body else "GET", path, json=body)
        assert code(asked) == (504, "timeout"), path


def test_replay_ends_when_the_client_leaves_and_when_time_is_up(serve: Serve, tmp_path: Path) -> None:
    server = serve(engine := WaitingEngine(), receipts=tmp_path / "log")
    engine.go_on.set()
    digest = server.ask(QUESTION).json()["openbook"]["receipt"]["digest"]
    assert engine.begun.acquire(timeout=LONG_S)
    engine.go_on.clear()
    connection = connected(server, *posted("/v1/replay", {"id": digest}))
    assert engine.begun.acquire(timeout=LONG_S)
    connection.close()
    assert engine.was_cancelled.wait(LONG_S)
    eventually(lambda: server.service.reading.running == 0)
    hurried = serve(engine, receipts=tmp_path / "log", answer_s=0.2)
    assert code(hurried.client.post("/v1/replay", json={"id": digest})) == (504, "timeout")


# --- uploads ---------------------------------------------------------------------------------------------------------

SLOW = ("slow.txt", b"\n\n".join(b"Part %d of the slow text. " % i + b"word " * 80 for i in range(200)))


class SlowEmbedder(HashEmbedder):
    """Waits in each batch of the slow text until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = threading.Semaphore(0), threading.Semaphore(0)

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        if any("slow text" in text for text in texts):
            self.begun.release()
            assert self.go_on.acquire(timeout=LONG_S)
        return super().embed_passages(texts)

    def end(self) -> None:
        self.go_on.release(100)


@pytest.fixture
def slow() -> Iterator[SlowEmbedder]:
    embedder = SlowEmbedder()
    yield embedder
    embedder.end()


def uploading() -> tuple[str, bytes]:
    """(head, body) of a form with the slow text."""
    part = f'--x0x\r\nContent-Disposition: form-data; name="file"; filename="{SLOW[0]}"\r\n\r\n'.encode()
    body = part + SLOW[1] + b"\r\n--x0x--\r\n"
    kind = f"Content-Type: multipart/form-data; boundary=x0x\nContent-Length: {len(body)}"
    return f"POST /v1/documents HTTP/1.1\nHost: localhost\n{kind}\n\n", body


def traces(base: KnowledgeBase, home: Path) -> tuple[list[int], list[str]]:
    """The counts of rows, and the names of files."""
    tables = ("versions", "contents", "passages", "embeddings")
    counts = [base.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]
    return counts, [path.name for path in (home / "uploads").rglob("*") if path.is_file() and path.name != ".lock"]


def test_upload_ends_when_its_client_leaves_and_leaves_nothing(
    serve: Serve, base: KnowledgeBase, slow: SlowEmbedder, own_home: Path
) -> None:
    server, before = serve(embedder=slow), traces(base, own_home)
    connection = connected(server, *uploading())
    assert slow.begun.acquire(timeout=LONG_S)
    counts, files = traces(base, own_home)
    assert (counts != before[0], files) == (True, ["slow.txt"])  # its text is stored ahead
    connection.close()
    for _ in range(3):  # what came before these, the server has seen: that its client left
        assert server.client.get("/health").status_code == 200
    slow.end()
    eventually(lambda: server.service.uploading.running == 0)
    assert traces(base, own_home) == before
    assert upload(server, ("new.txt", b"The lamp is green."))[0]["outcome"] == "added"


def test_upload_ends_with_the_server_and_leaves_nothing(
    configuration: Configuration,
    base: KnowledgeBase,
    slow: SlowEmbedder,
    own_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "GRACE_S", 0)  # the server does not wait for answers in progress
    monkeypatch.setattr(server_module, "CANCELLING_S", LONG_S)
    before = traces(base, own_home)
    with ThreadPoolExecutor(2) as threads:
        with running(configuration, echo_model(), {"kb": base}, slow) as server:
            sent = threads.submit(httpx.post, f"{server.url}/v1/documents", files={"file": SLOW}, timeout=LONG_S)
            assert slow.begun.acquire(timeout=LONG_S)
            # The batch in progress ends after the server has begun to.
            threads.submit(server.service.ends.wait, LONG_S).add_done_callback(lambda _: slow.end())
        assert sent.result(LONG_S).json()["error"]["code"] == "shutting_down"
    assert traces(base, own_home) == before


def test_upload_blocks_no_other_caller_and_no_other_change(
    serve: Serve, base: KnowledgeBase, slow: SlowEmbedder, tmp_path: Path
) -> None:
    server, (bridge, ferry) = serve(embedder=slow), base.documents()[:2]
    theirs, mine = server.key("write"), server.key("write")
    with ThreadPoolExecutor(2) as threads:
        sent = threads.submit(upload, server, SLOW, headers=theirs)
        assert slow.begun.acquire(timeout=LONG_S)
        second = threads.submit(upload, server, ("second.txt", b"Another text."), headers=theirs)
        eventually(lambda: server.service.uploading.waiting == 1)  # theirs waits for theirs
        assert upload(server, ("lamp.txt", b"The lamp is green."), headers=mine)[0]["outcome"] == "added"
        add_file(base, tmp_path / "door.txt", "The door is blue.")  # as another process does
        purged = server.client.post("/v1/documents/purge", json={"documents": [bridge]})
        assert (purged.status_code, purged.json()["documents"]) == (200, [bridge])
        slow.go_on.release()
        assert slow.begun.acquire(timeout=LONG_S)
        assert server.client.post("/v1/documents/remove", json={"documents": [ferry]}).status_code == 200
        assert not sent.done()
        assert not second.done()
        slow.end()
        assert [each.result(LONG_S)[0]["outcome"] for each in (sent, second)] == ["added", "added"]
    assert {Path(path).name for path in listed(server)} == {"slow.txt", "second.txt", "lamp.txt", "door.txt"}
    assert check(base).damaged == ()
