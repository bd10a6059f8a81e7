"""Giving memory back to the system."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any


def give_back_freed() -> None:
    """What was freed and the C library keeps. glibc has a heap for each thread, and keeps pages that lie between used ones."""
    _trim()(0)


@cache
def _trim() -> Callable[[int], Any]:
    try:
        trim: Callable[[int], Any] = ctypes.CDLL(None).malloc_trim
        return trim
    except (AttributeError, OSError, TypeError):  # another C library, which has no such function
        return lambda keep_bytes: 0
