"""The laws of every object store. A test class subclasses the suite and makes the store to test."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from openbook.knowledge.index.blobs import Blobs


class BlobsSuite:
    def make_blobs(self) -> Blobs:
        """An empty store."""
        raise NotImplementedError

    def test_what_is_put_is_got_until_it_is_deleted(self) -> None:
        blobs = self.make_blobs()
        assert blobs.put("one/a.npy", b"first")
        assert blobs.put("one/a.npy", b"second")
        assert blobs.put("one/empty", b"")
        assert (blobs.get("one/a.npy"), blobs.get("one/empty")) == (b"second", b"")
        for _ in range(2):
            blobs.delete("one/a.npy")
        with pytest.raises(KeyError):
            blobs.get("one/a.npy")
        assert [each.key for each in blobs.list("")] == ["one/empty"]

    def test_a_missing_key_is_a_key_error_and_makes_no_file(self, tmp_path: Path) -> None:
        blobs = self.make_blobs()
        blobs.put("one/two", b"below it")
        before = sorted(tmp_path.iterdir())
        for key in ("absent", "one", "one/two/three"):
            with pytest.raises(KeyError):
                blobs.get(key)
            with pytest.raises(KeyError):
                blobs.fetch(key, tmp_path / "copy")
        assert sorted(tmp_path.iterdir()) == before

    def test_files_of_many_pieces_come_back_byte_by_byte(self, tmp_path: Path) -> None:
        blobs, data = self.make_blobs(), bytes(range(251)) * 80_000  # 20 MB
        path, copy, small = tmp_path / "file", tmp_path / "copy", tmp_path / "small"
        path.write_bytes(data)
        small.write_bytes(b"small")
        with pytest.raises(OSError):  # noqa: PT011 - each store has its own words
            blobs.put("absent", tmp_path / "absent")
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
            for use in (blobs.get, lambda key: blobs.put(key, b""), blobs.delete):
                with pytest.raises(ValueError, match="is not the key of an object"):
                    use(key)
        assert list(blobs.list("")) == []
