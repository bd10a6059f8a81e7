"""Keeping a knowledge base equal to folders while they change."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from openbook.errors import StorageError

_TICK_MS = 500


def changes(folders: Sequence[Path], *, quiet_ms: int = 400, stop: threading.Event | None = None) -> Iterator[int]:
    """How many files changed, each time that something did and then nothing for `quiet_ms` milliseconds (at most 8 times that).

    Also 0, when watching has begun and then about twice a second: what changes after the first is told of later, however
    long the caller takes. Ends when `stop` is set, or by KeyboardInterrupt. Raises StorageError when the system has no
    more watches to give.
    """
    import watchfiles

    try:
        for batch in watchfiles.watch(
            *folders,
            watch_filter=None,  # the run itself decides what it wants; an ignore file is a dot file too
            debounce=quiet_ms * 8,
            step=quiet_ms,
            stop_event=stop,
            rust_timeout=_TICK_MS,
            yield_on_timeout=True,
            raise_interrupt=True,
            recursive=True,
        ):
            yield len(batch)
    except OSError as error:
        raise StorageError(
            f"Cannot watch {', '.join(map(str, folders))}: {error.strerror or error}. Without --watch, run sync again after changes."
        ) from error
