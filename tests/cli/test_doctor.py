"""`openbook config` and `openbook doctor`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from openbook.models import ModelStore, import_gguf
from tests.cli.conftest import Out
from tests.conftest import base_with
from tests.models.gguf_files import llama


def test_every_setting_is_shown_with_its_source(own_home: Path, out: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    own_home.mkdir()
    (own_home / "config.toml").write_text("passages = 3\nmax_tokens = 50\n")
    monkeypatch.setenv("OPENBOOK_MAX_TOKENS", "60")
    monkeypatch.setenv("OPENBOOK_PASSAGES", "")  # counts as unset
    monkeypatch.setenv("OPENBOOK_BASE_URL", "http://me:word@host/v1")
    monkeypatch.setenv("OPENBOOK_KB", "postgresql://me:word@host/name")
    shown = {each["name"]: (each["value"], each["source"]) for each in out.json("config")}
    assert shown["home"] == (str(own_home), "OPENBOOK_HOME")
    assert shown["passages"] == (3, str(own_home / "config.toml"))
    assert shown["max_tokens"] == (60, "OPENBOOK_MAX_TOKENS")
    assert shown["context_tokens"] == (4096, "default")
    text = out.ok("config")
    assert "word@" not in text
    assert len(text.splitlines()) == len(shown)


@pytest.fixture
def healthy(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 0, 10**12))
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 10**7, "SC_PAGE_SIZE": 4096}.__getitem__)
    base_with(own_home, {"bridge.md": "The bridge of Lund was opened in 2026."}).close()
    import_gguf(ModelStore(own_home / "models"), llama().write(tmp_path / "small.gguf"))
    monkeypatch.setenv("OPENBOOK_MODEL", "small")
    own_home.chmod(0o700)
    return own_home


def test_a_healthy_machine_has_no_problem(healthy: Path, out: Out) -> None:
    checks = {each["name"]: each for each in out.json("doctor")}
    assert [each["name"] for each in checks.values() if each["advice"]] == []
    assert "1 document" in checks["documents"]["found"]
    assert "has its digest" in checks["model file"]["found"]
    assert "problem" not in out.ok("doctor")


def problems(out: Out) -> dict[str, Any]:
    code, stdout, stderr = out("doctor")
    found = {name: line for line in stdout.splitlines() for name in [line.split("  ")[0]] if "  problem  " in line}
    assert (code, f"{len(found)} problem" in stderr) == (1, True)
    return found


def test_each_problem_comes_with_advice(healthy: Path, out: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    monkeypatch.setattr("os.sysconf", lambda _: 10_000)
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setenv("OPENBOOK_THREADS", "1000")
    monkeypatch.setenv("OPENBOOK_OCR", "eng")
    healthy.chmod(0o755)
    (weights,) = (healthy / "models").rglob("*.gguf")
    weights.chmod(0o600)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    found = problems(out)
    assert set(found) == {"disk space", "memory", "threads", "home", "model file", "OCR"}
    assert f"chmod o-rwx {healthy}" in found["home"]
    assert "openbook models pull small" in found["model file"]

    healthy.chmod(0o700)
    monkeypatch.setenv("OPENBOOK_MODEL", "other")
    monkeypatch.setenv("OPENBOOK_KB", str(healthy / "models"))
    monkeypatch.setenv("https_proxy", "http://me:word@proxy:3128")
    found = problems(out)
    assert "other is not stored" in found["model file"]
    assert "https: http://me@proxy:3128" in out("doctor")[1]
    assert os.environ["https_proxy"]


def test_doctor_and_config_create_nothing(own_home: Path, out: Out) -> None:
    assert out("doctor")[0] == 1  # no model
    out.ok("config")
    assert not own_home.exists()
