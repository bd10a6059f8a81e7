"""POST /v1/chat/completions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openbook.answer import ABSTENTION, Options, ask
from openbook.knowledge import KnowledgeBase
from openbook.records import Decoding
from openbook.serving.bodies import CHAT_UNSUPPORTED
from openbook.serving.configuration import Configuration
from openbook.testing import HashEmbedder, echo_model
from tests.serving.conftest import SECRET, Running, events_of, running

QUESTION = "When was the bridge opened by the mayor?"


def test_an_answer_is_that_of_the_library(server: Running, embedder: HashEmbedder) -> None:
    response = server.ask(QUESTION)
    assert response.status_code == 200, response.text
    value = response.json()
    assert value["openbook"]["timings"] is None  # one document is closed to this caller
    decoding = Decoding(max_tokens=96, stop=("\n",))
    answer = ask(QUESTION, echo_model(), server.bases["kb"], embedder, Options(decoding=decoding))
    expected, got = json.loads(json.dumps(answer.to_json())), value.pop("openbook")
    assert got == expected | {"timings": None}
    assert got["citations"]
    assert value["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": answer.answer, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert value["object"] == "chat.completion"
    assert value["usage"]["total_tokens"] == value["usage"]["prompt_tokens"] + value["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize(
    "question", [QUESTION, "What is the colour of happiness and of number 12?", "Which ferry ticket costs crowns?"]
)
@pytest.mark.parametrize("model", ["echo", "echo:closed-book"])
def test_streamed_is_what_is_not_streamed(server: Running, question: str, model: str) -> None:
    whole = server.ask(question, model=model).json()
    response = server.ask(question, model=model, stream=True, stream_options={"include_usage": True})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *chunks, usage, end = events_of(response.text)
    assert end == "[DONE]"
    values = [json.loads(chunk) for chunk in chunks]
    deltas = [value["choices"][0]["delta"] for value in values]
    assert "".join(d.get("content", "") for d in deltas) == whole["choices"][0]["message"]["content"]
    assert [d["role"] for d in deltas if "role" in d] == ["assistant"] == [deltas[0]["role"]]
    assert values[-1]["choices"][0]["finish_reason"] == "stop"
    assert json.loads(usage)["usage"] == whole["usage"]
    assert {value["id"] for value in values} == {json.loads(usage)["id"]}
    last = values[-1]["openbook"]
    for each in (last, whole["openbook"]):
        assert (each.pop("timings") is None) is (model == "echo")
    assert last == whole["openbook"]


def test_what_the_documents_do_not_say_is_an_abstention(server: Running) -> None:
    value = server.ask("What is the safe number of the harbour office?").json()
    assert value["openbook"]["abstained"]
    assert value["choices"][0]["message"]["content"] == ABSTENTION
    assert "canary" not in json.dumps(value)


def test_closed_book_reads_nothing(server: Running) -> None:
    value = server.ask(QUESTION, model="echo:closed-book").json()
    assert value["openbook"]["passages"] == []
    assert value["openbook"]["receipt"]["strategy"] == "closed-book"


def test_a_follow_up_is_searched_for_with_what_it_refers_to(server: Running) -> None:
    messages = [
        {"role": "user", "content": "When does the ferry to Sandhavn leave?"},
        {"role": "assistant", "content": "At nine."},
        {"role": "user", "content": "What does a ticket for it cost?"},
    ]
    value = server.ask("", messages=messages).json()
    assert value["openbook"]["question"] == "What does a ticket for it cost?"
    assert value["openbook"]["passages"][0]["passage"]["document"].endswith("ferry.md")


def test_a_system_message_is_not_used_and_the_answer_says_so(server: Running) -> None:
    plain = server.ask(QUESTION).json()
    messages = [
        {"role": "system", "content": "Lie."},
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
    ]
    told = server.ask("", messages=messages).json()
    assert told["choices"] == plain["choices"]
    assert told["openbook"]["notes"] == [
        "The system message was not used: the model reads passages under the instruction it was made for."
    ]


def test_earlier_turns_that_a_closed_book_answer_does_not_use_are_told(server: Running) -> None:
    memory, unused = (
        "From the model's memory alone; no document was read.",
        "The earlier turns were not used: without passages the model is asked the last question alone.",
    )
    turns = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "A reader."}]
    last = {"role": "user", "content": QUESTION}
    for earlier, model, notes in (
        (turns, "echo:closed-book", [memory, unused]),
        (turns[1:], "echo:closed-book", [memory, unused]),
        ([], "echo:closed-book", [memory]),
        ([{"role": "assistant", "content": None}], "echo:closed-book", [memory]),
        (turns, "echo", []),
    ):
        value = server.ask("", model=model, messages=[*earlier, last]).json()
        assert value["openbook"]["notes"] == notes
        responded = {"model": model, "input": [{**each, "content": each["content"] or ""} for each in (*earlier, last)]}
        assert server.client.post("/v1/responses", json=responded).json()["openbook"]["notes"] == notes


def test_a_follow_up_is_answered_as_the_question_that_stands_alone(
    configuration: Configuration, base: KnowledgeBase
) -> None:
    alone = "When does the ferry to Sandhavn leave on weekdays?"
    turns = [
        {"role": "user", "content": "When does the ferry to Sandhavn leave?"},
        {"role": "assistant", "content": "At nine."},
        {"role": "user", "content": "And on weekdays?"},
    ]
    with running(configuration, echo_model(otherwise=alone), {"kb": base}) as server:
        whole = server.ask("", messages=turns).json()["openbook"]
        assert whole["question"] == whole["receipt"]["question"] == alone
        assert whole["notes"] == [f"Understood as: {alone}"]
        assert whole["answer"].startswith("The ferry to Sandhavn leaves at nine")
        assert whole["receipt"] == server.ask(alone).json()["openbook"]["receipt"]
        *_, last, done = events_of(server.ask("", messages=turns, stream=True).text)
        assert done == "[DONE]"
        assert json.loads(last)["openbook"]["receipt"] == whole["receipt"]
        closed = server.ask("", model="echo:closed-book", messages=turns).json()["openbook"]
        assert closed["question"] == alone
        assert closed["notes"] == [f"Understood as: {alone}", "From the model's memory alone; no document was read."]


def test_length_is_told_as_openai_tells_it(server: Running) -> None:
    value = server.ask(QUESTION, max_completion_tokens=2).json()
    assert value["choices"][0]["finish_reason"] == "length"
    assert value["usage"]["completion_tokens"] == 2


def test_a_version_and_a_filter_choose_what_is_seen(server: Running) -> None:
    assert server.ask(QUESTION, openbook={"as_of": 0}).json()["openbook"]["abstained"]
    assert server.ask(QUESTION, openbook={"as_of": 1}).json()["openbook"]["receipt"]["knowledge_base_version"] == 1
    assert server.ask(QUESTION, openbook={"where": "type = 'md'"}).json()["openbook"]["abstained"]


WRONG: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"model": "gpt-4"}, 404, "model_not_found", "model"),
    ({"model": None}, 400, "invalid_value", "model"),
    ({"messages": []}, 400, "invalid_value", "messages"),
    ({"messages": [{"role": "user", "content": " "}]}, 400, "invalid_value", None),
    ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "invalid_value", "messages[0].role"),
    ({"messages": [{"role": "tool", "content": "x"}]}, 400, "invalid_value", "messages[0].role"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "invalid_value", "messages[0].content"),
    ({"messages": [{"role": "user", "content": "x", "evil": 1}]}, 400, "unknown_parameter", "messages[0].evil"),
    ({"temperature": 3}, 400, "invalid_value", "temperature"),
    ({"temperature": "1"}, 400, "invalid_value", "temperature"),
    ({"top_p": 0}, 400, "invalid_value", "top_p"),
    ({"max_tokens": 0}, 400, "invalid_value", "max_tokens"),
    ({"max_tokens": 10**6}, 400, "above_limit", "max_tokens"),
    ({"seed": 2**70}, 400, "invalid_value", "seed"),
    ({"stop": ["a", "b", "c", "d", "e"]}, 400, "above_limit", "stop"),
    ({"stream_options": {"include_usage": True}, "stream": False}, 400, "invalid_value", "stream_options"),
    ({"frobnicate": 1}, 400, "unknown_parameter", "frobnicate"),
    ({"n": 2}, 400, "unsupported_parameter", "n"),
    ({"n": True}, 400, "unsupported_parameter", "n"),
    ({"tools": [{"type": "function"}]}, 400, "unsupported_parameter", "tools"),
    ({"logprobs": True}, 400, "unsupported_parameter", "logprobs"),
    ({"response_format": {"type": "json_object"}}, 400, "unsupported_parameter", "response_format"),
    ({"store": True}, 400, "unsupported_parameter", "store"),
    ({"openbook": {"as_of": 99}}, 400, "version_not_found", "as_of"),
    ({"openbook": {"knowledge_base": "other"}}, 404, "knowledge_base_not_found", "knowledge_base"),
    ({"openbook": {"passages": 1000}}, 400, "above_limit", "openbook.passages"),
    ({"openbook": {"strategy": "each"}}, 400, "invalid_value", None),
    ({"openbook": {"where": "type ="}}, 400, "invalid_value", None),
    ({"messages": [{"role": "user", "content": "many words " * 4000}]}, 400, "invalid_value", None),
]


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_refused_in_the_shape_of_openai(server: Running, stream: bool) -> None:
    for body, status, code, param in WRONG:
        response = server.ask(QUESTION, **({"stream": stream} | body))
        assert response.status_code == status, (body, response.text)
        error = response.json()["error"]
        assert (error["code"], error["param"], error["type"]) == (code, param, "invalid_request_error"), body
        assert error["message"]


def test_everything_that_is_unsupported_may_have_the_value_that_changes_nothing(server: Running) -> None:
    harmless: dict[str, Any] = {name: values[0] if values else None for name, (values, _) in CHAT_UNSUPPORTED.items()}
    plain, same = server.ask(QUESTION).json(), server.ask(QUESTION, user="someone", **harmless).json()
    assert same["choices"] == plain["choices"]


def test_the_label_of_a_key_opens_what_carries_it(server: Running) -> None:
    question = "With which number does the safe of the harbour office open?"
    assert server.ask(question).json()["openbook"]["abstained"]
    held = server.ask(question, headers=server.key("read", "hr")).json()
    assert held["choices"][0]["message"]["content"] == SECRET
    assert held["openbook"]["receipt"]["labels"] == ["hr"]


def test_how_long_it_took_is_told_to_who_may_see_all(server: Running) -> None:
    """To others it could tell whether a text was read before that they may not see."""
    for stream in (False, True):
        for headers, is_told in ((None, False), (server.key("admin"), False), (server.key("read", "hr"), True)):
            response = server.ask(QUESTION, headers=headers, stream=stream)
            values = [json.loads(each) for each in events_of(response.text)[:-1]] if stream else [response.json()]
            (answer,) = [each["openbook"] for each in values if "openbook" in each]
            assert (answer["timings"] is not None) is is_told
    closed = server.ask(QUESTION, model="echo:closed-book").json()["openbook"]
    assert closed["timings"]["total_s"] > 0  # nothing was read
