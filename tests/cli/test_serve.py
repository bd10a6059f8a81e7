"""`openbook serve` and `openbook keys`."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.types import ASGIApp

import openbook.serving.server
from openbook.cli import context, run
from openbook.knowledge import KnowledgeBase
from openbook.serving.keys import KeyFile
from openbook.serving.server import make_server
from openbook.testing import HashEmbedder, echo_model
from tests.serving.conftest import LONG_S


def test_keys_are_made_listed_and_revoked(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "list"]) == 0
    assert "There are no keys" in capsys.readouterr().out
    assert run(["keys", "new", "Anna", "--right", "write", "--label", "hr"]) == 0
    token = capsys.readouterr().out.strip()
    key = KeyFile(own_home).find(token)
    assert key is not None
    assert run(["keys", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in (key.id, "Anna", "write", "hr"))
    assert run(["keys", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["keys"]
    assert [each["id"] for each in listed] == [key.id]
    assert "hash" not in listed[0]
    assert token not in shown
    assert run(["keys", "new", "Bert", "--days", "90"]) == 0
    assert "90 days" in capsys.readouterr().err
    assert run(["keys", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1] for line in lines] == ["never expires", "90 days left"]
    assert run(["keys", "rotate", key.id]) == 0
    said = capsys.readouterr()
    assert "The old one no longer works" in said.err
    assert KeyFile(own_home).find(token) is None
    token = said.out.strip()
    assert KeyFile(own_home).find(token) is not None
    assert run(["keys", "rotate", "x"]) == run(["keys", "revoke", "x"]) == 2
    assert run(["keys", "revoke", key.id]) == 0
    assert KeyFile(own_home).find(token) is None
    assert run(["keys", "new", "Anna", "--label", "Not One"]) == 2


def test_a_port_that_is_taken_is_said_before_anything_is_opened(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert "Choose another with --host and --port" in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "openbook.serving.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert run(["serve"]) == 2
    assert "pip install 'openbook[serve]'" in capsys.readouterr().err


@contextmanager
def serving(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> Iterator[tuple[str, str, httpx.Client]]:
    """(what it wrote to standard output, what to standard error, a client) of `openbook serve`, over fakes."""
    servers: list[uvicorn.Server] = []
    codes: list[int] = []

    def made(app: ASGIApp) -> uvicorn.Server:
        servers.append(make_server(app))
        return servers[-1]

    monkeypatch.setattr(openbook.serving.server, "make_server", made)
    monkeypatch.setattr(context, "open_embedder", lambda *_, **__: HashEmbedder())
    monkeypatch.setattr(context, "model_opener", lambda *_, **__: echo_model)
    thread = threading.Thread(target=lambda: codes.append(run(["serve", "--port", "0", *arguments])))
    thread.start()
    while thread.is_alive() and not (servers and servers[0].started):
        time.sleep(0.01)
    shown = capsys.readouterr()
    address = re.search(r"http://127\.0\.0\.1:\d+", shown.err)
    assert address, shown.err
    with httpx.Client(base_url=address[0], trust_env=False) as client:
        yield shown.out, shown.err, client
    servers[0].should_exit = True
    thread.join(LONG_S)
    assert codes == [0]


def test_it_answers_with_the_key_that_it_shows_once(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(monkeypatch, capsys, "--require-key", "--label", "hr") as (out, err, client):
        assert client.get("/v1/documents").status_code == 401
        headers = {"authorization": f"Bearer {out.strip()}"}
        assert client.post("/v1/documents", files={"file": ("a.txt", b"Hello.")}, headers=headers).status_code == 200
        assert len(client.get("/v1/documents", headers=headers).json()["data"]) == 1
        assert "may do everything, without a key" not in err
    kept = KeyFile(own_home).keys()
    assert [(key.right, key.labels) for key in kept] == [("admin", ("hr",))]


def test_without_a_key_it_says_who_may_do_everything(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(monkeypatch, capsys) as (out, err, client):
        assert client.get("/v1/documents").status_code == 200
        assert out == ""
        assert "behind one, give --allow-host NAME or --require-key" in err


def test_a_knowledge_base_that_is_not_there_yet_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = KnowledgeBase.ensure(tmp_path / "other", HashEmbedder().identity)
    other.close()
    with serving(monkeypatch, capsys, "--kb", str(tmp_path / "new"), "--kb", str(other.folder)) as (_, err, client):
        assert f"There was no knowledge base in {tmp_path / 'new'}; an empty one was made." in err
        assert err.count("was made") == 1
        assert client.post("/v1/documents", files={"file": ("a.txt", b"Hello.")}).status_code == 200
    assert len(KnowledgeBase.open(tmp_path / "new").documents()) == 1


def test_two_knowledge_bases_of_one_name_are_an_error_and_none_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(context, "open_embedder", lambda *_, **__: HashEmbedder())
    assert run(["serve", "--port", "0", "--kb", str(tmp_path / "a" / "kb"), "--kb", str(tmp_path / "b" / "kb")]) == 2
    assert "named 'kb'" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
