"""A server in front of another one: names stay what users type, and nobody learns where the other one stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from openbook.answers.ask import ask
from openbook.answers.prompts import ABSTENTION
from openbook.answers.retrieval import Corpus, Options
from openbook.inference import FrozenModel, connect_model
from openbook.knowledge import KnowledgeBase
from openbook.testing import HashEmbedder
from tests.conftest import served
from tests.inference.test_openai import FakeServer, QuietServer
from tests.serving.conftest import Serve

QUESTION = "Who opened the bridge?"


@pytest.fixture
def upstream() -> Iterator[str]:
    with served(QuietServer(("127.0.0.1", 0), FakeServer)) as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture
def connect(upstream: str) -> Iterator[Callable[[str], FrozenModel]]:
    with ExitStack() as models:
        yield lambda name: models.enter_context(closing(connect_model(name, base_url=f"http://{upstream}/v1")))


def test_a_name_stays_what_it_is_and_the_address_stays_inside(
    upstream: str, connect: Callable[[str], FrozenModel], serve: Serve
) -> None:
    server = serve(connect("qwen3:8b"))
    listed = server.client.get("/v1/models")
    assert [each["id"] for each in listed.json()["data"]][:2] == ["qwen3:8b", "qwen3:8b:closed-book"]
    answered = server.ask(QUESTION, model="qwen3:8b")
    assert answered.status_code == 200
    assert answered.json()["model"] == answered.json()["openbook"]["receipt"]["model"]["name"] == "qwen3:8b"
    streamed = server.ask(QUESTION, model="qwen3:8b", stream=True)
    assert {sent["model"] for sent in FakeServer.requests[-2:]} == {"qwen3:8b"}
    unknown = server.ask(QUESTION, model="qwen3")
    assert unknown.status_code == 404
    for response in (listed, answered, streamed, unknown):
        assert upstream not in response.text


def test_a_large_model_is_asked_for_a_whole_answer_with_its_excerpts_named(
    connect: Callable[[str], FrozenModel], base: KnowledgeBase, embedder: HashEmbedder
) -> None:
    options = Options(min_similarity=-1.0, instruction="In French.")
    answer = ask(QUESTION, connect("qwen3:8b"), Corpus(base, embedder), options)
    sent = FakeServer.requests[-1]
    system, user = (message["content"] for message in sent["messages"])
    assert "End each sentence with the number of its excerpt, like [1]" in system
    assert ABSTENTION in system
    assert "[1] bridge" in user
    assert user.index("mayor") < user.index(QUESTION) < user.index("In French.")
    assert sent["max_tokens"] == 400
    assert answer.receipt.instruction == "In French."


def test_what_the_other_server_does_wrong_does_not_say_where_it_stands(
    upstream: str, connect: Callable[[str], FrozenModel], serve: Serve
) -> None:
    for name in ("names-itself", "context", "denied"):
        server = serve(connect(name))
        for stream in (False, True):
            response = server.ask(QUESTION, model=name, stream=stream)
            assert "error" in response.text
            assert upstream not in response.text
