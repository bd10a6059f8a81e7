"""Watching folders, so that a sync follows their changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from openbook.core.errors import StorageError


def folder_changes(folders: Sequence[Path]) -> Iterator[int]:
    """Counts of changed files, each after 0.4 seconds without a change or 3.2 seconds of changes.

    Also 0 once watching has begun, then about twice a second. No later change is missed, however slow the caller. Ends by KeyboardInterrupt.
    Raises StorageError when the system has no more watches.
    """
    import watchfiles

    roots, again = _roots(folders), 0
    while True:
        there = [folder for folder, root in zip(folders, roots, strict=True) if root]
        try:
            for batch in watchfiles.watch(
                *there,
                watch_filter=None,  # the run itself selects files; an ignore file is a dot file too
                debounce=3200,  # milliseconds, as below
                step=400,
                rust_timeout=500,
                yield_on_timeout=True,
                raise_interrupt=True,
            ):
                yield len(batch) or again
                again = 0
                # The watch follows the folder that had the name when watching began.
                if any(path == str(folder) for _, path in batch for folder in folders) or _roots(folders) != roots:
                    break
        except FileNotFoundError:  # deleted since it was looked for
            pass
        except OSError as error:
            raise StorageError(
                f"Cannot watch {', '.join(map(str, folders))}: {error.strerror or error}. Sync again after changes."
            ) from error
        roots, again = _roots(folders), 1


def _roots(folders: Sequence[Path]) -> list[tuple[int, int] | None]:
    found: list[tuple[int, int] | None] = []
    for folder in folders:
        try:
            status = folder.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino))
    return found
