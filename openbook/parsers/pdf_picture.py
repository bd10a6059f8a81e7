"""A page of a PDF as pixels, by PDFium. Called in a worker process alone: see `drawing`."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Any

from openbook.errors import NoSuchPage, UnreadableFile
from openbook.parsers.pdf import ONE_AT_A_TIME, open_pdf

WIDTH = 1000  # pixels, unless the page would be higher than MOST_HEIGHT or enlarged more than MOST_SCALE
MOST_HEIGHT = 3000
MOST_SCALE = 10.0  # pixels for one point, 1/72 inch

_ROUNDING = 1 - 1e-9  # PDFium's sizes are rounded up


@dataclass(frozen=True, slots=True)
class Drawn:
    """`pixels`: rows from the top, each of `width` times red, green and blue, a byte each."""

    width: int
    height: int
    pixels: bytes


def draw(data: bytes, number: int) -> Drawn:
    """Page `number`, counted from 1, on white.

    Raises:
        NoSuchPage: there is none of that number.
        UnreadableFile: it cannot be drawn; the text is the reason.

    """
    import pypdfium2

    with ONE_AT_A_TIME, closing(open_pdf(data)) as document:
        pages = len(document)
        if not 1 <= number <= pages:
            raise NoSuchPage(f"there is no page {number}: the PDF has {pages}")
        try:
            with closing(document[number - 1]) as page:
                return _drawn(page)
        except pypdfium2.PdfiumError as error:
            raise UnreadableFile("the page is damaged") from error


def _drawn(page: Any) -> Drawn:
    width, height = page.get_size()
    if not (0 < width < float("inf") and 0 < height < float("inf")):
        raise UnreadableFile(f"a page of {width:g} by {height:g} points cannot be drawn")
    scale = min(WIDTH / width, MOST_HEIGHT / height, MOST_SCALE) * _ROUNDING
    with closing(page.render(scale=scale, rev_byteorder=True)) as bitmap:
        row = bitmap.width * 3
        pixels = memoryview(bitmap.buffer).cast("B")
        starts = range(0, bitmap.height * bitmap.stride, bitmap.stride)
        return Drawn(bitmap.width, bitmap.height, b"".join(pixels[start : start + row] for start in starts))
