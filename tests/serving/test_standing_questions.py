"""Standing questions over HTTP: saved, asked when requested, and closed to everyone else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from openbook.answers.standing_questions import QuestionStore
from openbook.core.config import Settings
from openbook.core.errors import EngineError
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from openbook.proofs.receipts import receipts_in
from openbook.serving.configuration import Configuration
from openbook.testing import EchoEngine
from tests.conftest import DecliningEngine, named_model
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
    code,
    refusal,
    running,
)

QUESTIONS, CHECK, REMOVE = "/v1/questions", "/v1/questions/check", "/v1/questions/remove"
LATER = "When the sun rose on 15 May 2026, the bridge was opened by the mayor."


def of(server: Running, path: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None) -> Any:
    """What a GET, or a POST with a body, replies."""
    response = server.client.request("GET" if body is None else "POST", path, json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


def saved(server: Running, headers: dict[str, str] | None = None) -> Any:
    return of(server, QUESTIONS, headers=headers)["data"]


def checked(server: Running, headers: dict[str, str] | None = None) -> Any:
    return of(server, CHECK, {}, headers)["data"]


def test_a_check_asks_the_saved_questions_after_each_new_version(
    server: Running, base: KnowledgeBase, tmp_path: Path
) -> None:
    made = of(server, QUESTIONS, {"question": QUESTION, "knowledge_base": "kb", "where": "title != 'x'"})
    assert (made["object"], made["state"], made["version"], made["answer"]) == ("question", "new", None, "")
    (first,) = checked(server)
    assert (first["state"], first["answer"], first["version"], first["changes"]) == ("same", OPENED, base.version, [])
    assert {**made, **{key: first[key] for key in ("state", "version", "asked_at", "answer", "receipt")}} == first
    add_file(base, tmp_path / "bridge.txt", LATER)
    assert saved(server) == [first]
    (second,) = checked(server)
    assert (second["state"], [each["before"]["answer"] for each in second["changes"]]) == ("changed", [OPENED])
    assert of(server, REMOVE, {"id": made["id"]}) == {"object": "removed", "id": made["id"]}
    assert saved(server) == []


def test_a_fallback_model_answers_standing_questions(serve: Serve, configuration: Configuration) -> None:
    settings, large = Settings(configuration.settings.home, fallback_model="large"), (named_model("large"), None)
    server = serve(named_model("small", DecliningEngine()), more_models=[large], settings=settings)
    of(server, QUESTIONS, {"question": QUESTION})
    assert checked(server)[0]["answer"] == OPENED


def test_a_check_leaves_questions_to_another_that_asks_them(server: Running, base: KnowledgeBase) -> None:
    of(server, QUESTIONS, {"question": QUESTION})
    with QuestionStore(server.service.configuration.settings, base.id).checking("local") as held:
        assert held
        assert [each["state"] for each in checked(server)] == ["new"]
    assert [each["state"] for each in checked(server)] == ["same"]


def test_receipts_of_answers_are_in_the_log_and_can_be_replayed(with_receipts: Running, tmp_path: Path) -> None:
    of(with_receipts, QUESTIONS, {"question": QUESTION})
    receipt = checked(with_receipts)[0]["receipt"]
    assert [each.digest for each in receipts_in(tmp_path / "log")] == [receipt]
    assert of(with_receipts, "/v1/replay", {"id": receipt})["identical"]


def test_invalid_requests_and_a_damaged_file_are_refused(server: Running, base: KnowledgeBase) -> None:
    for path, body, expected in (
        (QUESTIONS, {"question": " ? "}, (400, "invalid_value")),
        (QUESTIONS, {"question": QUESTION, "where": "date >"}, (400, "invalid_value")),
        (QUESTIONS, {"question": QUESTION, "labels": ["hr"]}, (400, "unknown_parameter")),
        (QUESTIONS, {"question": QUESTION, "knowledge_base": "x"}, (404, "knowledge_base_not_found")),
        (CHECK, {"x": 1}, (400, "unknown_parameter")),
        (REMOVE, {"id": "x"}, (404, "question_not_found")),
    ):
        assert code(server.client.post(path, json=body)) == expected
    file = QuestionStore(server.service.configuration.settings, base.id).path
    file.parent.mkdir(exist_ok=True)
    file.write_text("{ private")
    for response in (server.client.get(QUESTIONS), server.client.post(CHECK, json={})):
        assert refusal(response)[:2] == (503, "storage_unavailable")
        assert "private" not in response.text


def test_a_key_has_its_own_questions_with_the_labels_that_it_has_now(keyed: Running) -> None:
    hr, other, path = keyed.key("read", "hr"), keyed.key(), keyed.keys.path
    made = of(keyed, QUESTIONS, {"question": SAFE}, hr)
    assert (checked(keyed, hr)[0]["answer"], saved(keyed, other)) == (SECRET, [])
    assert code(keyed.client.post(REMOVE, json={"id": made["id"]}, headers=other))[0] == 404
    of(keyed, QUESTIONS, {"question": SAFE}, other)
    assert "canary" not in str(checked(keyed, other))
    path.write_text(path.read_text().replace('"hr"', '"it"'))
    assert saved(keyed, hr)[0]["state"] == "new"
    assert "canary" not in str(checked(keyed, hr))


def test_a_failed_question_tells_what_its_caller_may_know(serve: Serve) -> None:
    class Broken(EchoEngine):
        def count_prompt_tokens(self, prompt: object) -> int:
            raise EngineError("http://10.0.0.7 is out of order")

    server = serve(Broken())
    of(server, QUESTIONS, {"question": QUESTION})
    (failed,) = checked(server)
    assert (failed["state"], failed["error"][-1], "10.0.0.7" in failed["error"]) == ("failed", ".", False)


def test_a_server_that_stops_ends_the_answer_and_keeps_nothing_of_it(
    configuration: Configuration, base: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openbook.serving.server.GRACE_S", 0.0)
    engine, store = WaitingEngine(), QuestionStore(configuration.settings, base.id)
    question = store.add("local", QUESTION)
    with ThreadPoolExecutor(1) as pool:
        with running(configuration, FrozenModel(engine), {"kb": base}) as server:
            pool.submit(server.client.post, CHECK, json={})
            assert engine.begun.acquire(timeout=LONG_S)
        assert engine.was_cancelled.is_set()
    assert store.answer(question) is None


def test_a_purge_over_http_deletes_the_answers(server: Running, base: KnowledgeBase, tmp_path: Path) -> None:
    path = add_file(base, tmp_path / "tower.txt", "The tower of Lund is 50 metres high, says zeppelin-7341.")
    other = server.key("admin")
    for headers in (None, other):
        of(server, QUESTIONS, {"question": "How many metres high is the tower of Lund?"}, headers)
        checked(server, headers)
    add_file(base, path, "The tower of Lund is 60 metres high, says zeppelin-7341.")
    assert [checked(server, headers)[0]["state"] for headers in (None, other)] == ["changed", "changed"]
    assert of(server, "/v1/documents/purge", {"documents": [str(path)]})["changes_deleted"] == 1  # the caller's
    home = server.service.configuration.settings.home
    assert not any(b"zeppelin" in each.read_bytes() for each in home.rglob("*") if each.is_file())


@pytest.mark.parametrize("labels", [frozenset[str](), frozenset({"hr"})])
def test_a_question_without_a_key_is_saved_with_the_labels_of_the_server(
    serve: Serve, base: KnowledgeBase, labels: frozenset[str]
) -> None:
    server = serve(labels=labels)
    of(server, QUESTIONS, {"question": SAFE})
    (question,) = QuestionStore(server.service.configuration.settings, base.id).questions()
    assert (question.owner, question.labels) == ("local", tuple(labels))
