"""What the program makes is its user's alone (folders 0700, files 0600), whatever umask it was started under.

The umask of the process makes that a law for all that writes, SQLite and libraries included. Only what is made beside
something that its owner opened to others is as open as that: a knowledge base that a group shares stays shared.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

_PRIVATE = 0o077
_WRITABLE_BY_ALL = 0o002

_umask_before: int | None = None


def begin() -> None:
    """From here on, what this process makes is private. For `main`: whoever only imports OpenBook keeps the umask."""
    global _umask_before
    _umask_before = os.umask(_PRIVATE)


def share_as(folders: Iterable[Path]) -> None:
    """What is made from here on is as open as those of `folders` that are there, and never more than the umask allowed.

    A folder that OpenBook made keeps others out of all that is in it, so one that is shared opens nothing else.
    """
    if _umask_before is not None:
        opened = 0
        for folder in folders:
            opened |= _open_bits(folder)
        os.umask(_umask_before | _WRITABLE_BY_ALL | (_PRIVATE & ~opened))


def open_folders(folders: Iterable[Path]) -> dict[Path, str]:
    """The folders that others than their owner can read, each with advice to the owner."""
    return {
        folder: f"Others can read {folder} (mode {stat.S_IMODE(folder.stat().st_mode):o}) and new files in it. To close it: "
        f"chmod -R go= {folder}"
        for folder in folders
        if _open_bits(folder)
    }


def _open_bits(folder: Path) -> int:
    """What the group and others may do, as bits of its mode; 0: nothing, or it is not there."""
    try:
        return stat.S_IMODE(folder.stat().st_mode) & _PRIVATE
    except OSError:
        return 0
