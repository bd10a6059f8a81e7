"""Temporary folders inside the store: a model on its way in or out lives there, and nothing there is ever listed.

`<root>/.incoming-<pid>-<random>/` is locked while its process lives, so that the leftovers of a killed process can be
told from the work of a living one, also when both see different process numbers (containers).
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openbook.models.durable import make_folder, storage_errors

PREFIX = ".incoming-"
# Without locks (Windows), and between the making of a folder and its lock, only age tells.
ABANDONED_AFTER_S = 24 * 3600.0


@contextmanager
def incoming_folder(root: Path) -> Iterator[Path]:
    """A private folder in the store, gone at the end. Also clears what dead processes left. Raises StorageError."""
    with storage_errors(f"write to the model store {root}"):
        make_folder(root)
        clear_leftovers(root)
        folder = root / f"{PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
        folder.mkdir(mode=0o700)
    lock = _lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def clear_leftovers(root: Path) -> None:
    for folder in root.glob(f"{PREFIX}*"):
        if _is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    try:
        age_s = time.time() - folder.stat().st_mtime
    except OSError:
        return False
    if age_s > ABANDONED_AFTER_S and os.name != "posix":
        return True
    lock = _lock(folder)
    if lock is None:
        return False
    os.close(lock)
    return not _is_alive(folder.name) or age_s > ABANDONED_AFTER_S


def _lock(folder: Path) -> int | None:
    """A lock on the folder that ends with the process; None if another holds it or the system has none."""
    if os.name != "posix":
        return None
    import fcntl

    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _is_alive(folder_name: str) -> bool:
    """Whether a process of the number in the name runs here: closes the gap between making and locking a folder."""
    number = folder_name.removeprefix(PREFIX).split("-", 1)[0]
    if not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
