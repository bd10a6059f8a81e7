"""What the program makes is its user's alone (folders 0700, files 0600), whatever umask it was started under.

The umask of the process makes that a law for all that writes, SQLite and libraries included. Only what is made beside
something that its owner opened to others is as open as that: a knowledge base that a group shares stays shared.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openbook.config import Place

_PRIVATE = 0o077
_WRITABLE_BY_ALL = 0o002

_umask_before: int | None = None


def begin() -> None:
    """From here on, what this process makes is private. For `main`: whoever only imports OpenBook keeps the umask."""
    global _umask_before
    _umask_before = os.umask(_PRIVATE)


def share_as(places: Iterable[Place]) -> None:
    """What is made from here on is as open as those of the folders that are there, and never more than the umask allowed.

    A folder that OpenBook made keeps others out of all that is in it, so one that is shared opens nothing else.
    """
    if _umask_before is not None:
        opened = 0
        for place in places:
            opened |= _open_bits(place)
        os.umask(_umask_before | _WRITABLE_BY_ALL | (_PRIVATE & ~opened))


def open_folders(places: Iterable[Place]) -> dict[Path, str]:
    """The folders that others than their owner can read, each with advice to the owner."""
    return {
        folder: f"Others can read {folder} (mode {stat.S_IMODE(folder.stat().st_mode):o}) and new files in it. To close it: "
        f"chmod -R go= {folder}"
        for folder in places
        if isinstance(folder, Path) and _open_bits(folder)
    }


def _open_bits(place: Place) -> int:
    """What the group and others may do, as bits of its mode; 0: nothing, or it is a database or not there."""
    try:
        return stat.S_IMODE(place.stat().st_mode) & _PRIVATE if isinstance(place, Path) else 0
    except OSError:
        return 0
