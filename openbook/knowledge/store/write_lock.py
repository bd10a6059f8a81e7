"""The write lock: one writer at a time; every waiting writer gets its turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from openbook.core.errors import KnowledgeBaseBusy, StorageError
from openbook.core.locks import exclusive_lock

LOCK_TIMEOUT_S = 30.0  # default wait of a writer
LOCK, TURN = ".lock", ".turn"  # files in the folder that they guard

_ASK_S = 0.1  # seconds between calls of `check_cancelled`


@contextmanager
def file_lock(folder: Path, timeout_s: float) -> Iterator[None]:
    """Hold the folder's lock. Raises KnowledgeBaseBusy after `timeout_s`, StorageError."""
    with _held(folder, LOCK, time.monotonic() + timeout_s):
        yield


def clear_unlocked(root: Path, pattern: str = "*") -> int:
    """Delete files that killed processes left in the folders below `root` that they had locked. Returns how many. Raises OSError."""
    cleared = 0
    for lock in root.glob(f"**/{LOCK}"):
        with suppress(KnowledgeBaseBusy, StorageError), file_lock(lock.parent, 0.0):
            for path in {*lock.parent.glob(pattern)} - {lock}:
                path.unlink()
                cleared += 1
    return cleared


@contextmanager
def write_lock(folder: Path, timeout_s: float, check_cancelled: Callable[[], None] = lambda: None) -> Iterator[None]:
    """`file_lock`, but fair: a writer that wants it again at once lets a waiting one in first.

    A writer takes the turn, then the lock, then returns the turn. The waiting writer holds the turn, so no other can take the lock before it.
    Several waiting writers enter in no fixed order. `check_cancelled` is called periodically; what it raises ends the waiting.
    """
    until = time.monotonic() + timeout_s
    with ExitStack() as held:
        with _held(folder, TURN, until, check_cancelled):
            held.enter_context(_held(folder, LOCK, until, check_cancelled))
        yield


@contextmanager
def _held(folder: Path, name: str, until: float, check_cancelled: Callable[[], None] = lambda: None) -> Iterator[None]:
    with ExitStack() as lock:
        while True:
            left = max(until - time.monotonic(), 0.0)
            try:
                if lock.enter_context(exclusive_lock(folder / name, min(left, _ASK_S), 0o666)):
                    break
            except OSError as error:
                raise StorageError(f"Cannot write to {folder}: {error.strerror or error}.") from error
            lock.close()
            check_cancelled()
            if left <= _ASK_S:
                raise KnowledgeBaseBusy(
                    f"Another process is writing to the knowledge base in {folder}. Wait for it, then run this again."
                )
        yield
