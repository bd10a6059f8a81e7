"""The command line as a user meets it, with the real models."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from openbook.models import ModelReference
from openbook.serving.keys import KeyFile
from tests.cli.conftest import Out
from tests.conftest import MODEL_HOME, ROOT

HANDBOOK = ROOT / "examples" / "handbook"
MANUALS = (HANDBOOK / "safety" / "vessel-safety-manual.pdf", HANDBOOK / "equipment" / "bow-thruster-manual.rst")
SLIDE = "How long does the evacuation slide of the Isolde Marr take to inflate?"


@pytest.fixture
def home(own_home: Path, model_reference: ModelReference, embedder_reference: ModelReference) -> Path:
    """A home of the test's own whose models are the session's."""
    own_home.mkdir()
    (own_home / "models").symlink_to(MODEL_HOME / "models")
    return own_home


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    for manual in MANUALS:
        shutil.copy(manual, folder)
    return folder


@pytest.mark.model
def test_ask_documents_as_json_twice(home: Path, docs: Path, out: Out) -> None:
    (code, first, _), (_, second, _) = (out("ask", SLIDE, "--docs", docs, "--json") for _ in range(2))
    answer = json.loads(first)
    assert code == 0
    told = "question answer abstained certainty confidence sentences citations passages receipt timings"
    assert set(answer) >= set(told.split())
    receipt = answer["receipt"]
    assert (answer["question"], receipt["model"]["evidence"]) == (SLIDE, "verified")
    assert all(len(receipt[key]) == 64 for key in ("question_digest", "prompt_digest", "answer_digest"))
    for citation in answer["citations"]:
        assert set(citation) >= {"document", "page", "start", "end", "quote", "passage_id"}
    assert any(hit["passage"]["document"].endswith("vessel-safety-manual.pdf") for hit in answer["passages"])
    assert json.loads(second)["receipt"] == receipt
    assert len(list((home / "derived" / "docs").iterdir())) == 1


@pytest.mark.laws
@pytest.mark.model
def test_add_then_ask_just_works(home: Path, docs: Path, out: Out) -> None:
    assert re.search(r"2 added\. .*version 1", out.ok("add", docs).replace("\n", " "))
    stdout = out.ok("ask", SLIDE)
    assert "knowledge base version 1" in stdout
    assert "reader (" in stdout
    assert "\x1b" not in stdout  # not a terminal: no colours
    words = ("search", "bow thruster serial number")
    assert out.json(*words)["hits"][0]["passage"]["document"].endswith("bow-thruster-manual.rst")
    assert "bow-thruster-manual.rst" in out.ok(*words, "-n", "2")
    status = out.json("status")
    assert (status["version"], status["not_indexed"]) == (1, [])
    name, digest = status["embedder"]["name"], status["embedder"]["digest"]
    assert {each["name"]: each["digest"] for each in out.json("models", "list")["models"]}[name] == digest
    text = out.ok("status")
    assert text.startswith("Knowledge base")
    assert digest[:12] in text
    for extra in ([], ["--json"]):  # a reader that goes away is no error
        read, write = os.pipe()
        os.close(read)
        command = [sys.executable, "-m", "openbook", "search", "ferry", "-n", "50", *extra]
        done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
        os.close(write)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.model
def test_models_are_shown_and_verified_and_a_wrong_one_is_refused_by_name(
    home: Path, model_reference: ModelReference, out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "smollm2-135m-instruct"
    assert name in out.ok("models", "list")
    shown = out.json("models", "show", name)
    assert (shown["digest"], shown["licence"]) == (model_reference.digest, "Apache-2.0")
    assert "verified" in out.ok("verify", name)
    ask = ("ask", "Why?", "--closed-book")
    out.refused(3, f"Did you mean {name!r}", "models", "show", "smollm")
    out.refused(3, f"Did you mean {name!r}", *ask, "--model", "smollm2-135m-instrukt")
    out.refused(3, "is an embedder", *ask, "--model", "minilm-l6-int8")
    out.refused(3, "Is the server running", *ask, "--base-url", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENBOOK_EMBEDDER", name)
    out.refused(3, "not an embedder", "add", HANDBOOK)
    monkeypatch.setenv("OPENBOOK_PASAGES", "3")
    out.refused(2, "OPENBOOK_PASAGES", "status")
    assert not (home / "kb").exists()


def on_a_terminal(arguments: list[str], environment: dict[str, str], columns: int) -> str:
    """What a person would see: the command under a pseudo-terminal of that width."""
    parent, child = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color", **environment}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    command = [sys.executable, "-m", "openbook", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdin=child, stdout=child, stderr=child, env=environment) as process:
        os.close(child)
        data = b""
        while True:
            ready, _, _ = select.select([parent], [], [], 60)
            try:
                chunk = os.read(parent, 65536) if ready else b""
            except OSError:
                break
            if not chunk:
                break
            data += chunk
        assert process.wait() == 0
    os.close(parent)
    return data.decode()


@pytest.mark.laws
@pytest.mark.model
def test_a_terminal_shows_colours_within_its_width(home: Path, docs: Path, tmp_path: Path) -> None:
    arguments = ["ask", SLIDE, "--docs", str(docs)]
    user = tmp_path / "user"  # onnxruntime keeps records of what is run in the user's cache unless it is told not to
    user.mkdir()
    environment = {"HOME": str(user), "XDG_CACHE_HOME": str(user / ".cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    coloured = on_a_terminal(arguments, environment, 100)
    assert "\x1b[1m" in coloured
    assert [p for p in user.rglob("*") if p.is_file()] == []
    plain = on_a_terminal(arguments, {"NO_COLOR": "1"}, 40)
    final = plain.rpartition("\x1b[2K")[2] or plain
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", final)
    visible = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", final).replace("\r", "")
    assert max(map(len, visible.splitlines())) <= 40


@pytest.mark.parametrize(
    "encoding", ["ascii", *(pytest.param(each, marks=pytest.mark.laws) for each in ("latin-1", "utf-8:strict"))]
)
def test_what_standard_output_cannot_encode_is_escaped(own_home: Path, encoding: str) -> None:
    name = "caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{EN DASH} 1"
    KeyFile(own_home).new(name, "read")
    environment = {**os.environ, "OPENBOOK_HOME": str(own_home), "PYTHONIOENCODING": encoding, "COLUMNS": "0"}
    listing = [sys.executable, "-m", "openbook", "keys", "list"]
    done = subprocess.run(listing, env=environment, capture_output=True, check=True)
    assert name.encode(encoding.removesuffix(":strict"), "backslashreplace") in done.stdout
    done = subprocess.run([*listing, "--json"], env=environment, capture_output=True, check=True)
    assert name in json.dumps(json.loads(done.stdout), ensure_ascii=False)
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *listing], env=environment, capture_output=True, check=True
    )
    assert closed.stderr == b""
