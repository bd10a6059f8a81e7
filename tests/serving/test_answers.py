"""What is asked of an answer and how it is shown, in both of OpenAI's shapes."""

from __future__ import annotations

import dataclasses
import itertools
import json
from contextlib import closing
from functools import reduce
from typing import Any
from urllib.parse import unquote

import httpx
import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.answers.answer_text import TextPreview, tidy
from openbook.answers.ask import ask
from openbook.answers.prompts import ABSTENTION
from openbook.answers.retrieval import Corpus
from openbook.core.config import Settings
from openbook.core.errors import ConfigError
from openbook.core.records import Answer, ReaderFormat
from openbook.inference import connect_model
from openbook.knowledge import KnowledgeBase
from openbook.proofs.receipts import parse_receipt
from openbook.proofs.replay import replay
from openbook.serving.completions import ChoiceShape
from openbook.serving.configuration import Configuration
from openbook.serving.errors import ApiError
from openbook.serving.schemas import ServedAnswer
from openbook.serving.service import resolve_model
from openbook.testing import HashEmbedder, echo_model
from tests.conftest import DecliningEngine, named_model, served
from tests.inference.test_openai import FakeServer, QuietServer
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
    events_of,
    path_of,
)

TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
PATHS = [CHAT, RESPONSES]
in_both_shapes = pytest.mark.parametrize("path", PATHS)
whole_or_streamed = pytest.mark.parametrize("stream", [False, True])


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


def test_answer_is_that_of_the_library(shared: Running, embedder: HashEmbedder) -> None:
    answer = ask(QUESTION, echo_model(), Corpus(shared.bases["kb"], embedder))
    expected = json.loads(json.dumps(answer.to_json())) | {"timings": None, "warnings": []}
    assert expected["citations"]
    for path, stream in itertools.product(PATHS, (False, True)):
        assert text_and_answer(shared.ask(QUESTION, path=path, stream=stream)) == (answer.answer, expected)


def test_chat_has_the_fields_that_openai_has(shared: Running) -> None:
    value = shared.ask(QUESTION).json()
    message = {"role": "assistant", "content": value["openbook"]["answer"], "refusal": None}
    message["annotations"] = value["choices"][0]["message"]["annotations"]
    assert value["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    usage = value["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
    response = shared.ask(QUESTION, stream=True, stream_options={"include_usage": True})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *chunks, end = events_of(response.text)
    *parts, last = [json.loads(chunk) for chunk in chunks]
    assert (end, {each["id"] for each in (*parts, last)}) == ("[DONE]", {value["id"]})
    assert [each["choices"][0]["delta"].get("role") for each in parts] == ["assistant"] + [None] * (len(parts) - 1)
    assert parts[-1]["choices"][0]["finish_reason"] == "stop"
    assert (last["choices"], last["usage"], [each for each in parts if "usage" in each]) == ([], usage, [])
    cut = shared.ask(QUESTION, max_completion_tokens=2).json()
    assert (cut["choices"][0]["finish_reason"], cut["usage"]["completion_tokens"]) == ("length", 2)
    cut = shared.ask(QUESTION, path=RESPONSES, max_output_tokens=2).json()
    assert (cut["status"], cut["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


def test_times_are_only_for_callers_who_may_see_all(shared: Running) -> None:
    """To others they could tell whether a text that they may not see was read before."""
    hr = shared.key("read", "hr")
    held = answer_of(shared.ask(SAFE, hr))
    assert (held["answer"], held["receipt"]["labels"]) == (SECRET, ["hr"])
    for headers, is_told in ((None, False), (shared.key("admin"), False), (hr, True)):
        assert (answer_of(shared.ask(QUESTION, headers))["timings"] is not None) is is_told
        body = {"model": "echo", "prompt": QUESTION, "stream": False}
        value = shared.client.post("/api/generate", json=body, headers=headers).json()
        assert ("total_duration" in value, "eval_duration" in value) == (is_told, is_told)
    assert answer_of(shared.ask(QUESTION, model="echo:closed-book"))["timings"]["total_s"] > 0


def test_chat_links_each_source(shared: Running, client: openai.OpenAI) -> None:
    asked: Any = {"role": "user", "content": QUESTION}
    message = client.chat.completions.create(model="echo", messages=[asked]).choices[0].message
    (note,) = message.annotations or []
    assert (note.url_citation.title, note.url_citation.start_index) == (f"bridge.txt: {OPENED}", 0)
    address, _, place = note.url_citation.url.partition("#/document/")
    assert (address, note.url_citation.end_index) == (f"{shared.url}/", len(OPENED))
    assert unquote(place.partition("?")[0]) == path_of(shared.bases["kb"], "bridge.txt")
    assert place.partition("?")[2] == f"base=kb&version={shared.bases['kb'].version}&start=0&end={len(OPENED)}&"
    turns: Any = [asked, message, asked]
    *_, last = list(client.chat.completions.create(model="echo", messages=turns, stream=True))
    assert (last.choices[0].delta.model_extra or {})["annotations"] == [note.model_dump()]
    assert (last.model_extra or {})["openbook"]["warnings"] == []
    assert shared.ask("Who wrote the opera about Mars?").json()["choices"][0]["message"]["annotations"] == []


# --- conversations ----------------------------------------------------------------------------------------------------

TURNS = [
    {"role": "user", "content": "When does the ferry to Sandhavn leave?"},
    {"role": "assistant", "content": "At nine."},
]
LAST = {"role": "user", "content": QUESTION}
EARLIER = "The earlier turns are ignored. Without passages, the model gets only the last question."


def told(text: str, role: str = "system") -> list[dict[str, Any]]:
    return [{"role": role, "content": text}, {"role": "user", "content": [{"type": "text", "text": QUESTION}]}]


def test_parts_of_a_conversation_reach_the_model(shared: Running) -> None:
    """The turns before the question, and messages of the system as an instruction."""
    cases: list[tuple[str, Any, dict[str, Any], str]] = [
        (CHAT, told(" Answer in French. "), {}, "Answer in French."),
        (CHAT, [*told("Be brief.")[:1], *told("Name\0the page.")], {}, "Be brief.\nName the page."),
        (RESPONSES, told("Be brief.", "developer"), {"instructions": "Be kind."}, "Be kind.\nBe brief."),
        (CHAT, QUESTION, {}, ""),
    ]
    for path, messages, more, instruction in cases:
        answer = answer_of(shared.ask(messages, path=path, **more))
        assert (answer["receipt"]["instruction"], answer["warnings"]) == (instruction, [])
    answer = answer_of(shared.ask([*TURNS, {"role": "user", "content": "And on weekdays?"}]))
    assert answer["question"] == answer["receipt"]["question"] == "And on weekdays?"
    assert answer["notes"] == ["Searched for together: When does the ferry to Sandhavn leave? / And on weekdays?"]
    answer = answer_of(shared.ask(f"### Task:\nFind a title.\n{QUESTION}"))
    assert (answer["passages"], answer["receipt"]["knowledge_base"]) == ([], None)
    assert "begins with '### Task:': it is a task, not a question." in answer["warnings"][0]


@in_both_shapes
def test_ignored_parts_of_a_conversation_are_named(shared: Running, serve: Serve, path: str) -> None:
    long = "The system message is ignored. It has 2,001 characters; the limit is 2,000."
    for messages, model, warnings in (
        (told("x" * 2000), "echo", []),
        (told("x" * 2001), "echo", [long]),
        ([*TURNS, LAST], "echo", []),
        ([*TURNS, LAST], "echo:closed-book", [EARLIER]),
        ([{"role": "assistant", "content": None}, LAST], "echo:closed-book", []),
    ):
        assert answer_of(shared.ask(messages, path=path, model=model))["warnings"] == warnings
    trained = "The system message is ignored. This model follows only the instruction that it was trained with."
    server = serve(echo_model(reader=ReaderFormat("Answer from the passage.", ABSTENTION)))
    assert answer_of(server.ask(told("Lie."), path=path))["warnings"] == [trained]


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


def deep(levels: int) -> dict[str, Any]:
    schema = reduce(lambda inner, _: {"items": inner}, range(levels), dict[str, Any]())
    return {"type": "json_schema", "json_schema": {"schema": schema}}


WRONG_CHAT: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"n": 9}, 400, "above_limit", "n"),
    ({"n": 0}, 400, "invalid_value", "n"),
    ({"response_format": {"type": "json_schema"}}, 400, "invalid_value", "response_format"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"allOf": []}}}}, 400, "invalid_value", "response_format"),
    ({"response_format": {"type": "json_object"}, "openbook": {"quote": True}}, 400, "invalid_value", None),
    ({"modalities": ["text", "audio"]}, 400, "invalid_value", "modalities[1]"),
    *(({"response_format": deep(levels)}, 400, "invalid_value", "response_format") for levels in (150, 400, 900)),
]  # fmt: skip
WRONG_RESPONSES: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"max_output_tokens": 0}, 400, "invalid_value", "max_output_tokens"),
    ({"background": True}, 400, "invalid_value", "background"),
    ({"text": {"format": {"type": "json_schema"}}}, 400, "invalid_value", "text.format"),
    ({"previous_response_id": "resp_1"}, 400, "invalid_value", "previous_response_id"),
]


@in_both_shapes
def test_invalid_parameters_are_refused_in_the_shape_of_openai(shared: Running, serve: Serve, path: str) -> None:
    messages = "messages" if path == CHAT else "input"
    for body, status, wanted, param in WRONG + (WRONG_CHAT if path == CHAT else WRONG_RESPONSES):
        for stream in (False, True):
            sent = {key.replace("MESSAGES", messages): value for key, value in body.items()}
            response = shared.ask(QUESTION, path=path, **({"stream": stream} | sent))
            error = response.json()["error"]
            assert (response.status_code, error["code"]) == (status, wanted), body
            assert error["type"] == "invalid_request_error"
            assert error["param"] == (param and param.replace("MESSAGES", messages)), (body, error)
            assert error["message"]
    error = serve(echo_model(context_tokens=20)).ask(QUESTION, path=path).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", None)


@in_both_shapes
def test_unknown_parameters_are_named_and_change_nothing(shared: Running, path: str) -> None:
    text = {"type": "text"}
    harmless: dict[str, Any] = {
        CHAT: {"n": 1, "tool_choice": "auto", "response_format": text, "modalities": ["text"], "function_call": "none"},
        RESPONSES: {"background": False, "previous_response_id": None, "text": {"format": text}},
    }
    nothing: dict[str, Any] = {"tools": [], "logprobs": False, "metadata": {}, "top_k": None, "stream_options": None}
    plain = answer_of(shared.ask(QUESTION, path=path, **harmless[path], **nothing, user="x"))
    assert plain.pop("warnings") == []
    place, kind = ("messages", "text") if path == CHAT else ("input", "input_text")
    messages = [{"role": "user", "content": [{"type": kind, "text": QUESTION, "cache_control": {"type": "ephemeral"}}]}]
    answer = answer_of(shared.ask(messages, path=path, stream=True, tools=[TOOL], top_k=40, frob={"x": 1}))
    named = f"'tools', 'top_k', 'frob', '{place}[0].content[0].cache_control'"
    assert answer.pop("warnings") == [f"{named} are ignored. This server has no such parameter."]
    assert answer == plain
    many: dict[str, Any] = {f"unknown{i}" + "x" * 1000: i + 1 for i in range(100)}
    more, unused = answer_of(shared.ask(QUESTION, path=path, **many, stream_options={"include_usage": True}))[
        "warnings"
    ]
    assert ("and 90 more are ignored." in more, len(more) < 1000) == (True, True)
    assert unused == "'stream_options' is ignored. The answer is not streamed."


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
@pytest.mark.parametrize("temperature", [0, 1])
def test_equal_answers_are_computed_once_and_a_stream_holds_all(shared: Running, path: str, temperature: int) -> None:
    asked = {"prompt": QUESTION} if path != CHAT else {"messages": [{"role": "user", "content": QUESTION}]}
    body = {"model": "echo", **asked, "n": 2, "temperature": temperature, "seed": 2**63 - 1}
    value = shared.client.post(path, json=body).json()
    whole = [each["message"]["content"] if path == CHAT else each["text"] for each in value["choices"]]
    assert (whole, [each["index"] for each in value["choices"]]) == ([OPENED, OPENED], [0, 1])
    receipts = [each.get("openbook", value["openbook"])["receipt"] for each in value["choices"]]
    assert [each["decoding"]["seed"] for each in receipts] == [2**63 - 1, -(2**63) if temperature else 2**63 - 1]
    assert all(shared.get(f"/v1/receipts/{each['digest']}").status_code == 200 for each in receipts)
    more = {"stream_options": {"include_usage": True}, "stream": True}
    chunks = [json.loads(each) for each in events_of(shared.client.post(path, json=body | more).text)[:-1]]
    texts, ends = ["", ""], list[int]()
    for each in (choice for chunk in chunks for choice in chunk["choices"]):
        texts[each["index"]] += each.get("text") or each.get("delta", {}).get("content") or ""
        ends += [each["index"]] if each["finish_reason"] == "stop" else []
    assert (texts, ends) == (whole, [0, 1])
    assert chunks[-1]["usage"]["completion_tokens"] == len(OPENED.split()) * (1 + temperature)
    assert len([each for each in chunks if "openbook" in each]) == 1 + temperature


def test_answer_is_at_most_half_the_context(shared: Running, serve: Serve) -> None:
    for most, server in ((2048, shared), (500, serve(answer_tokens=500))):
        for asked in (most, most + 1):
            answer = server.ask(QUESTION, max_tokens=asked).json()["openbook"]
            assert answer["receipt"]["decoding"]["max_tokens"] == most
            lowered = f"'max_tokens' is lowered from {asked:,} to {most:,}, the most that this server allows."
            assert answer["warnings"] == ([lowered] if asked > most else [])


# --- names of models --------------------------------------------------------------------------------------------------


def test_name_says_which_knowledge_base() -> None:
    models, bases = ["llama3:8b", "llama3"], ("kb", "hand:book", "odd@2")
    for name, suffix in itertools.product(models, ("", *bases, "closed-book")):
        assert resolve_model(f"{name}:{suffix}".removesuffix(":"), models, bases, {}) == (name, suffix)
    for model in ("", "llama", "llama3:8b:", "llama3:8bx", "llama3:8b:other", "llama3:8b:kb@1"):
        with pytest.raises(ApiError, match="llama3:8b:hand:book") as refused:
            resolve_model(model, models, bases, {})
        assert (refused.value.status_code, refused.value.code, refused.value.param) == (404, "model_not_found", "model")


def test_name_or_body_chooses_the_knowledge_base(towers: KnowledgeBase, serve: Serve) -> None:
    two = serve(others={"towers": towers})
    for as_of, metres, version in ((None, 55, 2), ("old", 50, 1)):
        by_name = answer_of(two.ask(TOWER, model="echo:towers", openbook={"as_of": as_of}))
        assert (f"{metres} metres" in by_name["answer"], by_name["receipt"]["knowledge_base_version"]) == (
            True,
            version,
        )
        chosen = {"knowledge_base": "towers", "as_of": version}
        assert answer_of(two.ask(TOWER, path=RESPONSES, openbook=chosen))["answer"] == by_name["answer"]
    assert answer_of(two.ask(TOWER, model="echo:towers", openbook={"where": "type = 'md'"}))["declined"]
    assert answer_of(two.ask(TOWER))["answer"] == ABSTENTION


def test_request_names_a_model_or_an_alias(serve: Serve, configuration: Configuration, towers: KnowledgeBase) -> None:
    models, home = [named_model("one"), named_model("two")], configuration.settings.home
    aliases = {"gpt-4o": "default", "gpt-5": "default:towers", "o3": "two:closed-book", "text-embedding": "hash"}
    more: dict[str, Any] = {"more_models": [(models[1], None)], "others": {"towers": towers}, "receipts": home}
    server = serve(models[0], settings=Settings(home, aliases=aliases), **more)
    names = {"one": "one", "two": "two", "two:kb": "two", "one:closed-book": "one", "gpt-4o": "one", "o3": "two"}
    prints = dict[str, str]()
    for name, own in names.items():
        value = server.ask(QUESTION, model=name).json()
        receipt = value["openbook"]["receipt"]
        assert (value["model"], receipt["model"]["name"]) == (name, own)
        assert (receipt["strategy"] == "closed-book") is (name in ("o3", "one:closed-book"))
        assert prints.setdefault(own, value["system_fingerprint"]) == value["system_fingerprint"]
        assert server.client.post("/v1/replay", json={"id": receipt["digest"]}).json()["identical"]
    assert len(set(prints.values())) == 2
    assert "55" in answer_of(server.ask(TOWER, model="gpt-5"))["answer"]
    assert server.client.post("/v1/embeddings", json={"model": "text-embedding", "input": "x"}).status_code == 200
    listed = {each["id"]: each["openbook"] for each in server.get("/v1/models").json()["data"]}
    suffixes = ("", ":kb", ":towers", ":closed-book")
    assert list(listed) == [*(f"{each}{end}" for each in ("one", "two") for end in suffixes), "hash", *aliases]
    assert [listed[each]["mode"] for each in aliases] == ["open-book", "open-book", "closed-book", "embedder"]
    assert [each["name"] for each in listed["gpt-5"]["knowledge_bases"]] == ["towers"]
    assert [each["name"] for each in server.get("/api/tags").json()["models"]] == list(listed)
    assert server.get("/v1/models/gpt-5").json()["openbook"] == listed["gpt-5"]
    with pytest.raises(ConfigError, match="served once"):
        serve(models[0], more_models=[(models[0], None)])
    for meaning in ("llama3", "default:nothing", "gpt-4o"):
        with pytest.raises(ConfigError, match="which is not served"):
            serve(models[0], settings=Settings(home, aliases={"x": meaning}))
    for model in models:
        model.close()


def test_fallback_model_answers_where_another_declines(serve: Serve, configuration: Configuration) -> None:
    small, large = named_model("small", DecliningEngine()), named_model("large")
    settings = Settings(configuration.settings.home, fallback_model="large")
    with pytest.raises(ConfigError, match=r"'large' is not served\. There are: small"):
        serve(small, settings=settings)
    server = serve(small, more_models=[(large, None)], settings=settings, receipts=settings.home)
    for path, stream in itertools.product(PATHS, (False, True)):
        text, answer = text_and_answer(server.ask(QUESTION, path=path, model="small", stream=stream))
        assert (text, answer["answer"], answer["receipt"]["model"]["name"]) == (OPENED, OPENED, "large")
        replayed = server.client.post("/v1/replay", json={"id": answer["receipt"]["digest"]})
        assert replayed.json()["identical"]
    alone = serve(named_model("small", DecliningEngine())).ask(QUESTION, model="small").json()
    both, large_alone = (server.ask(QUESTION, model=name).json() for name in ("small", "large"))
    assert large_alone["openbook"]["notes"] == []
    assert len({each["system_fingerprint"] for each in (alone, both, large_alone)}) == 3


@pytest.mark.parametrize("name", ["qwen3:8b", "names-itself", "context", "denied"])
def test_name_of_another_servers_model_stays_and_its_address_stays_inside(serve: Serve, name: str) -> None:
    with (
        served(QuietServer(("127.0.0.1", 0), FakeServer)) as port,
        closing(connect_model(name, base_url=f"http://127.0.0.1:{port}/v1")) as model,
    ):
        server = serve(model)
        listed, unknown = server.get("/v1/models"), server.ask(QUESTION, model="qwen3")
        answered, streamed = (server.ask("Who opened the bridge?", model=name, stream=each) for each in (False, True))
        assert [each["id"] for each in listed.json()["data"]][:2] == [name, f"{name}:closed-book"]
        assert {sent["model"] for sent in FakeServer.requests[-2:]} == {name}
        assert f"127.0.0.1:{port}" not in listed.text + answered.text + streamed.text + unknown.text
        assert unknown.status_code == 404
        if name == "qwen3:8b":
            value = answered.json()
            assert value["model"] == value["openbook"]["receipt"]["model"]["name"] == name
        else:  # what the other server does wrong
            assert ("error" in answered.text, "error" in streamed.text) == (True, True)


# --- streams ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answer() -> Answer:
    return ask("Is this a test?", echo_model())


TEXTS = st.lists(
    st.one_of(
        st.text(st.sampled_from("a \n\r:{}[]\"'\\\u0085\u2028\u2029\x0b\x0c\x1c\x00é😀dt"), max_size=8),
        st.sampled_from(["data: ", "data: [DONE]\n\n", "event: error", "\ufeff", ABSTENTION]),
    ),
    max_size=6,
)


@given(texts=TEXTS, sizes=st.lists(st.integers(0, 10_000), max_size=8))
def test_client_reads_from_a_stream_what_the_model_wrote(answer: Answer, texts: list[str], sizes: list[int]) -> None:
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


@in_both_shapes
@whole_or_streamed
def test_answer_in_json_is_cited_and_replayed(shared: Running, path: str, stream: bool) -> None:
    text, answer = text_and_answer(shared.ask(QUESTION, path=path, stream=stream, stop=["bridge"], **FORMATS[path]))
    assert (json.loads(text), text) == ({"when": OPENED, "where": OPENED}, answer["answer"])
    assert [text[each["start"] : each["end"]] for each in answer["sentences"]] == [OPENED, OPENED]
    assert [each.partition(" is ignored")[0] for each in answer["warnings"]] == ["'stop'"]
    receipt = parse_receipt(json.dumps(answer["receipt"]))
    assert json.loads(receipt.decoding.schema)["properties"] == WHEN["properties"]
    assert replay(receipt, echo_model(), shared.bases["kb"]).identical
    other = dataclasses.replace(receipt, decoding=dataclasses.replace(receipt.decoding, schema=""))
    assert replay(other.sealed(), echo_model(), shared.bases["kb"]).differences
    text, answer = text_and_answer(shared.ask(TOWER, path=path, stream=stream, **FORMATS[path]))
    assert (text, answer["declined"], answer["abstained"], answer["confidence"]) == ("null", True, True, "not found")
    limit: dict[str, Any] = {"max_tokens" if path == CHAT else "max_output_tokens": 4}
    answer = answer_of(shared.ask(QUESTION, path=path, stream=stream, **limit, **FORMATS[path]))
    assert (answer["finish_reason"], answer["declined"]) == ("length", False)
    assert "its JSON is not complete" in answer["notes"][-1]
