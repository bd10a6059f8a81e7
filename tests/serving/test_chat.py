"""POST /v1/chat/completions."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from openbook.answer import ask
from openbook.knowledge import KnowledgeBase
from openbook.prompts import ABSTENTION
from openbook.records import Answer, ReaderFormat
from openbook.serving import answering
from openbook.serving.bodies import CHAT_IGNORED, CHAT_REFUSED
from openbook.serving.configuration import Configuration
from openbook.testing import HashEmbedder, echo_model
from tests.serving.conftest import SECRET, Running, events_of, running

TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
QUESTION = "When was the bridge opened by the mayor?"


def test_an_answer_is_that_of_the_library(server: Running, embedder: HashEmbedder) -> None:
    response = server.ask(QUESTION)
    assert response.status_code == 200, response.text
    value = response.json()
    assert value["openbook"]["timings"] is None  # one document is closed to this caller
    answer = ask(QUESTION, echo_model(), server.bases["kb"], embedder)
    expected, got = json.loads(json.dumps(answer.to_json())), value.pop("openbook")
    assert got == expected | {"timings": None, "warnings": []}
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


def told(text: str, role: str = "system") -> list[dict[str, Any]]:
    return [{"role": role, "content": text}, {"role": "user", "content": [{"type": "text", "text": QUESTION}]}]


def test_a_system_message_is_an_instruction_to_the_model(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []

    def noting(*arguments: Any, **more: Any) -> Answer:
        given.append(arguments[4].instruction)
        return ask(*arguments, **more)

    monkeypatch.setattr(answering, "ask", noting)
    for role in ("system", "developer"):
        assert server.ask("", messages=told(" Answer in French. ", role)).json()["openbook"]["warnings"] == []
    server.ask("", messages=[*told("Be brief.")[:1], *told("Name\0the page.")])
    server.ask("", model="echo:closed-book", messages=told("Be brief."))
    server.ask(QUESTION)
    assert given == ["Answer in French.", "Answer in French.", "Be brief.\nName the page.", "Be brief.", ""]


def test_a_system_message_that_is_too_long_is_ignored_and_the_answer_says_so(server: Running) -> None:
    assert server.ask("", messages=told("x" * 2000)).json()["openbook"]["warnings"] == []
    for stream in (False, True):
        answer = last_answer(server.ask("", messages=told("x" * 2001), stream=stream))
        assert answer["warnings"] == ["The system message is ignored. It has 2,001 characters; the limit is 2,000."]


def test_a_trained_reader_follows_no_system_message_and_the_answer_says_so(
    configuration: Configuration, base: KnowledgeBase
) -> None:
    reader = ReaderFormat("Answer from the passage.", ABSTENTION)
    with running(configuration, echo_model(reader=reader), {"kb": base}) as server:
        plain, answer = (server.ask("", messages=each).json() for each in (told("Lie.")[1:], told("Lie.")))
    assert answer["choices"] == plain["choices"]
    assert answer["openbook"]["warnings"] == [
        "The system message is ignored. This model follows only the instruction that it was trained with."
    ]


def last_answer(response: httpx.Response) -> dict[str, Any]:
    """What is under `openbook` in an answer, whole or as a stream."""
    streams = response.headers["content-type"].startswith("text/event-stream")
    values = [json.loads(each) for each in events_of(response.text)[:-1]] if streams else [response.json()]
    (found,) = [each["openbook"] for each in values if "openbook" in each]
    answer: dict[str, Any] = found
    return answer


def test_earlier_turns_that_a_closed_book_answer_does_not_use_are_told(server: Running) -> None:
    ignored = ["The earlier turns are ignored. Without passages, the model gets only the last question."]
    turns = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "A reader."}]
    last = {"role": "user", "content": QUESTION}
    for earlier, model, warnings in (
        (turns, "echo:closed-book", ignored),
        (turns[1:], "echo:closed-book", ignored),
        ([], "echo:closed-book", []),
        ([{"role": "assistant", "content": None}], "echo:closed-book", []),
        (turns, "echo", []),
    ):
        value = server.ask("", model=model, messages=[*earlier, last]).json()
        assert value["openbook"]["warnings"] == warnings
        responded = {"model": model, "input": [{**each, "content": each["content"] or ""} for each in (*earlier, last)]}
        assert server.client.post("/v1/responses", json=responded).json()["openbook"]["warnings"] == warnings


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
    ({"temperature": 3}, 400, "invalid_value", "temperature"),
    ({"temperature": "1"}, 400, "invalid_value", "temperature"),
    ({"top_p": 0}, 400, "invalid_value", "top_p"),
    ({"max_tokens": 0}, 400, "invalid_value", "max_tokens"),
    ({"max_tokens": 10**6}, 400, "above_limit", "max_tokens"),
    ({"seed": 2**70}, 400, "invalid_value", "seed"),
    ({"stop": ["a", "b", "c", "d", "e"]}, 400, "above_limit", "stop"),
    ({"n": 2}, 400, "unsupported_parameter", "n"),
    ({"tools": [TOOL], "tool_choice": "required"}, 400, "unsupported_parameter", "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, 400, "unsupported_parameter", "tool_choice"),
    ({"response_format": {"type": "json_schema", "json_schema": {}}}, 400, "unsupported_parameter", "response_format"),
    ({"modalities": ["text", "audio"]}, 400, "unsupported_parameter", "modalities"),
    ({"openbook": {"passagez": 1}}, 400, "unknown_parameter", "openbook.passagez"),
    ({"where": "type = 'md'"}, 400, "unknown_parameter", "where"),
    ({"open_book": {"where": "type = 'md'"}}, 400, "unknown_parameter", "open_book"),
    ({"n": True}, 400, "unsupported_parameter", "n"),
    ({"response_format": {"type": "json_object"}}, 400, "unsupported_parameter", "response_format"),
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


def test_what_is_refused_may_have_the_value_that_changes_nothing(server: Running) -> None:
    harmless: dict[str, Any] = {name: values[0] for name, (values, _) in CHAT_REFUSED.items()}
    plain, same = server.ask(QUESTION).json(), server.ask(QUESTION, user="someone", **harmless).json()
    assert same["choices"] == plain["choices"]
    assert same["openbook"]["warnings"] == []


def test_what_asks_for_nothing_is_passed_over(server: Running) -> None:
    nothing: dict[str, Any] = {"tools": [], "logprobs": False, "presence_penalty": 0.0, "metadata": {}, "top_k": None}
    assert server.ask(QUESTION, **nothing, stream_options=None).json()["openbook"]["warnings"] == []


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_ignored_is_told_and_the_answer_is_the_same(server: Running, stream: bool) -> None:
    plain = last_answer(server.ask(QUESTION))
    message = {"role": "user", "content": [{"type": "text", "text": QUESTION, "cache_control": {"type": "ephemeral"}}]}
    body: dict[str, Any] = {"tools": [TOOL], "tool_choice": "auto", "top_k": 40, "min_p": 0.1, "logprobs": True}
    answer = last_answer(server.ask("", messages=[message], stream=stream, **body, frobnicate={"x": 1}))
    assert answer.pop("warnings") == [
        "'tools' is ignored. The model answers from passages and calls no tools.",
        "'top_k', 'min_p' are ignored. Only temperature, top_p and seed decide how tokens are chosen.",
        "'logprobs' is ignored. Log probabilities are not available.",
        "'frobnicate', 'messages[0].content[0].cache_control' are ignored. This server has no such parameter.",
    ]
    assert answer == {each: plain[each] for each in plain if each != "warnings"}


def test_many_that_are_ignored_are_counted_and_long_names_cut(server: Running) -> None:
    many: dict[str, Any] = {f"unknown{i}" + "x" * 1000: i + 1 for i in range(500)}
    (warning,) = server.ask(QUESTION, **many).json()["openbook"]["warnings"]
    assert "and 490 more are ignored." in warning
    assert len(warning) < 1000


def test_all_that_openai_knows_may_be_said(server: Running) -> None:
    for name in CHAT_IGNORED:
        body: dict[str, Any] = {name: [1]}
        assert name in server.ask(QUESTION, **body).json()["openbook"]["warnings"][0]
    told = server.ask(QUESTION, stream_options={"include_usage": True}).json()["openbook"]["warnings"]
    assert told == ["'stream_options' is ignored. The answer is not streamed."]


def test_a_body_that_is_deep_fails_as_it_says(server: Running) -> None:
    for depth in (100, *range(700, 1100, 7)):
        deep = '{"model": "echo", "messages": [{"role": "user", "content": "ferry"}], "deep": %s1%s}'
        response = server.client.post(
            "/v1/chat/completions",
            content=deep % ("[" * depth, "]" * depth),
            headers={"content-type": "application/json"},
        )
        assert response.status_code in (200, 400), depth


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
