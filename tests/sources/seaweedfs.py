"""SeaweedFS, an S3 and WebDAV server from its wheel, on the loopback interface."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from tests.sources.imap_servers import listens

HOST, BUCKET = "127.0.0.1", "openbook"
OPTIONS = f"""-logtostderr=true server -ip={HOST} -ip.bind={HOST} -s3 -s3.autoCreateBucket=false -s3.port.iceberg=0 -s3.port.lance=0
-master.telemetry=false -master.volumeSizeLimitMB=1024 -master.electionTimeout=1s -volume.max=64 -volume.preStopSeconds=0
-s3.localSocket=s3.sock -filer.localSocket=filer.sock""".split()
PORTS = tuple(f"{part}.port{kind}" for part in ("s3", "filer", "volume", "master") for kind in ("", ".grpc"))


@contextmanager
def seaweedfs(folder: Path, environment: dict[str, str]) -> Iterator[dict[str, int]]:
    """Run it with data in `folder` and an empty bucket; yields its ports by name."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((HOST, 0))) for _ in PORTS]
        ports = {name: each.getsockname()[1] for name, each in zip(PORTS, sockets, strict=True)}
    (folder / "data").mkdir()
    program = shutil.which("weed", path=sysconfig.get_path("scripts"))
    command = [str(program), *OPTIONS, f"-dir={folder / 'data'}", *(f"-{name}={port}" for name, port in ports.items())]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env={"HOME": str(folder), "GOMEMLIMIT": "256MiB", **environment},
            stdout=log,
            stderr=log,
        )
    try:
        until = time.monotonic() + 600
        # A folder below /buckets is a bucket; a volume is made for the first byte.
        urls = [f"http://{HOST}:{ports['filer.port']}/buckets/{path}" for path in (f"{BUCKET}/", f"{BUCKET}/first")]
        while not (_is_done(urls[0]) and _is_done(urls[1]) and listens(ports["s3.port"])):
            if server.poll() is not None or time.monotonic() > until:
                raise AssertionError((folder / "log").read_text()[-2000:])
            time.sleep(0.02)
        httpx.delete(urls[1], trust_env=False)
        yield ports
    finally:
        server.kill()
        server.wait()


def _is_done(url: str) -> bool:
    try:
        reply = httpx.request("POST" if url.endswith("/") else "PUT", url, content=b"first", trust_env=False)
    except httpx.TransportError:
        return False
    return reply.is_success or reply.status_code == httpx.codes.CONFLICT  # it exists
