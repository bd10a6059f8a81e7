"""`openbook serve` and `openbook keys`."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import pytest

from openbook.knowledge import KnowledgeBase
from openbook.serving.keys import KeyFile
from openbook.testing import HashEmbedder
from tests.cli.conftest import Out, served


def test_keys_are_made_listed_and_revoked(own_home: Path, out: Out) -> None:
    assert out("keys", "list")[:2] == (0, "There are no keys. Create one: openbook keys new NAME\n")
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
    assert [line.split("  ")[-1].strip() for line in lines] == ["never expires", "90 days left"]
    _, rotated, said = out("keys", "rotate", key.id)
    assert "The old one no longer works" in said
    assert KeyFile(own_home).find(token) is None
    token = rotated.strip()
    assert KeyFile(own_home).find(token) is not None
    for verb, name, code in (("rotate", "x", 2), ("revoke", "x", 2), ("revoke", key.id, 0)):
        assert out("keys", verb, name)[0] == code
    assert KeyFile(own_home).find(token) is None
    assert out("keys", "new", "Anna", "--label", "Not One")[0] == 2


def test_wrong_options_are_refused_before_anything_is_opened(
    fakes: None, out: Out, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        out.refused(2, "Choose another with --host and --port", "serve", "--port", taken.getsockname()[1])
    for name in ("two..dots", "x" * 64):
        out.refused(2, f"Cannot listen on {name}, port 0", "serve", "--host", name, "--port", 0)
    (tmp_path / "file").touch()
    out.refused(5, "file is not a folder", "serve", "--port", 0, "--receipts", tmp_path / "file")
    out.refused(2, "named 'kb'", "serve", "--port", 0, "--kb", tmp_path / "a" / "kb", "--kb", tmp_path / "b" / "kb")
    assert not (tmp_path / "a").exists()
    monkeypatch.delitem(sys.modules, "openbook.serving.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    out.refused(2, "pip install 'openbook[serve]'", "serve")


def test_the_server_answers_with_the_key_that_it_shows_once(own_home: Path) -> None:
    with served("--require-key", "--label", "hr") as (client, said, process):
        assert client.get("/v1/documents").status_code == 401
        assert process.stdout is not None
        headers = {"authorization": f"Bearer {process.stdout.readline().strip()}"}
        assert client.post("/v1/documents", files={"file": ("a.txt", b"Hello.")}, headers=headers).status_code == 200
        assert len(client.get("/v1/documents", headers=headers).json()["data"]) == 1
        assert "may do everything, without a key" not in said
    kept = KeyFile(own_home).keys()
    assert [(key.right, key.labels) for key in kept] == [("admin", ("hr",))]


@pytest.mark.laws
def test_the_fallback_model_is_served_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBOOK_FALLBACK_MODEL", "large")
    with served() as (client, _, _):
        ids = [each["id"] for each in client.get("/v1/models").json()["data"]]
    assert ids == ["echo", "echo:closed-book", "large", "large:closed-book", "hash"]


@pytest.mark.laws
def test_a_missing_knowledge_base_is_created(tmp_path: Path) -> None:
    other = KnowledgeBase.ensure(tmp_path / "other", HashEmbedder().identity)
    other.close()
    with served("--kb", tmp_path / "new", "--kb", other.folder) as (client, said, process):
        assert client.get("/v1/documents").status_code == 200  # without a key
        assert "behind one, give --allow-host NAME or --require-key" in said
        assert f"Created an empty knowledge base in {tmp_path / 'new'}." in said
        assert said.count("Created an empty") == 1
        assert client.post("/v1/documents", files={"file": ("a.txt", b"Hello.")}).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.communicate()[0] == ""  # no key is shown
    assert len(KnowledgeBase.open(tmp_path / "new").documents()) == 1
