"""What a client learns before the first word: that it waits, what was found, and how much is read."""

from __future__ import annotations

import json
import math
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from openbook.core.parallel import Cancelled, Progress, never, silent
from openbook.core.records import Completion, Decoding, Prompt
from openbook.serving import answers, concurrency
from tests.serving.conftest import (
    CHAT,
    LONG_S,
    QUESTION,
    RESPONSES,
    SAFE,
    SECRET,
    Running,
    Serve,
    WaitingEngine,
    connected,
    events_of,
    eventually,
    posted,
    refusal,
)

PROGRESS = {"progress": True}
TOKENS = 1000


class SlowReader(WaitingEngine):
    """Reads a little, then waits until it may read the rest or is cancelled. Then it writes."""

    reports_reading = True

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never, progress: Progress = silent
    ) -> Generator[str, None, Completion]:
        for done in range(TOKENS // 2):
            progress(done, TOKENS)
        self.begun.release()
        while not self.go_on.wait(0.01):
            if cancelled():
                self.was_cancelled.set()
                return Completion("", "cancelled", 1, 1, "0" * 64, self.numeric_class)
        progress(TOKENS, TOKENS)
        return (yield from super(WaitingEngine, self).generate(prompt, decoding, cancelled))


def chunks(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    return [json.loads(each) for each in events_of(response.text) if each != "[DONE]"]


def stages(response: httpx.Response) -> list[dict[str, Any]]:
    return [each["openbook_progress"] for each in chunks(response) if "openbook_progress" in each]


def ready(server: Running, question: Any = QUESTION, headers: Any = None, **more: Any) -> httpx.Response:
    return server.ask(question, headers, stream=True, openbook={**PROGRESS, **more.pop("openbook", {})}, **more)


def test_stages_come_before_the_text_and_change_nothing_else(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_PROGRESS_S", LONG_S)
    server = serve(engine := SlowReader())
    engine.go_on.set()
    plain, told = chunks(server.ask(QUESTION, stream=True)), chunks(ready(server))
    before = [each for each in told if "openbook_progress" in each]
    assert told[: len(before)] == before
    for each in (*plain, *told):
        each.pop("created")
    assert told[len(before) :] == plain
    assert {each["id"] for each in before} == {plain[0]["id"]}
    empty = [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}]
    assert all((each["object"], each["choices"]) == ("chat.completion.chunk", empty) for each in before)
    found, *reading = [each["openbook_progress"] for each in before]
    answer = plain[-1]["openbook"]
    assert found == {"stage": "found", "searched": QUESTION, "passages": answer["passages"]}
    assert answer["passages"]
    assert {each["stage"] for each in reading} == {"reading"}
    assert [(each["done"], each["total"]) for each in reading] == [(0, TOKENS), (TOKENS, TOKENS)]  # of 501 reports
    assert {each["stage"] for each in stages(ready(server, model="echo:closed-book"))} == {"reading"}
    nothing = ready(server, "Xylophone?", openbook={"where": "kind = 'none'"})
    assert stages(nothing) == [{"stage": "found", "searched": "Xylophone?", "passages": []}]


def test_found_passages_are_those_that_the_caller_may_see(shared: Running) -> None:
    for headers, is_told in ((None, False), (shared.key("read", "hr"), True)):
        response = ready(shared, SAFE, headers)
        assert (SECRET in response.text) is is_told
        assert stages(response)[0]["passages"] == chunks(response)[-1]["openbook"]["passages"]
    texts = ("When does the ferry to Sandhavn leave?", "At nine.", "And on weekdays?")
    roles = ("user", "assistant", "user")
    turns = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
    assert stages(ready(shared, turns))[0]["searched"] == f"{texts[0]}\n{texts[2]}"


def test_warning_says_where_progress_is_ignored(shared: Running) -> None:
    ignored = ["'openbook.progress' is ignored. Only streams of /v1/chat/completions have it."]
    whole = shared.ask(QUESTION, openbook=PROGRESS).json()
    assert (whole["openbook"]["warnings"], whole["id"]) == (ignored, shared.ask(QUESTION).json()["id"])
    for stream in (False, True):
        response = shared.ask(QUESTION, path=RESPONSES, stream=stream, openbook=PROGRESS)
        last = json.loads(events_of(response.text)[-1])["response"] if stream else response.json()
        assert last["openbook"]["warnings"] == ignored
        assert "openbook_progress" not in response.text


def test_waiting_is_told_and_counted(serve: Serve) -> None:
    server = serve(engine := SlowReader(), running=1, waiting=2)
    with ThreadPoolExecutor(2) as clients:
        first = clients.submit(ready, server)
        assert engine.begun.acquire(timeout=LONG_S)
        second = clients.submit(ready, server, user="the second")
        eventually(lambda: server.service.reading.waiting == 1)
        activity = server.client.get("/v1/activity").json()
        assert activity == {"object": "activity", "answering": 1, "waiting": 1, "uploading": 0, "deleting": 0}
        assert refusal(ready(server))[:2] == (429, "rate_limit_exceeded")
        engine.go_on.set()
        told = [[each["stage"] for each in stages(asked.result(LONG_S))] for asked in (first, second)]
    assert (told[0][:2], told[1][:3]) == (["found", "reading"], ["waiting", "found", "reading"])
    assert "waiting" not in told[0] + told[1][1:]


def test_error_is_a_response_at_first_and_later_the_last_event(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(engine := SlowReader())
    assert refusal(ready(server, openbook={"as_of": 99})) == (400, "version_not_found", "openbook.as_of")
    with ThreadPoolExecutor(1) as clients:
        asked = clients.submit(ready, server)
        assert engine.begun.acquire(timeout=LONG_S)
        monkeypatch.setattr(concurrency, "time", SimpleNamespace(monotonic=lambda: math.inf))
        found, *_, last = chunks(asked.result(LONG_S))
    assert (found["openbook_progress"]["stage"], last["error"]["code"]) == ("found", "timeout")


def test_reading_and_waiting_end_when_the_client_leaves(serve: Serve) -> None:
    server = serve(engine := SlowReader(), running=1)
    body = {"model": "echo", "stream": True, "messages": [{"role": "user", "content": QUESTION}], "openbook": PROGRESS}
    reads = connected(server, *posted(CHAT, body))
    assert engine.begun.acquire(timeout=LONG_S)
    assert b"200 OK" in reads.recv(65536)
    waits = connected(server, *posted(CHAT, body))
    assert b"200 OK" in waits.recv(65536)
    assert server.service.reading.waiting == 1
    waits.close()
    eventually(lambda: server.service.reading.waiting == 0)
    reads.close()
    assert engine.was_cancelled.wait(LONG_S)
    assert not engine.begun.acquire(blocking=False)
    eventually(lambda: server.client.get("/v1/activity").json()["answering"] == 0)
