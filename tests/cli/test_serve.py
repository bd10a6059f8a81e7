"""`openbook serve` and `openbook keys`."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest

from openbook.cli import run
from openbook.serving.keys import KeyFile


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
    assert run(["keys", "revoke", "x"]) == 2
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
    for name in [name for name in sys.modules if name.startswith("openbook.serving.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert run(["serve"]) == 2
    assert "pip install 'openbook[serve]'" in capsys.readouterr().err
