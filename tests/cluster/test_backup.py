"""The commands of docs/cluster.md for a backup and a restore to a point in time, on the local server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from openbook.cluster import local
from openbook.cluster.local import start_postgres, stop_server
from openbook.core.config import DatabaseUrl
from openbook.knowledge import KnowledgeBase, Scope, sync
from openbook.testing import HashEmbedder

EMBEDDER = HashEmbedder()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the user whom PostgreSQL runs as may go."""
    folder = Path(tempfile.mkdtemp(prefix="openbook-backup-"))
    folder.chmod(0o777)
    try:
        yield folder
    finally:
        for each in ("server", "restored"):
            stop_server(folder / each, signal.SIGINT)
        shutil.rmtree(folder)


def settings(data: Path, **values: str) -> None:
    with (data / "postgresql.auto.conf").open("a") as file:
        file.writelines(f"{name} = '{value}'\n" for name, value in values.items())


def seen(url: str, version: int) -> list[object]:
    with closing(KnowledgeBase.open(DatabaseUrl(url))) as base:
        scope = Scope(as_of=version)
        return [base.version, base.documents(scope), base.search("Which pump holds oil?", EMBEDDER, 5, scope)[1]]


@pytest.mark.slow
def test_a_restore_to_a_point_in_time(folder: Path, tmp_path: Path) -> None:
    archive, server, restored = folder / "archive", folder / "server", folder / "restored"
    archive.mkdir(mode=0o777)
    archive.chmod(0o777)
    start_postgres(server)
    stop_server(server, signal.SIGINT)
    settings(server / "data", archive_mode="on", archive_command=f"test ! -f {archive}/%f && cp %p {archive}/%f")
    url = start_postgres(server)

    files = tmp_path / "files"
    files.mkdir()
    (files / "pump.md").write_text("Pump 1 holds 12 litres of oil.")
    with closing(KnowledgeBase.ensure(DatabaseUrl(url), EMBEDDER.identity)) as base:
        sync(base, files, EMBEDDER)
        program = str(local._programs(server) / "pg_basebackup")
        subprocess.run([program, "-d", url, "-D", str(folder / "base"), "-c", "fast", "-X", "none"], check=True)
        (files / "pump.md").write_text("Pump 1 holds 14 litres of oil.")
        sync(base, files, EMBEDDER)
        before = seen(url, 1), seen(url, 2)
        with psycopg.connect(url, autocommit=True) as connection:
            (moment,) = connection.execute("SELECT clock_timestamp()::text").fetchone() or ("",)
        (files / "pump.md").write_text("A mistake.")
        sync(base, files, EMBEDDER)
    assert seen(url, 3)[0] == 3
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_switch_wal()")
    stop_server(server, signal.SIGINT)

    restored.mkdir()
    shutil.move(folder / "base", restored / "data")
    shutil.copy2(server / "pgpass", restored)
    (restored / "data" / "recovery.signal").touch()
    settings(
        restored / "data",
        archive_mode="off",
        restore_command=f"cp {archive}/%f %p",
        recovery_target_time=moment,
        recovery_target_action="promote",
        hot_standby="off",
    )
    if os.geteuid() == 0:
        for each in (restored, *restored.rglob("*")):
            if each.name != "pgpass":
                os.chown(each, local.USER, local.USER)
    url = start_postgres(restored)
    assert (seen(url, 1), seen(url, 2)) == before
    with closing(KnowledgeBase.open(DatabaseUrl(url))) as base:
        (files / "pump.md").write_text("Pump 1 holds 15 litres of oil.")
        assert sync(base, files, EMBEDDER).version == 3
