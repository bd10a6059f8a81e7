"""Proof that none of many byte strings is in a large file.

A string is represented by 16-byte windows, one whole window in every run of 79 bytes. The windows at every offset of a file are folded to 64
bits, filtered by a bit table, and compared exactly.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW = 16
STRIDE = 64
TELLING = 48  # bytes in a row; two texts may share one window's phrase by chance, but not this much
_BLOCK = 4 << 20
_MAX_PLACES = 64  # compared places per window; a window with more counts as a trace
_BITS = 22  # size of the filter table
_MIX = np.uint64(0x9E3779B97F4A7C15)

# Descriptors of SQLite's files, by device and inode. One is read at a time.
_DATABASES: dict[tuple[int, int], int] = {}
_READING = Lock()


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file to read it. Files of a SQLite database stay open.

    Closing one would drop SQLite's locks on it in this process (https://www.sqlite.org/howtocorrupt.html, 2.2), and another process would delete
    the log in use.
    """
    if ".sqlite3" not in path.name:
        with path.open("rb") as file:
            yield file
        return
    with _READING:
        status = path.stat()
        file_id = status.st_dev, status.st_ino
        if file_id not in _DATABASES:
            _DATABASES[file_id] = os.open(path, os.O_RDONLY)
        with open(_DATABASES[file_id], "rb", closefd=False) as file:
            file.seek(0)
            yield file


class Needles:
    def __init__(self) -> None:
        self._sources: list[bytes] = []
        self._windows: set[bytes] = set()
        self._table: NDArray[np.bool_] | None = None

    def add(self, data: bytes) -> None:
        """Add windows of `data` at every 64th byte and at its end, except windows of one or two distinct bytes: they tell nothing."""
        self._put(data, [*range(0, len(data) - WINDOW + 1, STRIDE), len(data) - WINDOW])

    def add_end(self, data: bytes) -> None:
        self._put(data, [len(data) - WINDOW])

    def _put(self, data: bytes, starts: Sequence[int]) -> None:
        if len(data) >= WINDOW:
            windows = (data[start : start + WINDOW] for start in starts)
            self._windows.update(window for window in windows if len(set(window)) > 2)
            self._sources.append(data)
            self._table = None

    def drop_found_in(self, data: bytes) -> None:
        if found := {data[at : at + WINDOW] for at in self._offsets(data)}:
            self._windows -= found
            self._table = None

    def find(self, data: bytes, run: int = WINDOW) -> int | None:
        """The offset in `data` of a window within a common run of `run` bytes, or of the whole added string if shorter."""
        return next((at for at in self._offsets(data) if self._is_in_run(data, at, run)), None)

    def find_in(self, path: Path, run: int = WINDOW) -> tuple[int | None, int]:
        """(result of `find` in the file, bytes read)."""
        before, size = b"", 0
        with _opened(path) as file:
            while block := file.read(_BLOCK):
                data = before + block
                if (at := self.find(data, run)) is not None:
                    return size - len(before) + at, size + len(block)
                size += len(block)
                before = data[-2 * run :]  # a run around the cut is whole in one of both
        return None, size

    def _is_in_run(self, data: bytes, at: int, run: int) -> bool:
        window, places = data[at : at + WINDOW], 0
        for source in self._sources:
            start = source.find(window)
            while start >= 0:
                left = _alike(source[max(start - run, 0) : start][::-1], data[max(at - run, 0) : at][::-1])
                right = _alike(source[start : start + run], data[at : at + run])
                places += 1
                if left + right >= min(run, len(source)) or places == _MAX_PLACES:
                    return True
                start = source.find(window, start + 1)
        return False

    def _offsets(self, data: bytes) -> Iterator[int]:
        if not self._windows or len(data) < WINDOW:
            return
        table = self._filter()
        for shift in range(8):
            words = np.frombuffer(data, dtype="<u8", count=(len(data) - shift) // 8, offset=shift)
            if len(words) < 2:
                break
            for index in np.flatnonzero(table[_folded(words[:-1], words[1:])]):
                at = shift + 8 * int(index)
                if data[at : at + WINDOW] in self._windows:
                    yield at

    def _filter(self) -> NDArray[np.bool_]:
        if self._table is None:
            words = np.frombuffer(b"".join(sorted(self._windows)), dtype="<u8").reshape(-1, 2)
            self._table = np.zeros(1 << _BITS, dtype=np.bool_)
            self._table[_folded(words[:, 0], words[:, 1])] = True
        return self._table


def _alike(one: bytes, other: bytes) -> int:
    differing = (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


def _folded(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.int64]:
    """A number below 2^_BITS per pair of window halves: `(first * _MIX + second) * _MIX >> 64 - _BITS`, in one array."""
    mixed = first * _MIX
    mixed += second
    mixed *= _MIX
    mixed >>= np.uint64(64 - _BITS)
    return mixed.view(np.int64)  # numpy looks up signed indices faster
