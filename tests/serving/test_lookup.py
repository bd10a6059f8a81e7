"""Receipts are found by digest in a log that grows, is cut off, is replaced or is damaged, and each line is read once."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from openbook.errors import ReceiptError, StorageError
from openbook.receipts import LOG_FILE, append, parse_receipt, verify
from openbook.records import Receipt, sha256_hex
from openbook.serving.lookup import ReceiptLookup
from tests.conftest import ROOT
from tests.serving.conftest import LONG_S


def receipt_of(number: int) -> Receipt:
    receipt = parse_receipt((ROOT / "tests" / "golden" / "receipt-2.json").read_bytes())
    question = f"Who opened bridge {number}?"
    return dataclasses.replace(receipt, question=question, question_digest=sha256_hex(question.encode())).sealed()


class Lines:
    """Counts the lines that a lookup reads."""

    def __init__(self) -> None:
        self.read = 0

    def __call__(self) -> None:
        self.read += 1


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Of the receipts 0 to 4."""
    for number in range(5):
        append(tmp_path / "log", receipt_of(number))
    return tmp_path / "log"


def test_every_line_is_read_once(log: Path, lines: Lines) -> None:
    lookup = ReceiptLookup(log)
    for number in (3, 0, 4, 3):
        assert lookup.find(receipt_of(number).digest, lines) == receipt_of(number)
    for digest in (receipt_of(9).digest, receipt_of(3).digest[:-1] + "x", receipt_of(3).digest[:-2] + "zz", "", "é"):
        assert lookup.find(digest, lines) is None
    assert lines.read == 5
    append(log, receipt_of(9))
    assert lookup.find(receipt_of(9).digest, lines) == receipt_of(9)
    assert lines.read == 6


def test_a_digest_that_begins_as_another_is_not_found_and_costs_nothing(log: Path, lines: Lines) -> None:
    lookup, digest = ReceiptLookup(log), receipt_of(1).digest
    other = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    for _ in range(3):
        assert lookup.find(other, lines) is None
    assert lines.read == 5


def test_without_a_log_nothing_is_found_and_then_there_is_one(tmp_path: Path) -> None:
    lookup = ReceiptLookup(tmp_path / "log")
    assert lookup.find(receipt_of(0).digest) is None
    append(tmp_path / "log", receipt_of(0))
    assert lookup.find(receipt_of(0).digest) == receipt_of(0)
    (tmp_path / "folder" / LOG_FILE).mkdir(parents=True)
    with pytest.raises(StorageError, match="Cannot read"):
        ReceiptLookup(tmp_path / "folder").find(receipt_of(0).digest)


def test_a_line_that_is_half_written_is_not_there_yet(log: Path, tmp_path: Path) -> None:
    shutil.copytree(log, tmp_path / "whole")
    append(tmp_path / "whole", receipt_of(5))
    whole = (tmp_path / "whole" / LOG_FILE).read_bytes()
    lookup, begun = ReceiptLookup(log), len((log / LOG_FILE).read_bytes())
    for end in (begun + 1, begun + 300, len(whole) - 1):
        (log / LOG_FILE).write_bytes(whole[:end])
        assert lookup.find(receipt_of(5).digest) is None
        assert lookup.find(receipt_of(4).digest) == receipt_of(4)
        with pytest.raises(ReceiptError, match="ends in the middle"):
            verify(log)
    (log / LOG_FILE).write_bytes(whole)
    assert lookup.find(receipt_of(5).digest) == receipt_of(5)


def test_what_a_crash_left_gives_way_to_the_next_line(log: Path) -> None:
    lookup = ReceiptLookup(log)
    with (log / LOG_FILE).open("ab") as stream:
        stream.write(b'{"format":1,"number":5,"prev')
    assert lookup.find(receipt_of(6).digest) is None
    append(log, receipt_of(6))
    assert lookup.find(receipt_of(6).digest) == receipt_of(6)


@pytest.mark.parametrize("how", ["cut off", "replaced", "written over"])
def test_another_file_is_read_anew(log: Path, tmp_path: Path, lines: Lines, how: str) -> None:
    lookup = ReceiptLookup(log)
    assert lookup.find(receipt_of(4).digest, lines) == receipt_of(4)
    other = tmp_path / "other"
    for number in (0, 7) if how == "cut off" else range(1, 9):
        append(other, receipt_of(number))
    if how == "replaced":
        (other / LOG_FILE).replace(log / LOG_FILE)
    else:
        (log / LOG_FILE).write_bytes((other / LOG_FILE).read_bytes())  # the same inode
    assert lookup.find(receipt_of(7).digest, lines) == receipt_of(7)
    gone = receipt_of(4 if how == "cut off" else 0)
    assert lookup.find(gone.digest, lines) is None
    assert lines.read == 5 + (2 if how == "cut off" else 8)


def test_a_line_that_was_written_over_before_the_last_is_not_given_out(log: Path) -> None:
    lookup, path = ReceiptLookup(log), log / LOG_FILE
    assert lookup.find(receipt_of(1).digest) == receipt_of(1)
    path.write_bytes(path.read_bytes().replace(b"Who opened bridge 1?", b"Who opened bridge 8?"))
    for _ in range(2):
        with pytest.raises(ReceiptError, match="altered"):
            lookup.find(receipt_of(1).digest)
    assert lookup.find(receipt_of(0).digest) == receipt_of(0)


def test_behind_a_line_that_is_wrong_nothing_is_found(log: Path, lines: Lines) -> None:
    content = (log / LOG_FILE).read_bytes().splitlines(keepends=True)
    (log / LOG_FILE).write_bytes(b"".join(content[:2] + content[3:]))
    lookup = ReceiptLookup(log)
    for _ in range(3):
        with pytest.raises(ReceiptError, match=r"Line 3 .* does not follow"):
            lookup.find(receipt_of(4).digest, lines)
    assert lookup.find(receipt_of(1).digest) == receipt_of(1)
    assert lines.read == 2  # those before it, once


def test_what_is_remembered_is_bounded_and_the_newest_stays(log: Path) -> None:
    lookup = ReceiptLookup(log, most=2)
    append(log, receipt_of(0))
    assert [lookup.find(receipt_of(number).digest) is not None for number in range(5)] == [
        True,
        False,
        False,
        False,
        True,
    ]
    with_room = ReceiptLookup(log, most=5)
    assert all(with_room.find(receipt_of(number).digest) for number in range(5))


def test_a_search_that_is_ended_goes_on_where_it_was(log: Path, lines: Lines) -> None:
    class EndedError(Exception):
        pass

    def end() -> None:
        if lines.read == 2:
            raise EndedError
        lines()

    lookup = ReceiptLookup(log)
    with pytest.raises(EndedError):
        lookup.find(receipt_of(4).digest, end)
    rest = Lines()
    assert lookup.find(receipt_of(4).digest, rest) == receipt_of(4)
    assert rest.read == 5 - 3  # the third had been read when the end was noticed


def test_threads_that_ask_while_it_grows_each_find_theirs(log: Path, lines: Lines) -> None:
    lookup, start = ReceiptLookup(log), threading.Barrier(5)

    def find(number: int) -> Receipt | None:
        start.wait(LONG_S)
        return lookup.find(receipt_of(number).digest, lines)

    with ThreadPoolExecutor(4) as threads:
        found = [threads.submit(find, number) for number in (0, 2, 4, 9)]
        start.wait(LONG_S)
        for number in range(5, 9):
            append(log, receipt_of(number))
        assert [each.result(LONG_S) for each in found] == [receipt_of(0), receipt_of(2), receipt_of(4), None]
    assert all(lookup.find(receipt_of(number).digest) == receipt_of(number) for number in range(9))
