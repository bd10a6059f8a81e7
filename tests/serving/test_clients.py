"""The official OpenAI client, unchanged."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.serving.conftest import Running

QUESTION = "When was the bridge opened by the mayor?"
ANSWER = "The bridge was opened on 14 March 2026 by mayor Lila Ortega."


@pytest.fixture
def client(server: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[openai.OpenAI]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_a_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="echo", messages=[{"role": "user", "content": QUESTION}])
    assert answer.choices[0].message.content == ANSWER
    assert answer.model_extra is not None
    assert answer.model_extra["openbook"]["citations"][0]["quote"] == ANSWER
    assert answer.usage is not None
    assert answer.usage.total_tokens > 0


def test_a_chat_that_goes_on_with_the_message_it_was_given(client: openai.OpenAI) -> None:
    first = (
        client.chat.completions.create(model="echo", messages=[{"role": "user", "content": QUESTION}])
        .choices[0]
        .message
    )
    messages = [{"role": "user", "content": QUESTION}, first, {"role": "user", "content": "And who opened the bridge?"}]
    second = client.chat.completions.create(model="echo", messages=messages)  # type: ignore[arg-type]  # as its documentation does
    assert second.choices[0].message.content == ANSWER


def test_a_stream(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": QUESTION}]
    stream = client.chat.completions.create(  # type: ignore[call-overload]  # the same messages as a plain list
        model="echo", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == ANSWER
    assert chunks[-1].usage.total_tokens > 0
    assert chunks[-2].model_extra["openbook"]["receipt"]["knowledge_base_version"] == 2


def test_embeddings_and_models(client: openai.OpenAI) -> None:
    vectors = client.embeddings.create(model="hash", input=["ferry", "bridge"]).data
    assert [len(each.embedding) for each in vectors] == [64, 64]
    assert [each.id for each in client.models.list()] == ["echo", "echo:closed-book", "hash"]
    assert client.models.retrieve("echo").owned_by == "openbook"


def test_its_errors_are_those_of_openai(client: openai.OpenAI, server: Running) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist") as missing:
        client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "x"}])
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="'n'"):
        client.chat.completions.create(model="echo", n=2, messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="ob-00000000-" + "A" * 43).models.list()
    with pytest.raises(openai.PermissionDeniedError):
        client.with_options(api_key=server.keys.new("reader", "read")[1]).post(
            "/documents/remove", cast_to=object, body={}
        )
