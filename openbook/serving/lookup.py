"""Finding a receipt in a log by its digest, without reading the log again for each one."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from openbook.errors import ReceiptError, StorageError
from openbook.receipts import FIRST, LOG_FILE, Line, lines_from, receipt_at
from openbook.records import Digest, Receipt, sha256_hex

MOST_INDEXED = 4_000_000  # receipts; 16 bytes each

_WAIT_S = 0.05
_GATHERED = 1 << 16  # new ones are sorted in by so many

_DIGEST = re.compile(r"[0-9a-f]{64}")

_Numbers: TypeAlias = NDArray[np.uint64]


class ReceiptLookup:
    """Where the receipts of the log in `folder` are, by digest, for any number of threads.

    What the log grows by is read and checked once, by whoever asks next. A file that is another one, or shorter, or does
    not hold what it held, is read anew. A line that is still being written is not there yet. Of many more than `most`
    receipts the oldest are not found.
    """

    def __init__(self, folder: Path, *, most: int = MOST_INDEXED) -> None:
        self._path, self._most = folder / LOG_FILE, most
        self._lock = threading.Lock()
        self._begin_anew((0, 0))

    def find(self, digest: Digest, check: Callable[[], None] = lambda: None) -> Receipt | None:
        """The receipt of that digest, or None. `check` is called between two lines; what it raises ends the search.

        Raises ReceiptError when a line does not follow the one before it, StorageError.
        """
        while not self._lock.acquire(timeout=_WAIT_S):
            check()
        try:
            with self._path.open("rb") as stream:
                return self._find(stream, digest, check)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"Cannot read {self._path}: {error.strerror or error}.") from error
        finally:
            self._lock.release()

    def _find(self, stream: BinaryIO, digest: Digest, check: Callable[[], None]) -> Receipt | None:
        status = os.fstat(stream.fileno())
        file = (status.st_dev, status.st_ino)
        if file != self._file or status.st_size < self._end or not self._holds_the_last(stream):
            self._begin_anew(file)
        place = self._places.of(digest)
        if place is None:
            self._read_on(stream, check)
            place = self._places.of(digest)
        if place is None:
            return None
        try:
            found = receipt_at(stream, place)
        except ReceiptError:
            found = None
        if found is None or _key(found.digest) != _key(digest):  # it was written over, all but its last line
            self._begin_anew(file)
            self._read_on(stream, check)
            place = self._places.of(digest)
            found = None if place is None else receipt_at(stream, place)
        return found if found is not None and found.digest == digest else None

    def _begin_anew(self, file: tuple[int, int]) -> None:
        self._file = file
        self._last: Line | None = None
        self._number = 0
        self._places = _Places(self._most)

    @property
    def _end(self) -> int:
        return self._last.end if self._last else 0

    def _holds_the_last(self, stream: BinaryIO) -> bool:
        """Whether the last line that was read is still where it was."""
        if self._last is None:
            return True
        stream.seek(self._last.start)
        return sha256_hex(stream.read(self._last.end - self._last.start)[:-1]) == self._last.digest

    def _read_on(self, stream: BinaryIO, check: Callable[[], None]) -> None:
        previous = self._last.digest if self._last else FIRST
        for line in lines_from(stream, self._end, self._number, previous):
            self._places.add(line.receipt.digest, line.start)
            self._last, self._number = line, self._number + 1
            check()


class _Places:
    """Where the newest of receipts begin, by the first 8 bytes of their digests: some gathered, the others sorted."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._new: dict[int, int] = {}
        self._keys: _Numbers = np.empty(0, np.uint64)
        self._starts: _Numbers = np.empty(0, np.uint64)

    def add(self, digest: Digest, start: int) -> None:
        """Nothing for what has no digest, as receipts of format 1."""
        key = _key(digest)
        if key is not None:
            self._new[key] = start
        if len(self._new) >= min(_GATHERED, self._most):
            self._sort_in()

    def of(self, digest: Digest) -> int | None:
        key = _key(digest)
        if key is None:
            return None
        if key in self._new:
            return self._new[key]
        at = int(np.searchsorted(self._keys, np.uint64(key)))
        return int(self._starts[at]) if at < len(self._keys) and int(self._keys[at]) == key else None

    def _sort_in(self) -> None:
        keys = np.concatenate([np.array(list(self._new), np.uint64), self._keys])
        starts = np.concatenate([np.array(list(self._new.values()), np.uint64), self._starts])
        keys, first = np.unique(keys, return_index=True)
        starts = starts[first]
        if len(keys) > self._most:
            kept = np.sort(np.argpartition(starts, -self._most)[-self._most :])
            keys, starts = keys[kept], starts[kept]
        self._keys, self._starts, self._new = keys, starts, {}


def _key(digest: Digest) -> int | None:
    return int(digest[:16], 16) if _DIGEST.fullmatch(digest) else None
