"""Standing questions over HTTP: saved, asked in the background, posted to a webhook, and closed to everyone else."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from openbook.answers.standing_questions import QuestionStore, post
from openbook.core.config import Settings
from openbook.core.errors import EngineError
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from openbook.proofs.receipts import receipts_in
from openbook.serving import standing_questions
from openbook.serving.configuration import Configuration
from openbook.testing import EchoEngine
from tests.conftest import DecliningEngine, named_model, served
from tests.serving.conftest import (
    LONG_S,
    OPENED,
    QUESTION,
    SAFE,
    SECRET,
    Running,
    Serve,
    WaitingEngine,
    add_file,
    asking,
    code,
    eventually,
    refusal,
    running,
)

QUESTIONS, CHECK, REMOVE = "/v1/questions", "/v1/questions/check", "/v1/questions/remove"
LATER = "When the sun rose on 15 May 2026, the bridge was opened by the mayor."


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing_questions, "LOOK_S", 0.02)


def rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing_questions, "LOOK_S", 3600.0)


Headers = dict[str, str] | None


def saved(server: Running, headers: Headers = None) -> list[dict[str, Any]]:
    response = server.client.get(QUESTIONS, headers=headers)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["data"]
    return found


def save(server: Running, question: str, headers: Headers = None, **more: str) -> dict[str, Any]:
    response = server.client.post(QUESTIONS, json={"question": question, **more}, headers=headers)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def until(server: Running, state: str, headers: Headers = None) -> dict[str, Any]:
    """The only question of the caller, once its state is this."""
    eventually(lambda: saved(server, headers)[0]["state"] == state)
    return saved(server, headers)[0]


def test_a_question_is_answered_in_the_background_and_again_after_a_new_version(
    server: Running, base: KnowledgeBase, tmp_path: Path
) -> None:
    assert saved(server) == []
    made = save(server, QUESTION)
    assert (made["object"], made["state"], made["version"], made["answer"]) == ("question", "new", None, "")
    first = until(server, "same")
    assert (first["answer"], first["version"], first["changes"]) == (OPENED, base.version, [])
    assert {**made, **{key: first[key] for key in ("state", "version", "asked_at", "answer", "receipt")}} == first
    add_file(base, tmp_path / "bridge.txt", LATER)
    second = until(server, "changed")
    (change,) = second["changes"]
    assert (change["before"]["answer"], change["version_before"]) == (OPENED, first["version"])
    assert (change["after"]["answer"], change["version_after"]) == (second["answer"], base.version)
    assert (change["before"]["receipt"], change["after"]["receipt"]) == (first["receipt"], second["receipt"])
    assert str(tmp_path / "bridge.txt") in change["documents"]
    assert server.client.post(REMOVE, json={"id": made["id"]}).json() == {"object": "removed", "id": made["id"]}
    assert saved(server) == []


def test_a_check_asks_at_once_and_waits_for_the_answers(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    rarely(monkeypatch)
    server = serve()
    save(server, QUESTION)
    save(server, "What does a ticket for the ferry cost?", knowledge_base="kb", where="title != 'x'")
    found = server.client.post(CHECK, json={}).json()["data"]
    assert [each["state"] for each in found] == ["same", "same"]
    assert found[0]["answer"] == OPENED
    assert server.client.post(CHECK, json={}).json()["data"] == found


def test_a_fallback_model_answers_standing_questions_too(serve: Serve, configuration: Configuration) -> None:
    settings = Settings(configuration.settings.home, fallback_model="large")
    server = serve(
        named_model("small", DecliningEngine()), more_models=[(named_model("large"), None)], settings=settings
    )
    save(server, QUESTION)
    assert until(server, "same")["answer"] == OPENED


def test_a_check_waits_for_another_that_asks_the_same_questions(
    serve: Serve, base: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    rarely(monkeypatch)
    server = serve()
    save(server, QUESTION)
    with ThreadPoolExecutor(1) as pool:
        with QuestionStore(server.service.configuration.settings, base.id).checking("local") as held:
            assert held
            checked = pool.submit(server.client.post, CHECK, json={})
            assert saved(server)[0]["state"] == "new"
        assert [each["state"] for each in checked.result().json()["data"]] == ["same"]


def test_receipts_of_answers_are_in_the_log_and_are_replayed(with_receipts: Running, tmp_path: Path) -> None:
    save(with_receipts, QUESTION)
    receipt = until(with_receipts, "same")["receipt"]
    eventually(
        lambda: (tmp_path / "log").exists() and [each.digest for each in receipts_in(tmp_path / "log")] == [receipt]
    )
    assert with_receipts.client.post("/v1/replay", json={"id": receipt}).json()["identical"]


def test_bad_requests_are_refused(server: Running) -> None:
    for path, body, expected in (
        (QUESTIONS, {"question": " ? "}, (400, "invalid_value")),
        (QUESTIONS, {"question": "x" * 12_001}, (400, "invalid_value")),
        (QUESTIONS, {"question": QUESTION, "where": "date >"}, (400, "invalid_value")),
        (QUESTIONS, {"question": QUESTION, "labels": ["hr"]}, (400, "unknown_parameter")),
        (QUESTIONS, {"question": QUESTION, "knowledge_base": "x"}, (404, "knowledge_base_not_found")),
        (CHECK, {"x": 1}, (400, "unknown_parameter")),
    ):
        assert code(server.client.post(path, json=body)) == expected
    assert refusal(server.client.post(REMOVE, json={"id": "x"})) == (404, "question_not_found", "id")
    assert saved(server) == []


def test_a_damaged_file_of_questions_is_an_error_and_stays(server: Running, base: KnowledgeBase) -> None:
    save(server, QUESTION)
    path = QuestionStore(server.service.configuration.settings, base.id).path
    path.write_text("{ private")
    for response in (
        server.client.get(QUESTIONS),
        server.client.post(QUESTIONS, json={"question": QUESTION}),
        server.client.post(CHECK, json={}),
    ):
        assert refusal(response)[:2] == (503, "storage_unavailable")
        assert "private" not in response.text
    assert path.read_text() == "{ private"


# --- who sees what ----------------------------------------------------------------------------------------------------


def test_a_key_has_its_own_questions_with_its_own_labels(keyed: Running) -> None:
    hr, other = keyed.key("read", "hr"), keyed.key()
    made = save(keyed, SAFE, hr)
    assert until(keyed, "same", hr)["answer"] == SECRET
    assert saved(keyed, other) == []
    assert refusal(keyed.client.post(REMOVE, json={"id": made["id"]}, headers=other))[0] == 404
    save(keyed, SAFE, other)
    assert "canary" not in json.dumps(until(keyed, "same", other))
    assert until(keyed, "same", hr)["answer"] == SECRET


def test_a_key_that_lost_a_label_sees_no_answer_of_before(keyed: Running) -> None:
    headers = keyed.key("read", "hr")
    save(keyed, SAFE, headers)
    assert until(keyed, "same", headers)["answer"] == SECRET
    path = keyed.keys.path
    path.write_text(path.read_text().replace('"hr"', '"it"'))
    assert "canary" not in keyed.client.get(QUESTIONS, headers=headers).text
    eventually(lambda: saved(keyed, headers)[0]["state"] == "same")  # asked again, with the labels that it has now
    assert "canary" not in keyed.client.get(QUESTIONS, headers=headers).text


def test_questions_of_a_revoked_key_and_of_callers_without_key_are_not_asked_where_keys_are_needed(
    keyed: Running, base: KnowledgeBase, tmp_path: Path
) -> None:
    store = QuestionStore(keyed.service.configuration.settings, base.id)
    revoked, _ = keyed.keys.new("gone", "read")
    silent = [store.add(owner, QUESTION) for owner in (revoked.id, "local", "command-line")]
    keyed.keys.revoke(revoked.id)
    headers = keyed.key()
    save(keyed, QUESTION, headers)
    until(keyed, "same", headers)
    assert [store.answer(each) for each in silent] == [None, None, None]


def test_an_error_of_the_engine_is_told_as_far_as_a_caller_may_know(serve: Serve) -> None:
    class Broken(EchoEngine):
        def count_prompt_tokens(self, prompt: object) -> int:
            raise EngineError("http://10.0.0.7 is out of order")

    server = serve(Broken())
    save(server, QUESTION)
    error = until(server, "failed")["error"]
    assert error.endswith(".")
    assert "10.0.0.7" not in error


# --- people first -----------------------------------------------------------------------------------------------------


def test_it_takes_no_place_while_a_request_has_the_last_one(serve: Serve, base: KnowledgeBase) -> None:
    engine = WaitingEngine()
    server = serve(engine, running=1)
    store = QuestionStore(server.service.configuration.settings, base.id)

    def is_checking() -> bool:
        with store.checking("local") as held:
            return not held

    with asking(server, stream=False):
        assert engine.begun.acquire(timeout=LONG_S)
        question = store.add("local", QUESTION)
        eventually(is_checking)
        for _ in range(20):
            time.sleep(0.01)
            assert server.service.reading.waiting == 0  # it does not even stand in the line
        assert not engine.begun.acquire(blocking=False)
        engine.go_on.set()
        eventually(lambda: store.answer(question) is not None)


def test_a_server_that_stops_ends_the_answer_and_keeps_nothing_of_it(
    configuration: Configuration, base: KnowledgeBase
) -> None:
    engine, store = WaitingEngine(), QuestionStore(configuration.settings, base.id)
    question = store.add("local", QUESTION)
    with running(configuration, FrozenModel(engine), {"kb": base}):
        assert engine.begun.acquire(timeout=LONG_S)
    assert engine.was_cancelled.is_set()
    assert store.answer(question) is None
    with store.checking("local") as held:
        assert held


# --- webhook ----------------------------------------------------------------------------------------------------------


class Hook(HTTPServer):
    def __init__(self, *statuses: int) -> None:
        self.statuses, self.got = list(statuses), list[tuple[dict[str, str], Any]]()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.got.append((dict(self.headers), body))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 204)
        self.send_header("location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    with served(hook):
        yield hook


def test_a_change_is_posted_with_both_receipts_and_no_key(
    serve: Serve, base: KnowledgeBase, hook: Hook, tmp_path: Path
) -> None:
    server = serve(webhook=f"http://127.0.0.1:{hook.server_port}/x", require_key=True)
    headers = server.key()
    save(server, QUESTION, headers)
    first = until(server, "same", headers)
    assert hook.got == []
    add_file(base, tmp_path / "bridge.txt", LATER)
    until(server, "changed", headers)
    eventually(lambda: bool(hook.got))
    ((sent, body),) = hook.got
    assert (body["object"], body["id"], body["question"]) == ("question.changed", first["id"], QUESTION)
    assert body["before"]["answer"] == OPENED
    assert body["before"]["receipt"]["digest"] == first["receipt"]
    assert str(tmp_path / "bridge.txt") in body["documents"]
    whole = json.dumps([sent, body])
    assert headers["authorization"].removeprefix("Bearer ") not in whole
    assert "authorization" not in {name.lower() for name in sent}


def test_a_check_waits_for_no_webhook_and_a_purge_ends_what_is_not_posted_yet(
    serve: Serve, base: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rarely(monkeypatch)
    posted, go_on = list[str](), threading.Event()

    def slow(url: str, value: dict[str, Any]) -> str:
        posted.append(value["question"])
        assert go_on.wait(LONG_S)
        return ""

    monkeypatch.setattr(standing_questions, "post", slow)
    server = serve(webhook="http://127.0.0.1:9/x")
    questions = [QUESTION, "When was the bridge opened?"]
    for each in questions:
        save(server, each)
    server.client.post(CHECK, json={})
    path = add_file(base, tmp_path / "bridge.txt", LATER)
    found = server.client.post(CHECK, json={}).json()["data"]  # while the webhook does not answer
    assert [each["state"] for each in found] == ["changed", "changed"]
    assert server.client.post(CHECK, json={}).json()["data"] == found
    eventually(lambda: bool(posted))
    purged = server.client.post("/v1/documents/purge", json={"documents": [str(path)]}).json()
    assert purged["changes_deleted"] == 2
    go_on.set()
    eventually(lambda: not server.service.posting)
    assert posted == questions[:1]


def test_a_webhook_is_tried_twice_and_no_redirect_is_followed(hook: Hook) -> None:
    url = f"http://127.0.0.1:{hook.server_port}/x"
    hook.statuses = [500, 200]
    assert post(url, {"a": 1}) == ""
    assert len(hook.got) == 2
    hook.statuses = [302, 302]
    assert post(url, {"a": 1}) == "The webhook did not take the change: it answered 302."
    assert len(hook.got) == 4


def test_a_webhook_that_is_not_there_is_a_note_without_its_address() -> None:
    hook = Hook()
    hook.server_close()
    assert post(f"http://me:geheim@127.0.0.1:{hook.server_port}/x", {}).endswith("ConnectError.")


def test_a_webhook_whose_answer_never_ends_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openbook.answers.standing_questions.POST_S", 0.3)

    def trickle(door: socket.socket) -> None:
        with door.accept()[0] as connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            for number in itertools.count():  # until the other end closes
                connection.sendall(b"x-%d: 1\r\n" % number)
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as door, ThreadPoolExecutor(2) as pool:
        trickles = [pool.submit(trickle, door) for _ in range(2)]
        said = post(f"http://127.0.0.1:{door.getsockname()[1]}/x", {"a": 1})
        assert said.endswith((" TimeoutError.", " ReadTimeout."))
        for each in trickles:
            each.result()


def test_a_webhook_that_fails_ends_nothing(
    serve: Serve, base: KnowledgeBase, hook: Hook, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hook.statuses = [500] * 2
    server = serve(webhook=f"http://127.0.0.1:{hook.server_port}/x")
    save(server, QUESTION)
    until(server, "same")
    for number, text in enumerate((LATER, LATER.replace("May", "June")), start=1):
        add_file(base, tmp_path / "bridge.txt", text)
        eventually(lambda many=number: len(saved(server)[0]["changes"]) == many)  # type: ignore[misc]
    eventually(lambda: len(hook.got) == 3)
    assert "The webhook did not take the change: it answered 500." in caplog.text
    assert "mayor" not in caplog.text


def test_an_answer_of_a_server_is_gone_after_a_purge_over_http(
    server: Running, base: KnowledgeBase, tmp_path: Path
) -> None:
    path = add_file(base, tmp_path / "tower.txt", "The tower of Lund is 50 metres high, says zeppelin-7341.")
    save(server, "How many metres high is the tower of Lund?")
    assert "zeppelin" in until(server, "same")["answer"]
    other = server.key("admin")
    save(server, "How many metres high is the tower of Lund?", other)
    until(server, "same", other)
    add_file(base, path, "The tower of Lund is 60 metres high, says zeppelin-7341.")
    until(server, "changed")
    until(server, "changed", other)
    done: httpx.Response = server.client.post("/v1/documents/purge", json={"documents": [str(path)]})
    assert done.status_code == 200, done.text
    assert done.json()["changes_deleted"] == 1  # of the caller's questions alone
    eventually(lambda: saved(server)[0]["version"] == base.version)
    home = server.service.configuration.settings.home
    assert not any(b"zeppelin" in each.read_bytes() for each in home.rglob("*") if each.is_file())
