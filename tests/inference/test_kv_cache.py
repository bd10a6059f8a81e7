"""What is kept of passages that were read: bounded, checked, shared by processes, and forgotten on request."""

from __future__ import annotations

import multiprocessing
import os
import random
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openbook.inference import kv_cache
from openbook.inference.kv_cache import KVCache, next_key, root_key
from openbook.locks import exclusive_lock

KEYS = [root_key(str(i)) for i in range(40)]
BLOCKS = st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=4)


def state_of(number: int, size: int = 1000) -> bytes:
    return random.Random(number).randbytes(size)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.state"))


def test_a_state_comes_back_in_this_process_and_the_next(tmp_path: Path) -> None:
    states = KVCache(tmp_path)
    states.put(KEYS[0], state_of(0), ["a"], states.purge_mark(), 7)
    states.put(KEYS[2], state_of(2), ["b"], states.purge_mark(), 35)
    for each in (states, KVCache(tmp_path)):
        assert each.get(KEYS[0]) == state_of(0)
        assert each.get(KEYS[1]) is None
    kept = states.kept()
    assert (kept.states, kept.tokens) == (2, 42)
    assert 2000 < kept.bytes < 3000
    assert KVCache().get(KEYS[0]) is None


def test_without_a_folder_nothing_of_a_state_is_read(tmp_path: Path) -> None:
    unreadable = cast(bytes, range(1000))  # it has a length and no bytes
    for states in (KVCache(), KVCache(tmp_path, disk_bytes=0)):
        states.put(KEYS[0], unreadable, ["a"], states.purge_mark())
        assert states.get(KEYS[0]) is unreadable


@given(BLOCKS, BLOCKS)
@example([[1]], [[2]])
def test_keys_are_equal_only_for_equal_blocks(first: list[list[int]], second: list[list[int]]) -> None:
    def key_of(blocks: list[list[int]]) -> bytes:
        key = root_key("model", "class")
        for block in blocks:
            key = next_key(key, block)
        return key

    assert (key_of(first) == key_of(second)) == (first == second)
    assert root_key("a", "bc") != root_key("ab", "c")


@given(at=st.integers(0, 1199), bit=st.integers(0, 7), cut=st.booleans())
def test_a_file_that_is_not_as_it_was_written_is_never_used(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int, cut: bool
) -> None:
    folder = tmp_path_factory.mktemp("states")
    KVCache(folder).put(KEYS[0], state_of(0), ["a"], 0)
    (file,) = files(folder)
    content = bytearray(file.read_bytes())
    at %= len(content)
    content[at] ^= 1 << bit
    file.write_bytes(content[:at] if cut else content)
    assert not KVCache(folder).is_known(file)
    assert KVCache(folder).get(KEYS[0]) is None
    assert not file.exists()


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="no symbolic links")
def test_another_states_file_and_a_link_are_never_used(tmp_path: Path) -> None:
    states = KVCache(tmp_path)
    for number in (0, 1):
        states.put(KEYS[number], state_of(number), ["a"], 0)
    first, second = (next(tmp_path.rglob(f"{key.hex()}.state")) for key in KEYS[:2])
    second.write_bytes(first.read_bytes())
    assert KVCache(tmp_path).get(KEYS[1]) is None
    assert KVCache(tmp_path).get(KEYS[0]) == state_of(0)
    moved = first.rename(tmp_path / "elsewhere")
    first.symlink_to(moved)
    assert KVCache(tmp_path).get(KEYS[0]) is None
    assert moved.exists()


def test_memory_and_disk_keep_to_their_bounds_and_the_least_used_goes_first(tmp_path: Path) -> None:
    states = KVCache(tmp_path, memory_bytes=5_000, disk_bytes=20_000)
    for number, key in enumerate(KEYS):
        states.put(key, state_of(number), ["a"], 0)
        assert sum(file.stat().st_size for file in files(tmp_path)) <= 20_000
        os.utime(next(tmp_path.rglob(f"{key.hex()}.state")), (number, number))  # seconds are too coarse for this test
    assert states.get(KEYS[0]) is None
    assert states.get(KEYS[-1]) == state_of(len(KEYS) - 1)
    nothing = KVCache(None, memory_bytes=0)
    nothing.put(KEYS[0], state_of(0), [], 0)
    assert nothing.get(KEYS[0]) is None


def test_several_processes_keep_to_one_bound_on_disk(tmp_path: Path) -> None:
    several = [KVCache(tmp_path, memory_bytes=0, disk_bytes=40_000) for _ in range(4)]
    for number in range(120):
        states = several[number % 4]
        states.put(KEYS[number % 40], state_of(number), ["a"], states.purge_mark())
        assert sum(path.stat().st_size for path in files(tmp_path)) <= 40_000 * (1 + 4 * 0.05)


def test_a_state_larger_than_the_room_is_kept_in_memory_alone(tmp_path: Path) -> None:
    states = KVCache(tmp_path, disk_bytes=500)
    states.put(KEYS[0], state_of(0), ["a"], 0)
    assert files(tmp_path) == []
    assert states.get(KEYS[0]) == state_of(0)


def test_what_was_purged_is_forgotten_by_every_process(tmp_path: Path) -> None:
    mine, other = KVCache(tmp_path), KVCache(tmp_path)
    for number, passages in enumerate((["a"], ["b"], ["a", "b"], [])):
        other.put(KEYS[number], state_of(number), passages, other.purge_mark())
    assert mine.forget({"a"}) == 2
    other.purge_mark()
    assert [other.get(key) is not None for key in KEYS[:4]] == [False, True, False, True]
    assert mine.forget(None) == 2
    other.purge_mark()
    assert [other.get(key) for key in KEYS[:4]] == [None] * 4
    assert files(tmp_path) == []


def test_a_process_without_a_budget_writes_nothing_and_forgets_all_the_same(tmp_path: Path) -> None:
    quiet = KVCache(tmp_path / "states", disk_bytes=0)
    quiet.put(KEYS[0], state_of(0), ["a"], quiet.purge_mark())
    assert not (tmp_path / "states").exists()
    assert KVCache(tmp_path / "states").forget({"a"}) == 0
    quiet.purge_mark()
    assert quiet.get(KEYS[0]) is None
    KVCache(tmp_path / "states").put(KEYS[0], b"state", ("passage",), 0)
    assert quiet.forget({"passage"}) == 1
    assert files(tmp_path) == []


def test_a_request_that_began_before_a_purge_keeps_nothing_of_it(tmp_path: Path) -> None:
    states, purger = KVCache(tmp_path / "s"), KVCache(tmp_path / "s")
    mark = states.purge_mark()
    purger.forget({"a"})
    for number, passage in enumerate("ab"):
        states.put(KEYS[number], state_of(number), [passage], mark)
    assert [states.get(key) is not None for key in KEYS[:2]] == [False, True]
    states.put(KEYS[0], state_of(0), ["a"], states.purge_mark())  # added again since
    assert states.get(KEYS[0]) == state_of(0)


def test_a_purge_while_another_thread_puts_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states, purger = KVCache(tmp_path), KVCache(tmp_path)
    remember = states._remember

    def purge_first(*given: Any) -> None:
        purger.forget({"a"})
        states.purge_mark()  # of another request
        remember(*given)

    monkeypatch.setattr(states, "_remember", purge_first)
    states.put(KEYS[0], state_of(0), ["a"], states.purge_mark())
    assert states.get(KEYS[0]) is None


def test_a_file_read_while_it_is_purged_is_forgotten_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states, purger = KVCache(tmp_path), KVCache(tmp_path)
    purger.put(KEYS[0], state_of(0), ["a"], purger.purge_mark())

    def read_first(lock_file: Path, timeout_s: float) -> AbstractContextManager[bool]:
        states.purge_mark()  # it sees the names, but the file is still there
        assert states.get(KEYS[0]) == state_of(0)
        return exclusive_lock(lock_file, timeout_s)

    monkeypatch.setattr(kv_cache, "exclusive_lock", read_first)
    assert purger.forget({"a"}) == 1
    states.purge_mark()
    assert states.get(KEYS[0]) is None


def test_a_cache_on_another_machine_follows_a_purge_list_once(tmp_path: Path) -> None:
    here, there = KVCache(tmp_path / "here"), KVCache(tmp_path / "there")
    assert here.purge_list() == KVCache(None).purge_list() == b""
    for number, passage in enumerate("abc"):
        there.put(bytes([number]) * 32, b"state", [passage * 64], there.purge_mark())
    here.forget(["a" * 64])
    assert there.follow(here.purge_list()) == 1
    listed = there.purge_list()
    assert there.follow(here.purge_list()) == 0
    assert there.purge_list() == listed
    assert KVCache(tmp_path / "here").follow(here.purge_list()) == 0  # the same folder
    here.forget(["b" * 64])
    assert there.follow(here.purge_list()) == 1
    assert there.passages() == {"c" * 64}
    here.forget(None)
    assert there.follow(here.purge_list()) == 1
    assert there.passages() == set()


def test_a_cache_follows_a_second_purge_of_the_same_text(tmp_path: Path) -> None:
    here = KVCache(tmp_path / "here")
    for there in (KVCache(tmp_path / "there"), KVCache(tmp_path / "there")):  # as after a restart
        there.put(b"k" * 32, b"state", ["a" * 64], there.purge_mark())
        here.forget(["a" * 64])
        assert there.follow(here.purge_list()) == 1
        assert not there.shares(here.purge_list())
    assert here.shares(here.purge_list())


def test_a_damaged_file_goes_with_any_purge_since_nobody_knows_what_it_holds(tmp_path: Path) -> None:
    states = KVCache(tmp_path)
    states.put(KEYS[0], state_of(0), ["a"], 0)
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes().replace(b'"a"', b'"c"'))
    assert states.forget({"b"}) == 1


def test_a_folder_that_cannot_be_used_is_as_good_as_none(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    states = KVCache(blocked / "states")
    states.put(KEYS[0], state_of(0), ["a"], states.purge_mark())
    assert states.get(KEYS[0]) == state_of(0)
    assert "Not a directory" in states.problem
    assert states.full


def _on_a_full_disk(folder: str) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
    states = KVCache(Path(folder))
    states.put(KEYS[0], state_of(0), ["a"], states.purge_mark())
    kept = states.get(KEYS[0]) == state_of(0)
    os._exit(0 if kept and "large" in states.problem and not list(Path(folder).rglob("*.*")) else 4)


def _hammer(folder: str, seed: int) -> None:
    states = KVCache(Path(folder), memory_bytes=3_000, disk_bytes=12_000)
    chance = random.Random(seed)
    for _ in range(300):
        number = chance.randrange(20)
        found = states.get(KEYS[number])
        if found is not None and found != state_of(number):
            os._exit(3)
        if found is None:
            states.put(KEYS[number], state_of(number), [str(number % 4)], states.purge_mark())
        if chance.random() < 0.02:
            states.forget({str(chance.randrange(4))})


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_full_disk_costs_only_the_file_and_two_processes_share_a_folder(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_on_a_full_disk, args=(str(tmp_path / "full"),)),
        *(context.Process(target=_hammer, args=(str(tmp_path / "shared"), seed)) for seed in (1, 2)),
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert not list(tmp_path.rglob("*.new"))
