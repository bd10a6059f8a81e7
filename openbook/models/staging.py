"""Temporary folders inside the store, for models on their way in or out. Nothing there is ever listed.

`<root>/.incoming-<pid>-<random>/` is locked while its process lives, so that the leftovers of a killed process can be
told from the work of a living one, also when both see different process numbers (containers).
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from openbook.files import make_folder, storage_errors
from openbook.locks import delete_abandoned, hold_new_folder

PREFIX = ".incoming-"
ABANDONED_AFTER_S = 24 * 3600.0  # on Windows, which locks no folder, only age tells


@contextmanager
def staging_folder(root: Path) -> Iterator[Path]:
    """A private folder in the store, gone at the end. Also clears what dead processes left. Raises StorageError."""
    with storage_errors(f"write to the model store {root}"):
        make_folder(root)
        clear_leftovers(root)
        folder = root / f"{PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
        lock = hold_new_folder(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def clear_leftovers(root: Path) -> None:
    """Delete what killed processes left, as far as the disk lets it."""
    for folder in root.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if os.name == "posix":
                delete_abandoned(folder)
            elif time.time() - folder.stat().st_mtime > ABANDONED_AFTER_S:
                shutil.rmtree(folder)
