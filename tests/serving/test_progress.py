"""What a client learns before the first word: that it waits, what was found, and how much is read."""

from __future__ import annotations

import json
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from openbook.core.parallel import Cancelled, Progress, never, silent
from openbook.core.records import Completion, Decoding, Prompt
from openbook.serving import answers
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
    events_of,
    eventually,
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
    plain, all_ = chunks(server.ask(QUESTION, stream=True)), chunks(ready(server))
    before = [each for each in all_ if "openbook_progress" in each]
    told = all_[: len(before)]
    assert told == before
    for each in (*plain, *all_):
        each.pop("created")
    assert all_[len(before) :] == plain
    empty = [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}]
    head = {key: plain[0][key] for key in ("id", "object", "model", "system_fingerprint")}
    assert all(each == head | {"choices": empty, "openbook_progress": each["openbook_progress"]} for each in before)
    found, *reading = [each["openbook_progress"] for each in before]
    assert found == {"stage": "found", "searched": QUESTION, "passages": plain[-1]["openbook"]["passages"]}
    assert found["passages"]
    assert reading == [{"stage": "reading", "done": done, "total": TOKENS} for done in (0, TOKENS)]  # of 501 reports
    assert {each["stage"] for each in stages(ready(server, model="echo:closed-book"))} == {"reading"}
    nothing = ready(server, "Xylophone?", openbook={"where": "kind = 'none'"})
    assert stages(nothing) == [{"stage": "found", "searched": "Xylophone?", "passages": []}]


def test_found_passages_are_those_that_the_caller_may_see(shared: Running) -> None:
    for headers, is_told in ((None, False), (shared.key("read", "hr"), True)):
        response = ready(shared, SAFE, headers)
        assert (SECRET in response.text) is is_told
        assert stages(response)[0]["passages"] == chunks(response)[-1]["openbook"]["passages"]


def test_warning_says_where_progress_is_ignored(shared: Running) -> None:
    ignored = ["'openbook.progress' is ignored. Only streams of /v1/chat/completions have it."]
    assert shared.ask(QUESTION, openbook=PROGRESS).json()["id"] == shared.ask(QUESTION).json()["id"]
    for path, stream in ((CHAT, False), (RESPONSES, False), (RESPONSES, True)):
        response = shared.ask(QUESTION, path=path, stream=stream, openbook=PROGRESS)
        last = json.loads(events_of(response.text)[-1])["response"] if stream else response.json()
        assert (last["openbook"]["warnings"], "openbook_progress" in response.text) == (ignored, False)


def test_waiting_is_told_and_counted(serve: Serve) -> None:
    server = serve(engine := SlowReader(), running=1, waiting=2)
    assert refusal(ready(server, openbook={"as_of": 99})) == (400, "version_not_found", "openbook.as_of")
    with ThreadPoolExecutor(2) as clients:
        first = clients.submit(ready, server)
        assert engine.begun.acquire(timeout=LONG_S)
        second = clients.submit(ready, server, user="the second")
        eventually(lambda: server.service.reading.waiting == 1)
        activity = server.get("/v1/activity").json()
        assert activity == {"object": "activity", "answering": 1, "waiting": 1, "uploading": 0, "deleting": 0}
        assert refusal(ready(server))[:2] == (429, "rate_limit_exceeded")
        engine.go_on.set()
        told = [[each["stage"] for each in stages(asked.result(LONG_S))] for asked in (first, second)]
    assert (told[0][:2], told[1][:3]) == (["found", "reading"], ["waiting", "found", "reading"])
    assert "waiting" not in told[0] + told[1][1:]
