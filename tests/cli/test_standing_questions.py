"""Standing questions on the command line, over fakes."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from openbook.answers import opening, standing_questions
from openbook.answers.retrieval import Corpus, Options
from openbook.answers.standing_questions import QuestionStore
from openbook.cli import questions
from openbook.core.config import Settings
from openbook.core.errors import EngineError
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, RunOptions, add
from openbook.proofs.receipts import is_altered, parse_receipt
from openbook.serving.keys import KeyFile
from openbook.testing import EchoEngine, HashEmbedder, echo_model
from tests.cli.conftest import Out
from tests.conftest import base_with, served

NIGHT = "Who signs night shift requests?"
SIGNS = "Night shift requests are signed by the head of unit."
LATER = "Night shift requests are signed by the new director."


def write(folder: Path, text: str, *labels: str) -> None:
    (folder / "docs" / "night.txt").write_text(text)
    base = KnowledgeBase.open(folder / "kb")
    add(base, [folder / "docs" / "night.txt"], HashEmbedder(), RunOptions(labels=frozenset(labels)))
    base.close()


@pytest.fixture
def run(fakes: None, tmp_path: Path, out: Out, monkeypatch: pytest.MonkeyPatch) -> Out:
    """`openbook questions`, over the knowledge base of the settings."""
    base_with(tmp_path / "docs", {"night.txt": SIGNS}, place=tmp_path / "kb").close()
    monkeypatch.setenv("OPENBOOK_KB", str(tmp_path / "kb"))
    return out.of("questions")


@pytest.fixture
def store(run: Out, own_home: Path, tmp_path: Path) -> QuestionStore:
    base = KnowledgeBase.open(tmp_path / "kb")
    base.close()
    return QuestionStore(Settings(own_home), base.id)


def test_watch_asks_with_the_labels_of_each_owner(
    run: Out, store: QuestionStore, own_home: Path, tmp_path: Path
) -> None:
    write(tmp_path, LATER, "hr")
    keys = KeyFile(own_home)
    (key, _), (revoked, _) = keys.new("hr", "read", ["hr"]), keys.new("gone", "read", ["hr"])
    keys.revoke(revoked.id)
    run.ok("add", NIGHT, "--label", "hr")
    run.ok("add", NIGHT)
    asked = [store.add(owner, NIGHT) for owner in (key.id, "local", revoked.id)]
    run.ok("watch", "--once")
    silent = "The passages do not say."
    assert [each["answer"] for each in run.json("list")["questions"]] == [LATER, silent]
    answers = [store.answer(each) for each in asked]
    assert [each and each.given and each.given.answer for each in answers] == [LATER, silent, None]


@pytest.mark.parametrize("owner", ["command-line", "local"])
def test_a_question_that_fails_is_shown_and_exits_with_1(
    run: Out, store: QuestionStore, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(EchoEngine):
        def count_prompt_tokens(self, prompt: object) -> int:
            raise EngineError("The engine is out of order.")

    monkeypatch.setattr(opening, "model_opener", lambda *_, **__: lambda: FrozenModel(Broken()))
    question = store.add(owner, NIGHT)
    code, stdout, stderr = run("watch", "--once")
    assert (code, stdout, question.id in stderr) == (1, "", True)
    failed = store.answer(question)
    assert failed is not None
    assert ("out of order" in failed.error) == (owner == "command-line")


def test_watch_does_not_ask_what_another_check_is_asking(
    run: Out, store: QuestionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "WAIT_S", 0.0)
    run.ok("add", NIGHT)
    with store.checking("command-line"):
        run.refused(5, "Another process is asking", "watch", "--once")


class Hook(HTTPServer):
    """Answers with `statuses` in turn."""

    def __init__(self, *statuses: int) -> None:
        self.statuses, self.got = list(statuses), list[Any]()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        self.server.got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(self.server.statuses.pop(0))
        self.send_header("location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_watch_posts_each_change_until_it_is_interrupted(
    run: Out, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A webhook that fails is tried twice, follows no redirect, and stops nothing."""
    texts = iter([LATER, SIGNS])

    def next_version(_: float) -> None:
        text = next(texts, None)
        if text is None:
            raise KeyboardInterrupt
        write(tmp_path, text)

    monkeypatch.setattr("time.sleep", next_version)
    run.ok("add", NIGHT)
    with served(hook := Hook(500, 302, 204)) as port:
        code, stdout, stderr = run("watch", "--json", "--webhook", f"http://127.0.0.1:{port}/")
    assert (code, stderr) == (0, "The webhook did not take the change: it answered 302.\nEnded.\n")
    first, second = map(json.loads, stdout.splitlines())
    assert hook.got == [first, first, second]
    assert [first["after"]["answer"], second["after"]["answer"]] == [LATER, SIGNS]
    assert not is_altered(parse_receipt(json.dumps(first["after"])))


def test_changes_found_by_a_server_are_posted_until_a_purge(
    run: Out, store: QuestionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    posted = list[str]()

    def post(url: str, value: dict[str, Any]) -> str:
        posted.append(value["id"])
        if len(posted) == 2:
            with store.derived.purging(60.0):
                pass
        return ""

    monkeypatch.setattr(standing_questions, "post", post)
    names = [store.add("local", NIGHT, where).id for where in ("", "title != 'x'", "title != 'y'")]
    run.ok("watch", "--once")
    write(tmp_path, LATER)
    base = KnowledgeBase.open(tmp_path / "kb")
    corpus, model = Corpus(base, HashEmbedder()), echo_model()
    for question in store.questions():
        standing_questions.ask_again(store, question, frozenset(), corpus, model, Options())
    base.close()
    code, stdout, _ = run("watch", "--once", "--webhook", "http://127.0.0.1:9/")
    assert (code, stdout.count("before:"), posted) == (1, 3, names[:2])
