"""File locks that tell whether a writer is alive: the system releases them however its process ends.

Age does not tell, since a writer may be slow; a process id may be another process's by now. Functions raise OSError.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO

_POSIX = os.name == "posix"
_POLL_S = 0.01


@contextmanager
def atomic_file(temporary: Path, path: Path, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """A stream to the new file `temporary`, which replaces `path` at the end. Nothing changes if the block raises.

    The file is locked meanwhile, so that `delete_abandoned` does not delete it.
    """
    try:
        with os.fdopen(_begun(temporary, mode), "wb") as stream:
            yield stream
            stream.flush()
            if _POSIX:  # while it is locked; Windows cannot rename an open file
                temporary.replace(path)
        if not _POSIX:
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def delete_abandoned(path: Path) -> bool:
    """Delete what a killed process left of `atomic_file` or `hold_new_folder`. False if its writer may be alive."""
    if not _POSIX:
        try:
            path.unlink(missing_ok=True)  # Windows cannot delete an open file
        except PermissionError:
            return False
        return True
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return True
    try:
        try:
            held = _lock(descriptor)
        except OSError:  # a disk without locks
            held = False
        if not held:
            return False
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)


def _begun(temporary: Path, mode: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        descriptor = os.open(temporary, flags, mode)
        if not _POSIX:
            return descriptor
        with suppress(OSError):  # a disk without locks: there no process deletes left-overs
            _lock(descriptor, wait=True)
        if temporary.exists():
            return descriptor
        os.close(descriptor)  # another process deleted it as a left-over before it was locked


def hold_new_folder(folder: Path) -> int | None:
    """Make a folder and lock it until the descriptor is closed or the process ends. None on Windows."""
    while True:
        folder.mkdir(mode=0o700)
        if not _POSIX:
            return None
        with suppress(FileNotFoundError):  # another process deleted it as a left-over before it was locked
            descriptor = os.open(folder, os.O_RDONLY)
            with suppress(OSError):
                _lock(descriptor, wait=True)
            if folder.exists():
                return descriptor
            os.close(descriptor)


def is_held(path: Path) -> bool:
    """True if a living process holds the lock. False if the file cannot be opened."""
    if not _POSIX:
        with _held_on_windows(path, 0.0) if path.is_file() else nullcontext(True) as held:
            return not held
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return not _lock(descriptor)
    finally:
        os.close(descriptor)


def shared_lock(lock_file: Path, timeout_s: float = 0.0, mode: int = 0o600) -> AbstractContextManager[bool]:
    """Hold the lock together with other sharers. Yields False if an exclusive lock was still held at the timeout."""
    return _held(lock_file, exclusive=not _POSIX, timeout_s=timeout_s, mode=mode)


def exclusive_lock(lock_file: Path, timeout_s: float, mode: int = 0o600) -> AbstractContextManager[bool]:
    """Hold the lock alone. Yields False if another process still held it at the timeout. `mode`: of a new file."""
    return _held(lock_file, exclusive=True, timeout_s=timeout_s, mode=mode)


@contextmanager
def _held(lock_file: Path, *, exclusive: bool, timeout_s: float, mode: int = 0o600) -> Iterator[bool]:
    if not _POSIX:
        with _held_on_windows(lock_file, timeout_s) as held:
            yield held
        return
    import fcntl

    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, mode)
    try:
        deadline = time.monotonic() + timeout_s
        while not (held := _lock(descriptor, exclusive=exclusive)) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        yield held
    finally:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing would leave it to a process forked meanwhile
        os.close(descriptor)


def _lock(descriptor: int, *, exclusive: bool = True, wait: bool = False) -> bool:
    import fcntl

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


@contextmanager
def _held_on_windows(lock_file: Path, timeout_s: float) -> Iterator[bool]:
    """Windows has no shared locks: writers take turns."""
    import filelock

    lock: filelock.BaseFileLock = filelock.FileLock(lock_file)
    try:
        lock.acquire(timeout=timeout_s)
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
