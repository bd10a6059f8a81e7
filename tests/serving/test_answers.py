"""What is asked of an answer and how it is shown, in both of OpenAI's shapes."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openbook.answers.answer_text import TextPreview, tidy
from openbook.answers.ask import ask
from openbook.answers.prompts import ABSTENTION
from openbook.answers.retrieval import Corpus
from openbook.core.config import Settings
from openbook.core.errors import ConfigError
from openbook.core.records import Answer, ReaderFormat
from openbook.knowledge import KnowledgeBase
from openbook.proofs.receipts import parse_receipt
from openbook.proofs.replay import replay
from openbook.serving.completions import ChoiceShape
from openbook.serving.configuration import Configuration
from openbook.serving.errors import ApiError
from openbook.serving.schemas import ServedAnswer
from openbook.serving.service import resolve_model
from openbook.testing import HashEmbedder, echo_model
from tests.conftest import DecliningEngine, named_model
from tests.serving.conftest import (
    CHAT,
    OPENED,
    QUESTION,
    RESPONSES,
    SAFE,
    SECRET,
    TOWER,
    Running,
    Serve,
    add_file,
    events_of,
    path_of,
)

TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
PATHS = [CHAT, RESPONSES]


def text_and_answer(response: httpx.Response) -> tuple[str, dict[str, Any]]:
    """The text that a client shows, and what is under `openbook`, whole or streamed."""
    assert response.status_code == 200, response.text
    if not response.headers["content-type"].startswith("text/event-stream"):
        value = response.json()
        text = (
            value["output"][0]["content"][0]["text"] if "output" in value else value["choices"][0]["message"]["content"]
        )
        return text, value["openbook"]
    values = [json.loads(each) for each in events_of(response.text) if each != "[DONE]"]
    if "type" in values[0]:
        return "".join(each.get("delta", "") for each in values), values[-1]["response"]["openbook"]
    text = "".join(each["choices"][0]["delta"].get("content", "") for each in values if each["choices"])
    (answer,) = [each["openbook"] for each in values if "openbook" in each]
    return text, answer


def answer_of(response: httpx.Response) -> dict[str, Any]:
    return text_and_answer(response)[1]


# --- one answer, shown in four ways -----------------------------------------------------------------------------------


def test_an_answer_is_that_of_the_library(server: Running, embedder: HashEmbedder) -> None:
    answer = ask(QUESTION, echo_model(), Corpus(server.bases["kb"], embedder))
    expected = json.loads(json.dumps(answer.to_json())) | {"timings": None, "warnings": []}
    assert expected["citations"]
    for path in PATHS:
        for stream in (False, True):
            assert text_and_answer(server.ask(QUESTION, path=path, stream=stream)) == (answer.answer, expected)


def test_a_chat_has_the_fields_that_openai_has(server: Running) -> None:
    value = server.ask(QUESTION).json()
    text = value["openbook"]["answer"]
    message = {"role": "assistant", "content": text, "refusal": None}
    message["annotations"] = value["choices"][0]["message"]["annotations"]
    assert value["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    usage = value["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
    response = server.ask(QUESTION, stream=True, stream_options={"include_usage": True})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *chunks, end = events_of(response.text)
    assert end == "[DONE]"
    values = [json.loads(chunk) for chunk in chunks]
    assert {each["id"] for each in values} == {value["id"]}
    roles = [each["choices"][0]["delta"].get("role") for each in values[:-1]]
    assert roles == ["assistant"] + [None] * (len(roles) - 1)
    assert values[-2]["choices"][0]["finish_reason"] == "stop"
    assert (values[-1]["choices"], values[-1]["usage"]) == ([], usage)
    assert [each for each in values[:-1] if "usage" in each] == []


def test_length_is_told_as_openai_tells_it(server: Running) -> None:
    value = server.ask(QUESTION, max_completion_tokens=2).json()
    assert (value["choices"][0]["finish_reason"], value["usage"]["completion_tokens"]) == ("length", 2)
    value = server.ask(QUESTION, path=RESPONSES, max_output_tokens=2).json()
    assert (value["status"], value["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


def test_labels_open_documents_and_only_who_sees_all_gets_the_times(server: Running) -> None:
    """To others they could tell whether a text was read before that they may not see."""
    hr = server.key("read", "hr")
    held = answer_of(server.ask(SAFE, hr))
    assert (held["answer"], held["receipt"]["labels"]) == (SECRET, ["hr"])
    for headers, is_told in ((None, False), (server.key("admin"), False), (hr, True)):
        assert (answer_of(server.ask(QUESTION, headers))["timings"] is not None) is is_told
    assert answer_of(server.ask(QUESTION, model="echo:closed-book"))["timings"]["total_s"] > 0


def test_chat_links_each_source(server: Running, client: openai.OpenAI, tmp_path: Path) -> None:
    whole = client.chat.completions.create(model="echo", messages=[{"role": "user", "content": QUESTION}])
    message = whole.choices[0].message
    notes = message.annotations or []
    assert len(notes) == 1
    note = notes[0]
    assert (note.url_citation.title, note.url_citation.start_index) == (f"bridge.txt: {OPENED}", 0)
    address, _, place = note.url_citation.url.partition("#/document/")
    assert (address, note.url_citation.end_index) == (f"{server.url}/", len(OPENED))
    assert unquote(place.partition("?")[0]) == path_of(server.bases["kb"], "bridge.txt")
    assert place.partition("?")[2] == f"base=kb&version={server.bases['kb'].version}&start=0&end={len(OPENED)}&"
    asked: Any = {"role": "user", "content": QUESTION}
    turns: Any = [asked, message, asked]
    *_, last = list(client.chat.completions.create(model="echo", messages=turns, stream=True))
    assert (last.choices[0].delta.model_extra or {})["annotations"] == [note.model_dump()]
    assert (last.model_extra or {})["openbook"]["warnings"] == []
    add_file(server.bases["kb"], tmp_path / "none.txt", "Nothing.")
    nothing = server.ask("Who wrote the opera about Mars?").json()
    assert nothing["choices"][0]["message"]["annotations"] == []


# --- conversations ----------------------------------------------------------------------------------------------------

TURNS = [
    {"role": "user", "content": "When does the ferry to Sandhavn leave?"},
    {"role": "assistant", "content": "At nine."},
]


def test_a_follow_up_is_searched_for_with_the_question_before_it(serve: Serve) -> None:
    messages = [*TURNS, {"role": "user", "content": "And on weekdays?"}]
    server = serve()
    whole = answer_of(server.ask(messages))
    assert whole["question"] == whole["receipt"]["question"] == "And on weekdays?"
    assert whole["notes"] == ["Searched for together: When does the ferry to Sandhavn leave? / And on weekdays?"]
    assert answer_of(server.ask("And on weekdays?"))["notes"] == []
    closed = answer_of(server.ask(messages, model="echo:closed-book"))
    assert closed["warnings"] == [
        "The earlier turns are ignored. Without passages, the model gets only the last question."
    ]


def told(text: str, role: str = "system") -> list[dict[str, Any]]:
    return [{"role": role, "content": text}, {"role": "user", "content": [{"type": "text", "text": QUESTION}]}]


def test_a_system_message_is_an_instruction_to_the_model(server: Running) -> None:
    def instruction(path: str, messages: Any, **more: Any) -> str:
        answer = answer_of(server.ask(messages, path=path, **more))
        assert answer["warnings"] == []
        return str(answer["receipt"]["instruction"])

    for role in ("system", "developer"):
        assert instruction(CHAT, told(" Answer in French. ", role)) == "Answer in French."
    assert instruction(CHAT, [*told("Be brief.")[:1], *told("Name\0the page.")]) == "Be brief.\nName the page."
    assert instruction(RESPONSES, told("Be brief.", "developer"), instructions="Be kind.") == "Be kind.\nBe brief."
    assert instruction(CHAT, QUESTION) == ""


@pytest.mark.parametrize("path", PATHS)
def test_what_is_ignored_of_a_conversation_is_told(server: Running, serve: Serve, path: str) -> None:
    long = "The system message is ignored. It has 2,001 characters; the limit is 2,000."
    earlier = "The earlier turns are ignored. Without passages, the model gets only the last question."
    trained = "The system message is ignored. This model follows only the instruction that it was trained with."
    last = {"role": "user", "content": QUESTION}
    for messages, model, warnings in (
        (told("x" * 2000), "echo", []),
        (told("x" * 2001), "echo", [long]),
        ([*TURNS, last], "echo", []),
        ([*TURNS, last], "echo:closed-book", [earlier]),
        ([TURNS[1], last], "echo:closed-book", [earlier]),
        ([{"role": "assistant", "content": None}, last], "echo:closed-book", []),
    ):
        assert answer_of(server.ask(messages, path=path, model=model))["warnings"] == warnings
    reader = ReaderFormat("Answer from the passage.", ABSTENTION)
    trained_server = serve(echo_model(reader=reader))
    assert answer_of(trained_server.ask(told("Lie."), path=path))["warnings"] == [trained]


# --- parameters -------------------------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"model": "gpt-4"}, 404, "model_not_found", "model"),
    ({"model": None}, 400, "invalid_value", "model"),
    ({"temperature": 3}, 400, "invalid_value", "temperature"),
    ({"temperature": "1"}, 400, "invalid_value", "temperature"),
    ({"top_p": 0}, 400, "invalid_value", "top_p"),
    ({"max_tokens": 0}, 400, "invalid_value", "max_tokens"),
    ({"seed": 2**70}, 400, "invalid_value", "seed"),
    ({"stop": ["a"] * 33}, 400, "above_limit", "stop"),
    ({"tools": [TOOL], "tool_choice": "required"}, 400, "invalid_value", "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, 400, "invalid_value", "tool_choice"),
    ({"openbook": {"passagez": 1}}, 400, "unknown_parameter", "openbook.passagez"),
    ({"where": "type = 'md'"}, 400, "unknown_parameter", "where"),
    ({"open_book": {"where": "type = 'md'"}}, 400, "unknown_parameter", "open_book"),
    ({"openbook": {"as_of": 99}}, 400, "version_not_found", "openbook.as_of"),
    ({"openbook": {"knowledge_base": "other"}}, 404, "knowledge_base_not_found", "openbook.knowledge_base"),
    ({"openbook": {"passages": 1000}}, 400, "above_limit", "openbook.passages"),
    ({"openbook": {"strategy": "each"}}, 400, "invalid_value", None),
    ({"openbook": {"where": "type ="}}, 400, "invalid_value", None),
    ({"model": "echo:closed-book", "openbook": {"as_of": 0}}, 400, "invalid_value", "openbook.as_of"),
    ({"model": "echo:kb", "openbook": {"knowledge_base": "kb"}}, 400, "invalid_value", "openbook.knowledge_base"),
    ({"MESSAGES": []}, 400, "invalid_value", "MESSAGES"),
    ({"MESSAGES": [{"role": "user", "content": " "}]}, 400, "invalid_value", None),
    ({"MESSAGES": [{"role": "assistant", "content": "x"}]}, 400, "invalid_value", "MESSAGES[0].role"),
    ({"MESSAGES": [{"role": "tool", "content": "x"}]}, 400, "invalid_value", "MESSAGES[0].role"),
    ({"MESSAGES": [{"role": "robot", "content": "x"}]}, 400, "invalid_value", "MESSAGES[0].role"),
    ({"MESSAGES": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "invalid_value", "MESSAGES[0].content[0].type"),
    ({"MESSAGES": [{"role": "user", "content": "many words " * 4000}]}, 400, "invalid_value", None),
]  # fmt: skip
WRONG_CHAT: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"n": 9}, 400, "above_limit", "n"),
    ({"n": 0}, 400, "invalid_value", "n"),
    ({"response_format": {"type": "json_schema"}}, 400, "invalid_value", "response_format"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"allOf": []}}}}, 400, "invalid_value", "response_format"),
    ({"response_format": {"type": "json_object"}, "openbook": {"quote": True}}, 400, "invalid_value", None),
    ({"modalities": ["text", "audio"]}, 400, "invalid_value", "modalities[1]"),
]  # fmt: skip
WRONG_RESPONSES: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"max_output_tokens": 0}, 400, "invalid_value", "max_output_tokens"),
    ({"background": True}, 400, "invalid_value", "background"),
    ({"text": {"format": {"type": "json_schema"}}}, 400, "invalid_value", "text.format"),
    ({"previous_response_id": "resp_1"}, 400, "invalid_value", "previous_response_id"),
]


@pytest.mark.parametrize("path", PATHS)
def test_what_is_wrong_is_refused_in_the_shape_of_openai(server: Running, path: str) -> None:
    messages = "messages" if path == CHAT else "input"
    for body, status, wanted, param in WRONG + (WRONG_CHAT if path == CHAT else WRONG_RESPONSES):
        for stream in (False, True):
            sent = {key.replace("MESSAGES", messages): value for key, value in body.items()}
            response = server.ask(QUESTION, path=path, **({"stream": stream} | sent))
            error = response.json()["error"]
            assert (response.status_code, error["code"]) == (status, wanted), body
            assert error["type"] == "invalid_request_error"
            assert error["param"] == (param and param.replace("MESSAGES", messages)), (body, error)
            assert error["message"]


@pytest.mark.parametrize("path", PATHS)
def test_a_context_that_is_too_small_names_no_parameter(serve: Serve, path: str) -> None:
    error = serve(echo_model(context_tokens=20)).ask(QUESTION, path=path).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", None)


def test_values_that_change_nothing_are_accepted(server: Running) -> None:
    text = {"type": "text"}
    harmless: dict[str, Any] = {
        CHAT: {"n": 1, "tool_choice": "auto", "response_format": text, "modalities": ["text"], "function_call": "none"},
        RESPONSES: {"background": False, "previous_response_id": None, "text": {"format": text}},
    }
    nothing: dict[str, Any] = {"tools": [], "logprobs": False, "metadata": {}, "top_k": None, "stream_options": None}
    for path in PATHS:
        assert answer_of(server.ask(QUESTION, path=path, **harmless[path], **nothing, user="x"))["warnings"] == []


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_ignored_is_told_and_the_answer_is_the_same(server: Running, path: str, stream: bool) -> None:
    plain, kind = answer_of(server.ask(QUESTION, path=path)), "text" if path == CHAT else "input_text"
    messages = [{"role": "user", "content": [{"type": kind, "text": QUESTION, "cache_control": {"type": "ephemeral"}}]}]
    answer = answer_of(server.ask(messages, path=path, stream=stream, tools=[TOOL], top_k=40, frobnicate={"x": 1}))
    (warning,) = answer.pop("warnings")
    part = f"{'messages' if path == CHAT else 'input'}[0].content[0].cache_control"
    assert warning == f"'tools', 'top_k', 'frobnicate', {part!r} are ignored. This server has no such parameter."
    assert answer == {each: plain[each] for each in plain if each != "warnings"}
    many: dict[str, Any] = {f"unknown{i}" + "x" * 1000: i + 1 for i in range(500)}
    (warning,) = answer_of(server.ask(QUESTION, path=path, **many))["warnings"]
    assert "and 490 more are ignored." in warning
    assert len(warning) < 1000
    unused = answer_of(server.ask(QUESTION, path=path, stream_options={"include_usage": True}))["warnings"]
    assert unused == ["'stream_options' is ignored. The answer is not streamed."]


def test_a_task_of_a_client_is_answered_without_documents(server: Running) -> None:
    answer = answer_of(server.ask(f"### Task:\nFind a title.\n{QUESTION}"))
    assert (answer["passages"], answer["receipt"]["knowledge_base"]) == ([], None)
    assert answer["warnings"] == [
        "No document is read for a message that begins with '### Task:': it is a task, not a question."
    ]


# --- names of models --------------------------------------------------------------------------------------------------


def test_a_name_says_which_knowledge_base() -> None:
    models, bases = ["llama3:8b", "llama3"], ("kb", "hand:book", "odd@2")
    for served in models:
        assert resolve_model(served, models, bases, {}) == (served, "")
        for suffix in (*bases, "closed-book"):
            assert resolve_model(f"{served}:{suffix}", models, bases, {}) == (served, suffix)
    for model in ("", "llama", "llama3:8b:", "llama3:8bx", "llama3:8b:other", "llama3:8b:kb@1"):
        with pytest.raises(ApiError, match="llama3:8b:hand:book") as refused:
            resolve_model(model, models, bases, {})
        assert (refused.value.status_code, refused.value.code, refused.value.param) == (404, "model_not_found", "model")


def test_the_name_chooses_what_the_body_can_choose(towers: KnowledgeBase, serve: Serve) -> None:
    two = serve(others={"towers": towers})
    for as_of, metres, version in ((None, 55, 2), (1, 50, 1), ("old", 50, 1)):
        by_name = answer_of(two.ask(TOWER, model="echo:towers", openbook={"as_of": as_of}))
        assert str(metres) in by_name["answer"]
        assert by_name["receipt"]["knowledge_base_version"] == version
        chosen = {"knowledge_base": "towers", "as_of": version}
        assert answer_of(two.ask(TOWER, path=RESPONSES, openbook=chosen))["answer"] == by_name["answer"]
    assert answer_of(two.ask(TOWER, model="echo:towers", openbook={"where": "type = 'md'"}))["abstained"]
    assert answer_of(two.ask(TOWER))["answer"] == ABSTENTION
    ids = [each["id"] for each in two.client.get("/v1/models").json()["data"]]
    assert ids == ["echo", "echo:kb", "echo:towers", "echo:closed-book", "hash"]
    assert two.client.get("/v1/models/echo:towers").json()["openbook"]["knowledge_bases"][0]["name"] == "towers"
    assert two.client.get("/v1/models/echo:nothing").status_code == 404


def test_a_request_names_one_of_several_models(serve: Serve, configuration: Configuration) -> None:
    models = [named_model("one"), named_model("two")]
    home = Settings(configuration.settings.home, aliases={"gpt-4o": "default", "o3": "two:closed-book"})
    server = serve(models[0], more_models=[(models[1], None)], settings=home, receipts=configuration.settings.home)
    names = {"one": "one", "two": "two", "two:kb": "two", "one:closed-book": "one", "gpt-4o": "one", "o3": "two"}
    prints = dict[str, str]()
    for name, served in names.items():
        value = server.ask(QUESTION, model=name).json()
        assert value["openbook"]["receipt"]["model"]["name"] == served
        assert prints.setdefault(served, value["system_fingerprint"]) == value["system_fingerprint"]
        again = server.client.post("/v1/replay", json={"id": value["openbook"]["receipt"]["digest"]}).json()
        assert again["identical"]
    assert len(set(prints.values())) == 2
    listed = [each["id"] for each in server.client.get("/v1/models").json()["data"]]
    assert listed == ["one", "one:closed-book", "two", "two:closed-book", "hash", "gpt-4o", "o3"]
    refused = server.ask(QUESTION, model="three")
    assert refused.status_code == 404
    assert "two:closed-book" in refused.json()["error"]["message"]
    with pytest.raises(ConfigError, match="served once"):
        serve(models[0], more_models=[(models[0], None)])
    for model in models:
        model.close()


def test_a_fallback_model_answers_where_another_does_not_find_the_answer(
    serve: Serve, configuration: Configuration
) -> None:
    small, large = named_model("small", DecliningEngine()), named_model("large")
    settings = Settings(configuration.settings.home, fallback_model="large")
    with pytest.raises(ConfigError, match=r"'large' is not served\. There are: small"):
        serve(small, settings=settings)
    server = serve(small, more_models=[(large, None)], settings=settings, receipts=settings.home)
    for path, stream in itertools.product(PATHS, (False, True)):
        response = server.ask(QUESTION, path=path, model="small", stream=stream)
        text, answer = text_and_answer(response)
        assert (text, answer["answer"], answer["receipt"]["model"]["name"]) == (OPENED, OPENED, "large")
        assert "small (not found) and large (likely, 0." in answer["notes"][-1]
        deltas = [json.loads(each) for each in events_of(response.text) if each != "[DONE]"] if stream else []
        pieces = [each["choices"][0]["delta"].get("content") for each in deltas if "choices" in each]
        assert [each for each in pieces if each] == ([OPENED] if stream and path == CHAT else [])
        replayed = server.client.post("/v1/replay", json={"id": answer["receipt"]["digest"]}).json()
        assert replayed["identical"]
    itself = server.ask(QUESTION, model="large").json()
    assert (itself["openbook"]["answer"], itself["openbook"]["notes"]) == (OPENED, [])
    alone = server.ask(QUESTION, model="small:closed-book").json()
    assert alone["openbook"]["receipt"]["model"]["name"] == "small"
    without = serve(named_model("small", DecliningEngine())).ask(QUESTION, model="small").json()
    prints = {each["system_fingerprint"] for each in (itself, alone, without)}
    assert (len(prints), without["openbook"]["confidence"]) == (3, "not found")


@pytest.fixture(scope="module")
def answer() -> Answer:
    return ask("Is this a test?", echo_model())


# --- streams ----------------------------------------------------------------------------------------------------------

TEXTS = st.lists(
    st.one_of(
        st.text(st.sampled_from("a \n\r:{}[]\"'\\\u0085\u2028\u2029\x0b\x0c\x1c\x00é😀dt"), max_size=8),
        st.sampled_from(["data: ", "data: [DONE]\n\n", "event: error", "\ufeff", ABSTENTION]),
    ),
    max_size=6,
)


@settings(max_examples=60)
@given(texts=TEXTS, sizes=st.lists(st.integers(0, 10_000), max_size=8))
def test_the_client_reads_of_a_stream_what_the_model_wrote(answer: Answer, texts: list[str], sizes: list[int]) -> None:
    whole, shown = tidy("".join(texts)), list[str]()
    preview = TextPreview(shown.append, [ABSTENTION])
    for text in texts:
        preview.feed(text)
    shape = ChoiceShape({"id": "id", "created": 0, "model": "echo", "system_fingerprint": "fp"}, 1, True, lambda _: [])
    values = {name: getattr(answer, name) for name in Answer.__dataclass_fields__} | {"answer": whole}
    events = [shape.piece(piece) for piece in (*shown, whole[len("".join(shown)) :]) if piece]
    stream = b"".join([shape.begin(), *events, shape.end([ServedAnswer(**values)])])
    # Some clients split decoded text as Python does, at ten characters more than the standard of event streams has.
    assert all(line.startswith("data: ") for line in stream.decode().splitlines() if line)
    cuts = [0, *sorted(size % (len(stream) + 1) for size in sizes), len(stream)]
    pieces = (stream[a:b] for a, b in itertools.pairwise(cuts))
    sent = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=pieces)
    with httpx2.Client(transport=httpx2.MockTransport(lambda _: sent)) as http:
        client = openai.OpenAI(base_url="http://localhost/v1", api_key="unused", http_client=http, max_retries=0)
        chunks = list(client.chat.completions.create(model="echo", messages=[], stream=True))
    assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == whole
    assert chunks[-1].usage is not None
    assert (chunks[-2].model_extra or {})["openbook"]["answer"] == whole


# --- answers in JSON --------------------------------------------------------------------------------------------------

WHEN = {"type": "object", "properties": {"when": {"type": "string"}, "where": {"type": "string"}}}
FORMATS: dict[str, dict[str, Any]] = {
    CHAT: {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": WHEN}}},
    RESPONSES: {"text": {"format": {"type": "json_schema", "name": "x", "strict": True, "schema": WHEN}}},
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_in_json_is_cited_and_replayed(server: Running, path: str, stream: bool) -> None:
    response = server.ask(QUESTION, path=path, stream=stream, stop=["bridge"], **FORMATS[path])
    text, answer = text_and_answer(response)
    assert (json.loads(text), text) == ({"when": OPENED, "where": OPENED}, answer["answer"])
    assert [each["quote"] for each in answer["citations"]] == [OPENED]
    assert [text[each["start"] : each["end"]] for each in answer["sentences"]] == [OPENED, OPENED]
    assert [each["support"] for each in answer["sentences"]] == ["backed", "backed"]
    assert [each.partition(" is ignored")[0] for each in answer["warnings"]] == ["'stop'"]
    receipt = parse_receipt(json.dumps(answer["receipt"]))
    assert json.loads(receipt.decoding.schema)["properties"] == WHEN["properties"]
    assert replay(receipt, echo_model(), server.bases["kb"]).identical
    other = dataclasses.replace(receipt, decoding=dataclasses.replace(receipt.decoding, schema=""))
    assert replay(other.sealed(), echo_model(), server.bases["kb"]).differences


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
def test_json_says_that_the_documents_do_not_hold_the_answer(server: Running, path: str, stream: bool) -> None:
    text, answer = text_and_answer(server.ask(TOWER, path=path, stream=stream, **FORMATS[path]))
    assert (text, answer["declined"], answer["abstained"], answer["confidence"]) == ("null", True, True, "not found")
    assert replay(parse_receipt(json.dumps(answer["receipt"])), echo_model(), server.bases["kb"]).identical


def test_the_word_is_by_the_limits_of_the_settings(serve: Serve, configuration: Configuration) -> None:
    for limits, word in (((0.0, 0.0), "supported"), ((1.0, 0.0), "likely"), ((1.0, 1.0), "check it")):
        own = dataclasses.replace(configuration.settings, supported_from=limits[0], likely_from=limits[1])
        answer = answer_of(serve(settings=own).ask(QUESTION))
        assert (answer["confidence"], answer["receipt"]["confidence"]) == (word, word)


@pytest.mark.parametrize("path", PATHS)
def test_json_that_is_cut_is_said_to_be(server: Running, path: str) -> None:
    limit: dict[str, Any] = {"max_tokens" if path == CHAT else "max_output_tokens": 4}
    answer = answer_of(server.ask(QUESTION, path=path, **limit, **FORMATS[path]))
    assert (answer["finish_reason"], answer["declined"]) == ("length", False)
    assert "its JSON is not complete" in answer["notes"][-1]


@pytest.mark.parametrize("depth", [150, 400, 900])
def test_a_deep_schema_is_refused(server: Running, depth: int) -> None:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    form = {"type": "json_schema", "json_schema": {"schema": schema}}
    assert server.ask(QUESTION, response_format=form).status_code == 400
