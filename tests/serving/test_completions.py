"""POST /v1/completions: the same answers in OpenAI's older shape."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from openbook.serving.bodies import COMPLETION_UNSUPPORTED
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
    ({"messages": []}, 400, "unknown_parameter", "messages"),
    ({"max_completion_tokens": 3}, 400, "unknown_parameter", "max_completion_tokens"),
    ({"max_tokens": 0}, 400, "invalid_value", "max_tokens"),
    ({"max_tokens": 10**6}, 400, "above_limit", "max_tokens"),
    ({"temperature": 2.1}, 400, "invalid_value", "temperature"),
    ({"n": 2}, 400, "unsupported_parameter", "n"),
    ({"best_of": 2}, 400, "unsupported_parameter", "best_of"),
    ({"echo": True}, 400, "unsupported_parameter", "echo"),
    ({"suffix": "x"}, 400, "unsupported_parameter", "suffix"),
    ({"logprobs": 0}, 400, "unsupported_parameter", "logprobs"),
    ({"stop": ["a", "b", "c", "d", "e"]}, 400, "above_limit", "stop"),
    ({"stream_options": {"include_usage": True}, "stream": False}, 400, "invalid_value", "stream_options"),
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


def test_everything_that_is_unsupported_may_have_the_value_that_changes_nothing(server: Running) -> None:
    harmless: dict[str, Any] = {
        name: values[0] if values else None for name, (values, _) in COMPLETION_UNSUPPORTED.items()
    }
    assert complete(server, user="someone", **harmless).json()["choices"] == complete(server).json()["choices"]
