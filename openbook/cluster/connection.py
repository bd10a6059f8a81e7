"""This process and Ray: joining a cluster, starting one on this machine, leaving it."""

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

from openbook.config import available_cores
from openbook.errors import ClusterError, ConfigError, first_line, needs_extra

LOCAL, AUTO, CLIENT = "local", "auto", "ray://"
CONNECT_S = 5.0  # for the first answer of the machine at an address; Ray itself would wait for minutes
_HOST_AND_PORT = re.compile(r"(?:ray://)?(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")

_joined = ExitStack()  # what `connect` began; `disconnect` leaves what others began alone


def connect(address: str) -> None:
    """Join the Ray cluster at `address`, unless this process is in one already.

    `auto`: the one in RAY_ADDRESS, or one that runs on this machine; `local`: a new one on this machine, with the cores that
    this process may use, which ends with it; `host:port`: its head node; `ray://host:port`: its server for clients.

    Raises ConfigError for an address of another form or without Ray, ClusterError when no cluster lets this process in.
    """
    global _joined
    ray = ray_module()
    if ray.is_initialized():
        return
    address = resolved(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    before = signal.getsignal(signal.SIGTERM)  # which Ray takes over
    with ExitStack() as begun:
        if address == LOCAL:
            scratch = new_scratch()
            begun.callback(shutil.rmtree, scratch, ignore_errors=True)
            options |= {"num_cpus": available_cores(), "include_dashboard": False, "_temp_dir": f"{scratch}/ray"}
            # Then Ray takes 127.0.0.1 for this machine, and listens there alone.
            ray._private.ray_constants.ENABLE_RAY_CLUSTER = False
        elif address != AUTO:
            _check_somebody_listens(address)
        try:
            ray.init(address, **options)
        except Exception as error:  # Ray raises a bare one when a machine is too slow
            raise ClusterError(_sentence(address, error)) from error
        finally:
            # No other thread may set it, and Ray does so in no other.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)
        # Deaths of workers are dealt with; Ray would also print them, to standard output.
        ray._private.worker._worker_logs_enabled = False
        begun.callback(ray.shutdown)
        _joined = begun.pop_all()


def resolved(address: str) -> str:
    """What `auto` means here: the address in RAY_ADDRESS, where there is one."""
    return (os.environ.get("RAY_ADDRESS") or address) if address == AUTO else address


def disconnect() -> None:
    """Leave the cluster that `connect` joined, and end it when it was `local`."""
    _joined.close()


def new_scratch() -> str:
    """A folder for Ray, which opens the one that it makes there to everybody: this one is closed to other users."""
    parent = "/tmp" if sys.platform == "darwin" else None  # noqa: S108  # where the path of a socket may have 103 bytes only
    return tempfile.mkdtemp(prefix="openbook-ray-", dir=parent)


def ray_module() -> ModuleType:
    """Ray, imported when first needed. Raises ConfigError without it."""
    # Read when Ray is imported: without it, workers without a GPU warn of what a later version will do.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Likewise: without it, a thread that still waits for an answer when this process leaves would start a new Ray.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    with needs_extra("Work on many machines", "cluster"):
        import ray
    module: ModuleType = ray
    return module


def _check_somebody_listens(address: str) -> None:
    """Raises ConfigError, ClusterError."""
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
        return "No Ray cluster runs on this machine. Start one (ray start --head), or name one: --cluster HOST:PORT"
    if address == LOCAL:
        return f"Ray cannot be started on this machine: {first_line(error)}."
    reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
    return f"The Ray cluster at {address} cannot be reached: {reason}. Check on that machine with: ray status"
