"""Pages of a PDF as PNG, and where quotes stand on them, by PDFium in a worker process of its own.

A PDF may take over that process. So it gets the bytes of one file only, and its answer is pixels, which are counted and
made a PNG here, or rectangles, which are checked.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence

import msgspec

from openbook.core.errors import NoSuchPage
from openbook.parsers.files import check_size
from openbook.parsers.formats.pdf_pages import MAX_HEIGHT, WIDTH, PageMarks, PageQuote
from openbook.parsers.sandbox import protocol
from openbook.parsers.sandbox.pool import ask_once
from openbook.parsers.sandbox.protocol import Limits

MAX_ANSWER_BYTES = len(protocol.PIXELS) + 2 * protocol.SIDE_BYTES + 3 * WIDTH * MAX_HEIGHT
_RECTANGLE_BYTES = 40  # of its JSON, at most


def draw_page(
    data: bytes, page: int, limits: Limits, stop: Callable[[], bool] = lambda: False, *, command: Sequence[str] = ()
) -> bytes:
    """Page `page` (from 1) of a PDF as PNG: at most WIDTH by MAX_HEIGHT pixels of red, green and blue.

    `stop` is polled and ends the drawing. `command`: another worker. Raises NoSuchPage; NotReadNow if the machine could
    not draw or `stop` was true; else UnreadableFile.
    """
    if not 1 <= page < 1 << 8 * protocol.NUMBER_BYTES:
        raise NoSuchPage(f"there is no page {page}: pages are counted from 1")
    check_size(len(data), limits.max_file_bytes)
    question = [page.to_bytes(protocol.NUMBER_BYTES, "big"), data]
    return ask_once(protocol.TASK_DRAW, question, limits, MAX_ANSWER_BYTES, protocol.PIXELS, _picture, stop, command)


def find_marks(
    data: bytes, quotes: Sequence[PageQuote], limits: Limits, stop: Callable[[], bool], *, command: Sequence[str] = ()
) -> list[PageMarks]:
    """The marks of each quote in a PDF. The other arguments, and errors, as for `draw_page`."""

    def decode(answer: bytes) -> list[PageMarks]:
        found = msgspec.json.decode(answer, type=list[PageMarks])
        boxes = (box for marks in found for box in marks.rectangles)
        if len(found) != len(quotes) or not all(box[0] < box[2] and box[1] < box[3] for box in boxes):
            raise ValueError(protocol.NONSENSE)
        return found

    check_size(len(data), limits.max_file_bytes)
    asked = msgspec.json.encode(quotes)
    question = [len(asked).to_bytes(protocol.NUMBER_BYTES, "big"), asked, data]
    most = 1000 + sum(100 + _RECTANGLE_BYTES * (quote.end - quote.start) for quote in quotes)
    return ask_once(protocol.TASK_MARK, question, limits, most, protocol.MARKS, decode, stop, command)


def _picture(answer: bytes) -> bytes:
    body = memoryview(answer)
    width, height = (int.from_bytes(body[at : at + protocol.SIDE_BYTES], "big") for at in (0, protocol.SIDE_BYTES))
    pixels = body[2 * protocol.SIDE_BYTES :]
    if not (1 <= width <= WIDTH and 1 <= height <= MAX_HEIGHT and len(pixels) == 3 * width * height):
        raise ValueError(protocol.NONSENSE)
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
