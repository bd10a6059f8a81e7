"""A server in front of another one: names stay what users type, and no reply says where the other one is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from openbook.inference import connect_model
from tests.conftest import served
from tests.inference.test_openai import FakeServer, QuietServer
from tests.serving.conftest import Serve

QUESTION = "Who opened the bridge?"


@pytest.fixture
def upstream() -> Iterator[str]:
    with served(QuietServer(("127.0.0.1", 0), FakeServer)) as port:
        yield f"127.0.0.1:{port}"


@pytest.mark.parametrize("name", ["qwen3:8b", "names-itself", "context", "denied"])
def test_name_stays_and_the_address_stays_inside(upstream: str, serve: Serve, name: str) -> None:
    with closing(connect_model(name, base_url=f"http://{upstream}/v1")) as model:
        server = serve(model)
        listed, unknown = server.client.get("/v1/models"), server.ask(QUESTION, model="qwen3")
        answered, streamed = (server.ask(QUESTION, model=name, stream=stream) for stream in (False, True))
        assert [each["id"] for each in listed.json()["data"]][:2] == [name, f"{name}:closed-book"]
        assert {sent["model"] for sent in FakeServer.requests[-2:]} == {name}
        for response in (listed, answered, streamed, unknown):
            assert upstream not in response.text
        assert unknown.status_code == 404
        if name == "qwen3:8b":
            value = answered.json()
            assert value["model"] == value["openbook"]["receipt"]["model"]["name"] == name
        else:  # what the other server does wrong
            assert "error" in answered.text
            assert "error" in streamed.text
