"""A page of a PDF as PNG, drawn by PDFium in a worker process of its own.

A PDF may take over that process. So it gets the bytes of one file only, and its answer is pixels, which are counted and
made a PNG here.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any, TypeVar

from openbook.core.errors import NoSuchPage, NotReadNow, UnreadableFile
from openbook.parsers import check_size
from openbook.parsers.pdf import ONE_AT_A_TIME, open_pdf
from openbook.parsers.sandbox import NONSENSE, Limits, Worker, decode_answer, worker_command
from openbook.parsers.worker import NUMBER_BYTES, PAGE_IMAGE, PIXELS, SIDE_BYTES

WIDTH = 1000  # pixels, unless limited by MAX_HEIGHT or MAX_SCALE
MAX_HEIGHT = 3000
MAX_SCALE = 10.0  # pixels for one point, 1/72 inch
MAX_ANSWER_BYTES = len(PIXELS) + 2 * SIDE_BYTES + 3 * WIDTH * MAX_HEIGHT

_T = TypeVar("_T")
_ROUNDING = 1 - 1e-9  # PDFium rounds sizes up


def draw_page(
    data: bytes, page: int, limits: Limits, stop: Callable[[], bool] = lambda: False, *, command: Sequence[str] = ()
) -> bytes:
    """Page `page` (from 1) of a PDF as PNG: at most WIDTH by MAX_HEIGHT pixels of red, green and blue.

    `stop` is polled and ends the drawing. `command`: another worker. Raises NoSuchPage; NotReadNow if the machine could
    not draw or `stop` was true; else UnreadableFile.
    """
    if not 1 <= page < 1 << 8 * NUMBER_BYTES:
        raise NoSuchPage(f"there is no page {page}: pages are counted from 1")
    check_size(len(data), limits.max_file_bytes)
    question = [page.to_bytes(NUMBER_BYTES, "big"), data]
    return ask_once([PAGE_IMAGE], question, limits, MAX_ANSWER_BYTES, PIXELS, _picture, stop, command)


def ask_once(
    task: Sequence[str],
    question: Sequence[bytes],
    limits: Limits,
    max_bytes: int,
    prefix: bytes,
    decode: Callable[[bytes], _T],
    stop: Callable[[], bool],
    command: Sequence[str],
) -> _T:
    """The decoded answer, without its prefix, of a worker for this question only.

    `decode` raises ValueError for nonsense. Raises NotReadNow, UnreadableFile.
    """
    worker = Worker([*(command or [*worker_command(), *task]), json.dumps(asdict(limits))])
    try:
        answer = worker.ask(question, limits.timeout_s, max_bytes, stop)
        if answer is not None and answer.startswith(prefix):
            return decode(answer[len(prefix) :])
        outcome = None if answer is None else decode_answer(answer)
        if isinstance(outcome, tuple):
            raise ValueError(NONSENSE)
    except ValueError as error:
        raise UnreadableFile(NONSENSE) from error
    finally:
        worker.reap()
    raise outcome or (NotReadNow("it was stopped") if stop() else worker.last_words(limits))


def _picture(answer: bytes) -> bytes:
    body = memoryview(answer)
    width, height = (int.from_bytes(body[at : at + SIDE_BYTES], "big") for at in (0, SIDE_BYTES))
    pixels = body[2 * SIDE_BYTES :]
    if not (1 <= width <= WIDTH and 1 <= height <= MAX_HEIGHT and len(pixels) == 3 * width * height):
        raise ValueError(NONSENSE)
    return png(width, height, pixels)


def png(width: int, height: int, pixels: bytes | memoryview) -> bytes:
    """`pixels`: rows from the top, three bytes per pixel. PNG specification (W3C, third edition)."""
    row = 3 * width
    rows = b"".join(b"\0" + pixels[start : start + row] for start in range(0, height * row, row))  # 0: no filter
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # eight bits, RGB, not interlaced
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


# --- in the worker ----------------------------------------------------------------------------------------------------


def draw(data: bytes, number: int) -> tuple[int, int, bytes]:
    """Return (width, height, pixels) of page `number` (from 1), on white. Raises NoSuchPage, UnreadableFile.

    The pixels are rows from the top, a byte each for red, green and blue.
    """
    import pypdfium2

    with ONE_AT_A_TIME, closing(open_pdf(data)) as document:
        if number > len(document):
            raise NoSuchPage(f"there is no page {number}: the PDF has {len(document)}")
        try:
            with (
                closing(document[number - 1]) as page,
                closing(page.render(scale=scale_of(page), rev_byteorder=True)) as bitmap,
            ):
                return bitmap.width, bitmap.height, bitmap.to_numpy().tobytes()
        except pypdfium2.PdfiumError as error:
            raise UnreadableFile("the page is damaged") from error


def scale_of(page: Any) -> float:
    """Pixels of the picture for one point of the page. Raises UnreadableFile."""
    width, height = page.get_size()
    if not (0 < width < float("inf") and 0 < height < float("inf")):
        raise UnreadableFile(f"a page of {width:g} by {height:g} points cannot be drawn")
    return float(min(WIDTH / width, MAX_HEIGHT / height, MAX_SCALE) * _ROUNDING)
