"""POST /v1/completions: the same answers in OpenAI's older shape."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from openbook.serving.bodies import COMPLETION_IGNORED
from tests.serving.conftest import SECRET, Running, events_of

QUESTION = "When was the bridge opened by the mayor?"


def complete(server: Running, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    return server.client.post("/v1/completions", json={"model": "echo", "prompt": QUESTION, **body}, headers=headers)


def test_an_answer_is_that_of_the_chat(server: Running) -> None:
    chat, whole = server.ask(QUESTION).json(), complete(server).json()
    assert whole["object"] == "text_completion"
    text = chat["choices"][0]["message"]["content"]
    assert whole["choices"] == [{"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}]
    assert whole["usage"] == chat["usage"]
    for each in (chat, whole):
        each["openbook"].pop("timings")
    assert whole["openbook"] == chat["openbook"]
    assert complete(server, prompt=[QUESTION]).json()["choices"] == whole["choices"]
    assert complete(server, max_tokens=2).json()["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize("model", ["echo", "echo:closed-book"])
@pytest.mark.parametrize("question", [QUESTION, "Which colour has the zeppelin?"])
def test_streamed_is_what_is_not_streamed(server: Running, model: str, question: str) -> None:
    whole = complete(server, model=model, prompt=question).json()
    response = complete(server, model=model, prompt=question, stream=True, stream_options={"include_usage": True})
    *chunks, usage, end = events_of(response.text)
    assert end == "[DONE]"
    values = [json.loads(each) for each in chunks]
    assert "".join(each["choices"][0]["text"] for each in values) == whole["choices"][0]["text"]
    assert [each["choices"][0]["finish_reason"] for each in values[-2:]] == [None, "stop"]
    assert (json.loads(usage)["choices"], json.loads(usage)["usage"]) == ([], whole["usage"])
    assert {json.loads(each)["id"] for each in (*chunks, usage)} == {whole["id"]}
    assert values[-1]["openbook"]["receipt"] == whole["openbook"]["receipt"]
    assert len(events_of(complete(server, stream=True).text)) >= 2


def test_the_label_of_a_key_opens_what_carries_it(server: Running) -> None:
    question = "With which number does the safe of the harbour office open?"
    assert "canary" not in complete(server, prompt=question).text
    assert SECRET in complete(server, server.key("read", "hr"), prompt=question).text


WRONG: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"prompt": None}, 400, "invalid_value", "prompt"),
    ({"prompt": []}, 400, "invalid_value", "prompt"),
    ({"prompt": ["a", "b"]}, 400, "invalid_value", "prompt"),
    ({"prompt": [1, 2]}, 400, "invalid_value", "prompt"),
    ({"prompt": [[1, 2]]}, 400, "invalid_value", "prompt"),
    ({"prompt": ""}, 400, "invalid_value", None),
    ({"model": "gpt-3.5-turbo-instruct"}, 404, "model_not_found", "model"),
    ({"max_tokens": 0}, 400, "invalid_value", "max_tokens"),
    ({"max_tokens": 10**6}, 400, "above_limit", "max_tokens"),
    ({"temperature": 2.1}, 400, "invalid_value", "temperature"),
    ({"n": 2}, 400, "unsupported_parameter", "n"),
    ({"echo": True}, 400, "unsupported_parameter", "echo"),
    ({"suffix": "x"}, 400, "unsupported_parameter", "suffix"),
    ({"stop": ["a", "b", "c", "d", "e"]}, 400, "above_limit", "stop"),
]


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_refused_in_the_shape_of_openai(server: Running, stream: bool) -> None:
    for body, status, code, param in WRONG:
        response = complete(server, **({"stream": stream} | body))
        assert response.status_code == status, (body, response.text)
        error = response.json()["error"]
        assert (error["code"], error["param"], error["type"]) == (code, param, "invalid_request_error"), body
    missing = server.client.post("/v1/completions", json={"model": "echo"}).json()["error"]
    assert missing["message"] == "Missing required parameter: 'prompt'."


def test_what_is_ignored_is_told_and_the_answer_is_the_same(server: Running) -> None:
    plain, told = complete(server).json(), complete(server, logprobs=5, best_of=3, echo=False, user="someone").json()
    assert told["choices"] == plain["choices"]
    warnings = [
        "'logprobs' is ignored. Log probabilities are not available.",
        "'best_of' is ignored. One request gives one answer. For another, ask again with another seed.",
    ]
    assert told["openbook"]["warnings"] == warnings
    streamed = events_of(complete(server, logprobs=5, best_of=3, stream=True).text)
    assert json.loads(streamed[-2])["openbook"]["warnings"] == warnings
    for name in COMPLETION_IGNORED:
        body: dict[str, Any] = {name: [1]}
        assert name in complete(server, **body).json()["openbook"]["warnings"][0]
