"""`openbook serve` and `openbook keys`."""

from __future__ import annotations

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
from openbook.cli import run
from openbook.knowledge import KnowledgeBase
from openbook.serving.keys import KeyFile
from openbook.serving.server import http_server
from openbook.testing import HashEmbedder
from tests.cli.conftest import Out
from tests.serving.conftest import LONG_S

pytestmark = pytest.mark.usefixtures("fakes")


def test_keys_are_made_listed_and_revoked(own_home: Path, out: Out) -> None:
    assert out("keys", "list")[:2] == (0, "There are no keys. Make one with: openbook keys new NAME\n")
    token = out.ok("keys", "new", "Anna", "--right", "write", "--label", "hr").strip()
    key = KeyFile(own_home).find(token)
    assert key is not None
    shown = out.ok("keys", "list")
    assert all(word in shown for word in (key.id, "Anna", "write", "hr"))
    assert token not in shown
    (listed,) = out.json("keys", "list")["keys"]
    assert (listed["id"], "hash" in listed) == (key.id, False)
    out("keys", "new", "Bert", "--days", "90")
    lines = out.ok("keys", "list").splitlines()
    assert [line.split("  ")[-1] for line in lines] == ["never expires", "90 days left"]
    _, rotated, said = out("keys", "rotate", key.id)
    assert "The old one no longer works" in said
    assert KeyFile(own_home).find(token) is None
    token = rotated.strip()
    assert KeyFile(own_home).find(token) is not None
    assert [out("keys", verb, name)[0] for verb, name in (("rotate", "x"), ("revoke", "x"), ("revoke", key.id))] == [
        2,
        2,
        0,
    ]
    assert KeyFile(own_home).find(token) is None
    assert out("keys", "new", "Anna", "--label", "Not One")[0] == 2


def test_what_is_wrong_is_said_before_anything_is_opened(
    out: Out, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        out.refused(2, "Choose another with --host and --port", "serve", "--port", taken.getsockname()[1])
    for name in ("two..dots", "x" * 64):
        out.refused(2, f"Cannot listen on {name}, port 0", "serve", "--host", name, "--port", 0)
    out.refused(2, "named 'kb'", "serve", "--port", 0, "--kb", tmp_path / "a" / "kb", "--kb", tmp_path / "b" / "kb")
    assert not (tmp_path / "a").exists()
    slots = "--slots is for a model that runs in this process, not for http://127.0.0.1:1/v1"
    out.refused(2, slots, "serve", "--slots", 4, "--base-url", "http://127.0.0.1:1/v1")
    monkeypatch.delitem(sys.modules, "openbook.serving.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    out.refused(2, "pip install 'openbook[serve]'", "serve")


@contextmanager
def serving(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> Iterator[tuple[str, str, httpx.Client]]:
    """(what it wrote to standard output, what to standard error, a client) of `openbook serve`, over fakes."""
    servers: list[uvicorn.Server] = []
    codes: list[int] = []

    def made(app: ASGIApp) -> uvicorn.Server:
        servers.append(http_server(app))
        return servers[-1]

    monkeypatch.setattr(openbook.serving.server, "http_server", made)
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


def test_a_knowledge_base_that_is_not_there_yet_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = KnowledgeBase.ensure(tmp_path / "other", HashEmbedder().identity)
    other.close()
    with serving(monkeypatch, capsys, "--kb", str(tmp_path / "new"), "--kb", str(other.folder)) as (out, err, client):
        assert (out, client.get("/v1/documents").status_code) == ("", 200)  # without a key
        assert "behind one, give --allow-host NAME or --require-key" in err
        assert f"There was no knowledge base in {tmp_path / 'new'}; an empty one was made." in err
        assert err.count("was made") == 1
        assert client.post("/v1/documents", files={"file": ("a.txt", b"Hello.")}).status_code == 200
    assert len(KnowledgeBase.open(tmp_path / "new").documents()) == 1
