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


def test_wrong_options_are_refused_before_anything_is_opened(
    fakes: None, out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        out.refused(2, "Choose another with --host and --port", "serve", "--port", taken.getsockname()[1])
    for name in ("two..dots", "x" * 64):
        out.refused(2, f"Cannot listen on {name}, port 0", "serve", "--host", name, "--port", 0)
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
