"""Receipts as JSON, and append-only logs of them: format in docs/formats/receipt.md.

A log is a folder with one file, `receipts.jsonl`. Each line names the digest of the line before it, so no line can be
changed, removed or inserted without changing all that follow.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openbook.core.codec import convert, decode, parse_json
from openbook.core.errors import ReceiptError, StorageError
from openbook.core.files import last_line_feed, storage_errors
from openbook.core.locks import exclusive_lock
from openbook.core.records import RECEIPT_FORMAT, Digest, Receipt, canonical_json, sha256_hex

MAX_RECEIPT_BYTES = 1 << 24
LOG_FORMAT = 1
LOG_FILE = "receipts.jsonl"
_LOCK_TIMEOUT_S = 30.0
FIRST = "0" * 64  # "previous" of the first line
_BEGINNING = b'{"format":1,"number":'  # of each line


def parse_receipt(text: str | bytes) -> Receipt:
    """Parse a receipt: alone, signed, or inside an answer (`openbook ask --json`). Raises ReceiptError.

    Law: `parse_receipt(canonical_json(asdict(receipt))) == receipt`. Checks whether the answer next to the receipt was
    altered, but not the receipt itself (`is_altered`).
    """
    if len(text) > MAX_RECEIPT_BYTES:
        raise ReceiptError(f"This has more than {MAX_RECEIPT_BYTES:,} bytes, so it is not a receipt.")
    value = parse_json(text, "The receipt", ReceiptError)
    answer = None
    if isinstance(value, dict) and "receipt" in value and "answer" in value:
        value, answer = value["receipt"], value["answer"]
    if isinstance(value, dict) and "signature" in value and "content" in value:
        value = value["content"]
    receipt = receipt_of(value)
    if answer is not None and sha256_hex(str(answer).encode("utf-8", "surrogatepass")) != receipt.answer_digest:
        raise ReceiptError("The answer in the document is not the one of its receipt: it was altered.")
    return receipt


def receipt_of(value: object) -> Receipt:
    """Convert parsed JSON. Raises ReceiptError."""
    found = convert(value, Receipt, "receipt", ReceiptError)
    if found.format != RECEIPT_FORMAT:
        wrote = "a development version" if found.format < RECEIPT_FORMAT else "a later version"
        raise ReceiptError(
            f"The receipt has format {found.format}, not {RECEIPT_FORMAT}: it was made by {wrote} of OpenBook, so it cannot be replayed."
        )
    try:
        found.sealed()
    except ValueError as error:  # NaN, or a lone surrogate
        raise ReceiptError(f"The receipt holds what JSON cannot: {error}.") from error
    return found


def is_altered(receipt: Receipt) -> bool:
    """True if a field has changed since the receipt was written."""
    question = sha256_hex(receipt.question.encode("utf-8", "surrogatepass"))
    return receipt.question_digest != question or receipt.sealed().digest != receipt.digest


# --- logs -------------------------------------------------------------------------------------------------------------


def append_receipt(folder: Path, receipt: Receipt) -> Digest:
    """Append the receipt to the log in `folder`, durably. Returns the digest of the new line.

    Raises ReceiptError if the end of the log is not valid.
    """
    path = folder / LOG_FILE
    with storage_errors(f"use the log in {folder}"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with exclusive_lock(folder / ".lock", _LOCK_TIMEOUT_S) as held:
            if not held:
                raise StorageError(f"Another process writes to the log in {folder}. Wait for it, then ask again.")
            previous, number, end = _end_of(path)
            line = canonical_json(
                {"format": LOG_FORMAT, "number": number, "previous": previous, "receipt": dataclasses.asdict(receipt)}
            )
            path.touch(0o600)  # mode 0600: it holds everyone's questions
            with path.open("r+b") as stream:
                stream.truncate(end)  # drop a line that was begun but never confirmed
                stream.seek(max(0, end - 1))
                gap = b"" if stream.read(1) in (b"", b"\n") else b"\n"  # an editor may have dropped the last line feed
                stream.write(gap + line + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
    return sha256_hex(line)


@dataclass(frozen=True, slots=True)
class _Entry:
    format: int
    number: int
    previous: Digest
    receipt: Any

    def __post_init__(self) -> None:
        if self.format != LOG_FORMAT:
            raise ValueError(f"this version of OpenBook reads format {LOG_FORMAT}, not {self.format}")


def receipts_in(folder: Path) -> Iterator[Receipt]:
    """In order, each checked against the line before it. Raises as `verify_log` does."""
    yield from (receipt for _, receipt in _lines(folder))


def verify_log(folder: Path, head: Digest = "") -> tuple[int, Digest]:
    """Check the whole log. Returns the number of receipts, and the digest of the last line, which covers them all.

    With `head`, also check that this line is in the log, so that nothing before it is missing. Raises ReceiptError with
    the number of the first wrong line.
    """
    last, count, seen = FIRST, 0, head in ("", FIRST)
    for digest, _ in _lines(folder):
        last, count, seen = digest, count + 1, seen or digest == head
    if not seen:
        raise ReceiptError(f"The log has no line {head}: it was truncated before that line, or rewritten.")
    return count, last


def find_receipt(folder: Path, digest: Digest, check: Callable[[], None]) -> Receipt | None:
    """The receipt of that digest, or None. Skips altered receipts and a line that is still being written.

    Each search reads the log, at 0.7 to 0.8 GB/s. `check` is called for each line; raising there ends the search.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        return None
    with (
        storage_errors(f"use the log in {folder}"),
        suppress(FileNotFoundError),
        (folder / LOG_FILE).open("rb") as stream,
    ):
        for line in stream:
            check()
            if digest.encode() in line and line.endswith(b"\n"):
                with suppress(ReceiptError):
                    found = _unaltered(decode(line, _Entry, "The line", ReceiptError), "The line")
                    if found.digest == digest:
                        return found
    return None


def _lines(folder: Path) -> Iterator[tuple[Digest, Receipt]]:
    """(digest, receipt) of each line, checked against the one before it."""
    previous = FIRST
    with storage_errors(f"use the log in {folder}"), (folder / LOG_FILE).open("rb") as stream:
        for number, line in enumerate(stream):
            where = f"Line {number + 1} of {stream.name}"
            if not line.endswith(b"\n"):
                raise ReceiptError(f"{where} ends in the middle; a crash or a person cut it off.")
            entry = decode(line, _Entry, where, ReceiptError)
            if entry.previous != previous or entry.number != number:
                raise ReceiptError(
                    f"{where} does not follow the one before it: a line was changed, taken out or put in."
                )
            previous = sha256_hex(line[:-1])
            yield previous, _unaltered(entry, where)


def _unaltered(entry: _Entry, where: str) -> Receipt:
    receipt = receipt_of(entry.receipt)
    if is_altered(receipt):
        raise ReceiptError(f"{where} holds a receipt that was altered.")
    return receipt


def _end_of(path: Path) -> tuple[Digest, int, int]:
    """Return (digest of the last whole line, number of the next, its offset). Raises ReceiptError if the file is not a log."""
    if not path.exists():
        return FIRST, 0, 0
    with path.open("rb") as stream:
        end = last_line_feed(stream, stream.seek(0, os.SEEK_END)) + 1
        begin = last_line_feed(stream, end - 1) + 1 if end else 0
        stream.seek(begin)
        line = stream.read(max(0, end - 1 - begin))
        stream.seek(end)
        rest = stream.read(MAX_RECEIPT_BYTES).rstrip(b"\0")  # a power loss may have left zeros
    if rest:
        with suppress(ReceiptError):
            return sha256_hex(rest), decode(rest, _Entry, f"{path}", ReceiptError).number + 1, end + len(rest)
    wrong = f"{path} does not end with a line of a log of receipts; see: openbook verify {path.parent}"
    if not _BEGINNING.startswith(rest[: len(_BEGINNING)]):
        raise ReceiptError(wrong)
    if not end:
        return FIRST, 0, 0
    try:
        return sha256_hex(line), decode(line, _Entry, f"{path}", ReceiptError).number + 1, end
    except ReceiptError as error:
        raise ReceiptError(wrong) from error
