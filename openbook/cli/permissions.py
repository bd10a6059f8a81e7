"""Files are private (folders 0700, files 0600) whatever the user's umask.

The process's umask covers every writer, SQLite and libraries included. Files next to something that its owner opened
are as open as that: a group's knowledge base stays shared.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openbook.core.config import Place

_PRIVATE = 0o077
_WRITABLE_BY_ALL = 0o002

_umask_before: int | None = None


def begin() -> None:
    """Make new files private. Only `main` calls this: programs that import OpenBook keep their umask."""
    global _umask_before
    _umask_before = os.umask(_PRIVATE)


def share_as(places: Iterable[Place]) -> None:
    """Make new files as open as the existing folders, within the user's umask.

    Nothing else opens: a folder made by OpenBook bars others from all below it.
    """
    if _umask_before is not None:
        opened = 0
        for place in places:
            opened |= _open_bits(place)
        os.umask(_umask_before | _WRITABLE_BY_ALL | (_PRIVATE & ~opened))


def open_folders(places: Iterable[Place]) -> dict[Path, str]:
    """Folders that others can read, each with advice."""
    return {
        folder: f"Others can read {folder} (mode {stat.S_IMODE(folder.stat().st_mode):o}) and new files in it. To close it: "
        f"chmod -R go= {folder}"
        for folder in places
        if isinstance(folder, Path) and _open_bits(folder)
    }


def _open_bits(place: Place) -> int:
    """Mode bits of group and others; 0 for databases and missing folders."""
    try:
        return stat.S_IMODE(place.stat().st_mode) & _PRIVATE if isinstance(place, Path) else 0
    except OSError:
        return 0
