"""Servers on this machine, one of each a session."""

from __future__ import annotations

import gc
import re
import secrets
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from openbook.cluster.connection import ray_module
from openbook.cluster.local import start_postgres, stop_server
from tests.cli.conftest import fakes as fakes
from tests.cli.conftest import out as out
from tests.conftest import ROOT

collect_ignore = [] if find_spec("ray") else ["test_replicas.py"]  # laws, which import Ray


@pytest.fixture(autouse=True)
def without_ocr() -> None:
    """Not here: workers in other processes read scans with what is installed, and so does this process."""


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for n in range(6):
        (folder / f"{n}.txt").write_text(f"Pier {n} has {n + 3} lights. The ferry to island {n} leaves at {n + 6}.")
    return folder


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="openbook-postgres-"))  # pytest's folders are closed to other users
    try:
        yield folder
    finally:
        stop_server(folder, signal.SIGINT)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_url(postgres_folder: Path) -> str:
    """A database for the whole session."""
    return start_postgres(postgres_folder)


@contextmanager
def new_database(url: str) -> Iterator[str]:
    """The URL of a database of its own, empty, on the server of `url`."""
    import psycopg

    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    try:
        yield re.sub(r"/\w+\?", f"/{name}?", url)
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def new_postgres_url(postgres_url: str) -> Iterator[str]:
    """An empty database for one test."""
    with new_database(postgres_url) as url:
        yield url


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is in no cluster, whatever other tests have joined."""
    monkeypatch.setattr(ray_module(), "is_initialized", lambda: False)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One small Ray on this machine for all tests; `connect` finds it joined."""
    ray = ray_module()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else the first start writes a token into the user's home
        patch.setenv("RAY_worker_niceness", "0")  # its 15 starves the workers beside other tests
        patch.setenv("PYTHONPATH", str(ROOT))
        ray.init(
            num_cpus=2,
            object_store_memory=200_000_000,
            include_dashboard=False,
            ignore_reinit_error=True,
            log_to_driver=False,
            logging_level="ERROR",
        )
        try:
            yield
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)  # Ray does not wait for the processes that it ends
                ray.shutdown()
                gc.collect()
