"""What is kept of passages that were read: bounded, checked, shared by processes, and forgotten on request."""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openbook.core.derived import MARK, DerivedFolder
from openbook.core.errors import KnowledgeBaseBusy
from openbook.core.files import delete
from openbook.inference import kv_cache
from openbook.inference.kv_cache import KVCache, next_key, root_key

KEYS = [root_key(str(i)) for i in range(40)]
BLOCKS = st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=4)


def state_of(number: int, size: int = 1000) -> bytes:
    return random.Random(number).randbytes(size)


def purge(folder: Path) -> None:
    derived = DerivedFolder(folder)
    with derived.purging(10.0):
        for each in derived.contents():
            delete(each)


def keep(states: KVCache, number: int = 0) -> None:
    """Put a state, as a request does that begins now."""
    states.put(KEYS[number], state_of(number), states.purge_mark())


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.state"))


def test_a_state_comes_back_in_this_process_and_the_next(tmp_path: Path) -> None:
    states = KVCache(tmp_path)
    states.put(KEYS[0], state_of(0), states.purge_mark(), 7)
    states.put(KEYS[2], state_of(2), states.purge_mark(), 35)
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
        states.put(KEYS[0], unreadable, states.purge_mark())
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
def test_a_changed_file_is_never_used(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int, cut: bool) -> None:
    folder = tmp_path_factory.mktemp("states")
    KVCache(folder).put(KEYS[0], state_of(0), "")
    (file,) = files(folder)
    content = bytearray(file.read_bytes())
    at %= len(content)
    content[at] ^= 1 << bit
    file.write_bytes(content[:at] if cut else content)
    assert KVCache(folder).get(KEYS[0]) is None
    assert not file.exists()


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="no symbolic links")
def test_a_swapped_file_and_a_link_are_never_used(tmp_path: Path) -> None:
    states = KVCache(tmp_path)
    keep(states)
    keep(states, 1)
    first, second = (next(tmp_path.rglob(f"{key.hex()}.state")) for key in KEYS[:2])
    second.write_bytes(first.read_bytes())
    assert KVCache(tmp_path).get(KEYS[1]) is None
    assert KVCache(tmp_path).get(KEYS[0]) == state_of(0)
    moved = first.rename(tmp_path / "elsewhere")
    first.symlink_to(moved)
    assert KVCache(tmp_path).get(KEYS[0]) is None
    assert moved.exists()


def test_memory_and_disk_are_bounded_and_evict_the_least_used(tmp_path: Path) -> None:
    states = KVCache(tmp_path, memory_bytes=5_000, disk_bytes=20_000)
    for number, key in enumerate(KEYS):
        states.put(key, state_of(number), "")
        assert sum(file.stat().st_size for file in files(tmp_path)) <= 20_000
        os.utime(next(tmp_path.rglob(f"{key.hex()}.state")), (number, number))  # seconds are too coarse for this test
    assert states.get(KEYS[0]) is None
    assert states.get(KEYS[-1]) == state_of(len(KEYS) - 1)
    # What is larger than the room on disk stays in memory; where there is no memory either, nothing does.
    for number, (folder, room) in enumerate([(tmp_path / "small", 1 << 20), (None, 0)]):
        small = KVCache(folder, memory_bytes=room, disk_bytes=500)
        keep(small)
        assert files(tmp_path / "small") == []
        assert small.get(KEYS[0]) == (None if number else state_of(0))


def test_several_processes_keep_to_one_bound_on_disk(tmp_path: Path) -> None:
    several = [KVCache(tmp_path, memory_bytes=0, disk_bytes=40_000) for _ in range(4)]
    for number in range(120):
        states = several[number % 4]
        states.put(KEYS[number % 40], state_of(number), states.purge_mark())
        assert sum(path.stat().st_size for path in files(tmp_path)) <= 40_000 * (1 + 4 * 0.05)


def test_every_process_forgets_states_from_before_a_purge(tmp_path: Path) -> None:
    one, other = KVCache(tmp_path), KVCache(tmp_path)
    for states in (one, other):
        states.purge_mark()
        states.put(KEYS[0], state_of(0), "")
    purge(tmp_path)
    assert files(tmp_path) == []
    for states in (one, other):
        assert states.purge_mark()
        assert states.get(KEYS[0]) is None


def test_a_process_without_a_budget_writes_nothing_and_forgets_too(tmp_path: Path) -> None:
    quiet = KVCache(tmp_path / "derived", disk_bytes=0)
    keep(quiet)
    assert not (tmp_path / "derived").exists()
    purge(tmp_path / "derived")
    quiet.purge_mark()
    assert quiet.get(KEYS[0]) is None


def test_a_request_that_began_before_a_purge_keeps_nothing(tmp_path: Path) -> None:
    states = KVCache(tmp_path / "s")
    mark = states.purge_mark()
    purge(tmp_path / "s")
    states.put(KEYS[0], state_of(0), mark)
    assert states.get(KEYS[0]) is None
    states.put(KEYS[0], state_of(0), states.purge_mark())  # added again since
    for each in (states, KVCache(tmp_path / "s")):
        assert each.get(KEYS[0]) == state_of(0)


@pytest.mark.parametrize("damage", [lambda mark: mark.mkdir(), lambda mark: mark.write_bytes(b"\xff")])
def test_nothing_is_kept_while_the_mark_cannot_be_read(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    states = KVCache(tmp_path)
    damage(tmp_path / MARK)
    keep(states)
    assert states.get(KEYS[0]) is None
    assert not states.problem


@pytest.mark.skipif(os.name != "posix", reason="Windows has no lock that is shared")
def test_writers_and_a_purge_exclude_each_other(tmp_path: Path) -> None:
    states, derived = KVCache(tmp_path, memory_bytes=0), DerivedFolder(tmp_path)
    with derived.writing() as may_write:
        assert may_write
        with pytest.raises(KnowledgeBaseBusy, match=r"has been writing to .* for 0.1 s"), derived.purging(0.1):
            pass
    assert derived.purge_mark() == ""
    with derived.purging(1.0):
        keep(states)
    assert (files(tmp_path), states.problem) == ([], "")


def test_a_purge_while_another_thread_puts_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = KVCache(tmp_path)
    remember = states._remember

    def purge_first(*given: Any) -> None:
        purge(tmp_path)
        states.purge_mark()  # of another request
        remember(*given)

    monkeypatch.setattr(states, "_remember", purge_first)
    keep(states)
    assert states.get(KEYS[0]) is None


def test_a_file_read_while_it_is_purged_is_forgotten_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states, writer = KVCache(tmp_path), KVCache(tmp_path)
    keep(writer)
    read_state = kv_cache._read_state

    def read_and_purge(*given: Any) -> bytes | None:
        state = read_state(*given)
        purge(tmp_path)
        states.purge_mark()  # of another request
        return state

    monkeypatch.setattr(kv_cache, "_read_state", read_and_purge)
    assert states.get(KEYS[0]) == state_of(0)  # for the request that is under way
    monkeypatch.undo()
    assert states.get(KEYS[0]) is None


def test_a_home_follows_each_purge_of_another_once(tmp_path: Path) -> None:
    here, there = DerivedFolder(tmp_path / "here"), DerivedFolder(tmp_path / "there")
    states = KVCache(there.path)

    keep(states)
    there.follow(here.purge_mark())
    assert len(files(there.path)) == 1  # neither had a purge
    for _ in range(2):
        purge(here.path)
        there.follow(here.purge_mark())
        assert files(there.path) == []
        assert there.purge_mark().startswith(f"{here.purge_mark()} ")
        keep(states)
        there.follow(here.purge_mark())
        assert len(files(there.path)) == 1
    before = there.purge_mark()
    purge(there.path)
    assert not there.purge_mark().startswith(here.purge_mark())
    there.follow(here.purge_mark())
    assert there.purge_mark().startswith(f"{here.purge_mark()} ")
    assert there.purge_mark() != before
    mark = here.purge_mark()
    here.follow(mark)
    assert here.purge_mark() == mark


def test_an_unusable_folder_counts_as_none(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    states = KVCache(blocked / "states")
    keep(states)
    assert states.get(KEYS[0]) == state_of(0)
    assert "Not a directory" in states.problem
    assert states.full


def _on_a_full_disk(folder: str) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
    states = KVCache(Path(folder))
    keep(states)
    kept = states.get(KEYS[0]) == state_of(0)
    os._exit(0 if kept and "large" in states.problem and not list(Path(folder).rglob("*.[sn]*")) else 4)


def _hammer(folder: str, seed: int) -> None:
    states = KVCache(Path(folder), memory_bytes=3_000, disk_bytes=12_000)
    chance = random.Random(seed)
    for _ in range(300):
        number = chance.randrange(20)
        found = states.get(KEYS[number])
        if found is not None and found != state_of(number):
            os._exit(3)
        if found is None:
            keep(states, number)
        if chance.random() < 0.02:
            purge(Path(folder))


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
