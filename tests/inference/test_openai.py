"""The remote engine against a local server that speaks the protocol, well and badly."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from typing import Any, ClassVar

import httpx
import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.core.errors import ConfigError, ContextOverflow, EngineError
from openbook.core.parallel import never
from openbook.core.records import Completion, Decoding, ModelIdentity, Prompt
from openbook.inference import Engine, FrozenModel, connect_model
from openbook.inference.openai import LeadingThoughts, OpenAIEngine
from openbook.testing import EchoEngine
from tests.conformance.models import PROMPT, EngineSuite
from tests.conftest import served

THOUGHTS = {
    "thinks": ["<thi", "nk>\nWell, </thi", "s is\n hard", "</th", "ink>", "\n", "\nNine ", "o'clock."],
    "thinks-on": ["<think>Well, ", "let me see ..."],
}


ERRORS: dict[str, tuple[int, object]] = {
    "context": (400, {"error": {"message": "maximum context length is 100 tokens"}}),
    "denied": (401, {"error": {"message": "bad key"}}),
    "html": (502, "<html>Bad gateway</html>"),
}
STREAMS = {
    "garbage": b"data: {]\n\n",
    "html-page": b"<html>Welcome</html>",
    "endless": b"x" * (2**20 + 2**17),
    "number": b'data: {"choices": [{"delta": {"content": 5}}]}\n\n',
    "cut": b'data: {"choices": [{"delta": {"content": "The zebra is"}, "finish_reason": null}]}\n\n',
    "surrogate": b'data: {"choices": [{"delta": {"content": "a\\ud800b"}, "finish_reason": "stop"}]}\n\n',
    "fails": b'data: {"error": {"message": "out of memory"}}\n\n',
}


class FakeServer(BaseHTTPRequestHandler):
    """Answers like the echo engine. The model's name chooses how it misbehaves."""

    requests: ClassVar[list[dict[str, Any]]] = []
    silence: ClassVar[SimpleQueue[bytes]] = SimpleQueue()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append({**body, "authorization": self.headers.get("Authorization")})
        model = body["model"]
        if model in ERRORS:
            return self.error(*ERRORS[model])
        if model.startswith("silent-"):
            return self.fall_silent(int(model.removeprefix("silent-")))
        if (name := model.removeprefix("refuses-")) != model and name in body:
            return self.error(400, {"error": {"message": f"Unrecognized request argument supplied: {name}"}})
        if model == "names-itself":
            place = self.headers["Host"]
            return self.error(500, {"error": {"message": f'Post "http://{place}/v1/chat": refused by {place}'}})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        if model in STREAMS:
            self.wfile.write(STREAMS[model])
            return None
        if model in THOUGHTS:
            for piece in THOUGHTS[model]:
                self.event({"choices": [{"delta": {"content": piece}}]})
            reason = "length" if model == "thinks-on" else "stop"
            self.event({"choices": [{"delta": {}, "finish_reason": reason}]})
            return None
        return self.stream(body)

    def stream(self, body: dict[str, Any]) -> None:
        system, user = (m["content"] for m in body["messages"])
        passages, _, question = user.rpartition("\n")
        prompt = Prompt(system, (passages,) if passages else (), question)
        for piece in EchoEngine().generate(prompt, Decoding(max_tokens=body["max_tokens"]), lambda: False):
            self.event({"choices": [{"delta": {"content": piece}, "finish_reason": None}]})
        self.event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        self.event({"choices": [], "usage": {"prompt_tokens": 1}})
        self.wfile.write(b"data: [DONE]\n\n")

    def fall_silent(self, words: int) -> None:
        """Sends so many words, and nothing more until the client hangs up."""
        if words:
            self.send_response(200)
            self.end_headers()
        for _ in range(words):
            self.event({"choices": [{"delta": {"content": "word "}}]})
        self.silence.put(b"begins")
        self.silence.put(self.rfile.read(1))

    def event(self, value: dict[str, Any]) -> None:
        self.wfile.write(f": keep-alive\n\ndata: {json.dumps(value)}\n\n".encode())

    def error(self, status: int, value: object) -> None:
        data = (value if isinstance(value, str) else json.dumps(value)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        pass


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that cancel hang up in the middle; that is what the suite tests, not an error."""


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with served(QuietServer(("127.0.0.1", 0), FakeServer)) as port:
        yield f"http://127.0.0.1:{port}/v1"


Connect = Callable[..., FrozenModel]


@pytest.fixture
def connect(base_url: str) -> Iterator[Connect]:
    with ExitStack() as opened:
        yield lambda name, **more: opened.enter_context(closing(connect_model(name, **{"base_url": base_url} | more)))


class TestOpenAIEngine(EngineSuite):
    @pytest.fixture(autouse=True)
    def server(self, base_url: str) -> None:
        self.base_url = base_url

    def make_engine(self) -> Engine:
        return OpenAIEngine("echo", base_url=self.base_url)

    def test_a_prompt_over_the_context_is_refused(self) -> None:
        with (
            closing(connect_model("context", base_url=self.base_url)) as model,
            pytest.raises(ContextOverflow, match="maximum context length"),
        ):
            model.complete(PROMPT)


def test_identity_is_claimed_and_the_key_goes_into_the_header(connect: Connect) -> None:
    model = connect("qwen3:8b", api_key="secret")
    assert model.identity == ModelIdentity("qwen3:8b", "", "claimed")
    model.complete(PROMPT)
    assert FakeServer.requests[-1].items() >= {"model": "qwen3:8b", "authorization": "Bearer secret"}.items()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("denied", "answered 401: bad key. Set the key"),
        ("html", "answered 502: <html>Bad gateway</html>"),
        ("garbage", "not a chat completion"),
        ("fails", "out of memory"),
        ("html-page", "did not answer with a stream of chat completions"),
        ("endless", "a line of more than"),
        ("number", "not a chat completion"),
        ("cut", "broke off before the end"),
        ("thinks-on", "thinks-on thought until its 7 tokens were used up"),
        ("names-itself", "answered 500"),
        ("absent", "Is the server running"),
    ],
)
def test_errors_of_the_server_are_explained(connect: Connect, name: str, sentence: str) -> None:
    where = {"base_url": "http://127.0.0.1:9/v1"} if name == "absent" else {}
    with pytest.raises(EngineError, match=sentence) as raised:
        connect(name, **where).complete(PROMPT, Decoding(max_tokens=7))
    assert "127.0.0.1" not in str(raised.value)


@pytest.mark.parametrize(("name", "answer"), [("thinks", "Nine o'clock."), ("surrogate", "a?b")])
def test_thoughts_before_the_answer_are_dropped(connect: Connect, name: str, answer: str) -> None:
    assert connect(name).complete(PROMPT, Decoding(stop=("\n",))).text == answer
    assert "stop" not in FakeServer.requests[-1], "the server would find it in the thoughts"


@given(st.text("<think/> \n"), st.text("<think/> \nab"), st.data())
def test_thoughts_are_dropped_however_they_are_cut(thoughts: str, answer: str, data: st.DataObject) -> None:
    hypothesis.assume("</think>" not in thoughts)
    text = data.draw(st.sampled_from(["", f" <think>{thoughts}</think>"])) + answer
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    pieces = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
    whole, cut = LeadingThoughts(), LeadingThoughts()
    expected = whole.drop(text) + whole.drop("", final=True)
    assert "".join(map(cut.drop, pieces)) + cut.drop("", final=True) == expected
    if text != answer:
        assert expected == answer.lstrip()


@pytest.mark.parametrize("words", [0, 2])
def test_cancel_closes_the_connection_to_a_silent_server(connect: Connect, words: int) -> None:
    shown: list[str] = []

    def cancelled() -> bool:
        return not FakeServer.silence.empty() and len(shown) == words

    stream = connect(f"silent-{words}").stream(PROMPT, Decoding(), cancelled)
    while True:
        try:
            shown.append(next(stream))
        except StopIteration as done:
            completion: Completion = done.value
            break
    assert (completion.text, completion.finish_reason) == ("word " * words, "cancelled")
    said = [FakeServer.silence.get(timeout=120) for _ in range(2)]
    assert said == [b"begins", b""], "the server sees that the client hung up"


@pytest.mark.parametrize("name", ["reasoning_effort", "chat_template_kwargs"])
def test_servers_are_asked_not_to_think_unless_they_refuse(connect: Connect, name: str) -> None:
    model, before, both = (
        connect(f"refuses-{name}"),
        len(FakeServer.requests),
        {"reasoning_effort", "chat_template_kwargs"},
    )
    assert model.complete(PROMPT).text
    assert model.complete(PROMPT).text
    asked = [both & set(sent) for sent in FakeServer.requests[before:]]
    assert asked == [both, both - {name}, both - {name}]


def test_a_server_is_asked_for_json_of_the_schema(base_url: str) -> None:
    with closing(OpenAIEngine("echo", base_url=base_url)) as engine:
        list(engine.generate(PROMPT, Decoding(schema='{"type":"object"}'), never))
        assert FakeServer.requests[-1]["response_format"]["json_schema"]["schema"] == {"type": "object"}
        list(engine.generate(PROMPT, Decoding(), never))
        assert "response_format" not in FakeServer.requests[-1]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(httpx.ConnectTimeout, "took no connection within 10 s"), (httpx.ReadTimeout, "did not answer within 300 s")],
)
def test_a_time_out_says_how_long_it_waited(error: type[httpx.TimeoutException], sentence: str) -> None:
    def time_out(request: httpx.Request) -> httpx.Response:
        raise error("too slow", request=request)

    engine = OpenAIEngine("x", base_url="http://127.0.0.1:9/v1")
    engine._client.close()
    engine._client = httpx.Client(transport=httpx.MockTransport(time_out))
    with pytest.raises(EngineError, match=sentence):
        list(engine.generate(PROMPT, Decoding()))
    engine.close()


@pytest.mark.parametrize(("key", "position"), [("geheim-ü", 8), ("geheim\n", 7), ("geheim ", 7), ("ge\x7fheim", 3)])
def test_an_invalid_key_is_refused_and_not_shown(key: str, position: int) -> None:
    with pytest.raises(ConfigError, match=f"character {position} of {len(key)} ") as caught:
        connect_model("x", base_url="http://127.0.0.1:9/v1", api_key=key)
    assert "heim" not in str(caught.value)
    with pytest.raises(ConfigError, match="http://"):
        connect_model("x", base_url="localhost:8000")
