"""An object store in memory, and the conformance suite for object stores."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import TestCase

from openbook.core.files import replace_file
from openbook.knowledge.index.blobs import Blobs, Entry, check_key

raises = TestCase().assertRaises  # pytest is no dependency of the package


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


class BlobsSuite:
    """Tests for any `Blobs`. Subclass it and define `make_blobs`, which returns an empty one."""

    def make_blobs(self) -> Blobs:
        raise TypeError("A BlobsSuite must define make_blobs.")

    def test_what_is_put_is_got_until_it_is_deleted(self) -> None:
        blobs = self.make_blobs()
        assert blobs.put("one/a.npy", b"first")
        assert blobs.put("one/a.npy", b"second")
        assert blobs.put("one/empty", b"")
        assert (blobs.get("one/a.npy"), blobs.get("one/empty")) == (b"second", b"")
        for _ in range(2):
            blobs.delete("one/a.npy")
        raises(KeyError, blobs.get, "one/a.npy")
        assert [each.key for each in blobs.list("")] == ["one/empty"]

    def test_what_is_not_there_is_a_key_error_and_makes_no_file(self) -> None:
        blobs = self.make_blobs()
        blobs.put("one/two", b"below it")
        with TemporaryDirectory() as folder:
            for key in ("absent", "one", "one/two/three"):
                raises(KeyError, blobs.get, key)
                raises(KeyError, blobs.fetch, key, Path(folder, "copy"))
            assert list(Path(folder).iterdir()) == []

    def test_files_of_many_pieces_come_back_byte_by_byte(self) -> None:
        blobs, data = self.make_blobs(), bytes(range(251)) * 80_000  # 20 MB
        with TemporaryDirectory() as folder:
            path, copy, small = Path(folder, "file"), Path(folder, "copy"), Path(folder, "small")
            path.write_bytes(data)
            small.write_bytes(b"small")
            raises(OSError, blobs.put, "absent", Path(folder, "absent"))
            assert blobs.put("large", path)
            assert blobs.put("small", small, if_absent=True)
            blobs.fetch("large", copy)
            assert copy.read_bytes() == data == blobs.get("large")
            blobs.fetch("small", copy)
            assert copy.read_bytes() == b"small"
        assert [(each.key, each.size) for each in blobs.list("")] == [("large", len(data)), ("small", 5)]

    def test_of_many_that_put_a_key_if_it_is_absent_one_wins(self) -> None:
        blobs = self.make_blobs()
        for number in range(4):
            with ThreadPoolExecutor(8) as pool:
                won = list(pool.map(lambda i, key=f"at/{number}": blobs.put(key, b"%d" % i, if_absent=True), range(8)))
            assert won.count(True) == 1
            assert blobs.get(f"at/{number}") == b"%d" % won.index(True)
            assert not blobs.put(f"at/{number}", b"late", if_absent=True)

    def test_a_list_has_the_keys_with_that_beginning_in_order(self) -> None:
        blobs, keys = self.make_blobs(), ["a/b", "a/b2/c", "a/b2/d.json", "a/c", "ab", "b/00", "b/000"]
        for key in reversed(keys):
            blobs.put(key, b"x" * len(key))
        for prefix in ("", "a", "a/", "a/b", "a/b2/", "b/00", "absent/", "c"):
            assert [each.key for each in blobs.list(prefix)] == [key for key in keys if key.startswith(prefix)]
        assert [each.size for each in blobs.list("a/")] == [3, 6, 11, 3]
        ages = [time.time() - each.modified for each in blobs.list("")]
        assert all(-3600 < age < 3600 for age in ages)

    def test_what_is_no_key_is_refused(self) -> None:
        blobs = self.make_blobs()
        for key in (*"/a a/ a//b ../a a/../b .a a/.b a\\b ä a?b a%2f".split(), "", "a b", "a\n"):
            raises(ValueError, blobs.get, key)
            raises(ValueError, blobs.put, key, b"")
            raises(ValueError, blobs.delete, key)
        assert list(blobs.list("")) == []
