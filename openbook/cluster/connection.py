"""Joining, starting and leaving a Ray cluster."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
from contextlib import ExitStack
from types import ModuleType
from typing import Any

from openbook.core.config import available_cores
from openbook.core.errors import ClusterError, ConfigError, first_line, needs_extra

LOCAL, AUTO, CLIENT = "local", "auto", "ray://"
CONNECT_S = 5.0  # for the first answer of the machine at an address; Ray would wait for minutes
_HOST_AND_PORT = re.compile(r"(?:ray://)?(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")

_joined = ExitStack()  # begun by `connect`; `disconnect` ends nothing else


def connect(address: str) -> None:
    """Join the Ray cluster at `address`, unless this process is in one already.

    * `auto`: the cluster in RAY_ADDRESS, or on this machine.
    * `local`: a new one with this process's cores; it ends with the process.
    * `host:port`: a head node; `ray://host:port`: a server for Ray clients.

    Raises ConfigError for an invalid address or without Ray, ClusterError when joining fails.
    """
    global _joined
    ray = ray_module()
    if ray.is_initialized():
        return
    address = resolved(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    before = signal.getsignal(signal.SIGTERM)  # Ray replaces it
    with ExitStack() as begun:
        if address == LOCAL:
            scratch = new_scratch()
            begun.callback(shutil.rmtree, scratch, ignore_errors=True)
            options |= {"num_cpus": available_cores(), "include_dashboard": False, "_temp_dir": f"{scratch}/ray"}
            # Then Ray takes 127.0.0.1 for this machine and listens only there.
            ray._private.ray_constants.ENABLE_RAY_CLUSTER = False
        elif address != AUTO:
            _check_somebody_listens(address)
        try:
            ray.init(address, **options)
        except Exception as error:  # Ray raises a bare Exception when a machine is too slow
            raise ClusterError(_sentence(address, error)) from error
        finally:
            # Only the main thread may set handlers, and Ray replaces them only there.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)
        # Dead workers are handled; Ray would also report them on standard output.
        ray._private.worker._worker_logs_enabled = False
        begun.callback(ray.shutdown)
        _joined = begun.pop_all()


def resolved(address: str) -> str:
    return (os.environ.get("RAY_ADDRESS") or address) if address == AUTO else address


def disconnect() -> None:
    """Leave the cluster that `connect` joined; end a `local` one."""
    _joined.close()


def new_scratch() -> str:
    """A private folder: Ray opens its own, inside, to everyone."""
    parent = "/tmp" if sys.platform == "darwin" else None  # noqa: S108  # a socket's path may have only 103 bytes there
    return tempfile.mkdtemp(prefix="openbook-ray-", dir=parent)


def ray_module() -> ModuleType:
    """Import Ray on first use. Raises ConfigError without it."""
    # Ray reads it at import: otherwise workers without a GPU warn of a change in a later version.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Likewise: otherwise a thread that waits for an answer when this process leaves would start a new Ray.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    with needs_extra("Work on many machines", "cluster"):
        import ray
    module: ModuleType = ray
    return module


def _check_somebody_listens(address: str) -> None:
    found = _HOST_AND_PORT.fullmatch(address)
    if found is None or not 0 < int(found["port"]) < 65_536:
        raise ConfigError(
            f"{address!r} is not the address of a cluster. Give host:port, ray://host:port, auto or local."
        )
    try:
        socket.create_connection((found["host"].strip("[]"), int(found["port"])), CONNECT_S).close()
    except OSError as error:
        raise ClusterError(_sentence(address, error)) from error


def _sentence(address: str, error: BaseException) -> str:
    if address == AUTO:
        return "No Ray cluster runs on this machine. Start one (ray start --head), or name another by its address, HOST:PORT."
    if address == LOCAL:
        return f"Ray cannot be started on this machine: {first_line(error)}."
    reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
    return f"The Ray cluster at {address} cannot be reached: {reason}. Check on that machine with: ray status"
