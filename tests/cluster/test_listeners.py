"""Nobody but this user of this machine reaches a cluster on it. PostgreSQL and Ray are real."""

from __future__ import annotations

import ipaddress
import os
import secrets
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from openbook.cluster import local
from tests.conftest import ROOT

DRIVER = """
import sys
from openbook.cluster.connection import connect, disconnect, ray_module
connect(sys.argv[1])
print(ray_module().get(ray_module().remote(lambda: "ready").remote()), flush=True)
sys.stdin.readline()
disconnect()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Processes that have it are told by its mark, also those that rename themselves."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "OPENBOOK_"))}
    mark = {"STARTED_BY": secrets.token_hex(8), "SPT_NOENV": "1"}
    return own | mark | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "OPENBOOK_HOME": str(tmp_path / "home")}


def started(*words: str) -> list[psutil.Process]:
    """Those with one of these words in their environment, command or folder, and all that they started."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            known = [*process.environ().values(), *process.cmdline(), process.cwd()]
            if process.pid != os.getpid() and any(word in text for word in words for text in known):
                found += [process, *process.children(recursive=True)]
    return found


def check_nobody_else_reaches(processes: list[psutil.Process]) -> set[str]:
    """The names of those that listen."""
    names = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            for each in process.net_connections("inet"):
                if each.status == psutil.CONN_LISTEN or not each.raddr:
                    names.add(process.name())
                    address = ipaddress.ip_address(each.laddr.ip.removeprefix("::ffff:"))
                    assert address.is_loopback, (process, each)
            for each in process.net_connections("unix"):
                path = Path(process.cwd(), str(each.laddr))
                closed = [part for part in (path, *path.parents) if part.exists() and not part.stat().st_mode & 0o077]
                assert closed or not each.laddr, (process, each)
    return names


def listening(address: str, environment: dict[str, str], *words: str) -> set[str]:
    """The same, while a program has joined that cluster and its task has run there."""
    command, pipe = [sys.executable, "-c", DRIVER, address], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            return check_nobody_else_reaches(started(environment["STARTED_BY"], *words))
        finally:
            process.communicate("\n")


@pytest.mark.slow
def test_a_cluster_listens_to_this_machine_alone_and_leaves_nothing(
    environment: dict[str, str], tmp_path: Path
) -> None:
    def cluster(*words: str) -> None:
        command = [sys.executable, "-m", "openbook", "cluster", *words]
        subprocess.run(command, env=environment, check=True, capture_output=True)

    cluster("up", "--local", "1")
    state = local.read_state(tmp_path / "home")
    assert state is not None
    folders = (state.folder, state.scratch)
    try:
        names = listening("auto", environment | state.environment, *folders)
        assert names >= {"postgres", "gcs_server", "raylet", "ray::IDLE"}
        cluster("down")
        assert started(environment["STARTED_BY"], *folders) == []
    finally:
        cluster("down", "--delete", "--yes")
    assert not any(Path(folder).exists() for folder in folders)


@pytest.mark.slow
def test_so_does_one_for_a_single_command(environment: dict[str, str]) -> None:
    assert listening("local", environment) >= {"gcs_server", "raylet", "ray::IDLE"}
    assert started(environment["STARTED_BY"]) == []
