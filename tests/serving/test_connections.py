"""Many connections of one client leave the others their places, whether or not they share an address."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from openbook.serving.configuration import Configuration
from openbook.serving.connections import Idle, Requests, network
from openbook.serving.refusals import Refusal
from openbook.testing import echo_model
from tests.serving.conftest import LONG_S, Running, running
from tests.serving.test_running import QUESTION, WaitingEngine, bounded, everything, is_served

MANY, REQUESTS = 300, 143
HALF_HEAD = b"GET /health HTTP/1.1\r\nHost: local"
NO_BODY = (
    b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
)


def connected_from(address: str, server: Running, sent: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), LONG_S, source_address=(address, 0))
    connection.sendall(sent)
    return connection


@contextmanager
def crowd(address: str, server: Running, sent: bytes, count: int = MANY) -> Iterator[list[socket.socket]]:
    with ExitStack() as held:
        yield [held.enter_context(connected_from(address, server, sent)) for _ in range(count)]


def asking_from(address: str, server: Running) -> socket.socket:
    body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": QUESTION}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return connected_from(address, server, head.encode() + body)


@pytest.mark.parametrize("sent", [b"", HALF_HEAD, NO_BODY], ids=["nothing", "half a head", "no body"])
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_300_clients_that_send_half_keep_no_request_of_another_out(server: Running, address: str, sent: bytes) -> None:
    with crowd(address, server, sent):
        seen = {server.client.get("/health").status_code for _ in range(REQUESTS)}  # over one connection
        for _ in range(10):
            with httpx.Client(base_url=server.url, timeout=LONG_S, trust_env=False) as client:
                seen.add(client.post("/v1/search", json={"query": "bridge"}).status_code)
    assert seen == {200}


def test_requests_that_came_while_others_sent_half_are_all_answered(
    configuration: Configuration, base: KnowledgeBase
) -> None:
    """They do not give way to those that come later."""
    engine = WaitingEngine()
    with (
        running(configuration, FrozenModel(engine), {"kb": base}) as server,
        asking_from("127.0.0.1", server) as early,
    ):
        assert engine.begun.acquire(timeout=LONG_S)
        with crowd("127.0.0.1", server, NO_BODY), crowd("127.0.0.1", server, HALF_HEAD):
            assert is_served(server)
            engine.go_on.set()
            assert early.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_one_address_has_three_quarters_of_the_places_and_is_told_so_as_the_api_tells_errors(
    configuration: Configuration, base: KnowledgeBase
) -> None:
    engine = WaitingEngine()
    with (
        running(bounded(configuration, connections=4), FrozenModel(engine), {"kb": base}) as server,
        ExitStack() as held,
    ):
        for _ in range(3):
            held.enter_context(asking_from("127.0.0.2", server))
            assert engine.begun.acquire(timeout=LONG_S)
        with asking_from("127.0.0.2", server) as refused:
            told = everything(refused)
        head, _, body = told.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 2" in head
        assert b"connection: close" in head
        assert json.loads(body)["error"]["code"] == "too_many_connections"
        response = server.client.get("/health")
        assert response.status_code == 200
        held.enter_context(asking_from("127.0.0.1", server))
        assert engine.begun.acquire(timeout=LONG_S)
        response = server.client.get("/health")  # all places are taken; the client checks it against /openapi.json
        assert (response.status_code, response.json()["error"]["code"]) == (503, "too_many_connections")
        engine.go_on.set()


def test_who_gives_way_is_told_so(configuration: Configuration, base: KnowledgeBase) -> None:
    with (
        running(bounded(configuration, connections=4), echo_model(), {"kb": base}) as server,
        crowd("127.0.0.1", server, NO_BODY, 3) as held,
    ):
        assert is_served(server)
        told = everything(held[0])
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"too_many_connections" in told


def test_of_idle_connections_the_oldest_of_the_address_with_most_is_closed() -> None:
    closed: list[str] = []
    idle = Idle(4)

    def come(name: str, host: str) -> None:
        idle.add(name, host, lambda: closed.append(name))

    for name, host in (("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.2"), ("d", "10.0.0.2")):
        come(name, host)
    come("b", "10.0.0.2")  # it had a request meanwhile, and is the youngest now
    assert closed == []
    come("e", "10.0.0.3")
    idle.discard("d")
    come("f", "10.0.0.3")
    come("g", "10.0.0.3")
    assert closed == ["c", "e"]


@dataclass(eq=False)
class Request:
    host: str
    complete: bool
    gone: bool = False

    def give_way(self) -> None:
        assert not self.complete
        self.gone = True


@given(st.lists(st.tuples(st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]), st.booleans(), st.integers(0, 20))))
def test_the_bounds_hold_and_only_what_has_not_come_gives_way(steps: list[tuple[str, bool, int]]) -> None:
    most = 5
    requests, here = Requests(most), list[Request]()
    for host, complete, ends in steps:
        request = Request(host, complete)
        ours = [each for each in here if each.host == host]
        full = ours if len(ours) >= most * 3 // 4 else here if len(here) >= most else []
        try:
            requests.enter(request, host, request.give_way)
        except Refusal:
            assert full
            assert all(each.complete for each in ours) or full is here
            continue
        if complete:
            requests.is_complete(request)
        here.append(request)
        assert sum(each.gone for each in here) == bool(full)
        here = [each for each in here if not each.gone]
        assert len(here) <= most
        assert sum(each.host == host for each in here) <= most * 3 // 4
        if ends < len(here):
            requests.leave(here.pop(ends))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("fe80::1%eth0", "fe80::1%eth0", True),
        ("", "", True),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, same: bool) -> None:
    assert (network(one) == network(other)) == same
