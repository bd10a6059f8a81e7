"""Where a quote stands on the pages of a PDF, found by PDFium in a worker process of its own (see `page_image`).

A page's stored text is PDFium's characters in order, apart from white space. So both are compared without it: if they
are equal, the n-th character of the one is the n-th of the other, and otherwise the quote is not located.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from math import ceil, hypot
from typing import Annotated, Any, NamedTuple, TypeAlias

import msgspec

from openbook.errors import NoSuchPage, UnreadableFile
from openbook.parsers import check_size
from openbook.parsers.characters import clean
from openbook.parsers.page_image import MAX_HEIGHT, WIDTH, ask_for_page, scale_of
from openbook.parsers.pdf import BROKEN_WORD_MARKS, ONE_AT_A_TIME, open_pdf
from openbook.parsers.sandbox import NONSENSE, Limits, decode_answer
from openbook.parsers.worker import MARKS, NUMBER_BYTES, PAGE_MARKS
from openbook.records import Digest, sha256_hex

WHOLE = 1_000_000  # rectangles are in millionths of the picture's sides

_Side: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=WHOLE)]
_MAX_NUMBER_BYTES = 9  # of one in JSON, with its comma


class PageQuote(msgspec.Struct, frozen=True, array_like=True):
    """Characters `start` to `end` of page `page` (from 1), whose text has that digest, both without white space."""

    page: int
    digest: Digest
    start: int
    end: int


class PageMarks(msgspec.Struct, frozen=True, array_like=True):
    """The picture's size in pixels, and (left, top, right, bottom) for each line; none if the quote is not located."""

    width: Annotated[int, msgspec.Meta(ge=1, le=WIDTH)]
    height: Annotated[int, msgspec.Meta(ge=1, le=MAX_HEIGHT)]
    rectangles: list[tuple[_Side, _Side, _Side, _Side]]


def page_quote(page: int, text: str, start: int, end: int) -> PageQuote | None:
    """Characters `start` to `end` of a page's stored text; None if they are white space."""
    before, quoted = len(_solid(text[:start])), len(_solid(text[start:end]))
    digest = sha256_hex(_solid(text).encode())
    return PageQuote(page, digest, before, before + quoted) if quoted else None


def find_marks(
    data: bytes,
    quotes: Sequence[PageQuote],
    limits: Limits,
    stop: Callable[[], bool] = lambda: False,
    *,
    command: Sequence[str] = (),
) -> list[PageMarks]:
    """The marks of each quote in a PDF. Arguments and errors as for `draw_page`."""
    check_size(len(data), limits.max_file_bytes)
    asked = msgspec.json.encode(quotes)
    question = [len(asked).to_bytes(NUMBER_BYTES, "big"), asked, data]
    most = 1000 + sum(_MAX_NUMBER_BYTES * (4 + 4 * (quote.end - quote.start)) for quote in quotes)

    def decode(answer: bytes) -> list[PageMarks]:
        if not answer.startswith(MARKS):
            outcome = decode_answer(answer)
            raise outcome if isinstance(outcome, UnreadableFile) else ValueError(NONSENSE)
        found = msgspec.json.decode(answer[len(MARKS) :], type=list[PageMarks])
        sizes = [(len(marks.rectangles), quote.end - quote.start) for marks, quote in zip(found, quotes, strict=True)]
        boxes = [box for marks in found for box in marks.rectangles]
        if any(lines > most for lines, most in sizes) or any(box[0] >= box[2] or box[1] >= box[3] for box in boxes):
            raise ValueError(NONSENSE)
        return found

    return ask_for_page(PAGE_MARKS, question, limits, most, decode, stop, command)


def _solid(text: str) -> str:
    return "".join(clean(text).split())


# --- in the worker ----------------------------------------------------------------------------------------------------

_CHARACTER = re.compile("[\ud800-\udbff][\udc00-\udfff]|.", re.DOTALL)  # PDFium may give the halves of a pair
_ABOVE, _BELOW = 0.75, -0.2  # how far a line reaches from its base, in font sizes
_SLANT = 0.05  # of text that runs neither along a page's side nor across
_GAP = 2.0  # between parts of one line, in line heights: wider gaps separate columns

_Span: TypeAlias = tuple[float, float]


class _Box(NamedTuple):
    """From left to right and from bottom to top. `axis`: 0 if its line runs along x, 1 along y, -1 neither."""

    axis: int
    x: _Span
    y: _Span

    def with_next(self, other: _Box) -> _Box | None:
        """Both as one, if they are of one line."""
        along, across = ((self.x, other.x), (self.y, other.y))[:: -1 if self.axis else 1]
        height = min(high - low for low, high in across)
        if (
            self.axis != other.axis
            or self.axis < 0
            or _distance(*across) > -height / 2
            or _distance(*along) > _GAP * height
        ):
            return None
        return _Box(self.axis, _union(self.x, other.x), _union(self.y, other.y))


def _union(a: _Span, b: _Span) -> _Span:
    return min(a[0], b[0]), max(a[1], b[1])


def _distance(a: _Span, b: _Span) -> float:
    """Negative if they overlap."""
    return max(a[0], b[0]) - min(a[1], b[1])


def find(data: bytes, quotes: Sequence[PageQuote]) -> list[PageMarks]:
    """The marks of each quote. Raises NoSuchPage, UnreadableFile."""
    import pypdfium2

    found = []
    with ONE_AT_A_TIME, closing(open_pdf(data)) as document:
        for quote in quotes:
            if not 1 <= quote.page <= len(document):
                raise NoSuchPage(f"there is no page {quote.page}: the PDF has {len(document)}")
            try:
                with closing(document[quote.page - 1]) as page, closing(page.get_textpage()) as layer:
                    width, height = (ceil(side * scale_of(page)) for side in page.get_size())
                    lines: list[_Box] = []
                    for box in _quoted(page, layer, quote):
                        joined = lines[-1].with_next(box) if lines else None
                        lines[-1:] = [joined] if joined else [*lines[-1:], box]
                    found.append(PageMarks(width, height, list(_in_picture(page, lines))))
            except pypdfium2.PdfiumError as error:
                raise UnreadableFile("the page is damaged") from error
    return found


def _quoted(page: Any, layer: Any, quote: PageQuote) -> Iterator[_Box]:
    """The boxes of the quote's characters; none if the page has another text."""
    import pypdfium2.raw as pdfium

    units = "".join(chr(pdfium.FPDFText_GetUnicode(layer, i)) for i in range(layer.count_chars()))
    left, bottom, right, top = page.get_bbox()
    everywhere, visible = [], []  # (index in the layer, character)
    for match in _CHARACTER.finditer(units):
        character = match[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        if _solid(character) or character in BROKEN_WORD_MARKS:
            everywhere.append((match.start(), _solid(character)))
            x, y = _char_box(layer, match.start())
            if _distance(x, (left, right)) < 0 and _distance(y, (bottom, top)) < 0:
                visible.append(everywhere[-1])
    # As for the stored text: what is outside the page counts only if nothing is inside.
    shown = visible if any(character for _, character in visible) else everywhere
    if sha256_hex("".join(character for _, character in shown).encode()) != quote.digest:
        return
    at = 0
    for i, character in shown:
        if quote.start <= at < quote.end and (character or at > quote.start):
            yield _line_box(layer, i)
        at += len(character)


def _char_box(layer: Any, i: int) -> tuple[_Span, _Span]:
    import pypdfium2.raw as pdfium

    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    pdfium.FPDFText_GetCharBox(layer, i, left, right, bottom, top)
    return (left.value, right.value), (bottom.value, top.value)


def _line_box(layer: Any, i: int) -> _Box:
    """Of one character, as high as its line."""
    import pypdfium2.raw as pdfium

    x, y = _char_box(layer, i)
    matrix, origin_x, origin_y = pdfium.FS_MATRIX(), ctypes.c_double(), ctypes.c_double()
    if not (
        pdfium.FPDFText_GetMatrix(layer, i, matrix) and pdfium.FPDFText_GetCharOrigin(layer, i, origin_x, origin_y)
    ):
        return _Box(-1, x, y)
    size = pdfium.FPDFText_GetFontSize(layer, i)
    slant = _SLANT * hypot(matrix.a, matrix.b)
    if abs(matrix.b) <= slant:
        ends = sorted(origin_y.value + share * size * matrix.d for share in (_ABOVE, _BELOW))
        return _Box(0, x, _union(y, (ends[0], ends[1])))
    if abs(matrix.a) <= slant:
        ends = sorted(origin_x.value + share * size * matrix.c for share in (_ABOVE, _BELOW))
        return _Box(1, _union(x, (ends[0], ends[1])), y)
    return _Box(-1, x, y)


def _in_picture(page: Any, boxes: Sequence[_Box]) -> Iterator[tuple[int, int, int, int]]:
    import pypdfium2.raw as pdfium

    left, bottom, right, top = page.get_bbox()
    for box in boxes:
        ends: list[tuple[int, int]] = []
        for x, y in zip(box.x, box.y, strict=True):
            inside = min(max(x, left), right), min(max(y, bottom), top)
            across, down = ctypes.c_int(), ctypes.c_int()
            pdfium.FPDF_PageToDevice(page, 0, 0, WHOLE, WHOLE, 0, *inside, across, down)
            ends.append((min(max(across.value, 0), WHOLE), min(max(down.value, 0), WHOLE)))
        (x0, x1), (y0, y1) = (sorted(side) for side in zip(*ends, strict=True))
        if x0 < x1 and y0 < y1:
            yield x0, y0, x1, y1
