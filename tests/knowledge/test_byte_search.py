from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.knowledge import byte_search
from openbook.knowledge.byte_search import TELLING, Needles

TEXT = "".join(f"Sentence number {i} says something of its own. " for i in range(40)).encode()


def find(needles: Needles, data: bytes, folder: Path) -> int | None:
    path = folder / "file"
    path.write_bytes(data)
    return needles.find_in(path)[0]


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    needles = Needles()
    needles.add(TEXT)
    assert find(needles, TEXT.upper() + bytes(1000) + TEXT[::-1], tmp_path) is None
    assert find(needles, b"", tmp_path) is None
    assert find(Needles(), TEXT, tmp_path) is None


def test_a_window_across_two_blocks_is_found_at_its_offset(tmp_path: Path) -> None:
    needles = Needles()
    needles.add_end(b"a window of bytes")
    for at in ((4 << 20) - 9, (4 << 20) - 16, 4 << 20, (8 << 20) - 1, 0):
        data = b"\x07" * at + b" window of bytes" + b"\x07" * 30
        assert find(needles, data, tmp_path) == at


def test_what_others_hold_too_is_dropped(tmp_path: Path) -> None:
    needles = Needles()
    needles.add(TEXT)
    before = len(needles)
    needles.drop_found_in(b"x" + TEXT[:400])
    assert 0 < len(needles) < before
    assert find(needles, TEXT[:400], tmp_path) is None
    assert find(needles, TEXT, tmp_path) is not None


def test_runs_of_one_byte_are_no_evidence() -> None:
    needles = Needles()
    needles.add(bytes(1000))
    needles.add(b" " * 1000)
    assert len(needles) == 0


@given(st.integers(0, len(TEXT) - 79), st.binary(max_size=40), st.binary(max_size=40))
def test_every_run_of_79_bytes_is_a_telling_one(start: int, before: bytes, after: bytes) -> None:
    needles = Needles()
    needles.add(TEXT)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(before + TEXT[start : start + 79] + after)
        assert needles.find_in(path, TELLING)[0] is not None


@pytest.mark.parametrize(
    "cut", [byte_search._BLOCK - 90, byte_search._BLOCK - 40, byte_search._BLOCK - 1, byte_search._BLOCK]
)
def test_a_run_across_two_blocks_is_found_and_a_phrase_is_not(tmp_path: Path, cut: int) -> None:
    needles, path = Needles(), tmp_path / "file"
    needles.add(TEXT)
    path.write_bytes(bytes(cut) + TEXT[64 : 64 + TELLING] + bytes(99))
    assert needles.find_in(path, TELLING)[0] is not None
    path.write_bytes(bytes(cut) + TEXT[64 : 64 + TELLING - 1] + bytes(99))
    assert needles.find_in(path, TELLING)[0] is None
    assert needles.find_in(path)[0] is not None


def test_what_is_shorter_than_a_run_is_found_whole(tmp_path: Path) -> None:
    needles, path = Needles(), tmp_path / "file"
    needles.add_end(b"/docs/very-secret.txt")
    path.write_bytes(b'"/docs/very-secret.txt"')
    assert needles.find_in(path, TELLING)[0] == 6
    path.write_bytes(b'"/logs/very-secret.txt"')
    assert needles.find_in(path, TELLING)[0] is None
