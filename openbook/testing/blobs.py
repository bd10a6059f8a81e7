"""An object store in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

from openbook.core.files import replace_file
from openbook.knowledge.index.blobs import Entry, check_key


class MemoryBlobs:
    """`Blobs` in this process."""

    url = "memory:"

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes:
        return self._objects[check_key(key)][0]

    def fetch(self, key: str, path: Path) -> None:
        replace_file(path, self.get(key))

    def put(self, key: str, data: bytes | Path, *, if_absent: bool = False) -> bool:
        data = data if isinstance(data, bytes) else data.read_bytes()
        with self._lock:
            if if_absent and key in self._objects:
                return False
            self._objects[check_key(key)] = data, time.time()
            return True

    def delete(self, key: str) -> None:
        self._objects.pop(check_key(key), None)

    def list(self, prefix: str) -> Iterator[Entry]:
        with self._lock:
            found = [Entry(key, len(data), put) for key, (data, put) in sorted(self._objects.items())]
        return (each for each in found if each.key.startswith(prefix))
