from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.knowledge import byte_search
from openbook.knowledge.byte_search import TELLING, WINDOW, Needles

TEXT = "".join(f"Sentence number {i} says something of its own. " for i in range(40)).encode()


def needles_of(text: bytes = TEXT) -> Needles:
    needles = Needles()
    needles.add(text)
    return needles


def find(needles: Needles, data: bytes, folder: Path, run: int = WINDOW) -> int | None:
    path = folder / "file"
    path.write_bytes(data)
    return needles.find_in(path, run)[0]


def test_absent_text_is_not_found_and_runs_of_one_byte_are_no_evidence(tmp_path: Path) -> None:
    assert find(needles_of(), TEXT.upper() + bytes(1000) + TEXT[::-1], tmp_path) is None
    assert find(needles_of(), b"", tmp_path) is None
    assert find(Needles(), TEXT, tmp_path) is None
    assert find(needles_of(bytes(1000)), bytes(1000), tmp_path) is None
    needles = needles_of()
    needles.drop_found_in(b"x" + TEXT[:400])  # what others hold
    assert (find(needles, TEXT[:400], tmp_path), find(needles, TEXT, tmp_path) is None) == (None, False)
    needles.add_end(b"/docs/very-secret.txt")  # shorter than a run, so it is found whole
    assert find(needles, b'"/docs/very-secret.txt"', tmp_path, TELLING) == 6
    assert find(needles, b'"/logs/very-secret.txt"', tmp_path, TELLING) is None


def test_a_window_across_two_blocks_is_found_at_its_offset(tmp_path: Path) -> None:
    needles = Needles()
    needles.add_end(b"a window of bytes")
    for at in ((4 << 20) - 9, (4 << 20) - 16, 4 << 20, (8 << 20) - 1, 0):
        data = b"\x07" * at + b" window of bytes" + b"\x07" * 30
        assert find(needles, data, tmp_path) == at


@given(st.integers(0, len(TEXT) - 79), st.binary(max_size=40), st.binary(max_size=40))
def test_every_run_of_79_bytes_is_found(start: int, before: bytes, after: bytes) -> None:
    assert needles_of().find(before + TEXT[start : start + 79] + after, TELLING) is not None


@pytest.mark.parametrize("short_of_a_block", [90, 40, 1, 0])
def test_a_run_across_two_blocks_is_found_and_a_phrase_is_not(tmp_path: Path, short_of_a_block: int) -> None:
    before = bytes(byte_search._BLOCK - short_of_a_block)
    phrase = TEXT[64 : 64 + TELLING - 1]
    assert find(needles_of(), before + TEXT[64 : 64 + TELLING] + bytes(99), tmp_path, TELLING) is not None
    assert find(needles_of(), before + phrase + bytes(99), tmp_path, TELLING) is None
    assert find(needles_of(), before + phrase + bytes(99), tmp_path) is not None
