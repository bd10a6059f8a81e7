"""Standing questions on the command line, over fakes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from openbook.answers import opening
from openbook.answers.standing_questions import QuestionStore
from openbook.core.config import Settings
from openbook.core.errors import EngineError
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, RunOptions, add
from openbook.proofs.receipts import is_altered, parse_receipt
from openbook.proofs.replay import replay
from openbook.testing import EchoEngine, HashEmbedder, echo_model
from tests.cli.conftest import Out
from tests.conftest import ROOT, base_with, served

NIGHT = "Who signs night shift requests?"
SIGNS = "Night shift requests are signed by the head of unit."
LATER = "Night shift requests are signed by the new director."


def write(folder: Path, text: str, *labels: str) -> None:
    (folder / "docs" / "night.txt").write_text(text)
    base = KnowledgeBase.open(folder / "kb")
    add(base, [folder / "docs" / "night.txt"], HashEmbedder(), RunOptions(labels=frozenset(labels)))
    base.close()


@pytest.fixture
def kb(fakes: None, tmp_path: Path) -> Path:
    base_with(tmp_path / "docs", {"night.txt": SIGNS}, place=tmp_path / "kb").close()
    return tmp_path / "kb"


@pytest.fixture
def run(kb: Path, out: Out) -> Out:
    """`openbook questions`, of which each command takes --kb at its end."""
    return out.of("questions")


def test_questions_are_saved_listed_and_removed(run: Out, kb: Path) -> None:
    at = ("--kb", kb)
    assert "no standing questions" in run.ok("list", *at)
    name = run.ok("add", NIGHT, "--where", "title != 'x'", *at).strip()
    assert run.ok("add", NIGHT, "--where", "title != 'x'", *at).strip() == name
    run.refused(2, "no word", "add", "?", *at)
    run.refused(2, "date", "add", NIGHT, "--where", "date >", *at)
    run.refused(2, "label", "add", NIGHT, "--label", "a b", *at)
    (listed,) = run.json("list", *at)["questions"]
    assert (listed["id"], listed["state"], listed["where"]) == (name, "new", "title != 'x'")
    run.refused(2, f"Did you mean {name!r}?", "remove", name[:6], *at)
    run.ok("remove", name, *at)
    assert run.json("list", *at) == {"questions": []}


def test_watch_once_tells_by_its_exit_code_whether_an_answer_changed(run: Out, kb: Path, tmp_path: Path) -> None:
    once = ("watch", "--once", "--kb", kb)
    run.refused(2, "openbook questions add", *once)
    run.ok("add", NIGHT, "--kb", kb)
    assert run(*once) == (0, "", "")
    assert run(*once) == (0, "", "")
    assert SIGNS in run.ok("list", "--kb", kb)
    write(tmp_path, LATER)
    code, stdout, stderr = run(*once)
    assert (code, stderr) == (1, "")
    assert f"before: {SIGNS}" in stdout
    assert f"after:  {LATER}" in stdout
    assert "Night shift requests are signed by the [-head of unit.-]{+new director.+}\n" in stdout
    assert f"documents: {tmp_path}/docs/night.txt" in stdout
    (change,) = run.json("list", "--kb", kb)["questions"][0]["changes"]
    assert f"receipts: {change['before']['receipt']} {change['after']['receipt']}" in stdout
    assert run(*once) == (0, "", "")
    assert "until version 1: Night shift" in run.ok("list", "--kb", kb)


def test_a_change_as_a_line_of_json_has_receipts_that_are_replayed(run: Out, kb: Path, tmp_path: Path) -> None:
    run.ok("add", NIGHT, "--kb", kb)
    run.ok("watch", "--once", "--kb", kb)
    write(tmp_path, LATER)
    code, stdout, _ = run("watch", "--once", "--json", "--kb", kb)
    assert (code, stdout.count("\n")) == (1, 1)
    value = json.loads(stdout)
    assert (value["object"], value["question"], value["version_before"], value["version_after"]) == (
        "question.changed",
        NIGHT,
        1,
        2,
    )
    base = KnowledgeBase.open(kb)
    for side in ("before", "after"):
        receipt = parse_receipt(json.dumps(value[side]))
        assert not is_altered(receipt)
        assert replay(receipt, echo_model(), base).identical
    base.close()


def test_a_question_is_asked_with_the_labels_that_it_was_saved_with(run: Out, kb: Path, tmp_path: Path) -> None:
    write(tmp_path, LATER, "hr")
    run.ok("add", NIGHT, "--label", "hr", "--kb", kb)
    run.ok("add", NIGHT, "--kb", kb)
    run.ok("watch", "--once", "--kb", kb)
    assert [each["answer"] for each in run.json("list", "--kb", kb)["questions"]] == [LATER, "The passages do not say."]


def test_a_question_that_fails_is_said_and_is_no_success(run: Out, kb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(EchoEngine):
        def count_prompt_tokens(self, prompt: object) -> int:
            raise EngineError("The engine is out of order.")

    monkeypatch.setattr(opening, "model_opener", lambda *_, **__: lambda: FrozenModel(Broken()))
    run.ok("add", NIGHT, "--kb", kb)
    code, stdout, stderr = run("watch", "--once", "--kb", kb)
    assert (code, stdout) == (1, "")
    assert "The engine is out of order." in stderr
    assert "failed" in run.ok("list", "--kb", kb)


def test_a_second_watch_is_refused_while_one_asks(run: Out, kb: Path, own_home: Path) -> None:
    run.ok("add", NIGHT, "--kb", kb)
    base = KnowledgeBase.open(kb)
    with QuestionStore(Settings(own_home), base.id).checking("command-line"):
        run.refused(5, "Another process is asking", "watch", "--once", "--kb", kb)
    base.close()


def test_a_damaged_file_is_an_error_of_the_disk(run: Out, kb: Path, own_home: Path) -> None:
    run.ok("add", NIGHT, "--kb", kb)
    (path,) = (own_home / "questions").glob("*.json")
    path.write_text("{")
    for words in (["list"], ["add", NIGHT], ["remove", "x"], ["watch", "--once"]):
        run.refused(5, "not a valid file of standing questions", *words, "--kb", kb)
    assert path.read_text() == "{"


@pytest.mark.parametrize("url", ["", "ftp://me:geheim@host/x", "file:///x", "https://", "http:// host", "host/x"])
def test_a_webhook_must_be_an_address_of_http(url: str, run: Out, out: Out, kb: Path) -> None:
    for command in (run.of("questions", "watch"), out.of("serve")):
        code, stdout, stderr = command("--webhook", url, "--kb", kb)
        assert (code, stdout, "begins with http:// or https://" in stderr, "geheim" in stderr) == (2, "", True, False)


def test_watch_tells_each_change_until_it_is_interrupted(run: Out, kb: Path, tmp_path: Path) -> None:
    """In a process of its own, which ends well at Ctrl-C."""
    got: list[Any] = []
    came = threading.Event()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(500)
            self.end_headers()
            if len(got) == 4:  # each change was posted twice
                came.set()

        def log_message(self, *_: object) -> None:
            pass

    run.ok("add", NIGHT, "--kb", kb)
    run.ok("watch", "--once", "--kb", kb)
    with served(HTTPServer(("127.0.0.1", 0), Hook)) as port:
        words = ["questions", "watch", "--kb", str(kb), "--json", "--webhook", f"http://127.0.0.1:{port}/"]
        command = [sys.executable, str(ROOT / "tests" / "serving" / "fake_serve.py"), *words]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            write(tmp_path, LATER)
            first = json.loads(process.stdout.readline())
            write(tmp_path, SIGNS)
            second = json.loads(process.stdout.readline())
            assert came.wait(600)
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate()
    assert (process.returncode, stderr.endswith("Ended.\n")) == (0, True)
    assert "The webhook did not take the change: it answered 500." in stderr
    assert [first["after"]["answer"], second["after"]["answer"]] == [LATER, SIGNS]
    assert got[0] == first
