"""Draws a page of a PDF in a worker process, of which each draws one page and ends.

A PDF may take over the process that draws it. So that process is given the bytes of one file and no other, and what it
answers are pixels: counted here, and made a PNG here.
"""

from __future__ import annotations

import json
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

from openbook.errors import NoSuchPage, NotReadNow, UnreadableFile
from openbook.parsers import check_size
from openbook.parsers.cleaning import one_line
from openbook.parsers.isolated import NONSENSE, Limits, Worker, worker_command
from openbook.parsers.pdf_picture import MOST_HEIGHT, WIDTH
from openbook.parsers.worker import PAGE_BYTES, PICTURE, PIXELS, SIDE_BYTES

MOST_ANSWER_BYTES = len(PIXELS) + 2 * SIDE_BYTES + 3 * WIDTH * MOST_HEIGHT
_LONGEST_REASON_CHARS = 1_000
_LOOK_S = 0.05  # how often it is asked whether to stop


def draw_page(
    data: bytes, page: int, limits: Limits, stop: Callable[[], bool] = lambda: False, *, command: Sequence[str] = ()
) -> bytes:
    """Page `page` (from 1) of a PDF as PNG: at most WIDTH by MOST_HEIGHT pixels of red, green and blue.

    It is broken off when `stop` says so, within a moment. `command` starts another worker than the program's own.

    Raises:
        NoSuchPage: the PDF has no page of that number.
        NotReadNow: the machine could not, or it was broken off.
        UnreadableFile: the page cannot be drawn; the text is the reason.

    """
    if not 1 <= page < 1 << 8 * PAGE_BYTES:
        raise NoSuchPage(f"there is no page {page}: pages are counted from 1")
    check_size(len(data), limits.max_file_bytes)
    settings = json.dumps(asdict(limits))
    try:
        worker = Worker([*(command or [*worker_command(), PICTURE]), settings])
    except OSError as error:
        raise NotReadNow(f"the reader could not be started ({(error.strerror or str(error)).lower()})") from error
    with _watched(worker, stop):
        try:
            question = [page.to_bytes(PAGE_BYTES, "big"), data]
            answer = worker.exchange(question, limits.timeout_s, MOST_ANSWER_BYTES)
        except ValueError as error:
            raise UnreadableFile(str(error)) from error
    if answer is None:
        raise NotReadNow("it was broken off") if stop() else worker.last_words(limits)
    return _picture(answer)


@contextmanager
def _watched(worker: Worker, stop: Callable[[], bool]) -> Iterator[None]:
    """Kills `worker` when it is late or `stop` says so, and in any case at the end."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK_S):
            worker.kill_if_late()
            if stop():
                worker.kill()

    watcher = threading.Thread(target=watch, name="openbook-drawing", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        worker.reap()


def _picture(answer: bytes) -> bytes:
    """The picture in an answer. Raises UnreadableFile for a reason, and for what no honest worker says."""
    if not answer.startswith(PIXELS):
        raise _reason(answer)
    body = memoryview(answer)[len(PIXELS) :]
    width, height = (int.from_bytes(body[at : at + SIDE_BYTES], "big") for at in (0, SIDE_BYTES))
    pixels = body[2 * SIDE_BYTES :]
    if not (1 <= width <= WIDTH and 1 <= height <= MOST_HEIGHT and len(pixels) == 3 * width * height):
        raise UnreadableFile(NONSENSE)
    return png(width, height, pixels)


def _reason(body: bytes) -> UnreadableFile:
    try:
        said = json.loads(body)
        reason, absent = said["reason"], said.get("absent", False)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return UnreadableFile(NONSENSE)
    if not isinstance(reason, str) or len(reason) > _LONGEST_REASON_CHARS or not isinstance(absent, bool):
        return UnreadableFile(NONSENSE)
    return (NoSuchPage if absent else UnreadableFile)(one_line(reason) or "not readable")


def png(width: int, height: int, pixels: bytes | memoryview) -> bytes:
    """`pixels`: rows from the top, three bytes for each pixel. As in the PNG specification (W3C, third edition)."""
    row = 3 * width
    rows = b"".join(b"\0" + pixels[start : start + row] for start in range(0, height * row, row))  # 0: no filter
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # eight bits, colours, nothing interlaced
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
