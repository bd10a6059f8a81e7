"""POST /v1/responses: the same answers in OpenAI's newest shape."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from openbook.serving.bodies import RESPONSE_IGNORED
from openbook.serving.configuration import Configuration
from tests.serving.conftest import Running, running
from tests.serving.described import events
from tests.serving.test_running import WaitingEngine, bounded

QUESTION = "When was the bridge opened by the mayor?"
LAST = [{"role": "user", "content": QUESTION}]


def respond(server: Running, **body: Any) -> httpx.Response:
    return server.client.post("/v1/responses", json={"model": "echo", "input": QUESTION, **body})


def test_an_answer_is_that_of_the_chat(server: Running) -> None:
    chat, whole = server.ask(QUESTION).json(), respond(server).json()
    assert whole["output"][0]["content"][0]["text"] == chat["choices"][0]["message"]["content"]
    assert whole["usage"]["total_tokens"] == chat["usage"]["total_tokens"]
    assert whole["openbook"]["receipt"] == chat["openbook"]["receipt"]
    cut_off = respond(server, max_output_tokens=2).json()
    assert (cut_off["status"], cut_off["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    told = respond(server, instructions="Be brief.", input=[{"role": "user", "content": QUESTION}]).json()
    assert told["output"][0]["content"] == whole["output"][0]["content"]
    assert told["openbook"]["warnings"] == []
    told = respond(server, instructions="x" * 1500, input=[{"role": "system", "content": "y" * 500}, *LAST]).json()
    assert "It has 2,001 characters" in told["openbook"]["warnings"][0]


@pytest.mark.parametrize("model", ["echo", "echo:closed-book"])
@pytest.mark.parametrize("question", [QUESTION, "Which colour has the zeppelin?"])
def test_streamed_is_what_is_not_streamed(server: Running, model: str, question: str) -> None:
    whole = respond(server, model=model, input=question).json()
    response = respond(server, model=model, input=question, stream=True)
    values = [json.loads(each) for each in events(response.text)]
    names = [line.removeprefix("event: ") for line in response.text.split("\n") if line.startswith("event: ")]
    assert names == [each["type"] for each in values]
    assert names[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert names[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert set(names[4:-4]) == {"response.output_text.delta"}
    text = whole["output"][0]["content"][0]["text"]
    assert "".join(each["delta"] for each in values[4:-4]) == text == values[-4]["text"]
    for each in (last := values[-1]["response"], whole):
        each.pop("created_at")
        each["openbook"].pop("timings")
    assert last == whole


WRONG: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"input": []}, 400, "invalid_value", "input"),
    ({"input": None}, 400, "invalid_value", "input"),
    ({"input": ""}, 400, "invalid_value", None),
    ({"input": [{"role": "assistant", "content": "x"}]}, 400, "invalid_value", "input[0].role"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, 400, "invalid_value", "input"),
    ({"model": "gpt-4"}, 404, "model_not_found", "model"),
    ({"max_output_tokens": 0}, 400, "invalid_value", "max_output_tokens"),
    ({"tool_choice": "required"}, 400, "unsupported_parameter", "tool_choice"),
    ({"background": True}, 400, "unsupported_parameter", "background"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, 400, "invalid_value", "text.format.type"),
    ({"previous_response_id": "resp_1"}, 400, "unsupported_parameter", "previous_response_id"),
]


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_refused_in_the_shape_of_openai(server: Running, stream: bool) -> None:
    for body, status, code, param in WRONG:
        response = respond(server, **({"stream": stream} | body))
        assert response.status_code == status, (body, response.text)
        error = response.json()["error"]
        assert error["code"] == code, body
        assert str(error["param"]).startswith(str(param)), body


def test_what_is_ignored_is_told_and_the_answer_is_the_same(server: Running) -> None:
    body: dict[str, Any] = {
        "tools": [{"type": "web_search"}],
        "store": True,
        "text": {"format": {"type": "text"}, "verbosity": "low"},
        "background": False,
    }
    answers = [respond(server, **body).json()]
    answers.append(json.loads(events(respond(server, stream=True, **body).text)[-1])["response"])
    for answer in answers:
        assert answer["output"][0]["content"] == respond(server).json()["output"][0]["content"]
        assert answer["openbook"]["warnings"] == [
            "'tools' is ignored. The model answers from passages and calls no tools.",
            "'store' is ignored. The server keeps nothing between requests.",
            "'text.verbosity' is ignored. This server has no such parameter.",
        ]
    for name in RESPONSE_IGNORED:
        assert name in respond(server, **{name: [1]}).json()["openbook"]["warnings"][0]


def test_an_answer_that_is_broken_off_ends_with_an_error(configuration: Configuration, base: KnowledgeBase) -> None:
    with running(bounded(configuration, answer_s=0.2), FrozenModel(WaitingEngine()), {"kb": base}) as server:
        last = json.loads(events(respond(server, stream=True).text)[-1])
        assert last["error"]["code"] == "timeout"
