"""A lock tells whether a writer lives, whatever its age and number."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from openbook.core import locks
from openbook.core.errors import StorageError
from openbook.core.files import storage_errors
from openbook.core.locks import atomic_file, delete_abandoned, exclusive_lock, is_held, shared_lock
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has no lock that a dead process gives back so")

WRITER = """
import sys
from pathlib import Path
from openbook.core.locks import shared_lock, atomic_file
folder = Path(sys.argv[1])
with shared_lock(folder / "lock"), atomic_file(folder / "new", folder / "whole") as stream:
    stream.write(b"half")
    stream.flush()
    print("written", flush=True)
    sys.stdin.read()
"""


def test_files_of_living_writers_stay_and_leftovers_of_killed_ones_go(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        os.utime(tmp_path / "new", (0, 0))  # its age tells nothing
        assert not delete_abandoned(tmp_path / "new")
        assert is_held(tmp_path / "lock")
        with exclusive_lock(tmp_path / "lock", 0.0) as held:
            assert not held
        with shared_lock(tmp_path / "lock") as held:
            assert held
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert (tmp_path / "new").read_bytes() == b"half"
        assert not is_held(tmp_path / "lock")
        assert delete_abandoned(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    assert delete_abandoned(tmp_path / "new")  # gone already


def test_a_writer_whose_file_vanished_before_its_lock_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, real = 0, locks._lock

    def lock(descriptor: int, *, exclusive: bool = True, wait: bool = False) -> bool:
        nonlocal locked
        locked += 1
        if locked == 1:
            (tmp_path / "new").unlink()
        return real(descriptor, exclusive=exclusive, wait=wait)

    monkeypatch.setattr(locks, "_lock", lock)
    with atomic_file(tmp_path / "new", tmp_path / "whole") as stream:
        stream.write(b"all of it")
    assert (tmp_path / "whole").read_bytes() == b"all of it"
    assert locked == 2


def test_on_a_disk_without_locks_files_are_replaced_and_none_counts_as_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> bool:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks, "_lock", refused)
    with atomic_file(tmp_path / "new", tmp_path / "whole") as stream:
        stream.write(b"all of it")
    assert (tmp_path / "whole").read_bytes() == b"all of it"
    assert not delete_abandoned(tmp_path / "whole")
    assert (tmp_path / "whole").exists()


def test_an_exception_leaves_nothing_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(b"before")
    with pytest.raises(ValueError, match="no"), atomic_file(tmp_path / "new", tmp_path / "whole"):
        raise ValueError("no")
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
    assert (tmp_path / "whole").read_bytes() == b"before"


def test_refusals_of_the_disk_say_what_to_do() -> None:
    with pytest.raises(StorageError, match="Cannot keep x: the disk is full"), storage_errors("keep x"):
        raise OSError(errno.ENOSPC, "words of the system")
