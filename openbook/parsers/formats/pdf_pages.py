"""Pages of a PDF as pixels, and where quotes stand on them, by PDFium. Runs in a process of its own (see `pages`).

A page's stored text is PDFium's characters in order, apart from white space. So both are compared without it: if they
are equal, the n-th character of one is the n-th of the other; if not, the quote is not located.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from ctypes import c_double, c_int
from math import ceil
from typing import Annotated, Any, TypeAlias

import msgspec

from openbook.core.errors import NoSuchPage, UnreadableFile
from openbook.core.records import Digest, sha256_hex
from openbook.parsers.characters import clean
from openbook.parsers.formats.pdf import BROKEN_WORD_MARKS, ONE_AT_A_TIME, open_pdf

WIDTH = 1000  # pixels, unless limited by MAX_HEIGHT or MAX_SCALE
MAX_HEIGHT = 3000
MAX_SCALE = 10.0  # pixels for one point, 1/72 inch
WHOLE = 1_000_000  # rectangles are in millionths of the picture's sides

_Side: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=WHOLE)]
_ROUNDING = 1 - 1e-9  # PDFium rounds sizes up
_Box: TypeAlias = tuple[float, float, float, float]  # left, bottom, right, top
_CHARACTER = re.compile("[\ud800-\udbff][\udc00-\udfff]|.", re.DOTALL)  # PDFium may give the halves of a pair
_REACH = (-0.2, 0.75)  # of a line, below and above its base, in font sizes
_SLANT = 0.05
_GAP = 2.0  # between parts of one line, in line heights: wider gaps separate columns


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


class PageQuote(msgspec.Struct, frozen=True):
    """Characters `start` to `end` of page `page` (from 1), if its first `length` characters have that digest.

    White space does not count. Parsers up to version 12 left out a page's last character for each one beyond U+FFFF, so
    the stored text may be only the beginning.
    """

    page: int
    digest: Digest
    length: int
    start: int
    end: int


class PageMarks(msgspec.Struct, frozen=True):
    """The picture's size in pixels, and (left, top, right, bottom) of each line; none if the quote is not located."""

    width: Annotated[int, msgspec.Meta(ge=1, le=WIDTH)]
    height: Annotated[int, msgspec.Meta(ge=1, le=MAX_HEIGHT)]
    rectangles: list[tuple[_Side, _Side, _Side, _Side]]


def page_quote(page: int, text: str, start: int, end: int) -> PageQuote | None:
    """Characters `start` to `end` of a page's stored text; None if they are white space."""
    solid, before, quoted = _solid(text), len(_solid(text[:start])), len(_solid(text[start:end]))
    return PageQuote(page, sha256_hex(solid.encode()), len(solid), before, before + quoted) if quoted else None


def find(data: bytes, quotes: Sequence[PageQuote]) -> list[PageMarks]:
    """The marks of each quote. Raises UnreadableFile."""
    import pypdfium2

    found = []
    with ONE_AT_A_TIME, closing(open_pdf(data)) as document:
        for quote in quotes:
            try:
                with closing(document[quote.page - 1]) as page, closing(page.get_textpage()) as layer:
                    width, height = (ceil(side * scale_of(page)) for side in page.get_size())
                    found.append(PageMarks(width, height, list(_in_picture(page, _lines(page, layer, quote)))))
            except (pypdfium2.PdfiumError, IndexError) as error:
                raise UnreadableFile("the page is damaged") from error
    return found


def _lines(page: Any, layer: Any, quote: PageQuote) -> Iterator[_Box]:
    """A box for each line of the quote; none if the page has another text."""
    import pypdfium2.raw as pdfium

    units = "".join(chr(pdfium.FPDFText_GetUnicode(layer, i)) for i in range(layer.count_chars()))
    left, bottom, right, top = page.get_bbox()
    everywhere, visible = [], []  # (index in the layer, character, or nothing for a hyphen that is not in the text)
    for match in _CHARACTER.finditer(units):
        character = match[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        if (solid := _solid(character)) or character in BROKEN_WORD_MARKS:
            everywhere.append((match.start(), solid))
            box = layer.get_charbox(match.start())
            if box[0] < right and box[2] > left and box[1] < top and box[3] > bottom:
                visible.append(everywhere[-1])
    # As in the stored text: what is outside the page counts only if nothing is inside.
    shown = visible if any(solid for _, solid in visible) else everywhere
    if sha256_hex("".join(solid for _, solid in shown)[: quote.length].encode()) != quote.digest:
        return
    at, line = 0, None
    for i, solid in shown:
        if quote.start <= at < quote.end and (solid or at > quote.start):
            axis, box = _line_box(layer, i)
            if line and axis == line[0] >= 0 and _is_one_line(axis, line[1], box):
                box = (*map(min, line[1][:2], box[:2]), *map(max, line[1][2:], box[2:]))
            elif line:
                yield line[1]
            line = axis, box
        at += len(solid)
    if line:
        yield line[1]


def _line_box(layer: Any, i: int) -> tuple[int, _Box]:
    """A character's box, as high as its line, which runs along x (0), along y (1), or neither (-1)."""
    import pypdfium2.raw as pdfium

    left, bottom, right, top = layer.get_charbox(i)
    matrix, x, y = pdfium.FS_MATRIX(), c_double(), c_double()
    pdfium.FPDFText_GetMatrix(layer, i, matrix)
    pdfium.FPDFText_GetCharOrigin(layer, i, x, y)
    reach = [share * pdfium.FPDFText_GetFontSize(layer, i) for share in _REACH]
    if abs(matrix.b) <= _SLANT * abs(matrix.a):
        ends = [y.value + each * matrix.d for each in reach]
        return 0, (left, min(bottom, *ends), right, max(top, *ends))
    if abs(matrix.a) <= _SLANT * abs(matrix.b):
        ends = [x.value + each * matrix.c for each in reach]
        return 1, (min(left, *ends), bottom, max(right, *ends), top)
    return -1, (left, bottom, right, top)


def _is_one_line(axis: int, box: _Box, other: _Box) -> bool:
    gap, apart = (max(box[k], other[k]) - min(box[k + 2], other[k + 2]) for k in (axis, 1 - axis))
    height = min(each[3 - axis] - each[1 - axis] for each in (box, other))
    return apart <= -height / 2 and gap <= _GAP * height


def _in_picture(page: Any, boxes: Iterator[_Box]) -> Iterator[tuple[int, int, int, int]]:
    import pypdfium2.raw as pdfium

    left, bottom, right, top = page.get_bbox()
    for box in boxes:
        corners = []
        for x, y in (box[:2], box[2:]):
            place = c_int(), c_int()
            inside = min(max(x, left), right), min(max(y, bottom), top)
            pdfium.FPDF_PageToDevice(page, 0, 0, WHOLE, WHOLE, 0, *inside, *place)
            corners.append([min(max(side.value, 0), WHOLE) for side in place])
        (x0, x1), (y0, y1) = map(sorted, zip(*corners, strict=True))
        if x0 < x1 and y0 < y1:
            yield x0, y0, x1, y1


def _solid(text: str) -> str:
    return "".join(clean(text).split())
