"""One writer at a time, on every platform."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from openbook.errors import KnowledgeBaseBusy, StorageError

if TYPE_CHECKING:
    import filelock


@contextmanager
def file_lock(folder: Path, timeout_s: float) -> Iterator[None]:
    """Raises KnowledgeBaseBusy when another process holds the lock for longer than `timeout_s`, StorageError."""
    import filelock

    lock: filelock.BaseFileLock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=timeout_s)
    except filelock.Timeout as error:
        raise KnowledgeBaseBusy(
            f"Another process is writing to the knowledge base in {folder}. Wait for it, then run this again."
        ) from error
    except OSError as error:
        raise StorageError(f"Cannot write to {folder}: {error.strerror or error}.") from error
    try:
        yield
    finally:
        lock.release()
